//! Linear projections composed of Burn's own operations.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Slice, TensorData};

use super::{LinearGrads, LinearWeight, SavedInput, WeightLayout};
use crate::ops::composed::reshape;
use crate::quant::QuantMatrix;

pub(super) fn linear<B: Backend>(
    x: FloatTensor<B>,
    weight: LinearWeight<B>,
    bias: Option<FloatTensor<B>>,
) -> FloatTensor<B> {
    let (weight, layout) = dense::<B>(&x, weight);
    match bias {
        Some(bias) => project_biased::<B>(x, weight, bias, layout),
        None => project::<B>(x, weight, layout),
    }
}

/// # Panics
/// If the weight's gradient is wanted and `x` is not exact.
#[allow(clippy::type_complexity)]
pub(super) fn linear_backward<B: Backend>(
    x: SavedInput<B>,
    weight: LinearWeight<B>,
    dy: FloatTensor<B>,
    wanted: LinearGrads,
) -> (Option<FloatTensor<B>>, Option<FloatTensor<B>>, Option<FloatTensor<B>>) {
    let dbias = wanted.bias.then(|| column_sum::<B>(dy.clone()));
    match weight {
        LinearWeight::Dense { weight, layout } => {
            let dx = wanted.x.then(|| project::<B>(dy.clone(), weight, layout.transposed()));
            let dweight = wanted.weight.then(|| match x {
                SavedInput::Exact(x) => weight_grad::<B>(x, dy, layout),
                _ => panic!("the input was not kept as it was"),
            });
            (dx, dweight, dbias)
        }
        LinearWeight::Quantized { matrix } => {
            (wanted.x.then(|| through_quantized::<B>(dy, &matrix)), None, dbias)
        }
    }
}

/// The weight as floats, on the device of `x`.
fn dense<B: Backend>(x: &FloatTensor<B>, weight: LinearWeight<B>) -> (FloatTensor<B>, WeightLayout) {
    match weight {
        LinearWeight::Dense { weight, layout } => (weight, layout),
        LinearWeight::Quantized { matrix } => (dequantized::<B>(x, &matrix), WeightLayout::OutIn),
    }
}

/// Elements of a quantized matrix that are dequantized at once in a backward pass: 16 MiB.
const DEQUANTIZED: usize = 4 << 20;

/// `dy · W` for a block-quantized `W`, a panel of rows at a time.
pub(super) fn through_quantized<B: Backend>(dy: FloatTensor<B>, matrix: &QuantMatrix) -> FloatTensor<B> {
    let ([d_output, d_input], [n, _]) = (matrix.dims(), dy.shape().dims());
    let most = (DEQUANTIZED / d_input.max(1)).max(1);
    let parts = (0..d_output).step_by(most).map(|start| {
        let rows = start..(start + most).min(d_output);
        let part = B::float_slice(dy.clone(), &[Slice::from(0..n), Slice::from(rows.clone())]);
        let weight = TensorData::new(matrix.dequantize(rows.clone()), [rows.len(), d_input]);
        B::float_matmul(part, B::float_from_data(weight, &dy.device()))
    });
    parts.reduce(B::float_add).expect("a projection has outputs")
}

/// A block-quantized matrix as floats, on the device of `x`.
fn dequantized<B: Backend>(x: &FloatTensor<B>, matrix: &QuantMatrix) -> FloatTensor<B> {
    let [rows, cols] = matrix.dims();
    B::float_from_data(TensorData::new(matrix.dequantize(0..rows), [rows, cols]), &x.device())
}

pub(in crate::ops) fn project<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    layout: WeightLayout,
) -> FloatTensor<B> {
    let weight = match layout {
        WeightLayout::InOut => weight,
        WeightLayout::OutIn => B::float_transpose(weight),
    };
    B::float_matmul(x, weight)
}

pub(in crate::ops) fn project_biased<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    layout: WeightLayout,
) -> FloatTensor<B> {
    let width = bias.shape()[0];
    B::float_add(project::<B>(x, weight, layout), reshape::<B>(bias, [1, width]))
}

pub(in crate::ops) fn weight_grad<B: Backend>(
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
    layout: WeightLayout,
) -> FloatTensor<B> {
    match layout {
        WeightLayout::InOut => B::float_matmul(B::float_transpose(x), dy),
        WeightLayout::OutIn => B::float_matmul(B::float_transpose(dy), x),
    }
}

/// Sum over rows: the gradient of a bias.
pub(in crate::ops) fn column_sum<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let width = x.shape()[1];
    reshape::<B>(B::float_sum_dim(x, 0), [width])
}
