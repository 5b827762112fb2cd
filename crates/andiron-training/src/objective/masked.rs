//! Masked-language modelling, for encoders.
//!
//! Source: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers", <https://arxiv.org/abs/1810.04805>.

use std::sync::Arc;

use andiron_core::ops;
use andiron_data::batch::HostBatch;
use andiron_data::collate::{self, Masking};
use andiron_data::records::{Record, columns};
use andiron_data::rows::TextFields;
use andiron_models::encoder::Head;
use andiron_models::{Encoder as _, EncoderConfig, EncoderHead};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{FromConfig, Measured, Metrics, ModelOf, Objective, Pass, WeightedTargets, token_metrics};
use crate::config::{ConfigError, check};
use crate::plan::{Plan, Setup, TrainingData};
use crate::rows::{EncodeFault, Encoding, text_columns};
use crate::trainer::TrainError;

/// Options of [`Masked`]. The defaults are BERT's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaskedConfig {
    /// Probability that a token, or a word, is to be predicted.
    pub probability: f32,
    /// Share of those that become the mask token.
    pub mask_share: f32,
    /// Share of those that become a random token; the rest stays as it is.
    pub random_share: f32,
    /// Whether all tokens of a word are masked together.
    pub whole_words: bool,
}

impl Default for MaskedConfig {
    fn default() -> Self {
        Self { probability: 0.15, mask_share: 0.8, random_share: 0.1, whole_words: false }
    }
}

impl MaskedConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let Self { probability, mask_share, random_share, whole_words: _ } = *self;
        let fits = probability > 0.0 && probability <= 1.0;
        check(fits, "objective.probability", probability, "above 0 and at most 1")?;
        check((0.0..=1.0).contains(&mask_share), "objective.mask_share", mask_share, "in 0..=1")?;
        let rest = (0.0..=1.0 - mask_share).contains(&random_share);
        check(
            rest,
            "objective.random_share",
            random_share,
            "at least 0, and with objective.mask_share at most 1",
        )
    }
}

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
        let mut cx = pass.context(inputs);
        let hidden_btd = model.hidden(pass.ids(inputs), pass.type_ids(inputs), &mut cx);
        let Head::MaskedLm(head) = model.head() else { panic!("an encoder with a head for masked tokens") };
        let [b, t, d] = hidden_btd.dims();
        let WeightedTargets { positions_n, targets_n, weights_n } = pass.weighted_targets(labels);
        let masked_nd = hidden_btd.reshape([b * t, d]).select(0, positions_n);
        let hidden_nd = cx.with_adapters(|| head.transform(masked_nd));
        ops::head_cross_entropy(hidden_nd, pass.head(head.projection()), targets_n, weights_n)
    }

    fn metrics(&self, measured: &Measured, (): &()) -> Metrics {
        token_metrics(measured)
    }
}

impl FromConfig for Masked {
    type Config = MaskedConfig;

    fn plan(config: &MaskedConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        config.validate()?;
        let tokenizer = setup.open_tokenizer()?;
        let why = "the tokenizer has no mask token, which masked language modeling puts in place of tokens";
        let mask_id = tokenizer.mask_id().ok_or(ConfigError::Missing { field: "data.tokenizer", why })?;
        let (model, start) = setup.base.start_encoder(EncoderHead::MaskedLm, &[])?;
        let vocab_size = model.vocab_size();
        setup.check_vocabulary(&tokenizer, vocab_size)?;
        let why = "the tokenizer does not tell where words begin: set objective.whole_words = false";
        let word_starts = match config.whole_words {
            true => {
                let starts = tokenizer.word_starts();
                Some(starts.ok_or(ConfigError::Missing { field: "objective.whole_words", why })?.into())
            }
            false => None,
        };
        let masking = Masking {
            probability: config.probability,
            mask_share: config.mask_share,
            random_share: config.random_share,
            word_starts,
            ..Masking::bert(mask_id, tokenizer.vocab_size() as u32, tokenizer.never_masked().into())
        };
        let around = tokenizer.added_around().map_err(|source| setup.tokenizer_error(source))?;
        let pad = model.pad_token_id();
        let data = if setup.has_rows()? {
            let max_length = setup.max_length(model.max_positions());
            let fields: TextFields = setup.fields("a text: name it in data.fields")?;
            let encode = |text: String| -> Result<Record<'static>, EncodeFault> {
                let framed = tokenizer.frame(&text, None, max_length)?;
                Ok(Record::default().with_ids(columns::IDS, framed.ids))
            };
            let encoding = Encoding {
                shape: fields,
                columns: &text_columns(false),
                settings: json!({ "max_length": max_length }),
                vocabularies: &[(columns::IDS, vocab_size)],
                encode: &encode,
            };
            setup
                .records(&encoding, Arc::new(collate::Masked { columns: max_length, around, pad, masking }))?
        } else {
            let columns = setup.context()?;
            let room = around.len() < columns;
            check(room, "data.context", columns, "more than the special tokens around a text")?;
            let collator = Arc::new(collate::Masked { columns, around, pad, masking });
            // Of a text only some tokens are targets, so that the loss is none of a byte of text.
            TrainingData { bytes_per_target: None, ..setup.windows(collator, vocab_size)? }
        };
        Ok(Plan { objective: Self, start, data })
    }
}
