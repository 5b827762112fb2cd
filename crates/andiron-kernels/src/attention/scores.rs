//! The softmax of a block of queries, forward and backward, on scores that are `[keys, queries]`.
//!
//! "Slopes" are gradients: of the probabilities first, then of the scores.

use super::bias::{self, Sums};
use super::dropout::{DropoutMask, HeadDropout};
use super::view::{AttentionMask, Block};
use crate::simd::{Simd, dispatch, exp, exp2_for_bf16};

/// The most queries of a block.
pub(super) const MAX_BLOCK: usize = 32;

/// A row from one expression, evaluated for each half. (`array::map` would call a function that is compiled without the
/// vector instructions.)
macro_rules! row {
    ($half:ident => $vector:expr) => {
        [
            {
                const $half: usize = 0;
                $vector
            },
            {
                const $half: usize = 1;
                $vector
            },
        ]
    };
}

/// The scores of a key and all queries of a block.
pub(super) type Row<S> = [<S as Simd>::Vector; 2];

/// # Safety
/// `from` is readable for two vectors.
#[inline(always)]
unsafe fn load<S: Simd>(s: S, from: *const f32) -> Row<S> {
    // SAFETY: the caller's promise.
    unsafe { [s.load_from(from), s.load_from(from.add(S::LANES))] }
}

/// # Safety
/// `to` is writable for two vectors.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(s: S, to: *mut f32, [low, high]: Row<S>) {
    // SAFETY: the caller's promise.
    unsafe {
        s.store_to(to, low);
        s.store_to(to.add(S::LANES), high);
    }
}

/// What exponents are multiplied by: exponentials rounded to bf16 are computed as powers of 2.
const fn base(rounded: bool) -> f32 {
    if rounded { std::f32::consts::LOG2_E } else { 1.0 }
}

/// The exponential of an `x` that was multiplied by [`base`] and is not above 0; one that will be `ROUNDED` to bf16 costs
/// half as much.
#[inline(always)]
fn exponential<S: Simd, const ROUNDED: bool>(s: S, x: S::Vector) -> S::Vector {
    if ROUNDED { exp2_for_bf16(s, x) } else { exp(s, x) }
}

/// The softmax of a block's scores, `[keys, NR]`, after scale, bias and mask, without the division by its sums: returns the
/// reciprocal sum of each query. Calls `take` with the exponentials of each pair of keys, after dropout, and the even index
/// of the first; a second key that does not exist has zeros. Writes the log-sum-exp of each query to `lse`. Dropout changes
/// neither the sums nor `lse`.
///
/// # Safety
/// `scores` is readable and writable for the keys of the block, rounded up to an even number, and `lse` writable for all
/// queries.
#[inline(always)]
pub(super) unsafe fn softmax_block<S: Simd, const NR: usize, const ROUNDED: bool>(
    s: S,
    scores: *mut f32,
    (block, scale): (Block, f32),
    dropout: impl DropoutMask<S>,
    lse: *mut f32,
    take: impl FnMut(usize, [Row<S>; 2]),
) -> [f32; MAX_BLOCK] {
    // SAFETY: the caller's promise.
    unsafe {
        let max = [s.splat(f32::NEG_INFINITY); 2];
        let (max, sum) = exponentials::<S, NR, ROUNDED>(s, scores, (block, scale), dropout, max, take);
        finish(s, block, (max, sum), lse)
    }
}

