//! Next-token prediction, for decoders: of token streams, and of rows of texts or of completions.

mod data;

use andiron_core::ops;
use andiron_data::batch::HostBatch;
use andiron_models::{Decoder as _, DecoderConfig};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Learn, Measured, Metrics, ModelOf, Objective, Pass, token_metrics};

pub use data::CausalRows;

/// Options of [`Causal`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CausalConfig {
    /// Share of the documents that are rearranged to fill in the middle; 0 leaves all as they are, 0.5 is usual. For token
    /// streams and rows of texts.
    pub fim_rate: f32,
    /// Share of those whose suffix comes first.
    pub fim_spm_rate: f32,
    /// Which tokens of a row with a prompt and its completion are learned. Texts are learned whole.
    #[serde(skip_serializing_if = "is_answers")]
    pub learn: Learn,
}

/// Checkpoints of before there was a choice do not name it.
fn is_answers(learn: &Learn) -> bool {
    *learn == Learn::Answers
}

impl Default for CausalConfig {
    fn default() -> Self {
        Self { fim_rate: 0.0, fim_spm_rate: 0.5, learn: Learn::Answers }
    }
}

/// Cross-entropy of the next tokens, in nats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Causal;

impl Objective for Causal {
    type Family = DecoderConfig;
    type Tally = ();
    const UNIT: &'static str = "tokens";

    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        let labels = batch.token_labels().expect("a collator of tokens");
        let hidden_btd = model.hidden(pass.ids(&batch.inputs), &mut pass.document_context(&batch.inputs));
        let [b, t, d] = hidden_btd.dims();
        let (targets_n, weights_n) = pass.targets(labels);
        let head = pass.head(model.head().val());
        ops::head_cross_entropy(hidden_btd.reshape([b * t, d]), head, targets_n, weights_n)
    }

    fn metrics(&self, measured: &Measured, (): &()) -> Metrics {
        token_metrics(measured)
    }
}
