//! What becomes of the scores of a block of queries, which lie as `[keys, queries]`: probabilities, and slopes.

use super::bias::{self, Sums};
use super::view::{Block, Sight};
use crate::simd::{Simd, exp};

/// The most queries of a block.
pub(super) const MAX_BLOCK: usize = 32;

/// Turns the scores of a block of queries, `[keys, NR]`, to which biases are added first, into exponentials, writes the
/// logarithms of their sums behind `lse`, and returns what the exponentials are to be multiplied with.
///
/// # Safety
/// `scores` is readable and writable for the keys that the block sees, `lse` writable for all queries.
#[inline(always)]
pub(super) unsafe fn softmax_block<S: Simd, const NR: usize>(
    s: S,
    scores: *mut f32,
    block: Block,
    lse: *mut f32,
) -> [f32; MAX_BLOCK] {
    let mut factors = [0.0; MAX_BLOCK];
    for column in (0..NR).step_by(S::LANES) {
        // SAFETY: the caller's promise.
        let (max, sum) = unsafe { softmax_column::<S, NR>(s, scores.add(column), column, block) };
        let (mut sums, mut maxima) = ([0.0; MAX_BLOCK], [0.0; MAX_BLOCK]);
        s.store(&mut sums, sum);
        s.store(&mut maxima, max);
        for lane in 0..S::LANES.min(block.queries.saturating_sub(column)) {
            // SAFETY: the query exists.
            unsafe { *lse.add(block.start + column + lane) = maxima[lane] + sums[lane].ln() };
        }
        // A query that sees nothing has the sum 0 and shall get 0; NaN shall stay.
        let none = s.at_least(s.splat(0.0), sum);
        let factor = s.select(none, s.splat(0.0), s.div(s.splat(1.0), sum));
        s.store(&mut factors[column..], factor);
    }
    factors
}

/// Multiplies each column of `[rows, NR]` with its factor.
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

/// Turns the scores of a block of queries, `[keys, NR]`, to which biases are added first, into probabilities, and the
/// slopes of those probabilities into the slopes of the scores, times the scale; before that, they are added to `sums`.
///
/// # Safety
/// Both are readable and writable for the keys that the block sees, `lse` is readable for all queries; `sums` were made for
/// the block's head.
#[inline(always)]
pub(super) unsafe fn slopes_block<S: Simd, const NR: usize>(
    s: S,
    (scores, slopes): (*mut f32, *mut f32),
    (block, scale): (Block, f32),
    lse: *const f32,
    sums: Option<Sums>,
) {
    let mut offsets = [f32::INFINITY; MAX_BLOCK];
    for (i, offset) in offsets.iter_mut().enumerate().take(block.queries) {
        // SAFETY: the query exists.
        let lse = unsafe { *lse.add(block.start + i) };
        // A query that sees nothing, like one that is not there, has the probabilities e^-∞.
        *offset = if lse == f32::NEG_INFINITY { f32::INFINITY } else { lse };
    }
    let seen_by_all = block.seen_by_all();
    for column in (0..NR).step_by(S::LANES) {
        let lanes = s.add(s.indices(), s.splat(column as f32));
        let offset = s.load(&offsets[column..]);
        if !block.bias.is_null() {
            // SAFETY: the caller's promise.
            unsafe { bias::add::<S, NR>(s, scores.add(column), column, block) };
        }
        // The mean slope, from the very products that it is taken from: in exact numbers it is `dout · out`, but
        // where factors are rounded, the two would not cancel.
        let mut mean = s.splat(0.0);
        // SAFETY: keys that are seen have room.
        unsafe {
            for j in 0..block.keys {
                let (score, slope) = (scores.add(j * NR + column), slopes.add(j * NR + column));
                let mut x = s.sub(s.load_from(score), offset);
                if !seen_by_all.contains(&j) {
                    x = mask(s, x, lanes, block.sight.behind(j));
                }
                let p = exp(s, x);
                mean = s.fma(p, s.load_from(slope), mean);
                s.store_to(score, p);
            }
            for j in 0..block.keys {
                let (score, slope) = (scores.add(j * NR + column), slopes.add(j * NR + column));
                let (p, above) = (s.load_from(score), s.sub(s.load_from(slope), mean));
                if let Some(sums) = sums {
                    sums.add(s, (block, column), j, s.mul(p, above));
                }
                s.store_to(slope, s.mul(s.mul(p, s.splat(scale)), above));
            }
        }
    }
}

/// Turns a vector of queries' scores into exponentials; returns their maximum (0 if nothing is seen) and
/// their sum.
///
/// # Safety
/// `scores` is readable and writable every `NR` numbers for the keys of the block.
#[inline(always)]
unsafe fn softmax_column<S: Simd, const NR: usize>(
    s: S,
    scores: *mut f32,
    column: usize,
    block: Block,
) -> (S::Vector, S::Vector) {
    let lanes = s.add(s.indices(), s.splat(column as f32));
    let mut max = s.splat(f32::NEG_INFINITY);
    let mut sum = s.splat(0.0);
    let seen_by_all = block.seen_by_all();
    // SAFETY: `j` is below the number of keys.
    unsafe {
        if !block.bias.is_null() {
            bias::add::<S, NR>(s, scores, column, block);
        }
        for j in seen_by_all.clone() {
            max = s.max(s.load_from(scores.add(j * NR)), max);
        }
        for j in (0..seen_by_all.start).chain(seen_by_all.end..block.keys) {
            let x = mask(s, s.load_from(scores.add(j * NR)), lanes, block.sight.behind(j));
            s.store_to(scores.add(j * NR), x);
            max = s.max(x, max);
        }
        let is_finite = s.at_least(max, s.splat(f32::MIN));
        let max = s.select(is_finite, max, s.splat(0.0));
        for j in 0..block.keys {
            let e = exp(s, s.sub(s.load_from(scores.add(j * NR)), max));
            s.store_to(scores.add(j * NR), e);
            sum = s.add(sum, e);
        }
        (max, sum)
    }
}

/// Minus infinity for the queries that do not see a key; `sight` is the first query's, counted from that key on.
#[inline(always)]
fn mask<S: Simd>(s: S, x: S::Vector, lanes: S::Vector, sight: Sight) -> S::Vector {
    // Query `lane` sees from `begin + lane` up to `end + lane - 1`, and the key is at 0.
    let has_begun = s.at_least(s.splat(-sight.begin as f32), lanes);
    let has_not_ended = s.at_least(lanes, s.splat((1 - sight.end) as f32));
    let hidden = s.splat(f32::NEG_INFINITY);
    s.select(has_begun, s.select(has_not_ended, x, hidden), hidden)
}
