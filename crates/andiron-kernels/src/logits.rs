//! Rows of logits: what sampling needs of each.

use crate::simd::{Simd, dispatch};
use crate::softmax::exp_sum;

/// Numbers whose exponentials are summed in f32; such sums are added in f64.
const CHUNK: usize = 4096;

dispatch! {
    /// The largest of `x`, which is minus infinity if all are, or there are none. `None` if one is NaN or infinity.
    pub fn largest(x: &[f32]) -> Option<f32> = plain_largest | vector_largest;
}
dispatch! { fn sum_of_exps(x: &[f32], max: f32) -> f64 = plain_sum | vector_sum; }

/// Natural logarithm of the sum of exponentials, so that `x[i] - log_sum_exp(x)` is the log-probability of `i`.
///
/// Minus infinity if all are, or there are none; NaN if one is NaN or infinity. Nothing overflows.
pub fn log_sum_exp(isa: crate::Isa, x: &[f32]) -> f32 {
    match largest(isa, x) {
        None => f32::NAN,
        Some(f32::NEG_INFINITY) => f32::NEG_INFINITY,
        Some(max) => max + sum_of_exps(isa, x, max).ln() as f32,
    }
}

fn plain_largest(x: &[f32]) -> Option<f32> {
    let is_usual = |x: &f32| *x <= f32::MAX;
    x.iter().all(is_usual).then(|| x.iter().copied().fold(f32::NEG_INFINITY, f32::max))
}

#[inline(always)]
fn vector_largest<S: Simd>(s: S, x: &[f32]) -> Option<f32> {
    let (bound, one) = (s.splat(f32::MAX), s.splat(1.0));
    let (mut max, mut strange) = (s.splat(f32::NEG_INFINITY), s.splat(0.0));
    let mut chunks = x.chunks_exact(S::LANES);
    for chunk in &mut chunks {
        let x = s.load(chunk);
        max = s.max(x, max);
        // False for NaN, too.
        strange = s.select(s.at_least(bound, x), strange, one);
    }
    let rest = plain_largest(chunks.remainder())?;
    (s.largest(strange) == 0.0).then(|| s.largest(max).max(rest))
}

fn plain_sum(x: &[f32], max: f32) -> f64 {
    x.iter().map(|&x| f64::from((x - max).exp())).sum()
}

#[inline(always)]
fn vector_sum<S: Simd>(s: S, x: &[f32], max: f32) -> f64 {
    x.chunks(CHUNK).map(|x| f64::from(exp_sum(s, x, max))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::numbers;

    #[test]
    fn every_path_equals_the_exact_one() {
        for len in (0..70).chain([5000, 50_000]) {
            let x: Vec<f32> = numbers(len as u64, len).into_iter().map(|x| 8.0 * x).collect();
            let exact = x.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for isa in Isa::supported() {
                assert_eq!(largest(isa, &x), Some(max), "{isa}, {len}");
                let found = log_sum_exp(isa, &x);
                let is_close = f64::from(found) == exact || (f64::from(found) - exact).abs() < 3e-6;
                assert!(is_close, "{isa}, {len}: {found}, not {exact}");
            }
        }
    }

    #[test]
    fn infinities_and_nan_are_told() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for isa in Isa::supported() {
            for len in [1, 16, 33] {
                let masked = vec![-inf; len];
                assert_eq!((largest(isa, &masked), log_sum_exp(isa, &masked)), (Some(-inf), -inf), "{isa}");
                for strange in [nan, inf] {
                    for at in [0, len - 1] {
                        let mut x = vec![1.0; len];
                        x[at] = strange;
                        assert_eq!(largest(isa, &x), None, "{isa}: {strange} at {at} of {len}");
                        assert!(log_sum_exp(isa, &x).is_nan(), "{isa}: {strange} at {at} of {len}");
                    }
                }
            }
            let mut x = vec![-inf; 40];
            (x[3], x[20]) = (1e4, 1e4);
            assert!((log_sum_exp(isa, &x) - (1e4 + std::f32::consts::LN_2)).abs() < 1e-2, "{isa}");
        }
    }
}
