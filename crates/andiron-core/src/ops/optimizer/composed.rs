//! Optimizer steps composed of Burn's own operations.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::{AdamWStep, Matrices, MuonStep};
use crate::ops::composed::{reshape, scalar};

/// `tensors`: parameter, gradient, running mean, running square.
pub(super) fn adamw<B: Backend>(
    tensors: [FloatTensor<B>; 4],
    step: AdamWStep,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let [value, grad, mean, square] = tensors;
    let (beta1, beta2, lr) = (f64::from(step.beta1), f64::from(step.beta2), f64::from(step.lr));
    let grad = B::float_mul_scalar(grad, scalar(step.grad_scale.into()));
    let mean = mix::<B>(mean, grad.clone(), beta1);
    let square = mix::<B>(square, B::float_mul(grad.clone(), grad), beta2);
    let exponent = step.step.min(i32::MAX as u64) as i32;
    let (correct1, correct2) = (1.0 - beta1.powi(exponent), 1.0 - beta2.powi(exponent));
    let root = B::float_mul_scalar(B::float_sqrt(square.clone()), scalar(correct2.sqrt().recip()));
    let update = B::float_div(mean.clone(), B::float_add_scalar(root, scalar(step.eps.into())));
    let kept = B::float_mul_scalar(value, scalar(1.0 - lr * f64::from(step.weight_decay)));
    let value = B::float_sub(kept, B::float_mul_scalar(update, scalar(lr / correct1)));
    (value, mean, square)
}

/// `share · old + (1 − share) · new`.
fn mix<B: Backend>(old: FloatTensor<B>, new: FloatTensor<B>, share: f64) -> FloatTensor<B> {
    B::float_add(B::float_mul_scalar(old, scalar(share)), B::float_mul_scalar(new, scalar(1.0 - share)))
}

pub(super) fn muon_direction<B: Backend>(
    grad: FloatTensor<B>,
    momentum: FloatTensor<B>,
    step: MuonStep,
    matrices: Matrices,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let share = step.momentum.into();
    let grad = B::float_mul_scalar(grad, scalar(step.grad_scale.into()));
    let momentum = mix::<B>(momentum, grad.clone(), share);
    let mixed = if step.nesterov { mix::<B>(momentum.clone(), grad, share) } else { momentum.clone() };
    let Matrices { count, rows, cols, run } = matrices;
    let turns = (rows * cols).checked_div(run).unwrap_or(0);
    let apart = B::float_swap_dims(reshape::<B>(mixed, [turns, count, run]), 0, 1);
    let square = B::float_mul(apart.clone(), apart.clone());
    let square_sum = B::float_sum_dim(reshape::<B>(square, [count, 1, rows * cols]), 2);
    let norm = B::float_clamp_min(B::float_sqrt(square_sum), scalar(step.eps.into()));
    let mut x = B::float_div(reshape::<B>(apart, [count, rows, cols]), norm);
    if rows > cols {
        x = B::float_swap_dims(x, 1, 2);
    }
    let [a, b, c] = step.ns_coefficients.map(|coefficient| scalar(coefficient.into()));
    for _ in 0..step.ns_steps {
        let gram = B::float_matmul(x.clone(), B::float_swap_dims(x.clone(), 1, 2));
        let square = B::float_matmul(gram.clone(), gram.clone());
        let factor = B::float_add(B::float_mul_scalar(gram, b), B::float_mul_scalar(square, c));
        x = B::float_add(B::float_mul_scalar(x.clone(), a), B::float_matmul(factor, x));
    }
    if rows > cols {
        x = B::float_swap_dims(x, 1, 2);
    }
    let together = B::float_swap_dims(reshape::<B>(x, [count, turns, run]), 0, 1);
    (reshape::<B>(together, [count * rows * cols]), momentum)
}

pub(super) fn sgd_step<B: Backend>(
    value: FloatTensor<B>,
    direction: FloatTensor<B>,
    keep: f32,
    size: f32,
) -> FloatTensor<B> {
    let kept = B::float_mul_scalar(value, scalar(keep.into()));
    B::float_sub(kept, B::float_mul_scalar(direction, scalar(size.into())))
}

pub(super) fn square_sum<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sum(B::float_mul(x.clone(), x))
}
