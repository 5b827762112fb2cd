//! Activation functions, element by element.

use crate::Cpu;
use crate::parallel::{self, Shared};
use crate::simd::{Simd, dispatch, exp, exp2_for_bf16, normal_cdf, plain_normal_cdf, sigmoid};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x Φ(x) = x (1 + erf(x / √2)) / 2`, the Gaussian error linear unit: Hugging Face's `gelu`.
    ///
    /// Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units", <https://arxiv.org/abs/1606.08415>.
    GeluErf,
    /// Its usual approximation `x σ(2u)`, `u = √(2/π) (x + 0.044715 x³)`, which equals `x (1 + tanh u) / 2`: Hugging
    /// Face's `gelu_new`. Source: as for [`GeluErf`](Self::GeluErf).
    GeluTanh,
    /// `x σ(x)`, also called swish. Source: Elfwing, Uchibe and Doya 2018, <https://arxiv.org/abs/1702.03118>.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

const SQRT_2_OVER_PI: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
const CUBIC: f64 = 0.044_715;
const DENSITY_AT_0: f64 = 0.398_942_280_401_432_7;
/// Beyond this the tanh form is constant in f32, while its polynomial would overflow for huge inputs.
const FLAT: f64 = 30.0;

/// Cost of an element in units of [`parallel::rows`].
const WORK: usize = 8;
/// Elements per chunk in the backward pass of a gate.
const BLOCK: usize = 512;

/// `y = f(x)`. NaN stays NaN.
///
/// # Panics
/// If the lengths differ.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::activation::{Activation, forward};
/// let mut y = [0.0; 2];
/// forward(Cpu::detect(1), Activation::Relu, &[-1.0, 2.0], &mut y);
/// assert_eq!(y, [0.0, 2.0]);
/// ```
pub fn forward(cpu: Cpu, activation: Activation, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "x and y differ in length");
    let y = Shared::new(y);
    parallel::rows(cpu, x.len(), WORK, 64, |part| {
        // SAFETY: the parts are disjoint.
        let y = unsafe { y.range(part.clone()) };
        apply(cpu.isa, activation, &x[part], y);
    });
}

/// `dx = f'(x) dy`.
///
/// # Panics
/// If the lengths differ.
pub fn backward(cpu: Cpu, activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dy.len() && x.len() == dx.len(), "x, dy and dx differ in length");
    let dx = Shared::new(dx);
    parallel::rows(cpu, x.len(), 2 * WORK, 64, |part| {
        // SAFETY: the parts are disjoint.
        let dx = unsafe { dx.range(part.clone()) };
        apply_slope(cpu.isa, activation, &x[part.clone()], &dy[part], dx);
    });
}

/// `y = f(x) up`, the gate of gated feed-forward layers.
///
/// Source: Shazeer 2020, "GLU Variants Improve Transformer", <https://arxiv.org/abs/2002.05202>.
///
/// # Panics
/// If the lengths differ.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::activation::{Activation, gate};
/// let mut y = [0.0; 2];
/// gate(Cpu::detect(1), Activation::Relu, &[-1.0, 2.0], &[5.0, 5.0], &mut y);
/// assert_eq!(y, [0.0, 10.0]);
/// ```
pub fn gate(cpu: Cpu, activation: Activation, x: &[f32], up: &[f32], y: &mut [f32]) {
    assert!(x.len() == up.len() && x.len() == y.len(), "x, up and y differ in length");
    let y = Shared::new(y);
    parallel::rows(cpu, x.len(), WORK, 64, |part| {
        // SAFETY: the parts are disjoint.
        let y = unsafe { y.range(part.clone()) };
        apply_gate(cpu.isa, activation, &x[part.clone()], &up[part], y);
    });
}

