//! Norms as backends may override them.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{NormOptions, NormParams, SavedNorm, composed};
use crate::ops::OptionalTensor;

/// Residual sums and norms of the last axis, with any number of axes before it.
#[allow(clippy::type_complexity)]
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait NormOps: Backend {
    /// Sum of two tensors of one shape.
    #[fusion(default)]
    fn residual(x: FloatTensor<Self>, added: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_add(x, added)
    }

    /// The norm of `x`, or of `x + added`, which is then returned first.
    #[fusion(default)]
    fn norm(
        x: FloatTensor<Self>,
        #[extension_type] added: OptionalTensor<Self>,
        #[extension_type] params: NormParams<Self>,
        options: NormOptions,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>) {
        let (sum, y, _) = Self::norm_saved(x, added, params, options.eps);
        (sum, y)
    }

    /// The same, with what [`NormOps::norm_backward`] needs.
    #[fusion(default)]
    fn norm_saved(
        x: FloatTensor<Self>,
        #[extension_type] added: OptionalTensor<Self>,
        #[extension_type] params: NormParams<Self>,
        eps: f64,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>, SavedNorm<Self>) {
        composed::norm_saved::<Self>(x, added.into_option(), params, eps)
    }

    /// Gradients with respect to the norm's input, added to `past`, and to the parameters.
    #[fusion(default)]
    fn norm_backward(
        #[extension_type] saved: SavedNorm<Self>,
        dy: FloatTensor<Self>,
        #[extension_type] past: OptionalTensor<Self>,
    ) -> (FloatTensor<Self>, NormParams<Self>) {
        composed::norm_backward::<Self>(saved, dy, past.into_option())
    }
}
