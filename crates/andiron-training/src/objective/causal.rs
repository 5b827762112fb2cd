//! Next-token prediction, for decoders.

use std::sync::Arc;

use andiron_core::ops;
use andiron_data::batch::HostBatch;
use andiron_data::collate::{self, CausalInTheMiddle, FillInTheMiddle};
use andiron_models::{Decoder as _, DecoderConfig};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{FromConfig, Measured, Metrics, ModelOf, Objective, Pass, token_metrics};
use crate::config::{ConfigError, check};
use crate::plan::{Plan, Setup, TrainingData};
use crate::trainer::TrainError;

/// Options of [`Causal`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CausalConfig {
    /// Share of the documents that are rearranged to fill in the middle; 0 leaves all as they are, 0.5 is usual.
    pub fim_rate: f32,
    /// Share of those whose suffix comes first.
    pub fim_spm_rate: f32,
}

impl Default for CausalConfig {
    fn default() -> Self {
        Self { fim_rate: 0.0, fim_spm_rate: 0.5 }
    }
}

impl CausalConfig {
    /// How documents are rearranged, and the token that ends one; `None` if they are not.
    fn fill_in_the_middle(&self, setup: &Setup<'_>) -> Result<Option<(FillInTheMiddle, u32)>, TrainError> {
        let Self { fim_rate: rate, fim_spm_rate: suffix_first } = *self;
        let is_share = |value: f32| (0.0..=1.0).contains(&value);
        check(is_share(rate), "objective.fim_rate", rate, "in 0..=1")?;
        check(is_share(suffix_first), "objective.fim_spm_rate", suffix_first, "in 0..=1")?;
        if rate == 0.0 {
            return Ok(None);
        }
        let tokenizer = setup.open_tokenizer()?;
        let vocab_size = setup.base.decoder()?.vocab_size();
        let path = || setup.tokenizer_path();
        if tokenizer.vocab_size() > vocab_size {
            let data = tokenizer.vocab_size();
            return Err(TrainError::Vocabulary { path: path(), data, model: vocab_size });
        }
        let Some(tokens) = tokenizer.middle_tokens() else {
            let tokens = tokenizer.missing_middle_tokens().join(", ");
            return Err(TrainError::MiddleTokens { path: path(), tokens });
        };
        let why = "the tokenizer has no end-of-sequence token, which tells documents apart: set objective.fim_rate = 0";
        let end = tokenizer.eos_id().ok_or(ConfigError::Missing { field: "data.tokenizer", why })?;
        Ok(Some((FillInTheMiddle { tokens, rate, suffix_first }, end)))
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
        let hidden_btd = model.hidden(pass.ids(&batch.inputs), &mut pass.causal_context());
        let [b, t, d] = hidden_btd.dims();
        let (targets_n, weights_n) = pass.targets(labels);
        let head = pass.head(model.head().val());
        ops::head_cross_entropy(hidden_btd.reshape([b * t, d]), head, targets_n, weights_n)
    }

    fn metrics(&self, measured: &Measured, (): &()) -> Metrics {
        token_metrics(measured)
    }
}

impl FromConfig for Causal {
    type Config = CausalConfig;

    fn plan(config: &CausalConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        let model = setup.base.decoder()?;
        let causal = collate::Causal { columns: setup.context()?, pad: 0 };
        let vocab_size = model.vocab_size();
        let data = match config.fill_in_the_middle(setup)? {
            None => setup.windows(Arc::new(causal), vocab_size)?,
            Some((transform, end)) => {
                let collator = Arc::new(CausalInTheMiddle { causal, transform, end });
                // Control tokens are targets too, and stand for no text.
                TrainingData { bytes_per_target: None, ..setup.windows(collator, vocab_size)? }
            }
        };
        Ok(Plan { objective: Self, start: setup.base.start(model.clone()), data })
    }
}
