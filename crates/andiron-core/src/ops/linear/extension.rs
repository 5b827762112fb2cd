//! Linear projections as backends may override them.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{LinearGrads, LinearWeight, SavedInput, composed};
use crate::ops::OptionalTensor;
use crate::precision::Precision;

/// Linear projections of rows, `[n, d_input]` → `[n, d_output]`.
// Composed bodies ignore the precision: they run in the tensors' dtype.
#[allow(clippy::type_complexity, unused_variables)]
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait LinearOps: Backend {
    /// `x · W + b`. With mixed `precision` operands may be rounded to bf16.
    #[fusion(default)]
    fn project(
        x: FloatTensor<Self>,
        #[extension_type] weight: LinearWeight<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        composed::linear::<Self>(x, weight, bias.into_option())
    }

    /// The same, with what [`LinearOps::project_backward`] needs of the input for the weight's gradient.
    #[fusion(default)]
    fn project_saved(
        x: FloatTensor<Self>,
        #[extension_type] weight: LinearWeight<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
        precision: Precision,
    ) -> (FloatTensor<Self>, SavedInput<Self>) {
        (Self::project(x.clone(), weight, bias, precision), SavedInput::Exact(x))
    }

    /// The gradients of [`LinearOps::project`] that `wanted` asks for: of input, weight and bias. A quantized weight has
    /// none.
    #[fusion(default)]
    fn project_backward(
        #[extension_type] x: SavedInput<Self>,
        #[extension_type] weight: LinearWeight<Self>,
        dy: FloatTensor<Self>,
        wanted: LinearGrads,
        precision: Precision,
    ) -> (Option<FloatTensor<Self>>, Option<FloatTensor<Self>>, Option<FloatTensor<Self>>) {
        composed::linear_backward::<Self>(x, weight, dy, wanted)
    }
}
