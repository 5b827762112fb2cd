//! The Muon optimizer's step, over many parameters at once.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::OptimizerOps;
use crate::ops::{Dispatch, OpKind};
use crate::{device, precision};

pub use andiron_kernels::muon::{Matrices, MuonStep};

/// What the direction of a parameter's step is made of; the tensors are lists of its numbers.
#[derive(Clone, Debug)]
pub struct Momentum {
    /// The gradient.
    pub grad: Tensor<1>,
    /// Running mean of gradients.
    pub momentum: Tensor<1>,
    /// The matrices in the parameter.
    pub matrices: Matrices,
}

/// The directions of a step of Muon and the new running means, for each parameter, as `torch.optim.Muon` computes them: the
/// running mean of gradients with all its singular values made about 1.
///
/// On the CPU backends parameters are computed side by side, which for small matrices is up to twice as fast as all threads
/// working on one product at a time, and memory that nobody else holds is updated in place. Products are as exact as
/// [`with_precision`](crate::precision::with_precision) says.
///
/// Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
/// <https://kellerjordan.github.io/posts/muon/>.
///
/// # Panics
/// If a tensor is not as long as its matrices.
pub fn muon_directions(parameters: Vec<Momentum>, step: MuonStep) -> Vec<(Tensor<1>, Tensor<1>)> {
    let precision = precision::current();
    let one = |parameter: Momentum| {
        let Momentum { grad, momentum, matrices } = parameter;
        assert_eq!(grad.dims(), momentum.dims(), "gradient and running mean are as long");
        assert!(matrices.fit(grad.dims()[0]), "{matrices:?} in {} numbers", grad.dims()[0]);
        let (grad, momentum) = (grad.into_dispatch(), momentum.into_dispatch());
        let (direction, momentum) = Dispatch::muon_direction(grad, momentum, step, matrices, precision);
        (Tensor::from_dispatch(direction), Tensor::from_dispatch(momentum))
    };
    // Other devices compute later and in an order of their own.
    if parameters.first().is_none_or(|first| !device::is_cpu(&first.grad.device())) {
        return parameters.into_iter().map(one).collect();
    }
    let _time = OpKind::Optimizer.timer();
    parameters.into_par_iter().map(one).collect()
}

/// `keep · value − size · direction`, in place where nobody else holds the memory.
///
/// # Panics
/// If the shapes differ.
pub fn sgd_step<const D: usize>(value: Tensor<D>, direction: Tensor<D>, keep: f32, size: f32) -> Tensor<D> {
    assert_eq!(value.dims(), direction.dims(), "a parameter and the direction of its step have one shape");
    Tensor::from_dispatch(Dispatch::sgd_step(value.into_dispatch(), direction.into_dispatch(), keep, size))
}
