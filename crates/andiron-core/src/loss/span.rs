//! The loss of extractive question answering.

use burn::tensor::{Int, Tensor};

use super::cross_entropy;
use crate::PaddingMask;

/// Mean of the cross-entropies of an answer's first and last token, in nats. Padding is no candidate.
///
/// (`transformers` lets padding be one: its losses are larger by what a model gives to it.)
///
/// # Shape
/// `start_bt`, `end_bt`: logits, `[rows, time]`; `spans_b2`: first and last token, `[rows, 2]` → `[rows]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn span_cross_entropy(
    start_bt: Tensor<2>,
    end_bt: Tensor<2>,
    spans_b2: Tensor<2, Int>,
    padding: Option<&PaddingMask>,
) -> Tensor<1> {
    let [b, t] = start_bt.dims();
    assert_eq!([b, t], end_bt.dims(), "logits of first and of last tokens");
    assert_eq!([b, 2], spans_b2.dims(), "a span for each row");
    let masked = |logits_bt: Tensor<2>| match padding {
        // Not infinity: a row of padding alone would be NaN.
        Some(padding) => {
            let weights_bt = padding.weights(t, &logits_bt.device());
            logits_bt.mask_fill(weights_bt.lower_elem(0.5), -1e30)
        }
        None => logits_bt,
    };
    let of = |logits_bt, which: usize| {
        let targets_b = spans_b2.clone().slice([0..b, which..which + 1]).reshape([b]);
        cross_entropy(masked(logits_bt), targets_b, 0.0)
    };
    (of(start_bt, 0) + of(end_bt, 1)) * 0.5
}
