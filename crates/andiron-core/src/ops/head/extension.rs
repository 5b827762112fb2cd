//! The head's loss as backends may override it.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};

use super::{HeadInputs, HeadOptions, composed};

/// The output head together with its loss. Rows of weight 0 are skipped.
// Composed bodies ignore the precision: they run in the tensors' dtype.
#[allow(clippy::type_complexity)]
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait HeadOps: Backend {
    /// Weighted sum of the rows' cross-entropies, `[1]`.
    #[fusion(default)]
    fn head_cross_entropy(
        #[extension_type] inputs: HeadInputs<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        options: HeadOptions,
    ) -> FloatTensor<Self> {
        composed::head_cross_entropy::<Self>(inputs, targets, weights, options.label_smoothing)
    }

    /// The same, with its gradients with respect to the inputs. That of the weight has no rows unless
    /// [`HeadOptions::weight_grad`] asks for it.
    #[fusion(default)]
    fn head_cross_entropy_with_grad(
        #[extension_type] inputs: HeadInputs<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        options: HeadOptions,
    ) -> (FloatTensor<Self>, HeadInputs<Self>) {
        composed::head_cross_entropy_with_grad::<Self>(inputs, targets, weights, options)
    }

    /// Each row's cross-entropy, `[n]`; 0 in rows of weight 0. Its gradient is that of
    /// [`HeadOps::head_cross_entropy_with_grad`] with the gradient of each row as its weight.
    #[fusion(default)]
    fn head_losses(
        #[extension_type] inputs: HeadInputs<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        options: HeadOptions,
    ) -> FloatTensor<Self> {
        composed::head_losses::<Self>(inputs, targets, weights, options.label_smoothing)
    }
}
