//! The processes that share a run: what they add up after each step.

use std::fmt::Debug;

use burn::tensor::Tensor;

/// The processes that train one model together. Each has its own part of a step's batches; sums over all of them make the
/// step the same as that of one process with all batches.
pub trait Collective: Debug + Send + Sync {
    /// Index of this process.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn size(&self) -> usize;

    /// Replaces each number by its sum over all processes, added in the order of ranks.
    fn sum(&self, numbers: &mut [f64]);

    /// Replaces each tensor by its sum over all processes. All processes give tensors of the same shapes in the same order.
    fn all_reduce(&self, tensors: &mut [Tensor<1>]);
}

/// One process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Single;

impl Collective for Single {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _: &mut [f64]) {}

    fn all_reduce(&self, _: &mut [Tensor<1>]) {}
}
