//! Dropout by a mask that is a function of a seed and an element's index.

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

/// Zeroes a share `probability` of the elements and divides the others by `1 − probability`.
///
/// Which elements is a function of `seed` and their index alone: the same on every backend and in the backward
/// pass, so no mask is stored.
///
/// Source: Srivastava et al. 2014, "Dropout", <https://jmlr.org/papers/v15/srivastava14a.html>.
pub fn dropout<const D: usize>(x: Tensor<D>, probability: f32, seed: Seed) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::dropout(x.into_dispatch(), Dropout { probability, seed }))
}
