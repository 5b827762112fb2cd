//! The innermost loop: a tile of the product whose sums stay in registers.

use super::words::Words;
use crate::simd::Simd;

/// Rows of the largest tile of an instruction set: with two vectors of columns, as many sums as the
/// registers hold beside one vector of `a` and two of `b`. NEON's vectors are pairs of registers.
pub(crate) const fn tile_rows<S: Simd>() -> usize {
    if S::LANES == 16 { 12 } else { 6 }
}

/// Columns of the largest tile.
pub(crate) const fn tile_cols<S: Simd>() -> usize {
    2 * S::LANES
}

/// Where a tile goes.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Element `(0, 0)` of the tile.
    pub(crate) c: *mut f32,
    /// Distance between rows.
    pub(crate) stride: usize,
    /// Rows and columns that exist; the tile computes more at the edges.
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// One number per column to add, or null.
    pub(crate) bias: *const f32,
    /// Adds to `c` instead of replacing it.
    pub(crate) accumulate: bool,
}

/// The operands of a tile: `a` has its rows `A_LANE` apart and its depth `a_step` apart, `b` has contiguous
/// columns and its depth `b_step` apart. The depth `k` counts words.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    pub(crate) k: usize,
    pub(crate) a: *const f32,
    pub(crate) a_step: usize,
    pub(crate) b: *const f32,
    pub(crate) b_step: usize,
}

/// Computes a tile of up to [`tile_rows`] x [`tile_cols`] with the smallest kernel that covers it.
///
/// # Safety
/// `a` is readable for the rows of that kernel (`target.rows` rounded up to a multiple of 4, or of 2 with
/// eight lanes), `b` for `target.cols` rounded up to whole vectors, `c` and `bias` as far as they exist.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, P: Words<S>, const A_LANE: usize>(
    s: S,
    words: P,
    operands: Operands,
    target: Target,
) {
    let one = target.cols <= S::LANES;
    // SAFETY: the caller's promise covers each of the kernels chosen.
    unsafe {
        if S::LANES == 16 {
            match (target.rows, one) {
                (9.., false) => sized::<S, P, 12, 2, A_LANE>(s, words, operands, target),
                (5..=8, false) => sized::<S, P, 8, 2, A_LANE>(s, words, operands, target),
                (_, false) => sized::<S, P, 4, 2, A_LANE>(s, words, operands, target),
                (9.., true) => sized::<S, P, 12, 1, A_LANE>(s, words, operands, target),
                (5..=8, true) => sized::<S, P, 8, 1, A_LANE>(s, words, operands, target),
                (_, true) => sized::<S, P, 4, 1, A_LANE>(s, words, operands, target),
            }
        } else {
            match (target.rows, one) {
                (5.., false) => sized::<S, P, 6, 2, A_LANE>(s, words, operands, target),
                (3..=4, false) => sized::<S, P, 4, 2, A_LANE>(s, words, operands, target),
                (_, false) => sized::<S, P, 2, 2, A_LANE>(s, words, operands, target),
                (5.., true) => sized::<S, P, 6, 1, A_LANE>(s, words, operands, target),
                (3..=4, true) => sized::<S, P, 4, 1, A_LANE>(s, words, operands, target),
                (_, true) => sized::<S, P, 2, 1, A_LANE>(s, words, operands, target),
            }
        }
    }
}

/// # Safety
/// As for [`tile`], with exactly `MR` rows and `NV` vectors of columns.
#[inline(always)]
unsafe fn sized<S: Simd, P: Words<S>, const MR: usize, const NV: usize, const A_LANE: usize>(
    s: S,
    words: P,
    operands: Operands,
    target: Target,
) {
    let Operands { k, mut a, a_step, mut b, b_step } = operands;
    let mut sums = [[s.splat(0.0); NV]; MR];
    for _ in 0..k {
        // SAFETY: the caller's promise; the pointers advance once per step of the depth.
        unsafe {
            let mut columns = [s.splat(0.0); NV];
            for (v, column) in columns.iter_mut().enumerate() {
                *column = s.load_from(b.add(v * S::LANES));
            }
            for (r, row) in sums.iter_mut().enumerate() {
                let x = s.splat(*a.add(r * A_LANE));
                for (sum, column) in row.iter_mut().zip(columns) {
                    *sum = words.multiply_add(s, x, column, *sum);
                }
            }
        }
        a = a.wrapping_add(a_step);
        b = b.wrapping_add(b_step);
    }
    // A tile whose numbers are taken by a running index lies in memory; the usual case keeps it in registers.
    if target.rows == MR && target.cols == NV * S::LANES {
        // SAFETY: all rows and columns of the tile exist.
        unsafe { store_whole(s, target, sums) };
        return;
    }
    let in_memory = sums;
    for (r, row) in in_memory.iter().enumerate().take(target.rows) {
        for (v, sum) in row.iter().enumerate() {
            // SAFETY: row `r` of `c` exists, and `store` stays within the columns that exist.
            unsafe { store(s, target, r, v * S::LANES, *sum) };
        }
    }
}

/// # Safety
/// All rows and columns of the tile exist in the target.
#[inline(always)]
unsafe fn store_whole<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    target: Target,
    sums: [[S::Vector; NV]; MR],
) {
    let Target { c, stride, bias, accumulate, .. } = target;
    let mut sums = sums;
    // SAFETY: the caller's promise.
    unsafe {
        if !bias.is_null() {
            for row in &mut sums {
                for (v, sum) in row.iter_mut().enumerate() {
                    *sum = s.add(*sum, s.load_from(bias.add(v * S::LANES)));
                }
            }
        }
        if accumulate {
            for (r, row) in sums.iter_mut().enumerate() {
                for (v, sum) in row.iter_mut().enumerate() {
                    *sum = s.add(*sum, s.load_from(c.add(r * stride + v * S::LANES)));
                }
            }
        }
        for (r, row) in sums.into_iter().enumerate() {
            for (v, sum) in row.into_iter().enumerate() {
                s.store_to(c.add(r * stride + v * S::LANES), sum);
            }
        }
    }
}

/// # Safety
/// Row `r` of the target exists.
#[inline(always)]
unsafe fn store<S: Simd>(s: S, target: Target, r: usize, col: usize, sum: S::Vector) {
    let Target { c, stride, cols, bias, accumulate, .. } = target;
    if col >= cols {
        return;
    }
    let count = cols - col;
    // SAFETY: the columns `col..cols` of this row and of the bias exist.
    unsafe {
        let c = c.add(r * stride + col);
        let mut sum = sum;
        if count >= S::LANES {
            if !bias.is_null() {
                sum = s.add(sum, s.load_from(bias.add(col)));
            }
            if accumulate {
                sum = s.add(sum, s.load_from(c));
            }
            s.store_to(c, sum);
        } else {
            if !bias.is_null() {
                sum = s.add(sum, s.load_part_from(bias.add(col), count));
            }
            if accumulate {
                sum = s.add(sum, s.load_part_from(c, count));
            }
            s.store_part_to(c, sum, count);
        }
    }
}
