//! Optimizer steps.

mod adafactor;
mod autodiff;
mod composed;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;
mod lion;
mod muon;

use burn::tensor::Tensor;

pub use adafactor::{Adafactor, AdafactorStep, SquaredGradients, adafactor};
pub use andiron_kernels::adamw::AdamWStep;
pub use extension::OptimizerOps;
pub use lion::{LionStep, lion};
pub use muon::{Matrices, Momentum, MuonStep, muon_directions, sgd_step};

use super::Dispatch;

/// A parameter with its running moments, all of one shape.
#[derive(Clone, Debug)]
pub struct Moments<const D: usize> {
    /// The parameter.
    pub value: Tensor<D>,
    /// Running mean of gradients.
    pub mean: Tensor<D>,
    /// Running mean of squared gradients.
    pub square: Tensor<D>,
}

/// One step of Adam with decoupled weight decay, as `torch.optim.AdamW` computes it.
///
/// On the CPU backends unshared memory is updated in place.
///
/// Source: Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>.
pub fn adamw<const D: usize>(at: Moments<D>, grad: Tensor<D>, step: AdamWStep) -> Moments<D> {
    let (value, mean, square) = Dispatch::adamw(
        at.value.into_dispatch(),
        grad.into_dispatch(),
        at.mean.into_dispatch(),
        at.square.into_dispatch(),
        step,
    );
    Moments {
        value: Tensor::from_dispatch(value),
        mean: Tensor::from_dispatch(mean),
        square: Tensor::from_dispatch(square),
    }
}

/// `mean + (x − mean) · share`, in place if the memory of `mean` is unshared: a step of an exponential moving average.
///
/// # Panics
/// If the shapes differ.
pub fn lerp<const D: usize>(mean: Tensor<D>, x: Tensor<D>, share: f32) -> Tensor<D> {
    assert_eq!(mean.dims(), x.dims(), "a mean and what enters it have one shape");
    Tensor::from_dispatch(Dispatch::lerp(mean.into_dispatch(), x.into_dispatch(), share))
}

/// Sum of squares of all elements, `[1]`.
pub fn square_sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::square_sum(x.into_dispatch()))
}
