//! Optimizer steps as backends may override them.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{AdamWStep, Matrices, MuonStep, composed};
use crate::precision::Precision;

/// Optimizer steps of parameters of any shape.
// Composed bodies ignore the precision: they run in the tensors' dtype.
#[allow(clippy::type_complexity, unused_variables)]
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait OptimizerOps: Backend {
    /// One AdamW step: parameter, mean, square.
    #[fusion(default)]
    fn adamw(
        value: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed::adamw::<Self>([value, grad, mean, square], step)
    }

    /// The direction of a Muon step, and the new running mean of gradients.
    #[fusion(default)]
    fn muon_direction(
        grad: FloatTensor<Self>,
        momentum: FloatTensor<Self>,
        step: MuonStep,
        matrices: Matrices,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::muon_direction::<Self>(grad, momentum, step, matrices)
    }

    /// `keep · value − size · direction`.
    #[fusion(default)]
    fn sgd_step(
        value: FloatTensor<Self>,
        direction: FloatTensor<Self>,
        keep: f32,
        size: f32,
    ) -> FloatTensor<Self> {
        composed::sgd_step::<Self>(value, direction, keep, size)
    }

    /// Sum of squares.
    #[fusion(default)]
    fn square_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::square_sum::<Self>(x)
    }
}
