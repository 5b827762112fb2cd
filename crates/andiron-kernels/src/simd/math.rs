//! Elementary functions on vectors.

use super::Simd;

/// `e^x` within 2 ulp. Overflows to infinity, keeps NaN. Subnormal results are flushed to 0: computing one takes ten times
/// as long.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; `e^r` is its Taylor polynomial of degree 7 (error below 2e-8).
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::Vector) -> S::Vector {
    // ln 2 in two parts, the first with few enough bits that multiplying it by `n` is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const TAYLOR: [f32; 6] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
    // Just above the logarithm of the smallest normal f32.
    const LEAST: f32 = -87.31;
    let none = s.at_least(s.splat(LEAST), x);
    // Operands in this order: `min` and `max` return the second where one is NaN.
    let x = s.max(s.splat(LEAST), s.min(s.splat(89.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN_2_HIGH), x);
    let r = s.fma(n, s.splat(-LN_2_LOW), r);
    let mut sum = s.splat(TAYLOR[0]);
    for coefficient in &TAYLOR[1..] {
        sum = s.fma(sum, r, s.splat(*coefficient));
    }
    let power = s.add(s.fma(s.mul(r, r), sum, r), s.splat(1.0));
    s.select(none, s.splat(0.0), s.scale(power, n))
}

/// `2^x` for `x` below 127, with a relative error below 2^-14: enough for results that are rounded to bf16.
#[inline(always)]
pub(crate) fn exp2_for_bf16<S: Simd>(s: S, x: S::Vector) -> S::Vector {
    const LN_2: f32 = std::f32::consts::LN_2;
    const TAYLOR: [f32; 4] =
        [LN_2 * LN_2 * LN_2 * LN_2 / 24.0, LN_2 * LN_2 * LN_2 / 6.0, LN_2 * LN_2 / 2.0, LN_2];
    // Results below the smallest normal f32 are 0.
    let none = s.at_least(s.splat(-126.0), x);
    let n = s.round(x);
    let r = s.sub(x, n);
    let mut sum = s.splat(TAYLOR[0]);
    for coefficient in &TAYLOR[1..] {
        sum = s.fma(sum, r, s.splat(*coefficient));
    }
    s.select(none, s.splat(0.0), s.scale(s.fma(sum, r, s.splat(1.0)), n))
}

/// `1 / (1 + e^-x)`, relatively accurate in both tails; if the result will be `ROUNDED` to bf16, within 2^-12.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd, const ROUNDED: bool>(s: S, x: S::Vector) -> S::Vector {
    let one = s.splat(1.0);
    if ROUNDED {
        // In this order NaN stays NaN.
        let exponent = s.min(s.splat(126.0), s.mul(x, s.splat(-std::f32::consts::LOG2_E)));
        return s.inverse_for_bf16(s.add(one, exp2_for_bf16(s, exponent)));
    }
    let e = exp(s, s.sub(s.splat(0.0), x));
    s.div(one, s.add(one, e))
}

/// Coefficients, lowest power first, of the exponent in `erfc(z) = t exp(-z² + poly(t))`,
/// `t = 1 / (1 + z/2)`, for `z >= 0`; relative error below 1.2e-7 everywhere.
///
/// Source: Press, Teukolsky, Vetterling, Flannery 1992, "Numerical Recipes", section 6.2.
pub(crate) const ERFC: [f64; 10] = [
    -1.265_512_23,
    1.000_023_68,
    0.374_091_96,
    0.096_784_18,
    -0.186_288_06,
    0.278_868_07,
    -1.135_203_98,
    1.488_515_87,
    -0.822_152_23,
    0.170_872_77,
];

/// Coefficients, lowest power first, of `poly(x²)` in `1 / (1 + e^(-x poly(x²)))`, which approximates the normal CDF with a
/// relative error below 2^-11 up to `x² = 25`. A minimax fit of the exponent.
const LOGIT: [f64; 6] =
    [1.594_676_659_9, 0.074_077_562_66, -5.874_176_8e-4, -2.728_577_0e-5, 1.424_574_6e-6, -2.014_162_6e-8];

