//! Norms composed of Burn's own operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};

use super::{NormParams, SavedNorm};
use crate::ops::composed::{reshape, rows, scalar};
use crate::ops::linear::composed::column_sum;

#[allow(clippy::type_complexity)]
pub(super) fn norm_saved<B: Backend>(
    x: FloatTensor<B>,
    added: Option<FloatTensor<B>>,
    params: NormParams<B>,
    eps: f64,
) -> (Option<FloatTensor<B>>, FloatTensor<B>, SavedNorm<B>) {
    let (sum, x) = match added {
        Some(added) => {
            let sum = B::float_add(x, added);
            (Some(sum.clone()), sum)
        }
        None => (None, x),
    };
    let (y, saved) = match params {
        NormParams::Layer { weight, bias } => layer_norm::<B>(x, weight, bias, eps),
        NormParams::Rms { weight } => rms_norm::<B>(x, weight, eps),
    };
    (sum, y, saved)
}

fn layer_norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, SavedNorm<B>) {
    let shape = x.shape();
    let (x_nd, [n, d]) = rows::<B>(x.clone());
    let mean = B::float_mean_dim(x_nd.clone(), 1);
    let centred = B::float_sub(x_nd, mean.clone());
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 1);
    let rstd = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, scalar(eps))));
    let scaled = B::float_mul(B::float_mul(centred, rstd.clone()), reshape::<B>(weight.clone(), [1, d]));
    let y = B::float_reshape(B::float_add(scaled, reshape::<B>(bias, [1, d])), shape);
    let (mean, rstd) = (reshape::<B>(mean, [n]), reshape::<B>(rstd, [n]));
    (y, SavedNorm::Layer { x, weight, mean, rstd })
}

fn rms_norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, SavedNorm<B>) {
    let shape = x.shape();
    let (x_nd, [n, d]) = rows::<B>(x.clone());
    let square = B::float_mean_dim(B::float_mul(x_nd.clone(), x_nd.clone()), 1);
    let rstd = B::float_recip(B::float_sqrt(B::float_add_scalar(square, scalar(eps))));
    let scaled = B::float_mul(B::float_mul(x_nd, rstd.clone()), reshape::<B>(weight.clone(), [1, d]));
    let rstd = reshape::<B>(rstd, [n]);
    (B::float_reshape(scaled, shape), SavedNorm::Rms { x, weight, rstd })
}

pub(super) fn norm_backward<B: Backend>(
    saved: SavedNorm<B>,
    dy: FloatTensor<B>,
    past: Option<FloatTensor<B>>,
) -> (FloatTensor<B>, NormParams<B>) {
    let (dx, params) = match saved {
        SavedNorm::Layer { x, weight, mean, rstd } => layer_norm_backward::<B>(x, weight, mean, rstd, dy),
        SavedNorm::Rms { x, weight, rstd } => rms_norm_backward::<B>(x, weight, rstd, dy),
    };
    match past {
        Some(past) => (B::float_add(past, dx), params),
        None => (dx, params),
    }
}

fn layer_norm_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    mean: FloatTensor<B>,
    rstd: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> (FloatTensor<B>, NormParams<B>) {
    let shape = x.shape();
    let ((x, [n, d]), (dy, _)) = (rows::<B>(x), rows::<B>(dy));
    let (mean, rstd) = (reshape::<B>(mean, [n, 1]), reshape::<B>(rstd, [n, 1]));
    let normal = B::float_mul(B::float_sub(x, mean), rstd.clone());
    let dweight = column_sum::<B>(B::float_mul(dy.clone(), normal.clone()));
    let dbias = column_sum::<B>(dy.clone());
    let dnormal = B::float_mul(dy, reshape::<B>(weight, [1, d]));
    let along = B::float_mean_dim(B::float_mul(dnormal.clone(), normal.clone()), 1);
    let centred = B::float_sub(dnormal.clone(), B::float_mean_dim(dnormal, 1));
    let dx = B::float_mul(B::float_sub(centred, B::float_mul(normal, along)), rstd);
    (B::float_reshape(dx, shape), NormParams::Layer { weight: dweight, bias: dbias })
}

fn rms_norm_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    rstd: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> (FloatTensor<B>, NormParams<B>) {
    let shape = x.shape();
    let ((x, [n, d]), (dy, _)) = (rows::<B>(x), rows::<B>(dy));
    let rstd = reshape::<B>(rstd, [n, 1]);
    let normal = B::float_mul(x, rstd.clone());
    let dweight = column_sum::<B>(B::float_mul(dy.clone(), normal.clone()));
    let dnormal = B::float_mul(dy, reshape::<B>(weight, [1, d]));
    let along = B::float_mean_dim(B::float_mul(dnormal.clone(), normal.clone()), 1);
    let dx = B::float_mul(B::float_sub(dnormal, B::float_mul(normal, along)), rstd);
    (B::float_reshape(dx, shape), NormParams::Rms { weight: dweight })
}
