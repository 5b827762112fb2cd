//! Task `generate`: continue a prompt.

use andiron_data::tokenizer::Tokenizer;
use andiron_models::generate::{
    Batched, BeamOptions, FinishReason, GenerateOptions, Grammar, Hypothesis, SamplingParams, beam_search,
};
use serde_json::{Value, json};

use super::{Answer, Row, RowError, ensure_empty, object, take, take_ids, take_max_tokens};
use crate::grammar::Constraints;
use crate::model::TextModel;
use crate::text::{Completion, Request, continuation};
use crate::verbs::generate::{MAX_TOKENS, finish};

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
        let by_files = self.model.bundle.generation.max_new(prompt.len());
        let (options, stops) = self.wishes.take(row, by_files, self.model.tokenizer.as_ref())?;
        ensure_empty(row)?;
        Ok(Request { prompt, options, stops })
    }
}

/// Continues with what a search finds.
pub(super) struct Search {
    pub(super) model: TextModel,
    pub(super) options: BeamOptions,
    /// Most tokens, if the command line says.
    pub(super) max_tokens: Option<usize>,
}

impl Answer for Search {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let ids = take_ids(&mut row, "prompt", "prompt_ids", |text| self.model.encode_prompt(text))?;
        let max_tokens = take_max_tokens(&mut row)?;
        ensure_empty(&row)?;
        let by_files = || self.model.bundle.generation.max_new(ids.len());
        let max_tokens = max_tokens.or(self.max_tokens).or_else(by_files);
        let mut options = self.options.clone();
        options.max_new_tokens = max_tokens.unwrap_or(options.max_new_tokens);
        let found = best(&self.model.bundle, &ids, &options)?;
        let text = continuation(self.model.tokenizer.as_ref(), &ids, &found.ids)?;
        Ok(found_row(found, text, &options))
    }
}

/// The best of what a search finds.
pub(super) fn best<M: Batched>(
    model: &M,
    prompt: &[u32],
    options: &BeamOptions,
) -> Result<Hypothesis, RowError> {
    let found = beam_search(model, prompt, options).map_err(RowError::failed)?;
    found.into_iter().next().ok_or_else(|| RowError::invalid("nothing was found"))
}

/// The output row of a search.
pub(super) fn found_row(found: Hypothesis, text: String, options: &BeamOptions) -> Row {
    let stopped = found.ids.last().is_some_and(|id| options.stop_ids.contains(id));
    let finish_reason = if stopped { FinishReason::Stop } else { FinishReason::Length };
    let length = (found.ids.len() as f64).powf(options.length_penalty.into());
    let sum_logprob = f64::from(found.score) * length;
    row(Completion { text, ids: found.ids, finish_reason, sum_logprob })
}

/// What is wished for rows that do not say.
pub(super) struct Wishes {
    pub(super) sampling: SamplingParams,
    /// Most tokens, if the command line says.
    pub(super) max_tokens: Option<usize>,
    pub(super) constraints: Constraints,
}

impl Wishes {
    /// The wishes of a row, `by_files` tokens at most if nobody says how many: options, and strings to stop at.
    pub(super) fn take(
        &self,
        row: &mut Row,
        by_files: Option<usize>,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<(GenerateOptions, Vec<String>), RowError> {
        let max_tokens = take_max_tokens(row)?.or(self.max_tokens);
        let max_new_tokens = max_tokens.or(by_files).unwrap_or(MAX_TOKENS);
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