/// The standard normal CDF, `(1 + erf(x / √2)) / 2`, relatively accurate in both tails. If the result will be `ROUNDED` to
/// bf16, the relative error is below 2^-11 for `x >= -5`; below that the result is between 0 and 2^-21.
#[inline(always)]
pub(crate) fn normal_cdf<S: Simd, const ROUNDED: bool>(s: S, x: S::Vector) -> S::Vector {
    if ROUNDED {
        let square = s.min(s.splat(25.0), s.mul(x, x));
        let mut sum = s.splat(LOGIT[5] as f32);
        for coefficient in LOGIT[..5].iter().rev() {
            sum = s.fma(sum, square, s.splat(*coefficient as f32));
        }
        return sigmoid::<S, true>(s, s.mul(x, sum));
    }
    let zero = s.splat(0.0);
    let one = s.splat(1.0);
    let size = s.max(s.sub(zero, x), x);
    let t = s.div(one, s.fma(size, s.splat(0.5 * std::f32::consts::FRAC_1_SQRT_2), one));
    let mut sum = s.splat(ERFC[9] as f32);
    for coefficient in ERFC[..9].iter().rev() {
        sum = s.fma(sum, t, s.splat(*coefficient as f32));
    }
    let exponent = s.fma(s.mul(x, s.splat(-0.5)), x, sum);
    let tail = s.mul(s.mul(s.splat(0.5), t), exp(s, exponent));
    s.select(s.at_least(x, zero), s.sub(one, tail), tail)
}