/// Gradients of [`gate`]: `dx = f'(x) up dy`, `dup = f(x) dy`.
///
/// # Panics
/// If the lengths differ.
pub fn gate_backward(
    cpu: Cpu,
    activation: Activation,
    (x, up): (&[f32], &[f32]),
    dy: &[f32],
    (dx, dup): (&mut [f32], &mut [f32]),
) {
    assert!(x.len() == up.len() && x.len() == dy.len(), "x, up and dy differ in length");
    assert!(x.len() == dx.len() && x.len() == dup.len(), "x, dx and dup differ in length");
    let (dx, dup) = (Shared::new(dx), Shared::new(dup));
    parallel::rows(cpu, x.len(), 3 * WORK, BLOCK, |part| {
        for start in part.clone().step_by(BLOCK) {
            let part = start..part.end.min(start + BLOCK);
            // SAFETY: the parts are disjoint.
            let (dx, dup) = unsafe { (dx.range(part.clone()), dup.range(part.clone())) };
            let (x, dy) = (&x[part.clone()], &dy[part.clone()]);
            apply_gate(cpu.isa, activation, x, dy, dup);
            let mut slope = [0.0; BLOCK];
            let slope = &mut slope[..x.len()];
            apply_slope(cpu.isa, activation, x, dy, slope);
            dx.iter_mut().zip(slope).zip(&up[part]).for_each(|((dx, slope), up)| *dx = *slope * up);
        }
    });
}

impl Activation {
    /// The function in plain Rust.
    pub(crate) fn value(self, x: f64) -> f64 {
        match self {
            Self::GeluTanh => x * plain_sigmoid(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x)),
            Self::GeluErf => x * plain_normal_cdf(x),
            Self::Silu => x * plain_sigmoid(x),
            Self::Relu => {
                if x <= 0.0 {
                    0.0
                } else {
                    x
                }
            }
        }
    }

    /// Its derivative in plain Rust.
    pub(crate) fn slope(self, x: f64) -> f64 {
        match self {
            Self::GeluTanh => {
                let s = plain_sigmoid(2.0 * SQRT_2_OVER_PI * (x + CUBIC * x * x * x));
                let near = x.clamp(-FLAT, FLAT);
                s + near * s * (1.0 - s) * 2.0 * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * near * near)
            }
            Self::GeluErf => plain_normal_cdf(x) + x * DENSITY_AT_0 * (-0.5 * x * x).exp(),
            Self::Silu => {
                let s = plain_sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }
            Self::Relu => {
                if x <= 0.0 {
                    0.0
                } else {
                    1.0
                }
            }
        }
    }
}

fn plain_sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

dispatch! { fn apply(activation: Activation, x: &[f32], y: &mut [f32]) = apply_scalar | apply_vector; }
dispatch! {
    fn apply_gate(activation: Activation, x: &[f32], up: &[f32], y: &mut [f32])
        = apply_gate_scalar | apply_gate_vector;
}
dispatch! {
    fn apply_slope(activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32])
        = apply_slope_scalar | apply_slope_vector;
}

fn apply_scalar(activation: Activation, x: &[f32], y: &mut [f32]) {
    x.iter().zip(y).for_each(|(x, y)| *y = activation.value(f64::from(*x)) as f32);
}

fn apply_slope_scalar(activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    for ((x, dy), dx) in x.iter().zip(dy).zip(dx) {
        *dx = (activation.slope(f64::from(*x)) * f64::from(*dy)) as f32;
    }
}

fn apply_gate_scalar(activation: Activation, x: &[f32], up: &[f32], y: &mut [f32]) {
    for ((x, up), y) in x.iter().zip(up).zip(y) {
        *y = (activation.value(f64::from(*x)) * f64::from(*up)) as f32;
    }
}

#[inline(always)]
fn apply_vector<S: Simd>(s: S, activation: Activation, x: &[f32], y: &mut [f32]) {
    match activation {
        Activation::GeluTanh => map(s, GeluTanh, x, y),
        Activation::GeluErf => map(s, GeluErf, x, y),
        Activation::Silu => map(s, Silu, x, y),
        Activation::Relu => map(s, Relu, x, y),
    }
}

