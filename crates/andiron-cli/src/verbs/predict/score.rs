//! Task `score`: how likely a sequence is.

use andiron_data::tokenizer::{Special, Tokenizer};
use andiron_eval::task::score::{Scores, score, score_target};
use andiron_models::Seq2SeqBundle;
use serde_json::{Value, json};

use super::{Answer, Row, RowError, ensure_empty, object, take_ids};
use crate::model::{Seq2SeqModel, TextModel};

pub(super) struct Score {
    pub(super) model: TextModel,
}

/// The same of a target, given a source.
pub(super) struct ScoreTarget {
    model: Seq2SeqModel,
    /// Of the targets, which may not be that of the sources.
    tokenizer: Option<Tokenizer>,
}

impl ScoreTarget {
    pub(super) fn new(model: Seq2SeqModel) -> anyhow::Result<Self> {
        let tokenizer = model.tokenizer.as_ref().map(Tokenizer::for_targets).transpose()?;
        Ok(Self { model, tokenizer })
    }
}

impl Answer for ScoreTarget {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let encode = |text: &str| Ok(self.model.tokenizer()?.encode_prompt(text)?);
        let source = take_ids(&mut row, "source", "source_ids", encode)?;
        let encode_target = |text: &str| match &self.tokenizer {
            Some(tokenizer) => Ok(tokenizer.encode_prompt(text)?),
            None => encode(text),
        };
        let target = take_ids(&mut row, "target", "target_ids", encode_target)?;
        ensure_empty(&row)?;
        let bundle = &self.model.bundle;
        let Seq2SeqBundle { config, model, .. } = bundle;
        let start = bundle.start_id();
        let sizes = [config.vocab_size(), config.max_positions()];
        let score = || score_target(model, [&source, &target], start, sizes, bundle.device());
        let scores = bundle.precision().run(score).map_err(RowError::failed)?;
        to_row(&target, scores, self.model.tokenizer.as_ref())
    }
}

fn to_row(ids: &[u32], scores: Scores, tokenizer: Option<&Tokenizer>) -> Result<Row, RowError> {
    let bytes = match tokenizer {
        Some(tokenizer) => json!(tokenizer.decode(ids, Special::Skip).map_err(RowError::failed)?.len()),
        None => Value::Null,
    };
    Ok(object(json!({
        "ids": ids,
        "logprobs": scores.logprobs,
        "sum_logprob": scores.sum_logprob,
        "bytes": bytes,
        "is_greedy": scores.is_greedy,
    })))
}

impl Answer for Score {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let model = &self.model;
        // A text is scored as it is: an empty one has no tokens, where a prompt would begin with one.
        let ids =
            take_ids(&mut row, "text", "ids", |text| Ok(model.tokenizer()?.encode_bare_prompt(text)?))?;
        ensure_empty(&row)?;
        let bundle = &model.bundle;
        let context = bundle.config.max_positions();
        let score = || score(&bundle.model, &ids, context, bundle.device());
        let scores = bundle.precision().run(score).map_err(RowError::failed)?;
        to_row(&ids, scores, model.tokenizer.as_ref())
    }
}
