//! Projections with adapters as backends may override them.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{Factors, LowRankOptions, composed};
use crate::ops::{ActivationOps, DropoutOps, LinearOps, LinearWeight, OptionalTensor, SavedInput};
use crate::precision::Precision;

/// Projections of rows, `[n, d_input]` → `[n, d_output]`, by a frozen weight and an adapter.
#[allow(clippy::type_complexity, unused_variables)]
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait LowRankOps: ActivationOps + DropoutOps + LinearOps + Backend {
    /// What is kept of an input by the graph that it is in; nothing without one.
    #[fusion(default)]
    fn keep_input(x: FloatTensor<Self>, precision: Precision) -> SavedInput<Self> {
        SavedInput::Nothing
    }

    /// An input as [`LowRankOps::low_rank_backward`] takes it.
    #[fusion(default)]
    fn kept_input(x: FloatTensor<Self>, precision: Precision) -> SavedInput<Self> {
        SavedInput::Exact(x)
    }

    /// The projection. `kept` is what the backward pass needs of `x`.
    #[fusion(default)]
    fn low_rank(
        x: FloatTensor<Self>,
        #[extension_type] kept: SavedInput<Self>,
        #[extension_type] weight: LinearWeight<Self>,
        #[extension_type] factors: Factors<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
        options: LowRankOptions,
    ) -> FloatTensor<Self> {
        Self::low_rank_saved(x, weight, factors, bias, options).0
    }

    /// The same, with `scale · dropout(x) · A`, `[n, rank]`.
    #[fusion(default)]
    fn low_rank_saved(
        x: FloatTensor<Self>,
        #[extension_type] weight: LinearWeight<Self>,
        #[extension_type] factors: Factors<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
        options: LowRankOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::low_rank_saved::<Self>(x, weight, factors, bias, options)
    }

    /// The gradients of the input, if `wants_x`, and of the factors; `inner` is the second result of
    /// [`LowRankOps::low_rank_saved`].
    #[fusion(default)]
    fn low_rank_backward(
        #[extension_type] x: SavedInput<Self>,
        inner: FloatTensor<Self>,
        #[extension_type] weight: LinearWeight<Self>,
        #[extension_type] factors: Factors<Self>,
        dy: FloatTensor<Self>,
        options: LowRankOptions,
        wants_x: bool,
    ) -> (Option<FloatTensor<Self>>, Factors<Self>) {
        composed::low_rank_backward::<Self>(x, inner, weight, factors, dy, (options, wants_x))
    }
}
