//! Optimizer steps as backends may override them.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{AdafactorStep, AdamWStep, LionStep, Matrices, MuonStep, composed};
use crate::ops::OptionalTensor;
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

    /// One Adafactor step: parameter, squares, columns, mean. With `columns`, `squares` are those of the rows of a matrix.
    #[fusion(default)]
    fn adafactor(
        value: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        squares: FloatTensor<Self>,
        #[extension_type] columns: OptionalTensor<Self>,
        #[extension_type] mean: OptionalTensor<Self>,
        step: AdafactorStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, Option<FloatTensor<Self>>, Option<FloatTensor<Self>>) {
        composed::adafactor::<Self>([value, grad, squares], columns.into_option(), mean.into_option(), step)
    }

    /// One Lion step: parameter, mean.
    #[fusion(default)]
    fn lion(
        value: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        step: LionStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::lion::<Self>([value, grad, mean], step)
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

    /// `mean + (x − mean) · share`.
    #[fusion(default)]
    fn lerp(mean: FloatTensor<Self>, x: FloatTensor<Self>, share: f32) -> FloatTensor<Self> {
        composed::lerp::<Self>(mean, x, share)
    }

    /// Sum of squares.
    #[fusion(default)]
    fn square_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::square_sum::<Self>(x)
    }
}