/// One step of the online softmax: as [`softmax_block`] for some of the keys, where `max` is the running maximum of each
/// query before them. Returns the new maximum, and these keys' sums of `exp(score - maximum)`.
///
/// # Safety
/// `scores` is readable and writable for the keys of the block, rounded up to an even number.
#[inline(always)]
pub(super) unsafe fn exponentials<S: Simd, const NR: usize, const ROUNDED: bool>(
    s: S,
    scores: *mut f32,
    (block, scale): (Block, f32),
    dropout: impl DropoutMask<S>,
    max: Row<S>,
    mut take: impl FnMut(usize, [Row<S>; 2]),
) -> (Row<S>, Row<S>) {
    assert!(NR == 2 * S::LANES);
    let (hidden, zero) = (s.splat(f32::NEG_INFINITY), s.splat(0.0));
    let lanes = [s.indices(), s.add(s.indices(), s.splat(S::LANES as f32))];
    // SAFETY: the caller's promise.
    let scale = unsafe { biased::<S, NR>(s, scores, block, scale) };
    let keys = block.keys.next_multiple_of(2);
    // The keys that need no mask, in pairs.
    let unmasked = block.unmasked();
    let begin = unmasked.start.next_multiple_of(2);
    let free = begin..(unmasked.end / 2 * 2).max(begin);
    let mut max = max;
    let mut sum: Row<S> = [zero; 2];
    // SAFETY: there is room for all keys.
    unsafe {
        for j in free.clone() {
            let row = load(s, scores.add(j * NR));
            max = row!(H => s.max(s.mul(row[H], scale), max[H]));
        }
        let visible = |j: usize, row: Row<S>| match j < block.keys {
            true => row!(H => mask(s, row[H], lanes[H], block.mask.relative_to_key(j))),
            false => [hidden; 2],
        };
        for j in (0..free.start.min(keys)).chain(free.end..keys) {
            let row = load(s, scores.add(j * NR));
            let row = visible(j, row!(H => s.mul(row[H], scale)));
            max = row!(H => s.max(row[H], max[H]));
        }
        let base = s.splat(base(ROUNDED));
        let base_below = row!(H => s.mul(below(s, max[H]), base));
        let scale = s.mul(scale, base);
        for (keys, masked) in [(0..free.start.min(keys), true), (free.clone(), false), (free.end..keys, true)]
        {
            for j in keys.step_by(2) {
                let (even, odd) = (load(s, scores.add(j * NR)), load(s, scores.add((j + 1) * NR)));
                let mut even = row!(H => s.fma(even[H], scale, base_below[H]));
                let mut odd = row!(H => s.fma(odd[H], scale, base_below[H]));
                if masked {
                    (even, odd) = (visible(j, even), visible(j + 1, odd));
                }
                let even = row!(H => exponential::<S, ROUNDED>(s, even[H]));
                let odd = row!(H => exponential::<S, ROUNDED>(s, odd[H]));
                sum = row!(H => s.add(sum[H], s.add(even[H], odd[H])));
                take(j, [dropout.apply(s, j, even), dropout.apply(s, j + 1, odd)]);
            }
        }
    }
    (max, sum)
}

/// The factor of running sums when the maximum goes from `before` to `now`.
#[inline(always)]
pub(super) fn rescaling<S: Simd, const ROUNDED: bool>(s: S, before: Row<S>, now: Row<S>) -> Row<S> {
    let base = s.splat(base(ROUNDED));
    row!(H => exponential::<S, ROUNDED>(s, s.mul(s.add(before[H], below(s, now[H])), base)))
}

/// Writes the log-sum-exp of each query to `lse`, unless that is null, and returns the reciprocal sums.
///
/// # Safety
/// `lse` is null or writable for all queries.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd>(
    s: S,
    block: Block,
    (max, sum): (Row<S>, Row<S>),
    lse: *mut f32,
) -> [f32; MAX_BLOCK] {
    let (one, zero) = (s.splat(1.0), s.splat(0.0));
    let mut factors = [0.0; MAX_BLOCK];
    for (c, (sum, max)) in sum.into_iter().zip(max).enumerate() {
        let column = c * S::LANES;
        let (mut sums, mut minima) = ([0.0; MAX_BLOCK], [0.0; MAX_BLOCK]);
        s.store(&mut sums, sum);
        s.store(&mut minima, below(s, max));
        if !lse.is_null() {
            for lane in 0..S::LANES.min(block.queries.saturating_sub(column)) {
                // SAFETY: the query exists.
                unsafe { *lse.add(block.start + column + lane) = sums[lane].ln() - minima[lane] };
            }
        }
        // A query that attends to no key has the sum 0 and gets 0; NaN stays NaN.
        let none = s.at_least(zero, sum);
        s.store(&mut factors[column..], s.select(none, zero, s.div(one, sum)));
    }
    factors
}

/// The negated maximum; 0 for a query that attends to no key.
#[inline(always)]
fn below<S: Simd>(s: S, max: S::Vector) -> S::Vector {
    let (is_finite, zero) = (s.at_least(max, s.splat(f32::MIN)), s.splat(0.0));
    s.sub(zero, s.select(is_finite, max, zero))
}

/// With a bias, scales the scores and adds it. Returns the factor that the scores still lack: 1, or without bias the scale.
///
/// # Safety
/// `scores` is readable and writable for the keys of the block.
#[inline(always)]
unsafe fn biased<S: Simd, const NR: usize>(s: S, scores: *mut f32, block: Block, scale: f32) -> S::Vector {
    if block.bias.is_null() {
        return s.splat(scale);
    }
    for column in (0..NR).step_by(S::LANES) {
        // SAFETY: the caller's promise.
        unsafe { bias::add::<S, NR>(s, scores.add(column), column, (block, scale)) };
    }
    s.splat(1.0)
}

/// Multiplies each column of `[rows, NR]` by its factor.
///
/// # Safety
/// `x` is readable and writable for that many rows.
#[inline(always)]
pub(super) unsafe fn scale_columns<S: Simd, const NR: usize>(
    s: S,
    x: *mut f32,
    rows: usize,
    factors: [f32; MAX_BLOCK],
) {
    for row in 0..rows {
        for column in (0..NR).step_by(S::LANES) {
            // SAFETY: the caller's promise.
            unsafe {
                let x = x.add(row * NR + column);
                s.store_to(x, s.mul(s.load_from(x), s.load(&factors[column..])));
            }
        }
    }
}

