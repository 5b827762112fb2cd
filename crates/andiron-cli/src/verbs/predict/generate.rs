//! Task `generate`: continue a prompt.

use std::num::NonZeroUsize;

use andiron_models::generate::{BeamOptions, Constraint, GenerateOptions, Grammar, SamplingParams};
use andiron_pipelines::{Completion, DecoderPipeline, GenerateRequest, TextProcessor};
use serde_json::Value;

use super::rows::{Answer, Row, RowError, answer_parsed, object, take, take_max_tokens, take_prompt};
use crate::verbs::generate::{self, MAX_TOKENS};

/// Generates by sampling, or greedily.
pub(super) struct Generate {
    pub(super) model: DecoderPipeline,
    pub(super) defaults: GenerateDefaults,
    pub(super) batch_size: NonZeroUsize,
}

impl Answer for Generate {
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        answer_parsed(
            rows,
            |row| self.request(row),
            |requests| {
                let done = self.model.generate_batch(requests, self.batch_size.get());
                done.into_iter().map(|done| Ok(row(done?))).collect()
            },
        )
    }

    fn rows_together(&self) -> usize {
        self.batch_size.get()
    }
}

impl Generate {
    fn request(&self, row: &mut Row) -> Result<GenerateRequest, RowError> {
        let prompt = self.model.prompt_ids(&take_prompt(row, "prompt", "prompt_ids")?)?;
        let by_files = self.model.bundle.generation.max_new(prompt.len());
        let (options, stops) = self.defaults.take(row, by_files, &self.model.text)?;
        Ok(GenerateRequest { prompt, options, stops })
    }
}

/// Generates by beam search.
pub(super) struct Search {
    pub(super) model: DecoderPipeline,
    pub(super) options: BeamOptions,
    /// `--max-tokens`.
    pub(super) max_tokens: Option<usize>,
}

impl Answer for Search {
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        let request = |row: &mut Row| {
            let ids = self.model.prompt_ids(&take_prompt(row, "prompt", "prompt_ids")?)?;
            let by_files = || self.model.bundle.generation.max_new(ids.len());
            let max_tokens = take_max_tokens(row)?.or(self.max_tokens).or_else(by_files);
            let max_new_tokens = max_tokens.unwrap_or(self.options.max_new_tokens);
            ensure_no_sampling(row)?;
            Ok((ids, BeamOptions { max_new_tokens, ..self.options.clone() }))
        };
        answer_parsed(rows, request, |requests| {
            let search =
                |(ids, options): (Vec<u32>, BeamOptions)| Ok(row(self.model.search(&ids, &options)?));
            requests.into_iter().map(search).collect()
        })
    }

    fn rows_together(&self) -> usize {
        1
    }
}

/// Refuses fields that beam search does not support.
pub(super) fn ensure_no_sampling(row: &Row) -> Result<(), RowError> {
    const FIELDS: [&str; 5] = ["seed", "stop", "choice", "regex", "json_schema"];
    match FIELDS.into_iter().find(|&field| row.contains_key(field)) {
        Some(field) => Err(RowError::invalid(format!(
            "a beam search, which --num-beams or the model's generation_config.json asks for, takes no {field}: with \
             --num-beams 1 it does"
        ))),
        None => Ok(()),
    }
}

/// Defaults for the fields of a row.
pub(super) struct GenerateDefaults {
    pub(super) sampling: SamplingParams,
    /// `--max-tokens`.
    pub(super) max_tokens: Option<usize>,
    pub(super) constraint: Option<Constraint>,
}

impl GenerateDefaults {
    /// Options and stop strings of a row. `by_files` is the maximum number of tokens if neither row nor command line sets it.
    pub(super) fn take(
        &self,
        row: &mut Row,
        by_files: Option<usize>,
        text: &TextProcessor,
    ) -> Result<(GenerateOptions, Option<Vec<String>>), RowError> {
        let max_tokens = take_max_tokens(row)?.or(self.max_tokens);
        let max_new_tokens = max_tokens.or(by_files).unwrap_or(MAX_TOKENS);
        let seed = take(row, "seed", "a whole number")?.unwrap_or(self.sampling.seed);
        let stops: Option<Vec<String>> = match row.shift_remove("stop") {
            Some(Value::String(stop)) => Some(vec![stop]),
            list => serde_json::from_value(list.unwrap_or_default())
                .map_err(|_| RowError::invalid("stop is not a string or a list of strings"))?,
        };
        let constraint = match take_grammar(row)? {
            Some(grammar) => Some(text.constraint(grammar)?),
            None => self.constraint.clone(),
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

/// The grammar of a row, if it has one.
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
    object(generate::object(done))
}
