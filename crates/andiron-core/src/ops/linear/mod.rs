//! Linear projections of the last axis.

mod autodiff;
pub(super) mod composed;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(super) mod host;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

pub use extension::LinearOps;

use super::{Activation, Dispatch, OptionalTensor};
use crate::precision;
use crate::quant::QuantMatrix;

/// How the weight of a linear projection is laid out in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightLayout {
    /// `[d_input, d_output]`, as in GPT-2's `Conv1D`.
    InOut,
    /// `[d_output, d_input]`, as in PyTorch's `Linear`, and an embedding table used as output head.
    OutIn,
}

impl WeightLayout {
    /// The layout of the same memory read as the transposed projection.
    pub fn transposed(self) -> Self {
        match self {
            Self::InOut => Self::OutIn,
            Self::OutIn => Self::InOut,
        }
    }

    /// Width of the input and of the output of a weight of this shape.
    pub(in crate::ops) fn sizes(self, [rows, columns]: [usize; 2]) -> (usize, usize) {
        match self {
            Self::InOut => (rows, columns),
            Self::OutIn => (columns, rows),
        }
    }
}

/// The weight of a linear projection.
#[derive(Clone, Debug, ExtensionType)]
pub enum LinearWeight<B: Backend> {
    /// A matrix of floats.
    Dense {
        /// Its axes are in the order of `layout`.
        weight: FloatTensor<B>,
        /// Which axis is which.
        layout: WeightLayout,
    },
    /// A block-quantized matrix, `[d_output, d_input]`.
    Quantized {
        /// The blocks.
        matrix: QuantMatrix,
    },
}

/// The input of a projection, as [`LinearOps::project_saved`] keeps it for the backward pass.
#[derive(Clone, Debug, ExtensionType)]
pub enum SavedInput<B: Backend> {
    /// Nothing: the weight has no gradient.
    Nothing,
    /// `[n, d_input]`.
    Exact(FloatTensor<B>),
    /// Rounded to bf16, two elements in each 32-bit word: `[n, d_input / 2]`. Of no use outside the host kernels.
    Rounded(FloatTensor<B>),
    /// The output of an activation function, by what the function reads: see [`ActivationOps::activate`](super::ActivationOps::activate).
    Activated {
        /// The function's argument.
        x: FloatTensor<B>,
        /// What a gate multiplies the function's value with.
        #[extension_type]
        up: OptionalTensor<B>,
        /// The function.
        form: Activation,
        /// Whether both are rounded to bf16 as in [`SavedInput::Rounded`].
        in_bf16: bool,
    },
}

/// Which gradients a backward pass of [`LinearOps::project_backward`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearGrads {
    /// That of the input.
    pub x: bool,
    /// That of the weight.
    pub weight: bool,
    /// That of the bias.
    pub bias: bool,
}

/// `x · W + b` on the last axis; see [`WeightLayout`] for the order of `weight`'s axes, and
/// [`with_precision`](crate::precision::with_precision) for the rounding of operands.
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    layout: WeightLayout,
) -> Tensor<D> {
    let sizes = layout.sizes(weight.dims());
    project(x, LinearWeight::Dense { weight: weight.into_dispatch(), layout }, sizes, bias)
}

/// [`linear`] with a block-quantized matrix, `[d_output, d_input]`.
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn linear_quantized<const D: usize>(
    x: Tensor<D>,
    weight: &QuantMatrix,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let [d_output, d_input] = weight.dims();
    project(x, LinearWeight::Quantized { matrix: weight.clone() }, (d_input, d_output), bias)
}

#[track_caller]
fn project<const D: usize>(
    x: Tensor<D>,
    weight: LinearWeight<Dispatch>,
    (d_input, d_output): (usize, usize),
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let mut shape = x.dims();
    assert_eq!(shape[D - 1], d_input, "input {shape:?} does not fit a weight of {d_input} to {d_output}");
    if let Some(bias) = &bias {
        assert_eq!([d_output], bias.dims(), "bias of a projection to {d_output}");
    }
    let x_nd: Tensor<2> = x.reshape([-1, d_input as isize]);
    let bias = OptionalTensor::new(bias.map(Tensor::into_dispatch));
    let y = Dispatch::project(x_nd.into_dispatch(), weight, bias, precision::current());
    shape[D - 1] = d_output;
    Tensor::<2>::from_dispatch(y).reshape(shape)
}
