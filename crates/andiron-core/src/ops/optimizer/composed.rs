//! Optimizer steps composed of Burn's own operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use super::{AdafactorStep, AdamWStep, LionStep, Matrices, MuonStep};
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

/// `tensors`: parameter, gradient, running squares; those of rows if there are `columns`.
#[allow(clippy::type_complexity)]
pub(super) fn adafactor<B: Backend>(
    tensors: [FloatTensor<B>; 3],
    columns: Option<FloatTensor<B>>,
    mean: Option<FloatTensor<B>>,
    step: AdafactorStep,
) -> (FloatTensor<B>, FloatTensor<B>, Option<FloatTensor<B>>, Option<FloatTensor<B>>) {
    let [value, grad, squares] = tensors;
    let (shape, len) = (value.shape(), value.shape().num_elements());
    let keep = 1.0 - step.share();
    let grad = B::float_mul_scalar(grad, scalar(step.grad_scale.into()));
    let square = B::float_add_scalar(B::float_mul(grad.clone(), grad.clone()), scalar(step.eps.into()));
    let (update, squares, columns) = match columns {
        None => {
            let squares = mix::<B>(squares, square, keep);
            (B::float_div(grad, B::float_sqrt(squares.clone())), squares, None)
        }
        Some(columns) => {
            let (rows, width) = (squares.shape().num_elements(), columns.shape().num_elements());
            let square = reshape::<B>(square, [rows, width]);
            let of_rows = reshape::<B>(B::float_mean_dim(square.clone(), 1), [rows]);
            let of_columns = reshape::<B>(B::float_mean_dim(square, 0), [width]);
            let (squares, columns) = (mix::<B>(squares, of_rows, keep), mix::<B>(columns, of_columns, keep));
            let row = B::float_div(squares.clone(), B::float_mean(squares.clone()));
            let row = reshape::<B>(B::float_sqrt(row), [rows, 1]);
            let column = reshape::<B>(B::float_sqrt(columns.clone()), [1, width]);
            let update = B::float_div(B::float_div(reshape::<B>(grad, [rows, width]), row), column);
            (reshape::<B>(update, shape), squares, Some(columns))
        }
    };
    let rms = |x: FloatTensor<B>| {
        B::float_sqrt(B::float_mul_scalar(square_sum::<B>(x), scalar((len as f64).recip())))
    };
    let ratio = B::float_mul_scalar(rms(update.clone()), scalar(f64::from(step.clip_threshold).recip()));
    let clipped = B::float_div(update, B::float_clamp_min(ratio, scalar(1.0)));
    let of_param =
        step.scale_parameter.then(|| B::float_clamp_min(rms(value.clone()), scalar(step.min_rms.into())));
    let times_lr = |x: FloatTensor<B>, factor: f64| {
        let scaled = B::float_mul_scalar(x, scalar(f64::from(step.lr) * factor));
        match &of_param {
            Some(of_param) => B::float_mul(scaled, of_param.clone()),
            None => scaled,
        }
    };
    let update = times_lr(clipped, 1.0);
    let mean = mean.map(|mean| mix::<B>(mean, update.clone(), step.beta1.into()));
    let decayed = B::float_sub(value.clone(), times_lr(value, step.weight_decay.into()));
    (B::float_sub(decayed, mean.clone().unwrap_or(update)), squares, columns, mean)
}

/// `tensors`: parameter, gradient, running mean.
pub(super) fn lion<B: Backend>(
    tensors: [FloatTensor<B>; 3],
    step: LionStep,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [value, grad, mean] = tensors;
    let lr = f64::from(step.lr);
    let grad = B::float_mul_scalar(grad, scalar(step.grad_scale.into()));
    let sign = B::float_sign(mix::<B>(mean.clone(), grad.clone(), step.beta1.into()));
    let kept = B::float_mul_scalar(value, scalar(1.0 - lr * f64::from(step.weight_decay)));
    let value = B::float_sub(kept, B::float_mul_scalar(sign, scalar(lr)));
    (value, mix::<B>(mean, grad, step.beta2.into()))
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

pub(super) fn lerp<B: Backend>(mean: FloatTensor<B>, x: FloatTensor<B>, share: f32) -> FloatTensor<B> {
    let apart = B::float_sub(x, mean.clone());
    B::float_add(mean, B::float_mul_scalar(apart, scalar(share.into())))
}

pub(super) fn square_sum<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sum(B::float_mul(x.clone(), x))
}
