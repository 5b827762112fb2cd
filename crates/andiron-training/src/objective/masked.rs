//! Masked-language modelling, for encoders.
//!
//! Source: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers", <https://arxiv.org/abs/1810.04805>.

use andiron_core::ops;
use andiron_data::batch::HostBatch;
use andiron_models::encoder::Head;
use andiron_models::{Encoder as _, EncoderConfig};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Measured, Metrics, ModelOf, Objective, Pass, WeightedTargets, token_metrics};

/// Options of [`Masked`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskedConfig {}

/// Cross-entropy of masked tokens, in nats. The head is computed at masked positions only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Masked;

impl Objective for Masked {
    type Family = EncoderConfig;
    type Tally = ();
    const UNIT: &'static str = "tokens";

    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        let labels = batch.token_labels().expect("a collator of tokens");
        let inputs = &batch.inputs;
        let hidden_btd = model.hidden(pass.ids(inputs), pass.type_ids(inputs), &mut pass.context(inputs));
        let Head::MaskedLm(head) = model.head() else { panic!("an encoder with a head for masked tokens") };
        let [b, t, d] = hidden_btd.dims();
        let WeightedTargets { positions_n, targets_n, weights_n } = pass.weighted_targets(labels);
        let hidden_nd = head.transform(hidden_btd.reshape([b * t, d]).select(0, positions_n));
        ops::head_cross_entropy(hidden_nd, head.projection(), targets_n, weights_n)
    }

    fn metrics(&self, measured: &Measured, (): &()) -> Metrics {
        token_metrics(measured)
    }
}
