//! Reductions whose order depends on the shape alone, not on threads or the instruction set.

use crate::Cpu;
use crate::parallel::{self, Shared};
use crate::simd::{Simd, dispatch};

/// Elements per partial sum.
const BLOCK: usize = 4096;
/// Rows per partial sum of a column.
const BLOCK_ROWS: usize = 128;
/// Columns summed together.
const STRIP: usize = 64;

/// The sum of all squares, in f64.
///
/// # Example
/// ```
/// use andiron_kernels::{Cpu, reduce::square_sum};
/// assert_eq!(square_sum(Cpu::detect(2), &[3.0, 4.0]), 25.0);
/// ```
pub fn square_sum(cpu: Cpu, x: &[f32]) -> f64 {
    let mut partial = vec![0.0; x.len().div_ceil(BLOCK)];
    let shared = Shared::new(&mut partial);
    parallel::rows(cpu, x.len().div_ceil(BLOCK), 2 * BLOCK, 1, |part| {
        // SAFETY: the parts are disjoint.
        let sums = unsafe { shared.range(part.clone()) };
        for (block, sum) in part.zip(sums) {
            *sum = squares(cpu.isa, &x[block * BLOCK..x.len().min((block + 1) * BLOCK)]);
        }
    });
    partial.iter().sum()
}

/// `out[j] = Σ_i x[i, j]`.
///
/// # Shape
/// `x`: `[rows, cols]`, `out`: `[cols]`.
///
/// # Panics
/// If the lengths do not agree.
pub fn column_sum(cpu: Cpu, rows: usize, cols: usize, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), rows * cols, "x is not {rows} x {cols}");
    assert_eq!(out.len(), cols, "out does not have one element per column");
    let out = Shared::new(out);
    parallel::rows(cpu, cols, 2 * rows, STRIP, |part| {
        for start in part.clone().step_by(STRIP) {
            let end = part.end.min(start + STRIP);
            // SAFETY: the parts are disjoint.
            let out = unsafe { out.range(start..end) };
            strip(cpu.isa, (rows, cols), &x[start.min(x.len())..], out);
        }
    });
}

dispatch! { fn squares(x: &[f32]) -> f64 = plain_squares | vector_squares; }
dispatch! { fn strip(shape: (usize, usize), x: &[f32], out: &mut [f32]) = plain_strip | vector_strip; }

/// Sixteen running sums, which the compiler vectorizes, added in order.
#[inline(always)]
fn plain_squares(x: &[f32]) -> f64 {
    let mut sums = [0.0f64; 16];
    let mut chunks = x.chunks_exact(16);
    for chunk in &mut chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    for (sum, x) in sums.iter_mut().zip(chunks.remainder()) {
        *sum += f64::from(*x) * f64::from(*x);
    }
    sums.iter().sum()
}

#[inline(always)]
fn vector_squares<S: Simd>(_: S, x: &[f32]) -> f64 {
    plain_squares(x)
}

/// `x` starts at the strip's first column.
#[inline(always)]
fn plain_strip((rows, cols): (usize, usize), x: &[f32], out: &mut [f32]) {
    let mut total = [0.0f32; STRIP];
    for start in (0..rows).step_by(BLOCK_ROWS) {
        let mut partial = [0.0f32; STRIP];
        for i in start..rows.min(start + BLOCK_ROWS) {
            let row = &x[i * cols..][..out.len()];
            if let Ok(row) = <&[f32; STRIP]>::try_from(row) {
                partial.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            } else {
                partial.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
        }
        total.iter_mut().zip(partial).for_each(|(total, x)| *total += x);
    }
    out.copy_from_slice(&total[..out.len()]);
}

#[inline(always)]
fn vector_strip<S: Simd>(_: S, shape: (usize, usize), x: &[f32], out: &mut [f32]) {
    plain_strip(shape, x, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers};

    #[track_caller]
    fn check(rows: usize, cols: usize) {
        let x = numbers(1, rows * cols);
        let wanted: Vec<f64> =
            (0..cols).map(|j| (0..rows).map(|i| f64::from(x[i * cols + j])).sum()).collect();
        let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        let mut first = None;
        for isa in Isa::supported() {
            for threads in [1, 2, 3] {
                let cpu = Cpu::new(isa, threads);
                let mut out = vec![f32::NAN; cols];
                column_sum(cpu, rows, cols, &x, &mut out);
                assert_close("column sums", &out, &wanted, 4e-6 * (rows as f64).sqrt().max(1.0));
                let sum = square_sum(cpu, &x);
                assert!((sum - squares).abs() <= 1e-12 * squares);
                let first = first.get_or_insert((out.clone(), sum));
                assert_eq!((&first.0, first.1), (&out, sum), "{isa} with {threads} threads");
            }
        }
    }

    #[test]
    fn long_sums_do_not_depend_on_threads_or_instructions() {
        check(400, 700);
        check(1, 20_000);
        check(20_000, 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn sums_equal_the_definition(rows in 0usize..300, cols in 0usize..140) {
            check(rows, cols);
        }
    }
}
