//! Task `score`: how likely a sequence is.

use andiron_data::tokenizer::Special;
use andiron_eval::task::score::score;
use serde_json::{Value, json};

use super::{Answer, Row, RowError, ensure_empty, object, take_ids};
use crate::model::TextModel;

pub(super) struct Score {
    pub(super) model: TextModel,
}

impl Answer for Score {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let model = &self.model;
        // A text is scored as it is: an empty one has no tokens, where a prompt would begin with one.
        let ids = take_ids(&mut row, "text", "ids", |text| Ok(model.tokenizer()?.encode(text)?))?;
        ensure_empty(&row)?;
        let bundle = &model.bundle;
        let context = bundle.config.max_positions();
        let scores = score(&bundle.model, &ids, context, bundle.device()).map_err(RowError::failed)?;
        let bytes = match model.tokenizer() {
            Ok(tokenizer) => json!(tokenizer.decode(&ids, Special::Skip).map_err(RowError::failed)?.len()),
            Err(_) => Value::Null,
        };
        Ok(object(json!({
            "ids": ids,
            "logprobs": scores.logprobs,
            "sum_logprob": scores.sum_logprob,
            "bytes": bytes,
            "is_greedy": scores.is_greedy,
        })))
    }
}
