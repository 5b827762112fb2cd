//! Span corruption, for encoder-decoders: T5's pretraining.
//!
//! Source: Raffel et al. 2019, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
//! <https://arxiv.org/abs/1910.10683>.

use std::sync::Arc;

use andiron_data::collate::{self, NoiseSpans};
use serde::{Deserialize, Serialize};

use super::{FromConfig, Restore};
use crate::config::{ConfigError, check};
use crate::plan::{Plan, Setup, TrainingData};
use crate::trainer::TrainError;

/// Options of [`SpanCorruption`]. The defaults are T5's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpanCorruptionConfig {
    /// Share of the tokens that are removed.
    pub density: f32,
    /// Mean length of a removed span, in tokens.
    pub mean_length: f32,
}

impl Default for SpanCorruptionConfig {
    fn default() -> Self {
        let NoiseSpans { density, mean_length } = NoiseSpans::default();
        Self { density, mean_length }
    }
}

/// Cross-entropy of the removed spans of a text in which a sentinel stands for each, in nats.
pub type SpanCorruption = Restore<SpanCorruptionConfig>;

impl FromConfig for SpanCorruption {
    type Config = SpanCorruptionConfig;

    fn plan(config: &SpanCorruptionConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        let SpanCorruptionConfig { density, mean_length } = *config;
        check(density > 0.0 && density <= 0.5, "objective.density", density, "above 0 and at most 0.5")?;
        let is_length = mean_length >= 1.0 && mean_length.is_finite();
        check(is_length, "objective.mean_length", mean_length, "at least 1")?;
        let model = setup.base.encoder_decoder()?;
        let tokenizer = setup.open_tokenizer()?;
        let missing = |why| ConfigError::Missing { field: "data.tokenizer", why };
        let no_sentinels = "the tokenizer has no <extra_id_0>, which span corruption puts in place of a span";
        let sentinels = tokenizer.sentinels().ok_or_else(|| missing(no_sentinels))?;
        let no_end = "the tokenizer has no end-of-sequence token, with which sources and targets end";
        let end = tokenizer.eos_id().ok_or_else(|| missing(no_end))?;
        let vocab_size = model.vocab_size().min(model.target_vocab_size());
        setup.check_vocabulary(&tokenizer, vocab_size)?;
        let decoder =
            collate::Seq2Seq { decoder_start: model.decoder_start_token_id(), pad: model.pad_token_id() };
        let noise = NoiseSpans { density, mean_length };
        let collator = collate::SpanCorruption::new(setup.context()?, noise, sentinels, end, decoder)
            .map_err(|source| ConfigError::Spans { source })?;
        // A target is not text alone, so that its loss is none of a byte of text.
        let data = TrainingData { bytes_per_target: None, ..setup.windows(Arc::new(collator), vocab_size)? };
        Ok(Plan { objective: Self::default(), start: setup.base.start(model.clone()), data })
    }
}
