//! The Lion optimizer step.

use crate::Cpu;
use crate::parallel::{self, Shared};
use crate::simd::{Simd, dispatch};

/// Settings of one step for one group of parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LionStep {
    /// Learning rate of this step: every element moves by it, or not at all.
    pub lr: f32,
    /// Share of the running mean in the mixture whose sign is the direction, in `[0, 1)`.
    pub beta1: f32,
    /// Decay of the running mean of gradients, in `[0, 1)`.
    pub beta2: f32,
    /// Decoupled weight decay: parameters are multiplied by `1 - lr * weight_decay` before the step.
    pub weight_decay: f32,
    /// Multiplies every gradient: 1, or the factor of gradient clipping and accumulation.
    pub grad_scale: f32,
}

/// The coefficients of a step, in f32.
#[derive(Clone, Copy)]
struct Factors {
    shrink: f32,
    lr: f32,
    beta1: f32,
    beta2: f32,
    grad_scale: f32,
}

/// Updates parameters and the running mean of gradients in place: each element moves by `lr` against the sign of
/// `beta1 · mean + (1 − beta1) · gradient`. An element for which that is 0 does not move.
///
/// Source: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", <https://arxiv.org/abs/2302.06675>.
///
/// # Panics
/// If the lengths differ.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::lion::{LionStep, step};
/// let settings = LionStep { lr: 0.1, beta1: 0.9, beta2: 0.99, weight_decay: 0.0, grad_scale: 1.0 };
/// let (mut param, mut mean) = ([1.0, 1.0, 1.0], [0.0; 3]);
/// step(Cpu::detect(1), settings, &mut param, &[3.0, 0.0, -0.001], &mut mean);
/// assert_eq!(param, [0.9, 1.0, 1.1]);
/// ```
pub fn step(cpu: Cpu, settings: LionStep, param: &mut [f32], grad: &[f32], mean: &mut [f32]) {
    let len = param.len();
    assert!(grad.len() == len && mean.len() == len, "param, grad and mean differ in length");
    let LionStep { lr, beta1, beta2, weight_decay, grad_scale } = settings;
    let shrink = (1.0 - f64::from(lr) * f64::from(weight_decay)) as f32;
    let factors = Factors { shrink, lr, beta1, beta2, grad_scale };
    let (param, mean) = (Shared::new(param), Shared::new(mean));
    parallel::rows(cpu, len, 5, 64, |part| {
        // SAFETY: the parts are disjoint.
        let (param, mean) = unsafe { (param.range(part.clone()), mean.range(part.clone())) };
        update(cpu.isa, factors, param, &grad[part], mean);
    });
}

dispatch! {
    fn update(factors: Factors, param: &mut [f32], grad: &[f32], mean: &mut [f32]) = plain | vector;
}

/// Independent elementwise arithmetic, which the compiler vectorizes. It fuses no multiply-add, so every version gives the
/// same bits.
#[inline(always)]
fn plain(factors: Factors, param: &mut [f32], grad: &[f32], mean: &mut [f32]) {
    let Factors { shrink, lr, beta1, beta2, grad_scale } = factors;
    for ((p, g), m) in param.iter_mut().zip(grad).zip(mean) {
        let g = g * grad_scale;
        let mixed = *m * beta1 + (1.0 - beta1) * g;
        let moved = if mixed == 0.0 { 0.0 } else { lr.copysign(mixed) };
        *p = *p * shrink - moved;
        *m = *m * beta2 + (1.0 - beta2) * g;
    }
}

#[inline(always)]
fn vector<S: Simd>(_: S, factors: Factors, param: &mut [f32], grad: &[f32], mean: &mut [f32]) {
    plain(factors, param, grad, mean);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers};

    /// The published algorithm in f64.
    fn exact(settings: LionStep, grads: impl Iterator<Item = f64>, mut p: f64) -> f64 {
        let LionStep { lr, beta1, beta2, weight_decay, grad_scale } = settings;
        let [lr, b1, b2, decay, scale] = [lr, beta1, beta2, weight_decay, grad_scale].map(f64::from);
        let mut m = 0.0;
        for g in grads {
            let g = g * scale;
            let mixed = b1 * m + (1.0 - b1) * g;
            let sign = if mixed == 0.0 { 0.0 } else { mixed.signum() };
            p = p * (1.0 - lr * decay) - lr * sign;
            m = b2 * m + (1.0 - b2) * g;
        }
        p
    }

    #[test]
    fn steps_follow_the_published_algorithm() {
        let n = 30_001;
        let (start, mut grads) = (numbers(1, n), [2, 3, 4].map(|stream| numbers(stream, n)));
        grads.iter_mut().for_each(|grads| grads[7] = 0.0);
        let settings = LionStep { lr: 1e-2, beta1: 0.9, beta2: 0.99, weight_decay: 0.5, grad_scale: 0.25 };
        let wanted: Vec<f64> = (0..n)
            .map(|i| exact(settings, grads.iter().map(|grads| f64::from(grads[i])), f64::from(start[i])))
            .collect();
        let mut first = None;
        for isa in Isa::supported() {
            for threads in [1, 2, 3] {
                let (mut p, mut m) = (start.clone(), vec![0.0; n]);
                for grads in &grads {
                    step(Cpu::new(isa, threads), settings, &mut p, grads, &mut m);
                }
                assert_close(&format!("{isa}"), &p, &wanted, 1e-6);
                assert_eq!(first.get_or_insert_with(|| p.clone()), &p, "{isa} with {threads} threads");
            }
        }
    }
}
