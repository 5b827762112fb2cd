//! Activation functions as backends may override them.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{Activation, composed};
use crate::ops::{OptionalTensor, SavedInput};
use crate::precision::Precision;

/// Activation functions and gates of tensors of any shape.
#[allow(clippy::type_complexity, unused_variables)]
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

    /// What is kept of the arguments by the graph that they are in; nothing without one.
    #[fusion(default)]
    fn keep_activation(
        x: FloatTensor<Self>,
        #[extension_type] up: OptionalTensor<Self>,
        form: Activation,
        precision: Precision,
    ) -> SavedInput<Self> {
        SavedInput::Nothing
    }

    /// The arguments as [`ActivationOps::activate_kept_backward`] takes them.
    #[fusion(default)]
    fn kept_activation(
        x: FloatTensor<Self>,
        #[extension_type] up: OptionalTensor<Self>,
        form: Activation,
        precision: Precision,
    ) -> SavedInput<Self> {
        SavedInput::Activated { x, up, form, in_bf16: false }
    }

    /// [`ActivationOps::activate`], whose backward pass needs `kept` only.
    #[fusion(default)]
    fn activate_kept(
        x: FloatTensor<Self>,
        #[extension_type] up: OptionalTensor<Self>,
        #[extension_type] kept: SavedInput<Self>,
        how: (Activation, Precision),
    ) -> FloatTensor<Self> {
        Self::activate(x, up, how.0)
    }

    /// Gradients of [`ActivationOps::activate_kept`] with respect to `x` and `up`.
    #[fusion(default)]
    fn activate_kept_backward(
        #[extension_type] kept: SavedInput<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        let SavedInput::Activated { x, up, form, in_bf16: false } = kept else {
            panic!("the arguments were not kept as they were")
        };
        Self::activate_backward(x, up, dy, form)
    }
}
