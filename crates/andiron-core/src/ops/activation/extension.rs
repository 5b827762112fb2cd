//! Activation functions as backends may override them.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{Activation, composed};
use crate::ops::OptionalTensor;

/// Activation functions and gates of tensors of any shape.
#[allow(clippy::type_complexity)]
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait ActivationOps: Backend {
    /// The function of each element of `x`, times that of `up`, if there is one.
    #[fusion(default)]
    fn activate(
        x: FloatTensor<Self>,
        #[extension_type] up: OptionalTensor<Self>,
        form: Activation,
    ) -> FloatTensor<Self> {
        composed::activate::<Self>(x, up.into_option(), form)
    }

    /// Gradients of [`ActivationOps::activate`] with respect to `x` and `up`.
    #[fusion(default)]
    fn activate_backward(
        x: FloatTensor<Self>,
        #[extension_type] up: OptionalTensor<Self>,
        dy: FloatTensor<Self>,
        form: Activation,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        composed::activate_backward::<Self>(x, up.into_option(), dy, form)
    }
}
