//! Cross-entropy of classes.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};

/// Cross-entropy of each row's class, in nats. A share `label_smoothing` of each target is spread evenly over all classes, the
/// target included, as in PyTorch.
///
/// # Shape
/// `logits_bc`: `[rows, classes]`; `targets_b`: `[rows]` → `[rows]`.
///
/// # Panics
/// If the shapes do not fit, or `label_smoothing` is not in `0..=1`.
pub fn cross_entropy(logits_bc: Tensor<2>, targets_b: Tensor<1, Int>, label_smoothing: f32) -> Tensor<1> {
    let [b, _] = logits_bc.dims();
    assert_eq!([b], targets_b.dims(), "one target a row");
    assert!((0.0..=1.0).contains(&label_smoothing), "label smoothing {label_smoothing} is not in 0..=1");
    let log_p_bc = log_softmax(logits_bc, 1);
    let of_targets = log_p_bc.clone().gather(1, targets_b.reshape([b, 1])).reshape([b]).neg();
    if label_smoothing == 0.0 {
        return of_targets;
    }
    let of_all = log_p_bc.mean_dim(1).reshape([b]).neg();
    of_targets * (1.0 - label_smoothing) + of_all * label_smoothing
}
