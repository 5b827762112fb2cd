//! Norms of the last axis, residual sums, and norms of such sums.
//!
//! # Norms of residual branches
//!
//! A pre-norm layer is `x + f(norm(x))`: its input has two consumers, the norm and the sum, so that its gradient is a sum
//! of two. The functions whose names end in `_of_branch` and `_between_branches` compute that sum inside the norm's
//! backward kernel, in the memory of the gradient that arrived through the residual connection. It saves a pass over all
//! activations, two reads and a write, for each norm.
//!
//! They rely on the order of the backward pass: nodes run after all nodes that were made of them, and the sum is made after
//! the norm. So the gradient from the sum exists before the norm's backward runs. If the input has no other consumer, there
//! is none, and the backward pass panics.

mod autodiff;
mod composed;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType};
use burn::tensor::Tensor;

pub use extension::NormOps;

use super::{Dispatch, OptionalTensor};

/// Which norm, and its parameters, `[d]` each; also their gradients.
#[derive(Clone, Debug, ExtensionType)]
pub enum NormParams<B: Backend> {
    /// Layer norm.
    Layer {
        /// Multiplies the normalised values.
        weight: FloatTensor<B>,
        /// Added afterwards.
        bias: FloatTensor<B>,
    },
    /// RMS norm.
    Rms {
        /// Multiplies the normalised values.
        weight: FloatTensor<B>,
    },
}

/// What the backward pass of a norm needs: its input `x` and, of each row, the reciprocal standard deviation or root mean
/// square, and the mean.
#[derive(Clone, Debug, ExtensionType)]
pub enum SavedNorm<B: Backend> {
    /// Of a layer norm.
    Layer {
        /// `[.., d]`.
        x: FloatTensor<B>,
        /// `[d]`.
        weight: FloatTensor<B>,
        /// `[rows]`.
        mean: FloatTensor<B>,
        /// `[rows]`.
        rstd: FloatTensor<B>,
    },
    /// Of an RMS norm.
    Rms {
        /// `[.., d]`.
        x: FloatTensor<B>,
        /// `[d]`.
        weight: FloatTensor<B>,
        /// `[rows]`.
        rstd: FloatTensor<B>,
    },
}

/// How a norm is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormOptions {
    /// Added to the variance or mean square before the root.
    pub eps: f64,
    /// Whether the input also feeds a residual connection, whose gradient arrives first; see [`layer_norm_of_branch`].
    pub branch: bool,
}

/// `x + added`: a residual connection.
///
/// # Panics
/// If the shapes differ.
pub fn residual<const D: usize>(x: Tensor<D>, added: Tensor<D>) -> Tensor<D> {
    assert_summands(&x, &added);
    Tensor::from_dispatch(Dispatch::residual(x.into_dispatch(), added.into_dispatch()))
}

/// Normalises the last axis to mean 0 and variance 1, then multiplies by `weight` and adds `bias`.
///
/// # Shape
/// `[.., d]` → the same; `weight` and `bias` are `[d]`.
///
/// # Panics
/// If the widths do not match.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<D> {
    let params = layer_params(x.dims(), weight, bias);
    one(x, params, NormOptions { eps, branch: false })
}

/// [`layer_norm`] at the start of a residual branch: `x` also goes around the branch, into [`residual`]. The backward pass
/// adds its gradient in place to the one that arrived through the residual connection.
///
/// # Panics
/// If the widths do not match; in the backward pass, if `x` has no other gradient before this norm's.
pub fn layer_norm_of_branch<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    let params = layer_params(x.dims(), weight, bias);
    one(x, params, NormOptions { eps, branch: true })
}

/// [`layer_norm`] of a [`residual`]: the end of a post-norm layer. Fused into one pass where that is faster.
///
/// # Shape
/// `[.., d]` each → the same; weight and bias are `[d]`.
///
/// # Panics
/// If the shapes differ or the widths do not match.
pub fn layer_norm_of_sum<const D: usize>(
    x: Tensor<D>,
    added: Tensor<D>,
    (weight, bias): (Tensor<1>, Tensor<1>),
    eps: f64,
) -> Tensor<D> {
    let params = layer_params(x.dims(), weight, bias);
    of_sum(x, added, params, NormOptions { eps, branch: false }).1
}

