//! The innermost loop: a tile of the result whose accumulators stay in registers.

use super::panel_format::PanelFormat;
use crate::simd::Simd;

/// Where a tile is stored.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Element `(0, 0)` of the tile.
    pub(crate) c: *mut f32,
    /// Distance between rows.
    pub(crate) stride: usize,
    /// Rows and columns that exist; the tile computes more at the edges.
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// One element per column to add, or null.
    pub(crate) bias: *const f32,
    /// Adds to `c` instead of replacing it.
    pub(crate) accumulate: bool,
}

/// The operands of a tile: `a` has a row stride `a_lane` and a depth stride `a_step`, `b` has contiguous columns and a
/// depth stride `b_step`. The depth `k` counts words.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    pub(crate) k: usize,
    pub(crate) a: *const f32,
    pub(crate) a_lane: usize,
    pub(crate) a_step: usize,
    pub(crate) b: *const f32,
    pub(crate) b_step: usize,
}

/// Computes a tile of up to `MR` rows, 6 or 12, and `NV` vectors of columns, up to four, with the smallest kernel that
/// covers it.
///
/// The accumulators of a whole tile, a vector of `a` and `NV` of `b` should just fit the registers.
///
/// # Safety
/// `a` is readable for the rows of that kernel (`target.rows` rounded up to a multiple of a third of `MR`), `b` for
/// `target.cols` rounded up to whole vectors, `c` and `bias` as far as they exist.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, P: PanelFormat<S>, const MR: usize, const NV: usize>(
    s: S,
    format: P,
    operands: Operands,
    target: Target,
) {
    const { assert!((MR == 6 || MR == 12) && NV <= 4) };
    // SAFETY: the caller's promise covers each of the kernels chosen.
    unsafe {
        match target.cols.div_ceil(S::LANES) {
            4 if NV >= 4 => with_rows::<S, P, MR, 4>(s, format, operands, target),
            3 if NV >= 3 => with_rows::<S, P, MR, 3>(s, format, operands, target),
            2 if NV >= 2 => with_rows::<S, P, MR, 2>(s, format, operands, target),
            _ => with_rows::<S, P, MR, 1>(s, format, operands, target),
        }
    }
}

/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn with_rows<S: Simd, P: PanelFormat<S>, const MR: usize, const NV: usize>(
    s: S,
    format: P,
    operands: Operands,
    target: Target,
) {
    // SAFETY: the caller's promise covers each of the kernels chosen.
    unsafe {
        if MR == 12 {
            match target.rows {
                9.. => sized::<S, P, 12, NV>(s, format, operands, target),
                5..=8 => sized::<S, P, 8, NV>(s, format, operands, target),
                _ => sized::<S, P, 4, NV>(s, format, operands, target),
            }
        } else {
            match target.rows {
                5.. => sized::<S, P, 6, NV>(s, format, operands, target),
                3..=4 => sized::<S, P, 4, NV>(s, format, operands, target),
                _ => sized::<S, P, 2, NV>(s, format, operands, target),
            }
        }
    }
}

/// Steps of the depth per iteration of the loop.
const UNROLLED: usize = 4;

/// # Safety
/// As for [`tile`], with exactly `MR` rows and `NV` vectors of columns.
#[inline(always)]
unsafe fn sized<S: Simd, P: PanelFormat<S>, const MR: usize, const NV: usize>(
    s: S,
    format: P,
    operands: Operands,
    target: Target,
) {
    let Operands { k, mut a, a_lane, a_step, mut b, b_step } = operands;
    for row in 0..MR.min(target.rows) {
        for v in 0..NV {
            s.prefetch(target.c.wrapping_add(row * target.stride + v * S::LANES));
        }
    }
    let mut sums = [[s.splat(0.0); NV]; MR];
    // SAFETY: the caller's promise; the pointers advance once per step of the depth.
    unsafe {
        for _ in 0..k / UNROLLED {
            for at in 0..UNROLLED {
                let (a, b) = (a.wrapping_add(at * a_step), b.wrapping_add(at * b_step));
                step(s, format, (a, a_lane), b, &mut sums);
            }
            a = a.wrapping_add(UNROLLED * a_step);
            b = b.wrapping_add(UNROLLED * b_step);
        }
        for _ in 0..k % UNROLLED {
            step(s, format, (a, a_lane), b, &mut sums);
            a = a.wrapping_add(a_step);
            b = b.wrapping_add(b_step);
        }
    }
    // Indexing accumulators in a loop would put them in memory; the usual case keeps them in registers.
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
/// As for [`sized`], for one step of the depth.
#[inline(always)]
unsafe fn step<S: Simd, P: PanelFormat<S>, const MR: usize, const NV: usize>(
    s: S,
    format: P,
    (a, a_lane): (*const f32, usize),
    b: *const f32,
    sums: &mut [[S::Vector; NV]; MR],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut columns = [s.splat(0.0); NV];
        for (v, column) in columns.iter_mut().enumerate() {
            *column = s.load_from(b.add(v * S::LANES));
        }
        for (r, row) in sums.iter_mut().enumerate() {
            let x = s.splat(*a.add(r * a_lane));
            for (sum, column) in row.iter_mut().zip(columns) {
                *sum = format.multiply_add(s, x, column, *sum);
            }
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
