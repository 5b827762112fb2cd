//! The Muon optimizer's step, over many parameters at once.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::OptimizerOps;
use crate::ops::{Dispatch, OpKind};
use crate::{device, precision};

pub use andiron_kernels::muon::{Matrices, MuonStep};

/// Inputs of the Muon step of one parameter; tensors are flattened.
#[derive(Clone, Debug)]
pub struct Momentum {
    /// The gradient.
    pub grad: Tensor<1>,
    /// Running mean of gradients.
    pub momentum: Tensor<1>,
    /// The matrices in the parameter.
    pub matrices: Matrices,
}

/// The update directions and new running means of a Muon step, for each parameter, as `torch.optim.Muon` computes them: the
/// running mean of gradients, orthogonalized so that all its singular values become about 1.
///
/// On the CPU backends parameters are computed in parallel, which for small matrices is up to twice as fast as
/// parallelising each matmul, and unshared memory is updated in place. The precision of matmuls is that of
/// [`with_precision`](crate::precision::with_precision).
///
/// Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
/// <https://kellerjordan.github.io/posts/muon/>.
///
/// # Panics
/// If a tensor's length does not match its matrices.
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
    // Other devices run asynchronously and schedule for themselves.
    if parameters.first().is_none_or(|first| !device::is_cpu(&first.grad.device())) {
        return parameters.into_iter().map(one).collect();
    }
    let _time = OpKind::Optimizer.timer();
    parameters.into_par_iter().map(one).collect()
}

/// `keep · value − size · direction`, in place if the memory is unshared.
///
/// # Panics
/// If the shapes differ.
pub fn sgd_step<const D: usize>(value: Tensor<D>, direction: Tensor<D>, keep: f32, size: f32) -> Tensor<D> {
    assert_eq!(value.dims(), direction.dims(), "a parameter and the direction of its step have one shape");
    Tensor::from_dispatch(Dispatch::sgd_step(value.into_dispatch(), direction.into_dispatch(), keep, size))
}
