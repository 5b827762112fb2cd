//! Linear projections through `andiron-kernels`.

use andiron_kernels::affine::{self, AffineGrads, Input};
use andiron_kernels::gemm::{self, Epilogue, MatRef};
use andiron_kernels::memory::unspecified as output;
use andiron_kernels::{quant, reduce};
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{LinearGrads, LinearOps, LinearWeight, SavedInput, WeightLayout, composed};
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
                dense::<B>(&x, (weight, *layout), (bias.as_deref(), None), precision)
            }
            LinearWeight::Quantized { matrix } if f32s => {
                let bias = bias.as_option().map(B::floats);
                quantized::<B>(&x, matrix, bias.as_deref(), precision)
            }
            _ => composed::linear::<B>(x, weight, bias.into_option()),
        }
    }

    /// Matmuls that round the input keep it rounded, in half the memory.
    fn project_saved(
        x: FloatTensor<Self>,
        weight: LinearWeight<Self>,
        bias: OptionalTensor<Self>,
        precision: Precision,
    ) -> (FloatTensor<Self>, SavedInput<Self>) {
        if let LinearWeight::Dense { weight: dense_weight, layout } = &weight
            && are_f32::<B>([&x, dense_weight].into_iter().chain(bias.as_option()))
        {
            let _time = OpKind::Matmul.timer();
            let ([rows, d_input], shape) = (x.shape().dims(), dense_weight.shape().dims());
            let ws = B::floats(dense_weight);
            if affine::rounds_input(cpu().at(precision), rows, as_in_out(&ws, shape, *layout)) {
                let mut rounded = output(rows * d_input / 2);
                let bias = bias.as_option().map(B::floats);
                let how = (bias.as_deref(), Some(&mut rounded[..]));
                let y = dense::<B>(&x, (dense_weight, *layout), how, precision);
                return (y, SavedInput::Rounded(B::from_vec(rounded, &[rows, d_input / 2])));
            }
        }
        (Self::project(x.clone(), weight, bias, precision), SavedInput::Exact(x))
    }

    fn project_backward(
        x: SavedInput<Self>,
        weight: LinearWeight<Self>,
        dy: FloatTensor<Self>,
        wanted: LinearGrads,
        precision: Precision,
    ) -> (Option<FloatTensor<Self>>, Option<FloatTensor<Self>>, Option<FloatTensor<Self>>) {
        let _time = OpKind::Matmul.timer();
        match (&weight, &x) {
            (
                LinearWeight::Dense { weight, layout },
                SavedInput::Exact(input) | SavedInput::Rounded(input),
            ) if wanted.weight && are_f32::<B>([input, weight, &dy]) => {
                let floats = B::floats(input);
                let weight = (weight, *layout);
                match &x {
                    SavedInput::Exact(input) if !wanted.x => {
                        let dweight = weight_grad::<B>(input, &dy, weight.1, precision);
                        (None, Some(dweight), wanted.bias.then(|| column_sum::<B>(&dy)))
                    }
                    // One pass for both is cheaper.
                    SavedInput::Rounded(_) => {
                        all_gradients::<B>(Input::Bf16(&floats), weight, &dy, wanted.bias, precision)
                    }
                    _ => all_gradients::<B>(Input::F32(&floats), weight, &dy, wanted.bias, precision),
                }
            }
            (LinearWeight::Dense { weight, layout }, _) if !wanted.weight && are_f32::<B>([weight, &dy]) => {
                let back = (weight, layout.transposed());
                let dx = wanted.x.then(|| dense::<B>(&dy, back, (None, None), precision));
                (dx, None, wanted.bias.then(|| column_sum::<B>(&dy)))
            }
            (LinearWeight::Quantized { matrix }, _) if are_f32::<B>([&dy]) => {
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

/// `x · W + b`, and the rounded input if there is room for it.
fn dense<B: HostTensors>(
    x: &FloatTensor<B>,
    (weight, layout): (&FloatTensor<B>, WeightLayout),
    (bias, rounded): (Option<&[f32]>, Option<&mut [f32]>),
    precision: Precision,
) -> FloatTensor<B> {
    let [rows, _] = x.shape().dims();
    let ws = B::floats(weight);
    let weight = as_in_out(&ws, weight.shape().dims(), layout);
    let d_output = weight.cols;
    let mut y = output(rows * d_output);
    affine::forward(cpu().at(precision), &B::floats(x), weight, bias, rounded, &mut y);
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
    x: Input,
    (weight, layout): (&FloatTensor<B>, WeightLayout),
    dy: &FloatTensor<B>,
    with_bias: bool,
    precision: Precision,
) -> (Option<FloatTensor<B>>, Option<FloatTensor<B>>, Option<FloatTensor<B>>) {
    let [w_shape, [rows, d_output]] = [weight, dy].map(|tensor| tensor.shape().dims::<2>());
    let ws = B::floats(weight);
    let w = as_in_out(&ws, w_shape, layout);
    let bias_len = if with_bias { d_output } else { 0 };
    let (mut dx, mut dw, mut db) = (output(rows * w.rows), output(ws.len()), output(bias_len));
    let grads = AffineGrads { dx: &mut dx, dw: &mut dw, db: with_bias.then_some(&mut db) };
    affine::backward(cpu().at(precision), x, w, &B::floats(dy), grads);
    let dbias = with_bias.then(|| B::from_vec(db, &[d_output]));
    (Some(B::from_vec(dx, &[rows, w.rows])), Some(B::from_vec(dw, &w_shape)), dbias)
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
