//! Norms through `andiron-kernels`.

use andiron_kernels::memory::unspecified as output;
use andiron_kernels::norm::{
    self, LayerNormGrads, LayerNormOut, LayerNormSaved, NormParams as KernelParams, RmsNormGrads,
    RmsNormSaved,
};
use andiron_kernels::residual;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{NormOps, NormParams, SavedNorm, composed};
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::ops::{OpKind, OptionalTensor};

impl<B: HostTensors> NormOps for B {
    /// The sum reuses the memory of `added` if that is unshared.
    fn residual(x: FloatTensor<Self>, added: FloatTensor<Self>) -> FloatTensor<Self> {
        let _time = OpKind::Residuals.timer();
        if !are_f32::<B>([&x, &added]) {
            return B::float_add(x, added);
        }
        let shape = x.shape();
        let mut sum = B::into_vec(added);
        residual::add(cpu(), &B::floats(&x), &mut sum);
        B::from_vec(sum, &shape)
    }

    fn norm_saved(
        x: FloatTensor<Self>,
        added: OptionalTensor<Self>,
        params: NormParams<Self>,
        eps: f64,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>, SavedNorm<Self>) {
        let _time = OpKind::Norms.timer();
        let f32s = are_f32::<B>([&x].into_iter().chain(added.as_option()));
        match params {
            NormParams::Layer { weight, bias } if f32s && are_f32::<B>([&weight, &bias]) => {
                layer_norm::<B>(x, added.into_option(), [weight, bias], eps)
            }
            NormParams::Rms { weight } if f32s && are_f32::<B>([&weight]) => {
                rms_norm::<B>(x, added.into_option(), weight, eps)
            }
            params => composed::norm_saved::<B>(x, added.into_option(), params, eps),
        }
    }

    fn norm_backward(
        saved: SavedNorm<Self>,
        dy: FloatTensor<Self>,
        past: OptionalTensor<Self>,
    ) -> (FloatTensor<Self>, NormParams<Self>) {
        let _time = OpKind::Norms.timer();
        let past = past.into_option();
        match saved {
            SavedNorm::Layer { x, weight, mean, rstd }
                if are_f32::<B>([&x, &weight, &mean, &rstd, &dy].into_iter().chain(&past)) =>
            {
                layer_norm_backward::<B>(x, weight, [mean, rstd], dy, past)
            }
            SavedNorm::Rms { x, weight, rstd }
                if are_f32::<B>([&x, &weight, &rstd, &dy].into_iter().chain(&past)) =>
            {
                rms_norm_backward::<B>(x, weight, rstd, dy, past)
            }
            saved => composed::norm_backward::<B>(saved, dy, past),
        }
    }
}

/// The last axis as rows.
fn rows<B: HostTensors>(x: &FloatTensor<B>) -> [usize; 2] {
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    [shape.num_elements() / width.max(1), width]
}

/// The sum reuses the memory of `added` if that is unshared.
#[allow(clippy::type_complexity)]
fn layer_norm<B: HostTensors>(
    x: FloatTensor<B>,
    added: Option<FloatTensor<B>>,
    [weight, bias]: [FloatTensor<B>; 2],
    eps: f64,
) -> (Option<FloatTensor<B>>, FloatTensor<B>, SavedNorm<B>) {
    let (shape, [rows, width]) = (x.shape(), rows::<B>(&x));
    let (mut y, mut mean, mut rstd) = (output(rows * width), output(rows), output(rows));
    let out = LayerNormOut { y: &mut y, mean: &mut mean, rstd: &mut rstd };
    let sum = {
        let (weight, bias) = (B::floats(&weight), B::floats(&bias));
        let params = KernelParams { weight: &weight, bias: Some(&bias), eps: eps as f32 };
        match added {
            Some(added) => {
                let mut sum = B::into_vec(added);
                norm::layer_norm_of_sum(cpu(), params, &B::floats(&x), &mut sum, out);
                Some(B::from_vec(sum, &shape))
            }
            None => {
                norm::layer_norm(cpu(), params, &B::floats(&x), out);
                None
            }
        }
    };
    let [mean, rstd] = [mean, rstd].map(|moments| B::from_vec(moments, &[rows]));
    let x = sum.clone().unwrap_or(x);
    (sum, B::from_vec(y, &shape), SavedNorm::Layer { x, weight, mean, rstd })
}

fn layer_norm_backward<B: HostTensors>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    [mean, rstd]: [FloatTensor<B>; 2],
    dy: FloatTensor<B>,
    past: Option<FloatTensor<B>>,
) -> (FloatTensor<B>, NormParams<B>) {
    let (shape, [rows, width]) = (x.shape(), rows::<B>(&x));
    let accumulate = past.is_some();
    let mut dx = past.map_or_else(|| output(rows * width), B::into_vec);
    let (mut dweight, mut dbias) = (output(width), output(width));
    let saved = LayerNormSaved {
        x: &B::floats(&x),
        weight: &B::floats(&weight),
        mean: &B::floats(&mean),
        rstd: &B::floats(&rstd),
    };
    let grads = LayerNormGrads { dx: &mut dx, accumulate, dweight: &mut dweight, dbias: &mut dbias };
    norm::layer_norm_backward(cpu(), saved, &B::floats(&dy), grads);
    let [weight, bias] = [dweight, dbias].map(|gradient| B::from_vec(gradient, &[width]));
    (B::from_vec(dx, &shape), NormParams::Layer { weight, bias })
}

/// As [`layer_norm`].
#[allow(clippy::type_complexity)]
fn rms_norm<B: HostTensors>(
    x: FloatTensor<B>,
    added: Option<FloatTensor<B>>,
    weight: FloatTensor<B>,
    eps: f64,
) -> (Option<FloatTensor<B>>, FloatTensor<B>, SavedNorm<B>) {
    let (shape, [rows, width]) = (x.shape(), rows::<B>(&x));
    let (mut y, mut rstd) = (output(rows * width), output(rows));
    let sum = {
        let weight = B::floats(&weight);
        let params = KernelParams { weight: &weight, bias: None, eps: eps as f32 };
        match added {
            Some(added) => {
                let mut sum = B::into_vec(added);
                norm::rms_norm_of_sum(cpu(), params, &B::floats(&x), &mut sum, (&mut y, &mut rstd));
                Some(B::from_vec(sum, &shape))
            }
            None => {
                norm::rms_norm(cpu(), params, &B::floats(&x), &mut y, &mut rstd);
                None
            }
        }
    };
    let x = sum.clone().unwrap_or(x);
    (sum, B::from_vec(y, &shape), SavedNorm::Rms { x, weight, rstd: B::from_vec(rstd, &[rows]) })
}

fn rms_norm_backward<B: HostTensors>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    rstd: FloatTensor<B>,
    dy: FloatTensor<B>,
    past: Option<FloatTensor<B>>,
) -> (FloatTensor<B>, NormParams<B>) {
    let (shape, [rows, width]) = (x.shape(), rows::<B>(&x));
    let accumulate = past.is_some();
    let mut dx = past.map_or_else(|| output(rows * width), B::into_vec);
    let mut dweight = output(width);
    let saved = RmsNormSaved { x: &B::floats(&x), weight: &B::floats(&weight), rstd: &B::floats(&rstd) };
    let grads = RmsNormGrads { dx: &mut dx, accumulate, dweight: &mut dweight };
    norm::rms_norm_backward(cpu(), saved, &B::floats(&dy), grads);
    (B::from_vec(dx, &shape), NormParams::Rms { weight: B::from_vec(dweight, &[width]) })
}
