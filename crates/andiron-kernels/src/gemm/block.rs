//! One thread's rectangle of a product.

use super::pack::Scratch;
use super::tile::{Operands, Target, tile, tile_cols, tile_rows};
use super::words::{Words, round};
use crate::Precision;
use crate::simd::{Simd, dispatch_products};

/// Largest depth, in words, of a packed block: a panel of `a` then fills half of a first-level cache. A panel of `b` is
/// read one line at a time while whole tiles are summed, which the second level keeps up with.
const DEPTH: usize = 384;
/// Most rows of a packed block of `a` (a multiple of both tile heights): 288 KiB of the second-level cache.
const ROWS: usize = 192;
/// Most columns of a packed block of `b` (a multiple of both tile widths): 576 KiB.
const COLS: usize = 384;

/// Memory read with two strides: `lane` along rows of `a` or columns of `b`, `depth` along the sum.
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

dispatch_products! {
    /// Computes a block on this thread.
    ///
    /// # Safety
    /// The operands are readable and `c` is writable as far as the sizes say, `c` by nobody else; `k > 0`.
    pub(crate) unsafe fn multiply(block: &Block) = multiply_scalar | multiply_vector;
}

/// # Safety
/// As for [`multiply`].
unsafe fn multiply_scalar(precision: Precision, block: &Block) {
    let rounded = |x: f32| if precision == Precision::Mixed { round(x) } else { x };
    let Block { m, n, k, a, b, c, c_stride, bias, accumulate } = *block;
    for i in 0..m {
        for j in 0..n {
            // SAFETY: all indices are below the sizes.
            unsafe {
                let products = (0..k).map(|l| rounded(*a.from(i, l).start) * rounded(*b.from(j, l).start));
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
unsafe fn multiply_vector<S: Simd, P: Words<S>>(s: S, words: P, block: &Block) {
    // SAFETY: the caller's promise; the panels are as wide as the tiles of this instruction set.
    unsafe {
        if S::LANES == 16 {
            packed::<S, P, 12, 32>(s, words, block);
        } else {
            packed::<S, P, 6, 16>(s, words, block);
        }
    }
}

/// # Safety
/// As for [`multiply`]; `MR` and `NR` are the sizes of the largest tile.
#[inline(always)]
unsafe fn packed<S: Simd, P: Words<S>, const MR: usize, const NR: usize>(s: S, words: P, block: &Block) {
    assert!(MR == tile_rows::<S>() && NR == tile_cols::<S>());
    let Block { m, n, k, a, b, c, c_stride, bias, accumulate } = *block;
    let all_words = k.div_ceil(P::STEPS);
    let depth = all_words.div_ceil(all_words.div_ceil(DEPTH));
    let (rows, cols) = (m.min(ROWS).next_multiple_of(MR), n.min(COLS).next_multiple_of(NR));
    let mut scratch = Scratch::take((rows + cols) * depth);
    let b_packed = scratch.pointer();
    // SAFETY: the scratch memory has `rows * depth` numbers behind the `cols * depth` of `b`.
    let a_packed = unsafe { b_packed.add(cols * depth) };
    // With one row of tiles each number of `b` is read once: packing whole panels would only add to that.
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
                    words.panels::<NR>(b.from(whole, 0), cols - whole, steps, to);
                }
                for i in (0..m).step_by(ROWS) {
                    let rows = ROWS.min(m - i);
                    words.panels::<MR>(a.from(i, l), rows, steps, a_packed);
                    for jj in (0..cols).step_by(NR) {
                        let (panel, b_step) = if jj < whole {
                            (b.from(jj, 0).start, b.depth)
                        } else {
                            (b_packed.add(jj * depth).cast_const(), NR)
                        };
                        for ii in (0..rows).step_by(MR) {
                            let operands = Operands {
                                k: depth,
                                a: a_packed.add(ii * depth),
                                a_step: MR,
                                b: panel,
                                b_step,
                            };
                            tile::<S, P, 1>(
                                s,
                                words,
                                operands,
                                Target {
                                    c: c.add((i + ii) * c_stride + j + jj),
                                    stride: c_stride,
                                    rows: MR.min(rows - ii),
                                    cols: NR.min(cols - jj),
                                    bias: if first && !bias.is_null() {
                                        bias.add(j + jj)
                                    } else {
                                        std::ptr::null()
                                    },
                                    accumulate: accumulate || !first,
                                },
                            );
                        }
                    }
                }
            }
        }
    }
}
