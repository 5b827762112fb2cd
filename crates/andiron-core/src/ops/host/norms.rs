//! Norms over memory.

use andiron_kernels::memory::unspecified as output;
use andiron_kernels::norm::{
    self, LayerNormGrads, LayerNormOut, LayerNormSaved, NormParams, RmsNormGrads, RmsNormSaved,
};
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::HostTensors;
use super::kernels::{Three, are_f32, cpu};
use crate::ops::composed;

/// The last axis as rows.
fn rows<B: HostTensors>(x: &FloatTensor<B>) -> [usize; 2] {
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    [shape.num_elements() / width.max(1), width]
}

fn onto<B: HostTensors>(past: Option<FloatTensor<B>>, gradient: FloatTensor<B>) -> FloatTensor<B> {
    match past {
        Some(past) => B::float_add(past, gradient),
        None => gradient,
    }
}

pub(super) fn layer_norm_with_moments<B: HostTensors>(
    x: FloatTensor<B>,
    gain: FloatTensor<B>,
    offset: FloatTensor<B>,
    eps: f64,
) -> Three<B> {
    if !are_f32::<B>(&[&x, &gain, &offset]) {
        return composed::layer_norm_with_moments::<B>(x, gain, offset, eps);
    }
    let (shape, [rows, width]) = (x.shape(), rows::<B>(&x));
    let (mut y, mut mean, mut rstd) = (output(rows * width), output(rows), output(rows));
    let (gain, offset) = (B::floats(&gain), B::floats(&offset));
    let params = NormParams { gamma: &gain, beta: Some(&offset), eps: eps as f32 };
    let out = LayerNormOut { y: &mut y, mean: &mut mean, rstd: &mut rstd };
    norm::layer_norm(cpu(), params, &B::floats(&x), out);
    (B::from_vec(y, &shape), B::from_vec(mean, &[rows]), B::from_vec(rstd, &[rows]))
}

/// The sum takes the memory of `added`, if nobody else holds that.
pub(super) fn layer_norm_of_sum_with_moments<B: HostTensors>(
    x: FloatTensor<B>,
    added: FloatTensor<B>,
    [gain, offset]: [FloatTensor<B>; 2],
    eps: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    if !are_f32::<B>(&[&x, &added, &gain, &offset]) {
        let sum = B::float_add(x, added);
        let (y, mean, rstd) = composed::layer_norm_with_moments::<B>(sum.clone(), gain, offset, eps);
        return (sum, y, mean, rstd);
    }
    let (shape, [rows, width]) = (x.shape(), rows::<B>(&x));
    let (mut y, mut mean, mut rstd) = (output(rows * width), output(rows), output(rows));
    let mut sum = B::into_vec(added);
    let (gain, offset) = (B::floats(&gain), B::floats(&offset));
    let params = NormParams { gamma: &gain, beta: Some(&offset), eps: eps as f32 };
    let out = LayerNormOut { y: &mut y, mean: &mut mean, rstd: &mut rstd };
    norm::layer_norm_of_sum(cpu(), params, &B::floats(&x), &mut sum, out);
    let [mean, rstd] = [mean, rstd].map(|moments| B::from_vec(moments, &[rows]));
    (B::from_vec(sum, &shape), B::from_vec(y, &shape), mean, rstd)
}

pub(super) fn layer_norm_backward<B: HostTensors>(
    x: FloatTensor<B>,
    gain: FloatTensor<B>,
    mean: FloatTensor<B>,
    rstd: FloatTensor<B>,
    dy: FloatTensor<B>,
    past: Option<FloatTensor<B>>,
) -> Three<B> {
    if !are_f32::<B>(&[&x, &gain, &mean, &rstd, &dy]) {
        let (dx, dgain, doffset) = composed::layer_norm_backward::<B>(x, gain, mean, rstd, dy);
        return (onto::<B>(past, dx), dgain, doffset);
    }
    let (shape, [rows, width]) = (x.shape(), rows::<B>(&x));
    let accumulate = past.is_some();
    let mut dx = past.map_or_else(|| output(rows * width), B::into_vec);
    let (mut dgain, mut doffset) = (output(width), output(width));
    let saved = LayerNormSaved {
        x: &B::floats(&x),
        gamma: &B::floats(&gain),
        mean: &B::floats(&mean),
        rstd: &B::floats(&rstd),
    };
    let grads = LayerNormGrads { dx: &mut dx, accumulate, dgamma: &mut dgain, dbeta: &mut doffset };
    norm::layer_norm_backward(cpu(), saved, &B::floats(&dy), grads);
    (B::from_vec(dx, &shape), B::from_vec(dgain, &[width]), B::from_vec(doffset, &[width]))
}

pub(super) fn rms_norm_with_rstd<B: HostTensors>(
    x: FloatTensor<B>,
    gain: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    if !are_f32::<B>(&[&x, &gain]) {
        return composed::rms_norm_with_rstd::<B>(x, gain, eps);
    }
    let (shape, [rows, width]) = (x.shape(), rows::<B>(&x));
    let (mut y, mut rstd) = (output(rows * width), output(rows));
    let gain = B::floats(&gain);
    let params = NormParams { gamma: &gain, beta: None, eps: eps as f32 };
    norm::rms_norm(cpu(), params, &B::floats(&x), &mut y, &mut rstd);
    (B::from_vec(y, &shape), B::from_vec(rstd, &[rows]))
}

/// The sum takes the memory of `added`, if nobody else holds that.
pub(super) fn rms_norm_of_sum_with_rstd<B: HostTensors>(
    x: FloatTensor<B>,
    added: FloatTensor<B>,
    gain: FloatTensor<B>,
    eps: f64,
) -> Three<B> {
    if !are_f32::<B>(&[&x, &added, &gain]) {
        let sum = B::float_add(x, added);
        let (y, rstd) = composed::rms_norm_with_rstd::<B>(sum.clone(), gain, eps);
        return (sum, y, rstd);
    }
    let (shape, [rows, width]) = (x.shape(), rows::<B>(&x));
    let (mut y, mut rstd, mut sum) = (output(rows * width), output(rows), B::into_vec(added));
    let gain = B::floats(&gain);
    let params = NormParams { gamma: &gain, beta: None, eps: eps as f32 };
    norm::rms_norm_of_sum(cpu(), params, &B::floats(&x), &mut sum, (&mut y, &mut rstd));
    (B::from_vec(sum, &shape), B::from_vec(y, &shape), B::from_vec(rstd, &[rows]))
}

pub(super) fn rms_norm_backward<B: HostTensors>(
    x: FloatTensor<B>,
    gain: FloatTensor<B>,
    rstd: FloatTensor<B>,
    dy: FloatTensor<B>,
    past: Option<FloatTensor<B>>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    if !are_f32::<B>(&[&x, &gain, &rstd, &dy]) {
        let (dx, dgain) = composed::rms_norm_backward::<B>(x, gain, rstd, dy);
        return (onto::<B>(past, dx), dgain);
    }
    let (shape, [rows, width]) = (x.shape(), rows::<B>(&x));
    let accumulate = past.is_some();
    let mut dx = past.map_or_else(|| output(rows * width), B::into_vec);
    let mut dgain = output(width);
    let saved = RmsNormSaved { x: &B::floats(&x), gamma: &B::floats(&gain), rstd: &B::floats(&rstd) };
    let grads = RmsNormGrads { dx: &mut dx, accumulate, dgamma: &mut dgain };
    norm::rms_norm_backward(cpu(), saved, &B::floats(&dy), grads);
    (B::from_vec(dx, &shape), B::from_vec(dgain, &[width]))
}
