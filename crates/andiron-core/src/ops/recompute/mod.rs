//! Activation checkpointing: the node of a block that is computed again in the backward pass.
//!
//! The graph of a forward pass gets one node for a whole block. That node's backward step computes the block once more, now
//! with a graph of its own, runs that graph backwards at once and hands the gradients of inputs and parameters to the outer
//! graph. The two graphs share no node: inputs and parameters are new leaves of the inner one. Gradients cross between them
//! in [`GradientSlot`]s.

mod autodiff;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::ops::FloatTensorOps as _;
use burn::backend::{AutodiffBackend as _, DispatchTensor};
use burn::tensor::Tensor;

pub use extension::RecomputeOps;

use super::{Dispatch, Tensors};

/// A place for a gradient on its way from one graph to another: a tensor of the backend, once it is there.
#[derive(Clone, Default)]
pub struct GradientSlot(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl GradientSlot {
    fn holding<T: Send + 'static>(gradient: T) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(gradient)))))
    }

    fn put<T: Send + 'static>(&self, gradient: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(gradient));
    }

    /// The gradient; `None` if there was none.
    fn take<T: 'static>(&self) -> Option<T> {
        let gradient = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(*gradient.downcast().expect("a gradient of the same backend"))
    }
}

impl fmt::Debug for GradientSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GradientSlot")
    }
}

/// The gradients of a block: that of its output, which is known, and places for those of its inputs and parameters.
#[derive(Debug)]
pub(crate) struct BlockGradients {
    pub(crate) output: GradientSlot,
    /// `None` for inputs that need none.
    pub(crate) inputs: Vec<Option<GradientSlot>>,
    pub(crate) params: Vec<GradientSlot>,
}

type Work = Box<dyn FnOnce(BlockGradients) + Send>;

/// How a block is computed again, forwards and backwards. It is done once.
#[derive(Clone)]
pub struct Recompute(Arc<Mutex<Option<Work>>>);

impl Recompute {
    pub(crate) fn new(work: impl FnOnce(BlockGradients) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(work)))))
    }

    fn run(&self, gradients: BlockGradients) {
        let work = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        work.expect("a backward pass runs once")(gradients);
    }
}

impl fmt::Debug for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recompute")
    }
}

/// Tracked inputs of a block, at most.
const MOST_INPUTS: usize = 4;

/// `output`, which was computed without a graph, as a node of the graph that `inputs` and `params` are in.
///
/// # Panics
/// If more than [`MOST_INPUTS`] inputs need a gradient.
pub(crate) fn recomputed<const D: usize>(
    output: Tensor<D>,
    inputs: Vec<DispatchTensor>,
    params: Vec<DispatchTensor>,
    recompute: Recompute,
) -> Tensor<D> {
    let (inputs, params) = (Tensors(inputs), Tensors(params));
    Tensor::from_dispatch(Dispatch::recomputed(output.into_dispatch(), inputs, params, recompute))
}

/// A new leaf of a graph with this value, whose gradient goes to `slot`. To the graph it is no leaf but made of one: operations
/// that treat the gradient of a leaf otherwise treat it as that of an activation.
pub(crate) fn leaf(value: DispatchTensor, slot: GradientSlot) -> DispatchTensor {
    let leaf = Dispatch::float_set_require_grad(Dispatch::from_inner(value), true);
    Dispatch::keep_gradient(leaf, slot)
}

/// Runs the graph of `output` backwards from the gradient in `slot`.
pub(crate) fn backward_from<const D: usize>(output: Tensor<D>, slot: GradientSlot) {
    drop(Dispatch::backward(Dispatch::from_gradient(output.into_dispatch(), slot)));
}
