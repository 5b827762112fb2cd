//! Next-token prediction.

use andiron_core::{Forward, ops};
use andiron_models::Decoder;
use burn::tensor::Tensor;

use super::{Batch, Objective};

/// Cross-entropy of the next tokens, in nats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Causal;

impl<M: Decoder> Objective<M> for Causal {
    fn loss(&self, model: &M, batch: Batch, cx: &mut Forward<'_>) -> Tensor<1> {
        let hidden_btd = model.hidden(batch.ids_bt, cx);
        let [b, t, d] = hidden_btd.dims();
        let hidden_nd = hidden_btd.reshape([b * t, d]);
        ops::head_cross_entropy(hidden_nd, model.head().val(), batch.targets_n, batch.weights_n)
    }
}
