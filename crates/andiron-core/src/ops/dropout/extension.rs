//! Dropout as backends may override it.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::composed;

/// Dropout of tensors of any shape.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait DropoutOps: Backend {
    /// Dropout by a mask that is a function of `seed` and index.
    #[fusion(default)]
    fn dropout(x: FloatTensor<Self>, probability: f32, seed: u64) -> FloatTensor<Self> {
        composed::dropout::<Self>(x, probability, seed)
    }
}
