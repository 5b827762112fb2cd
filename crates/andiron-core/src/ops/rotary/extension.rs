//! Rotary positions as backends may override them.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{Rotation, composed};

/// Rotary positions of `[batch, time, heads, width]`.
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait RotaryOps: Backend {
    /// Rotates pairs of channels by the angles of `[batch or 1, time, 1, pairs]`.
    #[fusion(default)]
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        rotation: Rotation,
    ) -> FloatTensor<Self> {
        composed::rotate::<Self>(x, cos, sin, rotation)
    }
}
