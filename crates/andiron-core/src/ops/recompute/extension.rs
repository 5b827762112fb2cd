//! The nodes of activation checkpointing. Without a graph there are none.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

use super::{GradientSlot, Recompute};
use crate::ops::Tensors;

/// Nodes of a graph that computes blocks again.
#[allow(unused_variables)]
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait RecomputeOps: Backend {
    /// The output of a block, whose gradients `recompute` computes.
    #[fusion(default)]
    fn recomputed(
        output: FloatTensor<Self>,
        #[extension_type] inputs: Tensors<Self>,
        #[extension_type] params: Tensors<Self>,
        recompute: Recompute,
    ) -> FloatTensor<Self> {
        output
    }

    /// `x`, whose gradient goes to `slot` and no further.
    #[fusion(default)]
    fn keep_gradient(x: FloatTensor<Self>, slot: GradientSlot) -> FloatTensor<Self> {
        x
    }

    /// A root for a backward pass in which `output` has the gradient in `slot`.
    #[fusion(default)]
    fn from_gradient(output: FloatTensor<Self>, slot: GradientSlot) -> FloatTensor<Self> {
        output
    }
}
