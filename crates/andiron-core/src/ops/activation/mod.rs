//! Activation functions and gates, element by element.

mod autodiff;
pub(super) mod composed;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;

use burn::tensor::Tensor;

pub use andiron_kernels::activation::Activation;
pub use extension::ActivationOps;

use super::{Dispatch, OptionalTensor};

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
