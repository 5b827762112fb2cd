//! Dropout as backends may override it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{Dropout, composed};

/// Dropout of tensors of any shape.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait DropoutOps: Backend {
    /// Dropout by a mask that is a function of the seed and an element's index in row-major order.
    #[fusion(default)]
    fn dropout(x: FloatTensor<Self>, rule: Dropout) -> FloatTensor<Self> {
        composed::dropout::<Self>(x, rule)
    }
}
