//! One thread's rectangle of a matmul.

use super::pack::Scratch;
use super::panel_format::PanelFormat;
use super::tile::{Operands, Target, tile};
use crate::simd::{Simd, dispatch_matmul};

/// Largest depth of a packed block, in words: a strip of `a` then takes a small part of the L1 cache.
pub(super) const DEPTH: usize = 384;
/// Most rows of `a` packed at a time (a multiple of the tile height).
const ROWS: usize = 192;
/// Most columns of a packed block of `b` (a multiple of the tile widths): 576 KiB of the L2 cache, read once for every strip
/// of `a`.
const COLS: usize = 384;
/// Rows of a tile: a strip of `a`.
const MR: usize = 6;

/// An operand with two strides: `lane` along the rows of `a` or the columns of `b`, `depth` along the summed axis.
#[derive(Clone, Copy)]
pub(crate) struct Strided {
    pub(crate) start: *const f32,
    pub(crate) lane: usize,
    pub(crate) depth: usize,
}

impl Strided {
    /// # Safety
    /// The element exists.
    #[inline(always)]
    unsafe fn from(self, lane: usize, depth: usize) -> Self {
        // SAFETY: the caller's promise.
        Self { start: unsafe { self.start.add(lane * self.lane + depth * self.depth) }, ..self }
    }
}

/// `c = a b`, plus `bias` unless null, plus the old `c` if `accumulate`; `c` has contiguous columns.
pub(crate) struct Block {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a: Strided,
    pub(crate) b: Strided,
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    pub(crate) bias: *const f32,
    pub(crate) accumulate: bool,
}

dispatch_matmul! {
    /// Computes a block on this thread.
    ///
    /// # Safety
    /// The operands are readable and `c` is writable as far as the sizes say, `c` by nobody else; `k > 0`.
    pub(crate) unsafe fn multiply(block: &Block) = multiply_scalar | multiply_vector;
}

/// # Safety
/// As for [`multiply`].
unsafe fn multiply_scalar(block: &Block) {
    let Block { m, n, k, a, b, c, c_stride, bias, accumulate } = *block;
    for i in 0..m {
        for j in 0..n {
            // SAFETY: all indices are below the sizes.
            unsafe {
                let products = (0..k).map(|l| *a.from(i, l).start * *b.from(j, l).start);
                let c = c.add(i * c_stride + j);
                let bias = if bias.is_null() { 0.0 } else { *bias.add(j) };
                let old = if accumulate { *c } else { 0.0 };
                *c = old + products.sum::<f32>() + bias;
            }
        }
    }
}

/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn multiply_vector<S: Simd, P: PanelFormat<S>>(s: S, format: P, block: &Block) {
    // SAFETY: the caller's promise; the sums of a tile fit the registers of this instruction set.
    unsafe {
        if S::LANES == 16 {
            packed::<S, P, 4, 64>(s, format, block);
        } else {
            packed::<S, P, 2, 16>(s, format, block);
        }
    }
}

/// # Safety
/// As for [`multiply`]; `NR` is the width of a tile, which has `NV` vectors.
#[inline(always)]
unsafe fn packed<S: Simd, P: PanelFormat<S>, const NV: usize, const NR: usize>(
    s: S,
    format: P,
    block: &Block,
) {
    assert!(NR == NV * S::LANES && ROWS.is_multiple_of(MR) && COLS.is_multiple_of(NR));
    let Block { m, n, k, a, b, c, c_stride, bias, accumulate } = *block;
    let all_words = k.div_ceil(P::STEPS);
    let depth = all_words.div_ceil(all_words.div_ceil(DEPTH));
    // Strips that are contiguous along the depth are read in place.
    let in_place = if P::PLAIN && a.depth == 1 { m / MR * MR } else { 0 };
    let (rows, cols) = ((m - in_place).min(ROWS).next_multiple_of(MR), n.min(COLS).next_multiple_of(NR));
    let mut scratch = Scratch::take((rows + cols) * depth);
    let b_packed = scratch.pointer();
    // SAFETY: the scratch memory has `rows * depth` words behind the `cols * depth` of `b`.
    let a_packed = unsafe { b_packed.add(cols * depth) };
    // With one strip, each element of `b` is read once: packing would only add to that.
    let direct = P::PLAIN && m <= MR && b.lane == 1;
    for word in (0..all_words).step_by(depth) {
        let depth = depth.min(all_words - word);
        let l = word * P::STEPS;
        let steps = (depth * P::STEPS).min(k - l);
        let first = word == 0;
        for j in (0..n).step_by(COLS) {
            let cols = COLS.min(n - j);
            // SAFETY: `packed` iterates within the operands; the packed panels fit the scratch memory.
            unsafe {
                let b = b.from(j, l);
                let whole = if direct { cols / NR * NR } else { 0 };
                if whole < cols {
                    let to = b_packed.add(whole * depth);
                    format.panels::<NR>(b.from(whole, 0), cols - whole, steps, to);
                }
                let strip = Strip {
                    k: depth,
                    cols,
                    whole,
                    b,
                    b_packed,
                    c: c.add(j),
                    c_stride,
                    bias: if first && !bias.is_null() { bias.add(j) } else { std::ptr::null() },
                    accumulate: accumulate || !first,
                };
                for i in (0..in_place).step_by(MR) {
                    let a = a.from(i, l);
                    strip.multiply::<S, P, NV, NR>(s, format, i, MR, (a.start, a.lane, 1));
                }
                for i in (in_place..m).step_by(ROWS) {
                    let rows = ROWS.min(m - i);
                    format.panels::<MR>(a.from(i, l), rows, steps, a_packed);
                    for ii in (0..rows).step_by(MR) {
                        let a = a_packed.add(ii * depth);
                        strip.multiply::<S, P, NV, NR>(s, format, i + ii, MR.min(rows - ii), (a, 1, MR));
                    }
                }
            }
        }
    }
}

/// What all strips of a block share.
struct Strip {
    k: usize,
    cols: usize,
    /// Columns that are read in place; the others are packed.
    whole: usize,
    b: Strided,
    b_packed: *const f32,
    c: *mut f32,
    c_stride: usize,
    bias: *const f32,
    accumulate: bool,
}

impl Strip {
    /// Multiplies `rows` rows of `a` from row `i` on, given by start, lane stride and depth stride, by all columns.
    ///
    /// # Safety
    /// `a` is readable for `MR` rows of the depth, `c` writable for those that exist.
    #[inline(always)]
    unsafe fn multiply<S: Simd, P: PanelFormat<S>, const NV: usize, const NR: usize>(
        &self,
        s: S,
        format: P,
        i: usize,
        rows: usize,
        (a, a_lane, a_step): (*const f32, usize, usize),
    ) {
        let &Self { k, cols, whole, b, b_packed, c, c_stride, bias, accumulate } = self;
        for j in (0..cols).step_by(NR) {
            // SAFETY: the caller's promise; the panels hold all columns.
            unsafe {
                let (b, b_step) = match j < whole {
                    true => (b.from(j, 0).start, b.depth),
                    false => (b_packed.add(j * k), NR),
                };
                let operands = Operands { k, a, a_lane, a_step, b, b_step };
                let target = Target {
                    c: c.add(i * c_stride + j),
                    stride: c_stride,
                    rows,
                    cols: NR.min(cols - j),
                    bias: if bias.is_null() { bias } else { bias.add(j) },
                    accumulate,
                };
                tile::<S, P, MR, NV>(s, format, operands, target);
            }
        }
    }
}
