//! Rotary position embeddings: pairs of a head's channels, rotated by the angles of their position.

mod autodiff;
mod composed;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;

use burn::tensor::Tensor;

pub use andiron_kernels::rotary::Rotation;
pub use extension::RotaryOps;

use super::Dispatch;

/// Rotates pairs of channels of every head, `i` and `i + pairs`, by the angles of their position; further channels stay.
///
/// # Shape
/// `x_bthk`: `[batch, t, heads, width]`; cosines and sines: `[batch or 1, t, 1, pairs]`, which get no gradient.
///
/// # Panics
/// If the shapes do not fit.
pub fn rotate(x_bthk: Tensor<4>, cos_bt1k: Tensor<4>, sin_bt1k: Tensor<4>) -> Tensor<4> {
    let ([b, t, _, k], [rows, columns, one, pairs]) = (x_bthk.dims(), cos_bt1k.dims());
    assert_eq!(cos_bt1k.dims(), sin_bt1k.dims(), "as many sines as cosines");
    assert!((rows == b || rows == 1) && columns == t && one == 1, "angles do not fit {b} x {t} positions");
    assert!(2 * pairs <= k, "{} channels cannot be turned in heads of width {k}", 2 * pairs);
    let (cos, sin) = (cos_bt1k.into_dispatch(), sin_bt1k.into_dispatch());
    Tensor::from_dispatch(Dispatch::rotate(x_bthk.into_dispatch(), cos, sin, Rotation::Forward))
}
