//! Denoising, for encoder-decoders: BART's pretraining.
//!
//! Source: Lewis et al. 2019, "BART: Denoising Sequence-to-Sequence Pre-training", <https://arxiv.org/abs/1910.13461>.

use std::sync::Arc;

use andiron_data::collate::{self, TextInfilling};
use andiron_data::records::{Record, columns};
use andiron_data::rows::{RowFault, TextFields};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{FromConfig, Restore};
use crate::config::{ConfigError, check};
use crate::plan::{Plan, Setup, TrainingData};
use crate::rows::{EncodeFault, Encoding, text_columns};
use crate::trainer::TrainError;

/// Options of [`Denoise`]. The defaults are BART's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DenoiseConfig {
    /// Share of the tokens that are removed.
    pub share: f32,
    /// Mean length of a removed span, in tokens: lengths have a Poisson distribution. A mask token takes the place of each.
    pub mean_length: f32,
    /// Whether sentences are put in random order.
    pub permute_sentences: bool,
}

impl Default for DenoiseConfig {
    fn default() -> Self {
        let TextInfilling { share, mean_length, .. } = TextInfilling::bart(0);
        Self { share, mean_length, permute_sentences: true }
    }
}

/// Cross-entropy of a whole text, given the same text damaged, in nats.
pub type Denoise = Restore<DenoiseConfig>;

impl FromConfig for Denoise {
    type Config = DenoiseConfig;

    fn plan(config: &DenoiseConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        let DenoiseConfig { share, mean_length, permute_sentences } = *config;
        check(share > 0.0 && share <= 1.0, "objective.share", share, "above 0 and at most 1")?;
        let is_length = mean_length > 0.0 && mean_length <= 100.0;
        check(is_length, "objective.mean_length", mean_length, "above 0 and at most 100")?;
        let model = setup.base.encoder_decoder()?;
        let tokenizer = setup.open_tokenizer()?;
        let why = "the tokenizer has no mask token, which denoising puts in place of spans";
        let mask_id = tokenizer.mask_id().ok_or(ConfigError::Missing { field: "data.tokenizer", why })?;
        let vocab_size = model.vocab_size().min(model.target_vocab_size());
        setup.check_vocabulary(&tokenizer, vocab_size)?;
        let around = tokenizer.added_around().map_err(|source| setup.tokenizer_error(source))?;
        let has_rows = setup.has_rows()?;
        let (columns, field) = match has_rows {
            true => (setup.max_length(model.max_positions()), "data.max_length"),
            false => (setup.context()?, "data.context"),
        };
        check(around.len() < columns, field, columns, "more than the special tokens around a text")?;
        let collator = Arc::new(collate::Denoise {
            columns,
            around: around.clone(),
            infilling: TextInfilling { share, mean_length, mask_id },
            sentence_ends: permute_sentences.then(|| tokenizer.sentence_ends().into()),
            decoder: collate::Seq2Seq {
                decoder_start: model.decoder_start_token_id(),
                pad: model.pad_token_id(),
            },
        });
        let data = if has_rows {
            let fields: TextFields = setup.fields("a text: name it in data.fields")?;
            let encode = |text: String| -> Result<Record<'static>, EncodeFault> {
                let framed = tokenizer.frame(&text, None, columns)?;
                // The collator puts the special tokens around a text when it is damaged.
                let end = framed.ids.len().saturating_sub(around.after.len());
                let own = framed.ids.get(around.before.len()..end).unwrap_or_default();
                if own.is_empty() {
                    return Err(RowFault::Empty { field: fields.text.clone() }.into());
                }
                Ok(Record::default().with_ids(columns::IDS, own.to_vec()))
            };
            let encoding = Encoding {
                shape: fields.clone(),
                columns: &text_columns(false),
                settings: json!({ "max_length": columns, "framed": false }),
                vocabularies: &[(columns::IDS, vocab_size)],
                encode: &encode,
            };
            setup.records(&encoding, collator)?
        } else {
            // A target has special tokens besides text, so that its loss is none of a byte of text.
            TrainingData { bytes_per_target: None, ..setup.windows(collator, vocab_size)? }
        };
        Ok(Plan { objective: Self::default(), start: setup.base.start(model.clone()), data })
    }
}