/// [`normal_cdf`] in plain Rust.
pub(crate) fn plain_normal_cdf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.5 * std::f64::consts::FRAC_1_SQRT_2 * x.abs());
    let sum = ERFC.iter().rev().fold(0.0, |sum, coefficient| sum * t + coefficient);
    let tail = 0.5 * t * (sum - 0.5 * x * x).exp();
    if x >= 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::simd::dispatch;

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Sigmoid,
        NormalCdf,
        Exp2Rounded,
        SigmoidRounded,
        NormalCdfRounded,
    }

    /// The probability below `x` in f64: the Taylor series near 0, the continued fraction of the tail
    /// further out (Abramowitz and Stegun 26.2.10, 26.2.14).
    fn exact_normal_cdf(x: f64) -> f64 {
        let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        if x.abs() < 4.0 {
            let (mut term, mut sum) = (x, x);
            for k in 1..200 {
                term *= x * x / f64::from(2 * k + 1);
                sum += term;
            }
            return 0.5 + density * sum;
        }
        let fraction = (1..200).rev().fold(x.abs(), |f, k| x.abs() + f64::from(k) / f);
        let tail = density / fraction;
        if x > 0.0 { 1.0 - tail } else { tail }
    }

    fn exact(function: Function, x: f64) -> f64 {
        match function {
            Function::Exp => x.exp(),
            Function::Exp2Rounded => x.exp2(),
            Function::Sigmoid | Function::SigmoidRounded => 1.0 / (1.0 + (-x).exp()),
            Function::NormalCdf | Function::NormalCdfRounded => exact_normal_cdf(x),
        }
    }

    fn plain(function: Function, x: &[f32], y: &mut [f32]) {
        x.iter().zip(y).for_each(|(x, y)| *y = exact(function, f64::from(*x)) as f32);
    }

    #[inline(always)]
    fn vector<S: Simd>(s: S, function: Function, x: &[f32], y: &mut [f32]) {
        for (x, y) in x.chunks(S::LANES).zip(y.chunks_mut(S::LANES)) {
            let x = s.load_part(x);
            s.store_part(
                y,
                match function {
                    Function::Exp => exp(s, x),
                    Function::Sigmoid => sigmoid::<S, false>(s, x),
                    Function::NormalCdf => normal_cdf::<S, false>(s, x),
                    Function::Exp2Rounded => exp2_for_bf16(s, x),
                    Function::SigmoidRounded => sigmoid::<S, true>(s, x),
                    Function::NormalCdfRounded => normal_cdf::<S, true>(s, x),
                },
            );
        }
    }

    dispatch! { fn evaluate(function: Function, x: &[f32], y: &mut [f32]) = plain | vector; }

    #[track_caller]
    fn check(function: Function, low: f32, high: f32, tolerance: f64) {
        let x: Vec<f32> = (0..=20_000).map(|i| low + (high - low) * i as f32 / 20_000.0).collect();
        for isa in Isa::supported() {
            let mut y = vec![0.0; x.len()];
            evaluate(isa, function, &x, &mut y);
            for (x, y) in x.iter().zip(y) {
                let wanted = exact(function, f64::from(*x));
                let error = (f64::from(y) - wanted).abs() / wanted;
                assert!(error <= tolerance, "{isa}: f({x}) = {y}, wanted {wanted}, relative error {error}");
            }
        }
    }

    #[test]
    fn exp_is_within_two_ulp() {
        check(Function::Exp, -87.3, 88.7, 2.0 * f64::from(f32::EPSILON) / 2.0);
    }

    #[test]
    fn sigmoid_keeps_its_relative_accuracy_in_the_tails() {
        check(Function::Sigmoid, -80.0, 80.0, 3e-7);
    }

    #[test]
    fn the_normal_distribution_keeps_its_relative_accuracy_in_the_tails() {
        check(Function::NormalCdf, -4.0, 6.0, 2e-6);
        check(Function::NormalCdf, -12.0, -4.0, 8e-6);
    }

    #[test]
    fn what_will_be_rounded_to_bf16_is_nearer_than_that() {
        let half_a_step = 1.0 / 512.0;
        check(Function::Exp2Rounded, -125.9, 126.9, half_a_step / 32.0);
        check(Function::SigmoidRounded, -80.0, 80.0, half_a_step / 8.0);
        check(Function::NormalCdfRounded, -5.0, 6.0, half_a_step / 4.0);
        for isa in Isa::supported() {
            let x = [f32::NAN, -5.5, -8.0, -12.0, -1e30];
            let mut y = [0.0; 5];
            evaluate(isa, Function::NormalCdfRounded, &x, &mut y);
            assert!(y[0].is_nan(), "{isa}");
            let below = [1e-7, 1e-10, 1e-15, 2e-38];
            assert!(y[1..].iter().zip(below).all(|(y, below)| (0.0..=below).contains(y)), "{isa}: {y:?}");
            evaluate(isa, Function::Exp2Rounded, &[f32::NAN, f32::NEG_INFINITY, -200.0, -127.0, 0.0], &mut y);
            assert!(y[0].is_nan(), "{isa}");
            let tiny = if isa == Isa::Scalar { f32::MIN_POSITIVE } else { 0.0 };
            assert!(y[1..4].iter().all(|y| (0.0..=tiny).contains(y)), "{isa}: {y:?}");
            assert_eq!(y[4], 1.0, "{isa}");
        }
    }

    #[test]
    fn special_values_pass_through() {
        let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1000.0, -1000.0, 0.0, -100.0, 88.8];
        for isa in Isa::supported() {
            let mut y = [0.0; 8];
            evaluate(isa, Function::Exp, &x, &mut y);
            assert!(y[0].is_nan(), "{isa}");
            let inf = f32::INFINITY;
            assert_eq!(y[1..6], [inf, 0.0, inf, 0.0, 1.0], "{isa}");
            // 3.8e-44 is subnormal.
            let subnormal = if isa == Isa::Scalar { (-100.0f32).exp() } else { 0.0 };
            assert_eq!(y[6..], [subnormal, inf], "{isa}");
            evaluate(isa, Function::NormalCdf, &x, &mut y);
            assert!(y[0].is_nan(), "{isa}");
            assert_eq!(y[1..5], [1.0, 0.0, 1.0, 0.0], "{isa}");
        }
    }
}
