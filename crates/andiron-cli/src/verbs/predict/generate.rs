//! Task `generate`: continue a prompt.

use andiron_models::generate::{GenerateOptions, SamplingParams};
use serde_json::{Value, json};

use super::{Answer, Row, RowError, ensure_empty, object, take, take_ids};
use crate::model::TextModel;
use crate::verbs::generate::finish;

pub(super) struct Generate {
    pub(super) model: TextModel,
    pub(super) sampling: SamplingParams,
    /// For rows that do not say.
    pub(super) max_tokens: usize,
}

impl Answer for Generate {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let ids = take_ids(&mut row, "prompt", "prompt_ids", |text| self.model.encode_prompt(text))?;
        let max_new_tokens = take(&mut row, "max_tokens", "a whole number")?.unwrap_or(self.max_tokens);
        let seed = take(&mut row, "seed", "a whole number")?.unwrap_or(self.sampling.seed);
        let stops: Vec<String> = match row.shift_remove("stop") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(stop)) => vec![stop],
            Some(list) => serde_json::from_value(list)
                .map_err(|_| RowError::invalid("stop is not a string or a list of strings"))?,
        };
        ensure_empty(&row)?;
        let options = GenerateOptions {
            sampling: SamplingParams { seed, ..self.sampling.clone() },
            max_new_tokens,
            ..GenerateOptions::default()
        };
        let done = self.model.generate(&ids, options, &stops, |_| ()).map_err(RowError::failed)?;
        Ok(object(json!({
            "text": done.text,
            "ids": done.ids,
            "finish_reason": finish(&done),
            "sum_logprob": done.sum_logprob,
        })))
    }
}
