//! Activation functions and gates, element by element.

mod autodiff;
pub(super) mod composed;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(super) mod host;

use burn::tensor::Tensor;

pub use andiron_kernels::activation::Activation;
pub use extension::ActivationOps;

use super::{Dispatch, KeptInput, OptionalTensor};
use crate::precision;

/// An activation function, element by element. At mixed precision its argument is kept in bf16 for the backward pass.
pub fn activate<const D: usize>(x: Tensor<D>, form: Activation) -> Tensor<D> {
    activate_kept(x, form).0
}

/// [`activate`], and its output as an input that is kept for projections with adapters: it costs no memory besides what the
/// activation function keeps itself.
pub fn activate_kept<const D: usize>(x: Tensor<D>, form: Activation) -> (Tensor<D>, KeptInput) {
    run(x, OptionalTensor::Absent, form)
}

/// `activate(x) · up`, element by element: what a gated feed-forward layer does between its projections.
///
/// Source: Shazeer 2020, "GLU Variants Improve Transformer", <https://arxiv.org/abs/2002.05202>.
///
/// # Panics
/// If the shapes differ.
pub fn gate<const D: usize>(x: Tensor<D>, up: Tensor<D>, form: Activation) -> Tensor<D> {
    gate_kept(x, up, form).0
}

/// [`gate`], and its output as a kept input, as [`activate_kept`] returns it.
///
/// # Panics
/// If the shapes differ.
pub fn gate_kept<const D: usize>(x: Tensor<D>, up: Tensor<D>, form: Activation) -> (Tensor<D>, KeptInput) {
    assert_eq!(x.dims(), up.dims(), "both sides of a gate have one shape");
    run(x, OptionalTensor::Present(up.into_dispatch()), form)
}

fn run<const D: usize>(
    x: Tensor<D>,
    up: OptionalTensor<Dispatch>,
    form: Activation,
) -> (Tensor<D>, KeptInput) {
    let (x, precision) = (x.into_dispatch(), precision::current());
    let kept = Dispatch::keep_activation(x.clone(), up.clone(), form, precision);
    let y = Dispatch::activate_kept(x, up, kept.clone(), (form, precision));
    (Tensor::from_dispatch(y), KeptInput(kept))
}
