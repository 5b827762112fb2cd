//! Supervised fine-tuning, for decoders: the assistant's messages of conversations, answers to instructions, completions.

mod data;

use andiron_data::batch::HostBatch;
use andiron_models::DecoderConfig;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Causal, Measured, Metrics, ModelOf, Objective, Pass, token_metrics};

pub use data::ChatRows;

/// Options of [`Chat`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChatConfig {
    /// Which tokens are learned.
    pub learn: Learn,
}

/// Which tokens of a row are targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Learn {
    /// Those of the assistant's messages with the tokens that end them, or of the completion: `assistant_only_loss` and
    /// `completion_only_loss` of TRL.
    #[default]
    Answers,
    /// All.
    All,
}

/// Cross-entropy of the tokens of answers, in nats.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chat;

impl Objective for Chat {
    type Family = DecoderConfig;
    type Tally = ();
    const UNIT: &'static str = "tokens";

    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        Causal.loss(model, batch, pass)
    }

    fn metrics(&self, measured: &Measured, (): &()) -> Metrics {
        token_metrics(measured)
    }
}
