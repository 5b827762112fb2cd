//! The output head together with its loss.

mod autodiff;
mod composed;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType};
use burn::tensor::{Int, Tensor};

pub use extension::HeadOps;

use super::{Dispatch, OptionalTensor};
use crate::precision::{self, Precision};

/// The parameters of an output head.
#[derive(Clone, Debug)]
pub struct Head {
    /// `[vocabulary, d]`, as an embedding table is stored.
    pub weight_vd: Tensor<2>,
    /// Added to the logits, `[vocabulary]`.
    pub bias_v: Option<Tensor<1>>,
}

impl From<Tensor<2>> for Head {
    fn from(weight_vd: Tensor<2>) -> Self {
        Self { weight_vd, bias_v: None }
    }
}

/// How the loss of a head is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadOptions {
    /// The precision of matmuls.
    pub precision: Precision,
    /// Share of each target that is spread evenly over the vocabulary.
    pub label_smoothing: f32,
    /// Whether the gradient of the weight is wanted: that of a frozen head is not, and costs a third of the time.
    pub weight_grad: bool,
}

impl HeadOptions {
    /// The precision of the thread, and a label smoothing.
    #[track_caller]
    fn current(label_smoothing: f32) -> Self {
        assert!((0.0..=1.0).contains(&label_smoothing), "label smoothing {label_smoothing} is not in 0..=1");
        Self { precision: precision::current(), label_smoothing, weight_grad: true }
    }
}

/// Input and parameters of an output head; see [`head_cross_entropy`].
#[derive(Clone, Debug, ExtensionType)]
pub struct HeadInputs<B: Backend> {
    /// Hidden states, `[n, d]`.
    pub hidden: FloatTensor<B>,
    /// `[vocabulary, d]`.
    pub weight: FloatTensor<B>,
    /// `[vocabulary]`.
    #[extension_type]
    pub bias: OptionalTensor<B>,
}

/// Weighted sum of cross-entropies between an output head's predictions and `targets_n`, in nats.
///
/// The logits `hidden · headᵀ + bias` are computed in blocks of rows and never stored as a whole. While training, gradients
/// are computed in the same pass.
///
/// # Shape
/// `hidden_nd`: `[n, d]`; `head`: `[vocabulary, d]` and `[vocabulary]`; `targets_n`, `weights_n`: `[n]` → `[1]`.
/// A row whose weight is 0 is skipped: no logits are computed for it. Its target must still be a valid id.
///
/// # Panics
/// If the shapes do not fit.
pub fn head_cross_entropy(
    hidden_nd: Tensor<2>,
    head: impl Into<Head>,
    targets_n: Tensor<1, Int>,
    weights_n: Tensor<1>,
) -> Tensor<1> {
    head_cross_entropy_smoothed(hidden_nd, head, targets_n, weights_n, 0.0)
}

/// [`head_cross_entropy`] with label smoothing, as PyTorch defines it: a share `label_smoothing` of each target is spread
/// evenly over the whole vocabulary, the target included.
///
/// Source: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision",
/// <https://arxiv.org/abs/1512.00567>.
///
/// # Shape
/// As for [`head_cross_entropy`].
///
/// # Panics
/// As for [`head_cross_entropy`], and if `label_smoothing` is not in `0..=1`.
pub fn head_cross_entropy_smoothed(
    hidden_nd: Tensor<2>,
    head: impl Into<Head>,
    targets_n: Tensor<1, Int>,
    weights_n: Tensor<1>,
    label_smoothing: f32,
) -> Tensor<1> {
    let inputs = inputs(hidden_nd, head.into(), &targets_n, &weights_n);
    let (targets, weights) = (targets_n.into_dispatch(), weights_n.into_dispatch());
    let options = HeadOptions::current(label_smoothing);
    Tensor::from_dispatch(Dispatch::head_cross_entropy(inputs, targets, weights, options))
}

/// The cross-entropy of each row, of which [`head_cross_entropy`] is the sum weighted by `weights_n`, in nats; 0 in rows of
/// weight 0, which are skipped.
///
/// The upstream gradient may differ by row, so the backward pass recomputes the logits. Prefer [`head_cross_entropy`] if
/// only a weighted sum is wanted.
///
/// # Shape
/// As for [`head_cross_entropy`] → `[n]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn head_losses(
    hidden_nd: Tensor<2>,
    head: impl Into<Head>,
    targets_n: Tensor<1, Int>,
    weights_n: Tensor<1>,
) -> Tensor<1> {
    head_losses_smoothed(hidden_nd, head, targets_n, weights_n, 0.0)
}

/// [`head_losses`] with the label smoothing of [`head_cross_entropy_smoothed`].
///
/// # Shape
/// As for [`head_losses`].
///
/// # Panics
/// As for [`head_cross_entropy_smoothed`].
pub fn head_losses_smoothed(
    hidden_nd: Tensor<2>,
    head: impl Into<Head>,
    targets_n: Tensor<1, Int>,
    weights_n: Tensor<1>,
    label_smoothing: f32,
) -> Tensor<1> {
    let inputs = inputs(hidden_nd, head.into(), &targets_n, &weights_n);
    let (targets, weights) = (targets_n.into_dispatch(), weights_n.into_dispatch());
    let options = HeadOptions::current(label_smoothing);
    Tensor::from_dispatch(Dispatch::head_losses(inputs, targets, weights, options))
}

#[track_caller]
fn inputs(
    hidden_nd: Tensor<2>,
    Head { weight_vd, bias_v }: Head,
    targets_n: &Tensor<1, Int>,
    weights_n: &Tensor<1>,
) -> HeadInputs<Dispatch> {
    let ([n, d], [vocabulary, head_d]) = (hidden_nd.dims(), weight_vd.dims());
    assert_eq!(d, head_d, "hidden width and head width");
    assert_eq!([n], targets_n.dims(), "one target a row");
    assert_eq!([n], weights_n.dims(), "one weight a row");
    if let Some(bias_v) = &bias_v {
        assert_eq!([vocabulary], bias_v.dims(), "one bias a token");
    }
    HeadInputs {
        hidden: hidden_nd.into_dispatch(),
        weight: weight_vd.into_dispatch(),
        bias: OptionalTensor::new(bias_v.map(Tensor::into_dispatch)),
    }
}
