//! The head's loss as backends may override it.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};

use super::composed;
use crate::precision::Precision;

/// The output head together with its loss.
// Composed bodies round nothing, whatever the precision.
#[allow(clippy::type_complexity, unused_variables)]
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait HeadOps: Backend {
    /// Weighted cross-entropy of an output head.
    #[fusion(default)]
    fn head_cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        composed::head_cross_entropy::<Self>(hidden, head, targets, weights)
    }

    /// The same, with its gradients with respect to hidden states and head.
    #[fusion(default)]
    fn head_cross_entropy_with_grad(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed::head_cross_entropy_with_grad::<Self>(hidden, head, targets, weights)
    }
}
