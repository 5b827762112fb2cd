//! Softmax over the last axis.

use crate::Cpu;
use crate::parallel::{self, Shared};
use crate::simd::{Simd, dispatch, exp};

/// `y = exp(x - max) / Σ exp(x - max)`, row by row. A row of only `-∞` gives NaN.
///
/// # Shape
/// `x`, `y`: `[rows, cols]`.
///
/// # Panics
/// If the lengths differ or are no multiple of `cols`.
///
/// # Example
/// ```
/// use andiron_kernels::{Cpu, softmax::rows};
/// let mut y = [0.0; 4];
/// rows(Cpu::detect(1), 2, &[0.0, 0.0, 7.0, f32::NEG_INFINITY], &mut y);
/// assert_eq!(y, [0.5, 0.5, 1.0, 0.0]);
/// ```
pub fn rows(cpu: Cpu, cols: usize, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "x and y differ in length");
    if x.is_empty() {
        return;
    }
    assert!(cols > 0 && x.len().is_multiple_of(cols), "x is not rows of {cols}");
    let y = Shared::new(y);
    parallel::rows(cpu, x.len() / cols, 8 * cols, 1, |part| {
        let part = part.start * cols..part.end * cols;
        // SAFETY: the parts are disjoint.
        let y = unsafe { y.range(part.clone()) };
        forward(cpu.isa, cols, &x[part], y);
    });
}

/// Gradient of [`rows`] from its output: `dx = y (dy - Σ y dy)`.
///
/// # Shape
/// `y`, `dy`, `dx`: `[rows, cols]`.
///
/// # Panics
/// If the lengths differ or are no multiple of `cols`.
pub fn rows_backward(cpu: Cpu, cols: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(y.len() == dy.len() && y.len() == dx.len(), "y, dy and dx differ in length");
    if y.is_empty() {
        return;
    }
    assert!(cols > 0 && y.len().is_multiple_of(cols), "y is not rows of {cols}");
    let dx = Shared::new(dx);
    parallel::rows(cpu, y.len() / cols, 3 * cols, 1, |part| {
        let part = part.start * cols..part.end * cols;
        // SAFETY: the parts are disjoint.
        let dx = unsafe { dx.range(part.clone()) };
        backward(cpu.isa, cols, &y[part.clone()], &dy[part], dx);
    });
}

dispatch! { fn forward(cols: usize, x: &[f32], y: &mut [f32]) = plain | vector; }
dispatch! { fn backward(cols: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) = plain_backward | vector_backward; }

fn plain(cols: usize, x: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(cols)) {
        let max = f64::from(x.iter().fold(f32::NEG_INFINITY, |max, x| max.max(*x)));
        let sum: f64 = x.iter().map(|x| (f64::from(*x) - max).exp()).sum();
        x.iter().zip(y).for_each(|(x, y)| *y = ((f64::from(*x) - max).exp() / sum) as f32);
    }
}

fn plain_backward(cols: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    for ((y, dy), dx) in y.chunks_exact(cols).zip(dy.chunks_exact(cols)).zip(dx.chunks_exact_mut(cols)) {
        let dot: f64 = y.iter().zip(dy).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum();
        for ((y, dy), dx) in y.iter().zip(dy).zip(dx) {
            *dx = (f64::from(*y) * (f64::from(*dy) - dot)) as f32;
        }
    }
}

#[inline(always)]
fn vector<S: Simd>(s: S, cols: usize, x: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact(cols).zip(y.chunks_exact_mut(cols)) {
        let max = largest(s, x);
        y.copy_from_slice(x);
        let sum = exp_into(s, y, max);
        let whole = cols / S::LANES * S::LANES;
        let factor = s.splat(1.0 / sum);
        for j in (0..whole).step_by(S::LANES) {
            let e = s.load(&y[j..]);
            s.store(&mut y[j..], s.mul(e, factor));
        }
        y[whole..].iter_mut().for_each(|y| *y *= 1.0 / sum);
    }
}

#[inline(always)]
fn vector_backward<S: Simd>(s: S, cols: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    for ((y, dy), dx) in y.chunks_exact(cols).zip(dy.chunks_exact(cols)).zip(dx.chunks_exact_mut(cols)) {
        let whole = cols / S::LANES * S::LANES;
        let mut sum = s.splat(0.0);
        for j in (0..whole).step_by(S::LANES) {
            sum = s.fma(s.load(&y[j..]), s.load(&dy[j..]), sum);
        }
        let (last_y, last_dy) = (s.load_part(&y[whole..]), s.load_part(&dy[whole..]));
        let dot = s.splat(s.sum(s.fma(last_y, last_dy, sum)));
        for j in (0..whole).step_by(S::LANES) {
            s.store(&mut dx[j..], s.mul(s.load(&y[j..]), s.sub(s.load(&dy[j..]), dot)));
        }
        s.store_part(&mut dx[whole..], s.mul(last_y, s.sub(last_dy, dot)));
    }
}