/// The backward pass of [`softmax_block`]: from a block's scores and the gradients of its probabilities after dropout, both
/// `[keys, NR]`, to the gradients of the scores. Replaces the scores by the probabilities after dropout and calls
/// `probability` with each row of them. Calls `slope` with the gradients of `q kᵀ` (scale included) for each pair of keys,
/// and the even index of the first; a second key that does not exist has zeros. Adds the gradients of the bias (scale not
/// included) to `sums`.
///
/// # Safety
/// Both are readable and writable for the keys of the block, `lse` is readable for all queries; `sums` are those of the
/// block's head.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn slopes_block<S: Simd, M: DropoutMask<S>, const NR: usize, const ROUNDED: bool>(
    s: S,
    (scores, slopes): (*mut f32, *const f32),
    (block, scale): (Block, f32),
    dropout: M,
    lse: *const f32,
    sums: Option<Sums>,
    mut probability: impl FnMut(usize, Row<S>),
    mut slope: impl FnMut(usize, [Row<S>; 2]),
) {
    assert!(NR == 2 * S::LANES);
    let mut offsets = [f32::NEG_INFINITY; MAX_BLOCK];
    for (i, offset) in offsets.iter_mut().enumerate().take(block.queries) {
        // SAFETY: the query exists.
        let lse = unsafe { *lse.add(block.start + i) };
        // A query that attends to no key, like one that does not exist, has probabilities e^-∞ = 0.
        *offset = if lse == f32::NEG_INFINITY { lse } else { -lse * base(ROUNDED) };
    }
    let offsets = [s.load(&offsets), s.load(&offsets[S::LANES..])];
    let lanes = [s.indices(), s.add(s.indices(), s.splat(S::LANES as f32))];
    let unmasked = block.unmasked();
    // The mean slope `Σ p dp`. In exact arithmetic it equals `dout · out`, but with operands rounded to bf16 it must be
    // computed from the same rounded values as `dp`, or the two would not cancel. Dropout is in both: a dropped probability
    // has no slope and no share of `out`.
    let mut mean = [s.splat(0.0); 2];
    // SAFETY: the keys of a block have room.
    unsafe {
        let factor = s.mul(biased::<S, NR>(s, scores, block, scale), s.splat(base(ROUNDED)));
        for j in 0..block.keys {
            let (row, slope) = (load(s, scores.add(j * NR)), load(s, slopes.add(j * NR)));
            let mut row = row!(H => s.fma(row[H], factor, offsets[H]));
            if !unmasked.contains(&j) {
                row = row!(H => mask(s, row[H], lanes[H], block.mask.relative_to_key(j)));
            }
            let p = row!(H => exponential::<S, ROUNDED>(s, row[H]));
            let slope = dropout.apply(s, j, slope);
            mean = row!(H => s.fma(p[H], slope[H], mean[H]));
            store(s, scores.add(j * NR), p);
            probability(j, dropout.apply(s, j, p));
        }
        for j in (0..block.keys).step_by(2) {
            let mut rows = [[s.splat(0.0); 2]; 2];
            for (j, row) in (j..block.keys).zip(&mut rows) {
                let (p, slope) = (load(s, scores.add(j * NR)), load(s, slopes.add(j * NR)));
                let slope = dropout.apply(s, j, slope);
                if M::DROPS {
                    store(s, scores.add(j * NR), dropout.apply(s, j, p));
                }
                let above = row!(H => s.sub(slope[H], mean[H]));
                if let Some(sums) = sums {
                    sums.add(s, (block, 0), j, s.mul(p[0], above[0]));
                    sums.add(s, (block, S::LANES), j, s.mul(p[1], above[1]));
                }
                *row = row!(H => s.mul(s.mul(p[H], s.splat(scale)), above[H]));
            }
            slope(j, rows);
        }
    }
}

/// [`softmax_block`] that overwrites the scores with the exponentials.
///
/// # Safety
/// As for [`softmax_block`].
#[inline(always)]
pub(super) unsafe fn softmax_in_place<S: Simd, const NR: usize>(
    s: S,
    scores: *mut f32,
    how: (Block, f32),
    dropout: impl DropoutMask<S>,
    lse: *mut f32,
) -> [f32; MAX_BLOCK] {
    // SAFETY: the caller's promise.
    unsafe {
        softmax_block::<S, NR, false>(s, scores, how, dropout, lse, |j, [even, odd]| {
            store(s, scores.add(j * NR), even);
            store(s, scores.add((j + 1) * NR), odd);
        })
    }
}

