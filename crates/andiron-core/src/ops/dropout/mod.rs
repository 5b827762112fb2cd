//! Dropout with a stateless mask: a function of a seed and an element's index.

mod autodiff;
mod composed;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;

use andiron_kernels::random::Seed;
use burn::tensor::Tensor;

pub use andiron_kernels::dropout::Dropout;
pub use extension::DropoutOps;

use super::Dispatch;

/// Zeroes each element with the given probability and divides the others by `1 − probability`.
///
/// The mask is a function of `seed` and the element's index: the same on every backend and in the backward pass, so none is
/// stored.
///
/// Source: Srivastava et al. 2014, "Dropout", <https://jmlr.org/papers/v15/srivastava14a.html>.
pub fn dropout<const D: usize>(x: Tensor<D>, probability: f32, seed: Seed) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::dropout(x.into_dispatch(), Dropout { probability, seed }))
}
