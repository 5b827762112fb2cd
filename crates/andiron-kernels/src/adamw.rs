//! The AdamW optimizer step.

use crate::Cpu;
use crate::parallel::{self, Shared};
use crate::simd::{Simd, dispatch};

/// Settings of one step for one group of parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the running mean of gradients, in `[0, 1)`.
    pub beta1: f32,
    /// Decay of the running mean of squared gradients, in `[0, 1)`.
    pub beta2: f32,
    /// Added to the root of the bias-corrected mean square.
    pub eps: f32,
    /// Decoupled weight decay: parameters are multiplied by `1 - lr * weight_decay` before the step.
    pub weight_decay: f32,
    /// Number of this step; the first is 1.
    pub step: u64,
    /// Multiplies every gradient: 1, or the factor of gradient clipping and accumulation.
    pub grad_scale: f32,
}

/// The coefficients of a step, in f32.
#[derive(Clone, Copy)]
struct Factors {
    shrink: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    grad_scale: f32,
    step_size: f32,
    root_correction: f32,
}

/// Updates parameters and both running means in place, by the formula of `torch.optim.AdamW`.
///
/// Source: Loshchilov and Hutter 2017, "Decoupled Weight Decay Regularization",
/// <https://arxiv.org/abs/1711.05101>. As there, `eps` is added after the bias correction.
///
/// # Panics
/// If the lengths differ or `settings.step` is 0.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::adamw::{AdamWStep, step};
/// let settings =
///     AdamWStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0, step: 1, grad_scale: 1.0 };
/// let (mut param, mut m, mut v) = ([1.0], [0.0], [0.0]);
/// step(Cpu::detect(1), settings, &mut param, &[3.0], &mut m, &mut v);
/// assert!((param[0] - 0.9f32).abs() < 1e-6); // the first step has the size of the learning rate
/// ```
pub fn step(cpu: Cpu, settings: AdamWStep, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
    let len = param.len();
    assert!(grad.len() == len && m.len() == len && v.len() == len, "param, grad, m and v differ in length");
    assert!(settings.step > 0, "steps are counted from 1");
    let factors = factors(settings);
    let (param, m, v) = (Shared::new(param), Shared::new(m), Shared::new(v));
    parallel::rows(cpu, len, 6, 64, |part| {
        // SAFETY: the parts are disjoint.
        let (param, m, v) =
            unsafe { (param.range(part.clone()), m.range(part.clone()), v.range(part.clone())) };
        update(cpu.isa, factors, param, &grad[part], m, v);
    });
}

fn factors(settings: AdamWStep) -> Factors {
    let AdamWStep { lr, beta1, beta2, eps, weight_decay, step, grad_scale } = settings;
    // In f64, as PyTorch computes it on the host: with `beta` near 1 the corrections cancel.
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
    Factors {
        shrink: (1.0 - f64::from(lr) * f64::from(weight_decay)) as f32,
        beta1,
        beta2,
        eps,
        grad_scale,
        step_size: (f64::from(lr) / correction(beta1)) as f32,
        root_correction: correction(beta2).sqrt() as f32,
    }
}

dispatch! {
    fn update(factors: Factors, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32])
        = plain | vector;
}

/// Independent elementwise arithmetic, which the compiler vectorizes. It fuses no multiply-add, so every version gives the
/// same bits.
#[inline(always)]
fn plain(factors: Factors, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
    let Factors { shrink, beta1, beta2, eps, grad_scale, step_size, root_correction } = factors;
    for (((p, g), m), v) in param.iter_mut().zip(grad).zip(m).zip(v) {
        let g = g * grad_scale;
        *m += (g - *m) * (1.0 - beta1);
        *v = *v * beta2 + (1.0 - beta2) * g * g;
        *p = *p * shrink - step_size * *m / (v.sqrt() / root_correction + eps);
    }
}

#[inline(always)]
fn vector<S: Simd>(_: S, factors: Factors, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
    plain(factors, param, grad, m, v);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::testing::{assert_close, numbers};

    /// The published algorithm in f64.
    fn exact(settings: AdamWStep, steps: u64, mut p: f64, g: f64) -> f64 {
        let AdamWStep { lr, beta1, beta2, eps, weight_decay, grad_scale, .. } = settings;
        let [lr, b1, b2, eps, decay, scale] =
            [lr, beta1, beta2, eps, weight_decay, grad_scale].map(f64::from);
        let (mut m, mut v) = (0.0, 0.0);
        for t in 1..=steps {
            let g = g * scale;
            p *= 1.0 - lr * decay;
            m = b1 * m + (1.0 - b1) * g;
            v = b2 * v + (1.0 - b2) * g * g;
            let (m_hat, v_hat) = (m / (1.0 - b1.powi(t as i32)), v / (1.0 - b2.powi(t as i32)));
            p -= lr * m_hat / (v_hat.sqrt() + eps);
        }
        p
    }

    #[test]
    fn steps_follow_the_published_algorithm() {
        let n = 30_001;
        let (start, grad) = (numbers(1, n), numbers(2, n));
        let settings = AdamWStep {
            lr: 1e-2,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.1,
            step: 1,
            grad_scale: 0.5,
        };
        let wanted: Vec<f64> =
            start.iter().zip(&grad).map(|(p, g)| exact(settings, 5, f64::from(*p), f64::from(*g))).collect();
        let mut first = None;
        for isa in Isa::supported() {
            for threads in [1, 2, 3] {
                let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
                for step_number in 1..=5 {
                    let settings = AdamWStep { step: step_number, ..settings };
                    step(Cpu::new(isa, threads), settings, &mut p, &grad, &mut m, &mut v);
                }
                assert_close(&format!("{isa}"), &p, &wanted, 1e-6);
                assert_eq!(first.get_or_insert_with(|| p.clone()), &p, "{isa} with {threads} threads");
            }
        }
    }
}