#[inline(always)]
fn apply_gate_vector<S: Simd>(s: S, activation: Activation, x: &[f32], up: &[f32], y: &mut [f32]) {
    match activation {
        Activation::GeluTanh => map_two(s, Gate(GeluTanh), x, up, y),
        Activation::GeluErf => map_two(s, Gate(GeluErf), x, up, y),
        Activation::Silu => map_two(s, Gate(Silu), x, up, y),
        Activation::Relu => map_two(s, Gate(Relu), x, up, y),
    }
}

#[inline(always)]
fn apply_slope_vector<S: Simd>(s: S, activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    match activation {
        Activation::GeluTanh => map_two(s, Slope(GeluTanh), x, dy, dx),
        Activation::GeluErf => map_two(s, Slope(GeluErf), x, dy, dx),
        Activation::Silu => map_two(s, Slope(Silu), x, dy, dx),
        Activation::Relu => map_two(s, Slope(Relu), x, dy, dx),
    }
}

/// Calls `$run` with the activation as a [`Function`].
#[cfg(target_arch = "x86_64")]
macro_rules! with_function {
    ($activation:expr, $f:ident => $run:expr) => {
        match $activation {
            $crate::activation::Activation::GeluTanh => {
                let $f = $crate::activation::GeluTanh;
                $run
            }
            $crate::activation::Activation::GeluErf => {
                let $f = $crate::activation::GeluErf;
                $run
            }
            $crate::activation::Activation::Silu => {
                let $f = $crate::activation::Silu;
                $run
            }
            $crate::activation::Activation::Relu => {
                let $f = $crate::activation::Relu;
                $run
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(crate) use with_function;

/// A function on vectors.
pub(crate) trait Function: Copy {
    fn value<S: Simd, const ROUNDED: bool>(self, s: S, x: S::Vector) -> S::Vector;
    /// The derivative times `dy`.
    fn slope<S: Simd, const ROUNDED: bool>(self, s: S, x: S::Vector, dy: S::Vector) -> S::Vector;
}

#[inline(always)]
fn map<S: Simd, F: Function>(s: S, f: F, x: &[f32], y: &mut [f32]) {
    let (mut x, mut y) = (x.chunks_exact(S::LANES), y.chunks_exact_mut(S::LANES));
    for (x, y) in (&mut x).zip(&mut y) {
        s.store(y, f.value::<S, false>(s, s.load(x)));
    }
    s.store_part(y.into_remainder(), f.value::<S, false>(s, s.load_part(x.remainder())));
}

/// A function of two vectors.
trait OfTwo: Copy {
    fn of<S: Simd>(self, s: S, x: S::Vector, y: S::Vector) -> S::Vector;
}

/// The derivative at the first, times the second.
#[derive(Clone, Copy)]
struct Slope<F>(F);

impl<F: Function> OfTwo for Slope<F> {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::Vector, dy: S::Vector) -> S::Vector {
        self.0.slope::<S, false>(s, x, dy)
    }
}

/// The value at the first, times the second.
#[derive(Clone, Copy)]
struct Gate<F>(F);

impl<F: Function> OfTwo for Gate<F> {
    #[inline(always)]
    fn of<S: Simd>(self, s: S, x: S::Vector, up: S::Vector) -> S::Vector {
        s.mul(self.0.value::<S, false>(s, x), up)
    }
}

#[inline(always)]
fn map_two<S: Simd, F: OfTwo>(s: S, f: F, x: &[f32], y: &[f32], to: &mut [f32]) {
    let (mut x, mut y) = (x.chunks_exact(S::LANES), y.chunks_exact(S::LANES));
    let mut to = to.chunks_exact_mut(S::LANES);
    for ((x, y), to) in (&mut x).zip(&mut y).zip(&mut to) {
        s.store(to, f.of(s, s.load(x), s.load(y)));
    }
    let last = f.of(s, s.load_part(x.remainder()), s.load_part(y.remainder()));
    s.store_part(to.into_remainder(), last);
}

#[derive(Clone, Copy)]
pub(crate) struct GeluTanh;

impl GeluTanh {
    /// `σ(2u)`.
    #[inline(always)]
    fn gate<S: Simd, const ROUNDED: bool>(s: S, x: S::Vector) -> S::Vector {
        let square = s.mul(x, x);
        let inner = s.fma(
            square,
            s.splat((2.0 * SQRT_2_OVER_PI * CUBIC) as f32),
            s.splat((2.0 * SQRT_2_OVER_PI) as f32),
        );
        sigmoid::<S, ROUNDED>(s, s.mul(x, inner))
    }
}

impl Function for GeluTanh {
    #[inline(always)]
    fn value<S: Simd, const ROUNDED: bool>(self, s: S, x: S::Vector) -> S::Vector {
        s.mul(x, Self::gate::<S, ROUNDED>(s, x))
    }

    #[inline(always)]
    fn slope<S: Simd, const ROUNDED: bool>(self, s: S, x: S::Vector, dy: S::Vector) -> S::Vector {
        let gate = Self::gate::<S, ROUNDED>(s, x);
        let near = s.max(s.splat(-FLAT as f32), s.min(s.splat(FLAT as f32), x));
        let square = s.mul(near, near);
        let inner = s.fma(
            square,
            s.splat((6.0 * SQRT_2_OVER_PI * CUBIC) as f32),
            s.splat((2.0 * SQRT_2_OVER_PI) as f32),
        );
        let rest = s.mul(gate, s.sub(s.splat(1.0), gate));
        s.mul(dy, s.fma(s.mul(near, inner), rest, gate))
    }
}

#[derive(Clone, Copy)]
pub(crate) struct GeluErf;

impl Function for GeluErf {
    #[inline(always)]
    fn value<S: Simd, const ROUNDED: bool>(self, s: S, x: S::Vector) -> S::Vector {
        s.mul(x, normal_cdf::<S, ROUNDED>(s, x))
    }

    #[inline(always)]
    fn slope<S: Simd, const ROUNDED: bool>(self, s: S, x: S::Vector, dy: S::Vector) -> S::Vector {
        let exponent = s.mul(s.mul(x, s.splat(-0.5)), x);
        let exponential = match ROUNDED {
            true => exp2_for_bf16(s, s.mul(exponent, s.splat(std::f32::consts::LOG2_E))),
            false => exp(s, exponent),
        };
        let density = s.mul(s.splat(DENSITY_AT_0 as f32), exponential);
        s.mul(dy, s.fma(x, density, normal_cdf::<S, ROUNDED>(s, x)))
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Silu;

impl Function for Silu {
    #[inline(always)]
    fn value<S: Simd, const ROUNDED: bool>(self, s: S, x: S::Vector) -> S::Vector {
        s.mul(x, sigmoid::<S, ROUNDED>(s, x))
    }

    #[inline(always)]
    fn slope<S: Simd, const ROUNDED: bool>(self, s: S, x: S::Vector, dy: S::Vector) -> S::Vector {
        let gate = sigmoid::<S, ROUNDED>(s, x);
        let one = s.splat(1.0);
        s.mul(dy, s.mul(gate, s.fma(x, s.sub(one, gate), one)))
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Relu;

impl Function for Relu {
    #[inline(always)]
    fn value<S: Simd, const ROUNDED: bool>(self, s: S, x: S::Vector) -> S::Vector {
        s.max(s.splat(0.0), x)
    }

    #[inline(always)]
    fn slope<S: Simd, const ROUNDED: bool>(self, s: S, x: S::Vector, dy: S::Vector) -> S::Vector {
        let zero = s.splat(0.0);
        s.select(s.at_least(zero, x), zero, dy)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers, wide};

    const ALL: [Activation; 4] =
        [Activation::GeluTanh, Activation::GeluErf, Activation::Silu, Activation::Relu];
    const TOLERANCE: f64 = 1e-6;

    #[track_caller]
    fn check(x: &[f32]) {
        let (dy, up) = (numbers(3, x.len()), numbers(4, x.len()));
        for activation in ALL {
            let value: Vec<f64> = x.iter().map(|x| activation.value(f64::from(*x))).collect();
            let slope: Vec<f64> =
                x.iter().zip(&dy).map(|(x, dy)| activation.slope(f64::from(*x)) * f64::from(*dy)).collect();
            for isa in Isa::supported() {
                for threads in [1, 3] {
                    let cpu = Cpu::new(isa, threads);
                    let (mut y, mut dx) = (vec![9.0; x.len()], vec![9.0; x.len()]);
                    forward(cpu, activation, x, &mut y);
                    backward(cpu, activation, x, &dy, &mut dx);
                    let (mut gated, mut gate_dx, mut dup) = (y.clone(), y.clone(), y.clone());
                    gate(cpu, activation, x, &up, &mut gated);
                    gate_backward(cpu, activation, (x, &up), &dy, (&mut gate_dx, &mut dup));
                    assert_close(&format!("{isa} {activation:?}"), &y, &value, TOLERANCE);
                    assert_close(&format!("{isa} {activation:?} slope"), &dx, &slope, 2.0 * TOLERANCE);
                    let times = |a: &[f64], b: &[f32]| -> Vec<f64> {
                        a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).collect()
                    };
                    // Where the result overflows f32, the two may overflow differently.
                    let check = |what: &str, found: &[f32], wanted: Vec<f64>| {
                        let fits = wanted.iter().all(|x| x.is_nan() || x.abs() < f64::from(f32::MAX) / 2.0);
                        if fits {
                            assert_close(
                                &format!("{isa} {activation:?} {what}"),
                                found,
                                &wanted,
                                8.0 * TOLERANCE,
                            );
                        }
                    };
                    check("gate", &gated, times(&value, &up));
                    check("gate's dx", &gate_dx, times(&slope, &up));
                    check("gate's dup", &dup, times(&value, &dy));
                }
            }
        }
    }

    #[test]
    fn slopes_are_the_derivatives_of_the_values() {
        for activation in ALL {
            for i in -600..600 {
                let x = f64::from(i) / 100.0 + 0.003;
                let step = 1e-5;
                let slope = (activation.value(x + step) - activation.value(x - step)) / (2.0 * step);
                // The CDF is accurate to 1.2e-7, which bounds the accuracy of its differences.
                assert!((slope - activation.slope(x)).abs() < 1e-5, "{activation:?} at {x}");
            }
        }
    }

    #[test]
    fn the_tanh_form_is_the_published_formula() {
        for x in [-3.0f64, -0.5, 0.0, 1.0, 2.5] {
            let tanh = (SQRT_2_OVER_PI * (x + CUBIC * x.powi(3))).tanh();
            assert!((Activation::GeluTanh.value(x) - 0.5 * x * (1.0 + tanh)).abs() < 1e-14);
        }
    }

    #[test]
    fn huge_values_and_nan_pass() {
        check(&[1e30, -1e30, 50.0, -50.0, f32::MAX, f32::MIN, 0.0, -0.0, f32::NAN, 1e-40]);
    }

    #[test]
    fn long_inputs_are_shared_between_threads() {
        check(&numbers(1, 50_001));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_path_equals_the_plain_one(n in 0usize..70, spread in 0.1f32..20.0, stream: u64) {
            let x: Vec<f32> = numbers(stream, n).iter().map(|x| x * spread).collect();
            check(&x);
            prop_assert_eq!(wide(&x).len(), n);
        }
    }
}