/// The largest number of `x`, `-∞` if there is none; NaN may be passed over.
#[inline(always)]
pub(crate) fn largest<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut chunks = x.chunks_exact(S::LANES);
    let mut max = s.splat(f32::NEG_INFINITY);
    for chunk in &mut chunks {
        max = s.max(s.load(chunk), max);
    }
    chunks.remainder().iter().fold(s.largest(max), |max, x| max.max(*x))
}

/// `Σ exp(x - max)`.
#[inline(always)]
pub(crate) fn exp_sum<S: Simd>(s: S, x: &[f32], max: f32) -> f32 {
    let mut chunks = x.chunks_exact(S::LANES);
    let (mut sum, max) = (s.splat(0.0), s.splat(max));
    for chunk in &mut chunks {
        sum = s.add(sum, exp(s, s.sub(s.load(chunk), max)));
    }
    let rest = chunks.remainder();
    // The lanes beyond the slice must add nothing: e^-inf is 0.
    let is_there = s.at_least(s.splat(rest.len() as f32 - 0.5), s.indices());
    let last = s.select(is_there, s.sub(s.load_part(rest), max), s.splat(f32::NEG_INFINITY));
    s.sum(s.add(sum, exp(s, last)))
}

/// Replaces `x` by `exp(x - max)` and returns the sum.
#[inline(always)]
pub(crate) fn exp_into<S: Simd>(s: S, x: &mut [f32], max: f32) -> f32 {
    let shift = s.splat(max);
    let mut sum = s.splat(0.0);
    let mut chunks = x.chunks_exact_mut(S::LANES);
    for chunk in &mut chunks {
        let e = exp(s, s.sub(s.load(chunk), shift));
        sum = s.add(sum, e);
        s.store(chunk, e);
    }
    let rest = chunks.into_remainder();
    s.store_part(rest, exp(s, s.sub(s.load_part(rest), shift)));
    s.sum(sum) + rest.iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers, wide};

    fn run(cpu: Cpu, cols: usize, x: &[f32]) -> [Vec<f32>; 2] {
        let dy = numbers(2, x.len());
        let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        rows(cpu, cols, x, &mut y);
        rows_backward(cpu, cols, &y, &dy, &mut dx);
        [y, dx]
    }

    #[track_caller]
    fn check(cols: usize, x: &[f32]) {
        let plain = run(Cpu::new(Isa::Scalar, 1), cols, x);
        for isa in Isa::supported() {
            let one = run(Cpu::new(isa, 1), cols, x);
            for (found, wanted) in one.iter().zip(&plain) {
                assert_close(&format!("{isa}"), found, &wide(wanted), 1e-5);
            }
            assert_eq!(run(Cpu::new(isa, 3), cols, x), one);
        }
    }

    #[test]
    fn huge_and_masked_scores_are_weighed() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let x = [1e30, 1e30, -1e30, -inf, -3e38, 0.0, 1.0, -inf, 89.0, -89.0];
        check(5, &x);
        for isa in Isa::supported() {
            let mut y = [0.0; 6];
            rows(Cpu::new(isa, 1), 3, &[nan, 1.0, 2.0, -inf, -inf, -inf], &mut y);
            assert!(y.iter().all(|y| y.is_nan()), "{isa}: {y:?}");
        }
    }

    #[test]
    fn the_gradient_is_the_slope() {
        let x = wide(&numbers(1, 7));
        let dy = wide(&numbers(2, 7));
        let loss = |x: &[f64]| {
            let sum: f64 = x.iter().map(|x| x.exp()).sum();
            x.iter().zip(&dy).map(|(x, dy)| x.exp() / sum * dy).sum::<f64>()
        };
        let wanted: Vec<f64> = (0..7)
            .map(|k| {
                let shifted = |step: f64| {
                    let mut x = x.clone();
                    x[k] += step;
                    loss(&x)
                };
                (shifted(1e-5) - shifted(-1e-5)) / 2e-5
            })
            .collect();
        for isa in Isa::supported() {
            let [_, dx] = run(Cpu::new(isa, 1), 7, &numbers(1, 7));
            assert_close(&format!("{isa}"), &dx, &wanted, 1e-6);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_path_equals_the_plain_one(n in 0usize..40, cols in 1usize..90) {
            check(cols, &numbers(1, n * cols));
        }
    }
}
