//! Task `generate`: continue a prompt.

use andiron_models::generate::{GenerateOptions, SamplingParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Row, RowError, ensure_empty, take_ids};
use crate::text::TextModel;
use crate::verbs::generate::finish;

pub(super) fn answer(
    model: &TextModel,
    mut row: Row,
    sampling: &SamplingParams,
    max_tokens: usize,
) -> Result<Row, RowError> {
    let ids = take_ids(&mut row, "prompt", "prompt_ids", |text| model.encode_prompt(text))?;
    let max_new_tokens = take(&mut row, "max_tokens", "a whole number")?.unwrap_or(max_tokens);
    let seed = take(&mut row, "seed", "a whole number")?.unwrap_or(sampling.seed);
    let stops: Vec<String> = match row.shift_remove("stop") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(stop)) => vec![stop],
        Some(list) => serde_json::from_value(list)
            .map_err(|_| RowError::invalid("stop is not a string or a list of strings"))?,
    };
    ensure_empty(&row)?;
    let options = GenerateOptions {
        sampling: SamplingParams { seed, ..sampling.clone() },
        max_new_tokens,
        ..GenerateOptions::default()
    };
    let done = model.generate(&ids, options, &stops, |_| ()).map_err(RowError::failed)?;
    let answer = json!({
        "text": done.text,
        "ids": done.ids,
        "finish_reason": finish(&done),
        "sum_logprob": done.sum_logprob,
    });
    match answer {
        Value::Object(answer) => Ok(answer),
        _ => unreachable!("made as an object"),
    }
}

fn take<T: DeserializeOwned>(row: &mut Row, key: &str, what: &str) -> Result<Option<T>, RowError> {
    let value = row.shift_remove(key).unwrap_or(Value::Null);
    serde_json::from_value(value).map_err(|_| RowError::invalid(format!("{key} is not {what}")))
}