/// The [`residual`] that ends a branch and the [`layer_norm_of_branch`] that starts the next, computed as in
/// [`layer_norm_of_sum`].
///
/// # Panics
/// If the shapes differ or the widths do not match; in the backward pass, if the sum has no other gradient
/// before this norm's.
pub fn layer_norm_between_branches<const D: usize>(
    x: Tensor<D>,
    added: Tensor<D>,
    (weight, bias): (Tensor<1>, Tensor<1>),
    eps: f64,
) -> (Tensor<D>, Tensor<D>) {
    let params = layer_params(x.dims(), weight, bias);
    of_sum(x, added, params, NormOptions { eps, branch: true })
}

/// Divides the last axis by its root mean square, then multiplies by `weight`.
///
/// Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", <https://arxiv.org/abs/1910.07467>.
///
/// # Shape
/// `[.., d]` → the same; `weight` is `[d]`.
///
/// # Panics
/// If the widths do not match.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    let params = rms_params(x.dims(), weight);
    one(x, params, NormOptions { eps, branch: false })
}

/// [`rms_norm`] at the start of a residual branch, as [`layer_norm_of_branch`].
///
/// # Panics
/// If the widths do not match; in the backward pass, if `x` has no other gradient before this norm's.
pub fn rms_norm_of_branch<const D: usize>(x: Tensor<D>, weight: Tensor<1>, eps: f64) -> Tensor<D> {
    let params = rms_params(x.dims(), weight);
    one(x, params, NormOptions { eps, branch: true })
}

/// The [`residual`] that ends a branch and the [`rms_norm_of_branch`] that starts the next, computed as in
/// [`layer_norm_of_sum`].
///
/// # Panics
/// If the shapes differ or the widths do not match; in the backward pass, if the sum has no other gradient
/// before this norm's.
pub fn rms_norm_between_branches<const D: usize>(
    x: Tensor<D>,
    added: Tensor<D>,
    weight: Tensor<1>,
    eps: f64,
) -> (Tensor<D>, Tensor<D>) {
    let params = rms_params(x.dims(), weight);
    of_sum(x, added, params, NormOptions { eps, branch: true })
}

fn one<const D: usize>(x: Tensor<D>, params: NormParams<Dispatch>, options: NormOptions) -> Tensor<D> {
    let (_, y) = Dispatch::norm(x.into_dispatch(), OptionalTensor::Absent, params, options);
    Tensor::from_dispatch(y)
}

#[track_caller]
fn of_sum<const D: usize>(
    x: Tensor<D>,
    added: Tensor<D>,
    params: NormParams<Dispatch>,
    options: NormOptions,
) -> (Tensor<D>, Tensor<D>) {
    assert_summands(&x, &added);
    let added = OptionalTensor::Present(added.into_dispatch());
    let (sum, y) = Dispatch::norm(x.into_dispatch(), added, params, options);
    (Tensor::from_dispatch(sum.expect("a sum of two tensors")), Tensor::from_dispatch(y))
}

#[track_caller]
fn assert_summands<const D: usize>(x: &Tensor<D>, added: &Tensor<D>) {
    assert_eq!(x.dims(), added.dims(), "what is added has the shape of what it is added to");
}

#[track_caller]
fn layer_params<const D: usize>(
    shape: [usize; D],
    weight: Tensor<1>,
    bias: Tensor<1>,
) -> NormParams<Dispatch> {
    assert_eq!([shape[D - 1]], weight.dims(), "weight of a norm over {shape:?}");
    assert_eq!([shape[D - 1]], bias.dims(), "bias of a norm over {shape:?}");
    NormParams::Layer { weight: weight.into_dispatch(), bias: bias.into_dispatch() }
}

#[track_caller]
fn rms_params<const D: usize>(shape: [usize; D], weight: Tensor<1>) -> NormParams<Dispatch> {
    assert_eq!([shape[D - 1]], weight.dims(), "weight of a norm over {shape:?}");
    NormParams::Rms { weight: weight.into_dispatch() }
}
