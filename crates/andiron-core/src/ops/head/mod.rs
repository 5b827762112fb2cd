//! The output head together with its loss.

mod autodiff;
mod composed;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;

use burn::tensor::{Int, Tensor};

pub use extension::HeadOps;

use super::Dispatch;
use crate::precision;

/// Weighted sum of cross-entropies between an output head's predictions and `targets_n`, in nats.
///
/// The logits `hidden · headᵀ` are computed in blocks of rows and never exist as a whole.
///
/// # Shape
/// `hidden_nd`: `[n, d]`; `head_vd`: `[vocabulary, d]`; `targets_n`, `weights_n`: `[n]` → `[1]`.
/// A row whose weight is 0 contributes nothing; its target must still be a valid id.
///
/// # Panics
/// If the shapes do not fit.
pub fn head_cross_entropy(
    hidden_nd: Tensor<2>,
    head_vd: Tensor<2>,
    targets_n: Tensor<1, Int>,
    weights_n: Tensor<1>,
) -> Tensor<1> {
    let [n, d] = hidden_nd.dims();
    assert_eq!(d, head_vd.dims()[1], "hidden width and head width");
    assert_eq!([n], targets_n.dims(), "one target a row");
    assert_eq!([n], weights_n.dims(), "one weight a row");
    Tensor::from_dispatch(Dispatch::head_cross_entropy(
        hidden_nd.into_dispatch(),
        head_vd.into_dispatch(),
        targets_n.into_dispatch(),
        weights_n.into_dispatch(),
        precision::current(),
    ))
}
