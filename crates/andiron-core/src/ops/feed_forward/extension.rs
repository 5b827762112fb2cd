//! Feed-forward layers as backends may override them.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{FeedForwardOptions, FeedForwardParams, composed};
use crate::ops::Tensors;
use crate::precision::Precision;

/// Feed-forward layers of rows, `[n, d_input]` → `[n, d_output]`.
// Composed bodies ignore the precision: they run in the tensors' dtype.
#[allow(clippy::type_complexity, unused_variables)]
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait FeedForwardOps: Backend {
    /// The layer's output.
    #[fusion(default)]
    fn feed_forward(
        x: FloatTensor<Self>,
        #[extension_type] params: FeedForwardParams<Self>,
        options: FeedForwardOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        Self::feed_forward_saved(x, params, options, precision).0
    }

    /// The same, with the tensors saved for [`FeedForwardOps::feed_forward_backward`], the input among them.
    #[fusion(default)]
    fn feed_forward_saved(
        x: FloatTensor<Self>,
        #[extension_type] params: FeedForwardParams<Self>,
        options: FeedForwardOptions,
        precision: Precision,
    ) -> (FloatTensor<Self>, Tensors<Self>) {
        composed::feed_forward_saved::<Self>(x, params, options)
    }

    /// Gradients of [`FeedForwardOps::feed_forward`] with respect to input and parameters.
    #[fusion(default)]
    fn feed_forward_backward(
        #[extension_type] params: FeedForwardParams<Self>,
        #[extension_type] saved: Tensors<Self>,
        dy: FloatTensor<Self>,
        options: FeedForwardOptions,
        precision: Precision,
    ) -> (FloatTensor<Self>, FeedForwardParams<Self>) {
        composed::feed_forward_backward::<Self>(params, saved, dy, options)
    }
}
