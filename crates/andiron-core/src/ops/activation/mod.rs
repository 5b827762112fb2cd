//! Activation functions and gates, element by element.

mod autodiff;
pub(super) mod composed;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(super) mod host;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

pub use extension::ActivationOps;

use super::{Dispatch, OptionalTensor};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · Φ(x)`, the Gaussian error linear unit: Hugging Face's `gelu`.
    ///
    /// Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units", <https://arxiv.org/abs/1606.08415>.
    GeluErf,
    /// `x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³)))`, the usual approximation of it: Hugging Face's `gelu_new`.
    GeluTanh,
    /// `x / (1 + exp(−x))`, also called swish.
    ///
    /// Source: Elfwing, Uchibe and Doya 2018, <https://arxiv.org/abs/1702.03118>.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

/// An activation function, element by element.
pub fn activate<const D: usize>(x: Tensor<D>, form: Activation) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::activate(x.into_dispatch(), OptionalTensor::Absent, form))
}

/// `activate(x) · up`, element by element: what a gated feed-forward layer does between its projections.
///
/// Source: Shazeer 2020, "GLU Variants Improve Transformer", <https://arxiv.org/abs/2002.05202>.
///
/// # Panics
/// If the shapes differ.
pub fn gate<const D: usize>(x: Tensor<D>, up: Tensor<D>, form: Activation) -> Tensor<D> {
    assert_eq!(x.dims(), up.dims(), "both sides of a gate have one shape");
    let up = OptionalTensor::Present(up.into_dispatch());
    Tensor::from_dispatch(Dispatch::activate(x.into_dispatch(), up, form))
}
