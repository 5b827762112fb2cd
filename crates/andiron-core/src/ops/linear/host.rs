//! Linear projections through `andiron-kernels`.

use andiron_kernels::affine::{self, AffineGrads};
use andiron_kernels::gemm::{self, Epilogue, MatRef};
use andiron_kernels::memory::unspecified as output;
use andiron_kernels::{quant, reduce};
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{LinearGrads, LinearOps, LinearWeight, WeightLayout, composed};
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::ops::{OpKind, OptionalTensor};
use crate::precision::Precision;
use crate::quant::QuantMatrix;

impl<B: HostTensors> LinearOps for B {
    fn project(
        x: FloatTensor<Self>,
        weight: LinearWeight<Self>,
        bias: OptionalTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let _time = OpKind::Matmul.timer();
        let f32s = are_f32::<B>([&x].into_iter().chain(bias.as_option()));
        match &weight {
            LinearWeight::Dense { weight, layout } if f32s && are_f32::<B>([weight]) => {
                let bias = bias.as_option().map(B::floats);
                dense::<B>(&x, (weight, *layout), bias.as_deref(), precision)
            }
            LinearWeight::Quantized { matrix } if f32s => {
                let bias = bias.as_option().map(B::floats);
                quantized::<B>(&x, matrix, bias.as_deref(), precision)
            }
            _ => composed::linear::<B>(x, weight, bias.into_option()),
        }
    }

    fn project_backward(
        x: FloatTensor<Self>,
        weight: LinearWeight<Self>,
        dy: FloatTensor<Self>,
        wanted: LinearGrads,
        precision: Precision,
    ) -> (Option<FloatTensor<Self>>, Option<FloatTensor<Self>>, Option<FloatTensor<Self>>) {
        let _time = OpKind::Matmul.timer();
        match &weight {
            LinearWeight::Dense { weight, layout } if are_f32::<B>([&x, weight, &dy]) => {
                let weight = (weight, *layout);
                // One pass for both is cheaper.
                if wanted.x && wanted.weight {
                    return all_gradients::<B>(&x, weight, &dy, wanted.bias, precision);
                }
                let (weight, layout) = weight;
                let back = (weight, layout.transposed());
                let dx = wanted.x.then(|| dense::<B>(&dy, back, None, precision));
                let dweight = wanted.weight.then(|| weight_grad::<B>(&x, &dy, layout, precision));
                (dx, dweight, wanted.bias.then(|| column_sum::<B>(&dy)))
            }
            LinearWeight::Quantized { matrix } if are_f32::<B>([&dy]) => {
                let dx = wanted.x.then(|| input_gradient::<B>(&dy, matrix, precision));
                (dx, None, wanted.bias.then(|| column_sum::<B>(&dy)))
            }
            _ => composed::linear_backward::<B>(x, weight, dy, wanted),
        }
    }
}

/// A weight seen as `[d_input, d_output]`.
pub(in crate::ops) fn as_in_out(weight: &[f32], shape: [usize; 2], layout: WeightLayout) -> MatRef<'_> {
    let stored = MatRef::row_major(weight, shape[0], shape[1]);
    match layout {
        WeightLayout::InOut => stored,
        WeightLayout::OutIn => stored.t(),
    }
}

fn dense<B: HostTensors>(
    x: &FloatTensor<B>,
    (weight, layout): (&FloatTensor<B>, WeightLayout),
    bias: Option<&[f32]>,
    precision: Precision,
) -> FloatTensor<B> {
    let [rows, d_input] = x.shape().dims();
    let (xs, ws) = (B::floats(x), B::floats(weight));
    let weight = as_in_out(&ws, weight.shape().dims(), layout);
    let d_output = weight.cols;
    let mut y = output(rows * d_output);
    let epilogue = Epilogue { bias, accumulate: false };
    gemm::matmul(cpu().at(precision), MatRef::row_major(&xs, rows, d_input), weight, epilogue, &mut y);
    B::from_vec(y, &[rows, d_output])
}

fn quantized<B: HostTensors>(
    x: &FloatTensor<B>,
    weight: &QuantMatrix,
    bias: Option<&[f32]>,
    precision: Precision,
) -> FloatTensor<B> {
    let ([rows, _], [d_output, _]) = (x.shape().dims::<2>(), weight.dims());
    let mut y = output(rows * d_output);
    quant::matmul(cpu().at(precision), &B::floats(x), weight.as_ref(), bias, &mut y);
    B::from_vec(y, &[rows, d_output])
}

fn input_gradient<B: HostTensors>(
    dy: &FloatTensor<B>,
    weight: &QuantMatrix,
    precision: Precision,
) -> FloatTensor<B> {
    let ([rows, _], [_, d_input]) = (dy.shape().dims::<2>(), weight.dims());
    let mut dx = output(rows * d_input);
    quant::input_gradient(cpu().at(precision), &B::floats(dy), weight.as_ref(), &mut dx);
    B::from_vec(dx, &[rows, d_input])
}

/// Gradients of input and weight, and of the bias if that is wanted.
#[allow(clippy::type_complexity)]
fn all_gradients<B: HostTensors>(
    x: &FloatTensor<B>,
    (weight, layout): (&FloatTensor<B>, WeightLayout),
    dy: &FloatTensor<B>,
    with_bias: bool,
    precision: Precision,
) -> (Option<FloatTensor<B>>, Option<FloatTensor<B>>, Option<FloatTensor<B>>) {
    let [x_shape, w_shape, [_, d_output]] = [x, weight, dy].map(|tensor| tensor.shape().dims::<2>());
    let (xs, ws) = (B::floats(x), B::floats(weight));
    let bias_len = if with_bias { d_output } else { 0 };
    let (mut dx, mut dw, mut db) = (output(xs.len()), output(ws.len()), output(bias_len));
    let grads = AffineGrads { dx: &mut dx, dw: &mut dw, db: with_bias.then_some(&mut db) };
    affine::backward(cpu().at(precision), &xs, as_in_out(&ws, w_shape, layout), &B::floats(dy), grads);
    let dbias = with_bias.then(|| B::from_vec(db, &[d_output]));
    (Some(B::from_vec(dx, &x_shape)), Some(B::from_vec(dw, &w_shape)), dbias)
}

fn weight_grad<B: HostTensors>(
    x: &FloatTensor<B>,
    dy: &FloatTensor<B>,
    layout: WeightLayout,
    precision: Precision,
) -> FloatTensor<B> {
    let ([rows, d_input], [_, d_output]) = (x.shape().dims(), dy.shape().dims());
    let (xs, dys) = (B::floats(x), B::floats(dy));
    let (x, dy) = (MatRef::row_major(&xs, rows, d_input), MatRef::row_major(&dys, rows, d_output));
    let (left, right) = match layout {
        WeightLayout::InOut => (x, dy),
        WeightLayout::OutIn => (dy, x),
    };
    let mut dw = output(d_input * d_output);
    let shape = [left.cols, right.cols];
    gemm::matmul(cpu().at(precision), left.t(), right, Epilogue { bias: None, accumulate: false }, &mut dw);
    B::from_vec(dw, &shape)
}

fn column_sum<B: HostTensors>(x: &FloatTensor<B>) -> FloatTensor<B> {
    let [rows, columns] = x.shape().dims();
    let mut sums = output(columns);
    reduce::column_sum(cpu(), rows, columns, &B::floats(x), &mut sums);
    B::from_vec(sums, &[columns])
}
