//! Losses of several numbers for each row: labels that hold or not, and values to regress to.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;

/// Binary cross-entropy between logits and labels, which are 0, 1 or between: the mean over each row's labels, in nats.
///
/// # Shape
/// `[rows, labels]` both → `[rows]`.
///
/// # Panics
/// If the shapes differ.
pub fn binary_cross_entropy(logits_bl: Tensor<2>, labels_bl: Tensor<2>) -> Tensor<1> {
    assert_eq!(logits_bl.dims(), labels_bl.dims(), "a label for each logit");
    let [b, _] = logits_bl.dims();
    let holds_bl = log_sigmoid(logits_bl.clone()) * labels_bl.clone();
    let fails_bl = log_sigmoid(logits_bl.neg()) * (labels_bl.neg() + 1.0);
    (holds_bl + fails_bl).mean_dim(1).reshape([b]).neg()
}

/// Squared differences of outputs and values: the mean of each row.
///
/// # Shape
/// `[rows, values]` both → `[rows]`.
///
/// # Panics
/// If the shapes differ.
pub fn mean_squared_error(outputs_bl: Tensor<2>, values_bl: Tensor<2>) -> Tensor<1> {
    assert_eq!(outputs_bl.dims(), values_bl.dims(), "a value for each output");
    let [b, _] = outputs_bl.dims();
    let difference_bl = outputs_bl - values_bl;
    (difference_bl.clone() * difference_bl).mean_dim(1).reshape([b])
}
