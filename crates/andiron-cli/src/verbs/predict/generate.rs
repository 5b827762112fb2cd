//! Task `generate`: continue a prompt.

use andiron_data::tokenizer::{Special, Tokenizer};
use andiron_models::generate::{
    BeamOptions, FinishReason, GenerateOptions, Grammar, SamplingParams, beam_search,
};
use serde_json::{Value, json};

use super::{Answer, Row, RowError, ensure_empty, object, take, take_ids};
use crate::grammar::Constraints;
use crate::model::TextModel;
use crate::text::{Completion, Request};
use crate::verbs::generate::finish;

/// Continues by drawing.
pub(super) struct Generate {
    pub(super) model: TextModel,
    pub(super) wishes: Wishes,
}

impl Answer for Generate {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let Request { prompt, options, stops } = self.request(&mut row)?;
        Ok(self::row(self.model.generate(&prompt, options, &stops, |_| ()).map_err(RowError::failed)?))
    }

    fn answer_all(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        let mut answers: Vec<Option<RowError>> = Vec::with_capacity(rows.len());
        let mut requests = Vec::new();
        for mut row in rows {
            answers.push(self.request(&mut row).map(|request| requests.push(request)).err());
        }
        let mut done = self.model.generate_all(requests).into_iter();
        let answer = |error: Option<RowError>| match error {
            Some(error) => Err(error),
            None => {
                let done = done.next().expect("each request has an answer");
                Ok(row(done.map_err(RowError::failed)?))
            }
        };
        answers.into_iter().map(answer).collect()
    }
}

impl Generate {
    fn request(&self, row: &mut Row) -> Result<Request, RowError> {
        let prompt = take_ids(row, "prompt", "prompt_ids", |text| self.model.encode_prompt(text))?;
        let (options, stops) = self.wishes.take(row, self.model.tokenizer.as_ref())?;
        ensure_empty(row)?;
        Ok(Request { prompt, options, stops })
    }
}

/// Continues with what a search finds.
pub(super) struct Search {
    pub(super) model: TextModel,
    pub(super) options: BeamOptions,
}

impl Answer for Search {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let ids = take_ids(&mut row, "prompt", "prompt_ids", |text| self.model.encode_prompt(text))?;
        let max_tokens = take(&mut row, "max_tokens", "a whole number")?;
        ensure_empty(&row)?;
        let mut options = self.options.clone();
        options.max_new_tokens = max_tokens.unwrap_or(options.max_new_tokens);
        let found = beam_search(&self.model.bundle, &ids, &options).map_err(RowError::failed)?;
        let Some(found) = found.into_iter().next() else {
            return Err(RowError::invalid("nothing was found"));
        };
        let text = match self.model.tokenizer() {
            Ok(tokenizer) => tokenizer.decode(&found.ids, Special::Skip).map_err(RowError::failed)?,
            Err(_) => String::new(),
        };
        let stopped = found.ids.last().is_some_and(|id| options.stop_ids.contains(id));
        let finish_reason = if stopped { FinishReason::Stop } else { FinishReason::Length };
        let length = (found.ids.len() as f64).powf(options.length_penalty.into());
        let sum_logprob = f64::from(found.score) * length;
        Ok(self::row(Completion { text, ids: found.ids, finish_reason, sum_logprob }))
    }
}

/// What is wished for rows that do not say.
pub(super) struct Wishes {
    pub(super) sampling: SamplingParams,
    pub(super) max_tokens: usize,
    pub(super) constraints: Constraints,
}

impl Wishes {
    /// The wishes of a row: options, and strings to stop at.
    pub(super) fn take(
        &self,
        row: &mut Row,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<(GenerateOptions, Vec<String>), RowError> {
        let max_new_tokens = take(row, "max_tokens", "a whole number")?.unwrap_or(self.max_tokens);
        let seed = take(row, "seed", "a whole number")?.unwrap_or(self.sampling.seed);
        let stops: Vec<String> = match row.shift_remove("stop") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(stop)) => vec![stop],
            Some(list) => serde_json::from_value(list)
                .map_err(|_| RowError::invalid("stop is not a string or a list of strings"))?,
        };
        let constraint = match take_grammar(row)? {
            Some(grammar) => Some(self.constraints.make(tokenizer, grammar)?),
            None => self.constraints.usual(),
        };
        let options = GenerateOptions {
            sampling: SamplingParams { seed, ..self.sampling.clone() },
            max_new_tokens,
            constraint,
            ..GenerateOptions::default()
        };
        Ok((options, stops))
    }
}

/// What the text of a row may be, if the row says so.
fn take_grammar(row: &mut Row) -> Result<Option<Grammar>, RowError> {
    let choice = take(row, "choice", "a list of strings")?.map(Grammar::Choice);
    let regex = take(row, "regex", "a string")?.map(Grammar::Regex);
    let schema = take(row, "json_schema", "a JSON schema")?.map(Grammar::JsonSchema);
    let mut given = [choice, regex, schema].into_iter().flatten();
    match (given.next(), given.next()) {
        (grammar, None) => Ok(grammar),
        (_, Some(_)) => Err(RowError::invalid("give one of choice, regex and json_schema")),
    }
}

/// The output row of a generation.
pub(super) fn row(done: Completion) -> Row {
    object(json!({
        "text": done.text,
        "ids": done.ids,
        "finish_reason": finish(&done),
        "sum_logprob": done.sum_logprob,
    }))
}
