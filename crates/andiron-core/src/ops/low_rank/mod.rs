//! Projections with a low-rank adapter: `x · W + b + scale · (dropout(x) · A) · B`, of which `A` and `B` are trained.
//!
//! One operation for both summands: the second is added in the memory of the first, and so are their gradients in the input.
//! Of the input only one copy is kept, whatever number of projections read it ([`keep_input`]).

mod autodiff;
mod composed;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(super) mod host;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType};
use burn::tensor::Tensor;

pub use extension::LowRankOps;

use super::{Dispatch, Dropout, LinearWeight, OptionalTensor, SavedInput, WeightLayout};
use crate::precision::{self, Precision};
use crate::quant::QuantMatrix;

/// The factors of an adapter; also their gradients.
#[derive(Clone, Debug, ExtensionType)]
pub struct Factors<B: Backend> {
    /// `[d_input, rank]`.
    pub a: FloatTensor<B>,
    /// `[rank, d_output]`.
    pub b: FloatTensor<B>,
}

/// How a projection with an adapter is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LowRankOptions {
    /// The factor of the adapter's output.
    pub scale: f32,
    /// Dropout of the adapter's input, in row-major order of all rows.
    pub dropout: Option<Dropout>,
    /// The precision of matmuls.
    pub precision: Precision,
}

/// An input of projections with adapters, as it is kept for the backward pass. A clone is cheap.
#[derive(Clone, Debug)]
pub struct KeptInput(pub(super) SavedInput<Dispatch>);

/// Keeps `x` for all the projections with adapters that read it: see [`low_rank`]. At mixed precision it is kept in bf16. Without
/// autodiff nothing is kept.
pub fn keep_input<const D: usize>(x: &Tensor<D>) -> KeptInput {
    KeptInput(Dispatch::keep_input(x.clone().into_dispatch(), precision::current()))
}

/// A frozen weight.
#[derive(Clone, Debug)]
pub enum FrozenWeight<'a> {
    /// A matrix of floats, with axes in the order of the layout.
    Dense(Tensor<2>, WeightLayout),
    /// A block-quantized matrix, `[d_output, d_input]`.
    Quantized(&'a QuantMatrix),
}

/// The trained part of [`low_rank`].
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `[d_input, rank]`.
    pub a: Tensor<2>,
    /// `[rank, d_output]`.
    pub b: Tensor<2>,
    /// The factor of the adapter's output.
    pub scale: f32,
    /// Dropout of the adapter's input.
    pub dropout: Option<Dropout>,
}

/// `x · W + b + scale · (dropout(x) · A) · B` on the last axis. `kept` is what [`keep_input`] returned for `x`, if several
/// projections read it.
///
/// Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", <https://arxiv.org/abs/2106.09685>.
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn low_rank<const D: usize>(
    x: Tensor<D>,
    kept: Option<&KeptInput>,
    weight: FrozenWeight<'_>,
    bias: Option<Tensor<1>>,
    LowRank { a, b, scale, dropout }: LowRank,
) -> Tensor<D> {
    let (weight, (d_input, d_output)) = match weight {
        FrozenWeight::Dense(weight, layout) => {
            let sizes = layout.sizes(weight.dims());
            (LinearWeight::Dense { weight: weight.into_dispatch(), layout }, sizes)
        }
        FrozenWeight::Quantized(matrix) => {
            let [d_output, d_input] = matrix.dims();
            (LinearWeight::Quantized { matrix: matrix.clone() }, (d_input, d_output))
        }
    };
    let mut shape = x.dims();
    assert_eq!(shape[D - 1], d_input, "input {shape:?} does not fit a weight of {d_input} to {d_output}");
    let ([a_input, rank], b_dims) = (a.dims(), b.dims());
    assert_eq!(
        (a_input, b_dims),
        (d_input, [rank, d_output]),
        "factors of a weight of {d_input} to {d_output}"
    );
    if let Some(bias) = &bias {
        assert_eq!([d_output], bias.dims(), "bias of a projection to {d_output}");
    }
    let kept = kept.map_or_else(|| keep_input(&x), KeptInput::clone).0;
    let x_nd: Tensor<2> = x.reshape([-1, d_input as isize]);
    let bias = OptionalTensor::new(bias.map(Tensor::into_dispatch));
    let factors = Factors { a: a.into_dispatch(), b: b.into_dispatch() };
    let options = LowRankOptions { scale, dropout, precision: precision::current() };
    let y = Dispatch::low_rank(x_nd.into_dispatch(), kept, weight, factors, bias, options);
    shape[D - 1] = d_output;
    Tensor::<2>::from_dispatch(y).reshape(shape)
}