/// [`slopes_block`] that overwrites the gradients of the probabilities with those of the scores.
///
/// # Safety
/// As for [`slopes_block`]; the slopes are writable.
#[inline(always)]
pub(super) unsafe fn slopes_in_place<S: Simd, const NR: usize>(
    s: S,
    (scores, slopes): (*mut f32, *mut f32),
    how: (Block, f32),
    dropout: impl DropoutMask<S>,
    lse: *const f32,
    sums: Option<Sums>,
) {
    let both = (scores, slopes.cast_const());
    // SAFETY: the caller's promise.
    unsafe {
        slopes_block::<S, _, NR, false>(
            s,
            both,
            how,
            dropout,
            lse,
            sums,
            |_, _| {},
            |j, [even, odd]| {
                store(s, slopes.add(j * NR), even);
                store(s, slopes.add((j + 1) * NR), odd);
            },
        );
    }
}

// With dropout these are separate functions: inlined beside the versions without, they would cost those registers.
dispatch! {
    /// [`softmax_in_place`] with dropout, whose mask is drawn into the scratch memory given with it.
    ///
    /// # Safety
    /// As for [`softmax_in_place`] and [`HeadDropout::draw`].
    #[inline(never)]
    pub(super) unsafe fn softmax_dropped(
        scores: *mut f32,
        how: (Block, f32),
        dropout: (HeadDropout, *mut f32),
        lse: *mut f32,
    ) -> [f32; MAX_BLOCK] = softmax_without_vectors | softmax_dropped_vector;
}
dispatch! {
    /// [`slopes_in_place`] with dropout, whose mask is drawn into the scratch memory given with it.
    ///
    /// # Safety
    /// As for [`slopes_in_place`] and [`HeadDropout::draw`].
    #[inline(never)]
    pub(super) unsafe fn slopes_dropped(
        both: (*mut f32, *mut f32),
        how: (Block, f32),
        dropout: (HeadDropout, *mut f32),
        lse: *const f32,
        sums: Option<Sums>,
    ) = slopes_without_vectors | slopes_dropped_vector;
}

/// # Safety
/// None is needed.
unsafe fn softmax_without_vectors(
    _: *mut f32,
    _: (Block, f32),
    _: (HeadDropout, *mut f32),
    _: *mut f32,
) -> [f32; MAX_BLOCK] {
    unreachable!("plain Rust takes a query at a time")
}

/// # Safety
/// None is needed.
unsafe fn slopes_without_vectors(
    _: (*mut f32, *mut f32),
    _: (Block, f32),
    _: (HeadDropout, *mut f32),
    _: *const f32,
    _: Option<Sums>,
) {
    unreachable!("plain Rust takes a query at a time")
}

/// # Safety
/// As for [`softmax_dropped`].
#[inline(always)]
unsafe fn softmax_dropped_vector<S: Simd>(
    s: S,
    scores: *mut f32,
    how: (Block, f32),
    (dropout, room): (HeadDropout, *mut f32),
    lse: *mut f32,
) -> [f32; MAX_BLOCK] {
    // SAFETY: the caller's promise; a block has two vectors of queries.
    unsafe {
        let mask = dropout.draw(s, how.0, room);
        if S::LANES == 16 {
            softmax_in_place::<S, 32>(s, scores, how, mask, lse)
        } else {
            softmax_in_place::<S, 16>(s, scores, how, mask, lse)
        }
    }
}

/// # Safety
/// As for [`slopes_dropped`].
#[inline(always)]
unsafe fn slopes_dropped_vector<S: Simd>(
    s: S,
    both: (*mut f32, *mut f32),
    how: (Block, f32),
    (dropout, room): (HeadDropout, *mut f32),
    lse: *const f32,
    sums: Option<Sums>,
) {
    // SAFETY: the caller's promise; a block has two vectors of queries.
    unsafe {
        let mask = dropout.draw(s, how.0, room);
        if S::LANES == 16 {
            slopes_in_place::<S, 32>(s, both, how, mask, lse, sums);
        } else {
            slopes_in_place::<S, 16>(s, both, how, mask, lse, sums);
        }
    }
}

/// `x`, with -∞ for queries that do not attend to a key; `of_first` is the first query's mask, keys counted from that key.
#[inline(always)]
fn mask<S: Simd>(s: S, x: S::Vector, lanes: S::Vector, of_first: AttentionMask) -> S::Vector {
    // Query `lane` attends to `begin + lane..end + lane`, and the key is 0.
    let has_begun = s.at_least(s.splat(-of_first.begin as f32), lanes);
    let has_not_ended = s.at_least(lanes, s.splat((1 - of_first.end) as f32));
    let hidden = s.splat(f32::NEG_INFINITY);
    s.select(has_begun, s.select(has_not_ended, x, hidden), hidden)
}
