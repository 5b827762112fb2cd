//! Norms, sums of what a layer was given and what it adds, and norms of such sums.

use burn::tensor::Tensor;

use super::{Dispatch, FusedOps};

/// `x + added`: a layer's input and what the layer makes of it.
///
/// # Panics
/// If the shapes differ.
pub fn residual<const D: usize>(x: Tensor<D>, added: Tensor<D>) -> Tensor<D> {
    assert_summands(&x, &added);
    Tensor::from_dispatch(Dispatch::residual(x.into_dispatch(), added.into_dispatch()))
}

/// Normalises the last axis to mean 0 and variance 1, then applies a gain and an offset.
///
/// # Shape
/// `[.., d]` → the same; `gain` and `offset` are `[d]`.
///
/// # Panics
/// If the widths do not match.
pub fn layer_norm<const D: usize>(x: Tensor<D>, gain: Tensor<1>, offset: Tensor<1>, eps: f64) -> Tensor<D> {
    layer_norm_of(x, gain, offset, eps, false)
}

/// [`layer_norm`] at the head of a branch: of an `x` that is also carried past the branch, into [`residual`]. The
/// backward pass then adds up the gradient that comes past and that through the norm in one go.
///
/// # Panics
/// If the widths do not match; in the backward pass, if `x` has no other gradient by the time of this norm's.
pub fn layer_norm_of_branch<const D: usize>(
    x: Tensor<D>,
    gain: Tensor<1>,
    offset: Tensor<1>,
    eps: f64,
) -> Tensor<D> {
    layer_norm_of(x, gain, offset, eps, true)
}

fn layer_norm_of<const D: usize>(
    x: Tensor<D>,
    gain: Tensor<1>,
    offset: Tensor<1>,
    eps: f64,
    carried: bool,
) -> Tensor<D> {
    assert_affine(x.dims(), &gain, Some(&offset));
    let (x, gain, offset) = (x.into_dispatch(), gain.into_dispatch(), offset.into_dispatch());
    Tensor::from_dispatch(Dispatch::layer_norm_rows(x, gain, offset, eps, carried))
}

/// [`layer_norm`] of a [`residual`]: what closes a layer that normalises its outcome. Where that is faster, both are made
/// together, while the sum is at hand.
///
/// # Shape
/// `[.., d]` each → the same; `gain` and `offset` are `[d]`.
///
/// # Panics
/// If the shapes differ or the widths do not match.
pub fn layer_norm_of_sum<const D: usize>(
    x: Tensor<D>,
    added: Tensor<D>,
    affine: (Tensor<1>, Tensor<1>),
    eps: f64,
) -> Tensor<D> {
    layer_norm_with_sum(x, added, affine, eps, false).1
}

/// The [`residual`] of a branch and what heads the next, its [`layer_norm_of_branch`], made together as in
/// [`layer_norm_of_sum`].
///
/// # Panics
/// If the shapes differ or the widths do not match; in the backward pass, if the sum has no other gradient by the time of
/// this norm's.
pub fn layer_norm_between_branches<const D: usize>(
    x: Tensor<D>,
    added: Tensor<D>,
    affine: (Tensor<1>, Tensor<1>),
    eps: f64,
) -> (Tensor<D>, Tensor<D>) {
    layer_norm_with_sum(x, added, affine, eps, true)
}

fn layer_norm_with_sum<const D: usize>(
    x: Tensor<D>,
    added: Tensor<D>,
    (gain, offset): (Tensor<1>, Tensor<1>),
    eps: f64,
    carried: bool,
) -> (Tensor<D>, Tensor<D>) {
    assert_summands(&x, &added);
    assert_affine(x.dims(), &gain, Some(&offset));
    let (x, added) = (x.into_dispatch(), added.into_dispatch());
    let (gain, offset) = (gain.into_dispatch(), offset.into_dispatch());
    let (sum, y) = Dispatch::layer_norm_of_sum(x, added, gain, offset, eps, carried);
    (Tensor::from_dispatch(sum), Tensor::from_dispatch(y))
}

/// Divides the last axis by the root of its mean square, then applies a gain.
///
/// Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", <https://arxiv.org/abs/1910.07467>.
///
/// # Shape
/// `[.., d]` → the same; `gain` is `[d]`.
///
/// # Panics
/// If the widths do not match.
pub fn rms_norm<const D: usize>(x: Tensor<D>, gain: Tensor<1>, eps: f64) -> Tensor<D> {
    rms_norm_of(x, gain, eps, false)
}

/// [`rms_norm`] at the head of a branch, as [`layer_norm_of_branch`].
///
/// # Panics
/// If the widths do not match; in the backward pass, if `x` has no other gradient by the time of this norm's.
pub fn rms_norm_of_branch<const D: usize>(x: Tensor<D>, gain: Tensor<1>, eps: f64) -> Tensor<D> {
    rms_norm_of(x, gain, eps, true)
}

fn rms_norm_of<const D: usize>(x: Tensor<D>, gain: Tensor<1>, eps: f64, carried: bool) -> Tensor<D> {
    assert_affine(x.dims(), &gain, None);
    Tensor::from_dispatch(Dispatch::rms_norm_rows(x.into_dispatch(), gain.into_dispatch(), eps, carried))
}

/// The [`residual`] of a branch and what heads the next, its [`rms_norm_of_branch`], made together as in
/// [`layer_norm_of_sum`].
///
/// # Panics
/// If the shapes differ or the widths do not match; in the backward pass, if the sum has no other gradient by the time of
/// this norm's.
pub fn rms_norm_between_branches<const D: usize>(
    x: Tensor<D>,
    added: Tensor<D>,
    gain: Tensor<1>,
    eps: f64,
) -> (Tensor<D>, Tensor<D>) {
    assert_summands(&x, &added);
    assert_affine(x.dims(), &gain, None);
    let (x, added, gain) = (x.into_dispatch(), added.into_dispatch(), gain.into_dispatch());
    let (sum, y) = Dispatch::rms_norm_of_sum(x, added, gain, eps, true);
    (Tensor::from_dispatch(sum), Tensor::from_dispatch(y))
}

#[track_caller]
fn assert_summands<const D: usize>(x: &Tensor<D>, added: &Tensor<D>) {
    assert_eq!(x.dims(), added.dims(), "what is added has the shape of what it is added to");
}

#[track_caller]
fn assert_affine<const D: usize>(shape: [usize; D], gain: &Tensor<1>, offset: Option<&Tensor<1>>) {
    assert_eq!([shape[D - 1]], gain.dims(), "gain of a norm over {shape:?}");
    if let Some(offset) = offset {
        assert_eq!([shape[D - 1]], offset.dims(), "offset of a norm over {shape:?}");
    }
}
