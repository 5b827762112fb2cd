//! The Lion optimizer's step.

use burn::tensor::Tensor;

use super::OptimizerOps;
use crate::ops::Dispatch;

pub use andiron_kernels::lion::LionStep;

/// One step of Lion for a parameter and the running mean of its gradients; returns both.
///
/// On the CPU backends unshared memory is updated in place.
///
/// Source: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", <https://arxiv.org/abs/2302.06675>.
///
/// # Panics
/// If the shapes differ.
pub fn lion<const D: usize>(
    value: Tensor<D>,
    grad: Tensor<D>,
    mean: Tensor<D>,
    step: LionStep,
) -> (Tensor<D>, Tensor<D>) {
    assert_eq!(value.dims(), grad.dims(), "a parameter and its gradient have one shape");
    assert_eq!(value.dims(), mean.dims(), "a parameter and its running mean have one shape");
    let (value, mean) =
        Dispatch::lion(value.into_dispatch(), grad.into_dispatch(), mean.into_dispatch(), step);
    (Tensor::from_dispatch(value), Tensor::from_dispatch(mean))
}
