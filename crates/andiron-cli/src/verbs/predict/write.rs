//! Tasks `translate` and `summarize`: read a text, write another. And `generate`, of models that read first.

use andiron_data::tokenizer::Special;
use andiron_models::encoder_decoder::Conditioned;
use andiron_models::generate::{BeamOptions, GenerateOptions, GenerationConfig, SamplingParams, beam_search};
use serde_json::{Value, json};

use super::generate::{Wishes, best, found_row};
use super::{Answer, Row, RowError, ensure_empty, object, take_ids, take_max_tokens};
use crate::model::Seq2SeqModel;
use crate::text::{Sampling, Text, complete, continuation};

/// Reads, and searches for the likeliest target, or draws one if the model's files say so.
pub(super) struct Write {
    pub(super) model: Seq2SeqModel,
    pub(super) options: BeamOptions,
    /// How ids are chosen without beams.
    pub(super) sampling: SamplingParams,
    /// Put before each text, as models that do several tasks want it.
    pub(super) prefix: String,
}

/// How ids are chosen without beams: the likeliest ones, unless the model's files or the command line say otherwise.
pub(super) fn drawn(
    files: &GenerationConfig,
    flags: &Sampling,
    options: &BeamOptions,
) -> anyhow::Result<SamplingParams> {
    let draws = files.do_sample == Some(true) && flags.given().temperature != Some(0.0);
    anyhow::ensure!(
        !draws || options.num_beams == 1,
        "generation_config.json sets do_sample to true with {} beams, which is not supported: give --num-beams 1 to draw, or \
         --temperature 0 to search",
        options.num_beams
    );
    let params = match draws {
        true => {
            let told = SamplingParams::from(flags.given().or(files.sampling()));
            SamplingParams { seed: flags.params(files).seed, ..told }
        }
        false => SamplingParams::greedy(),
    };
    Ok(SamplingParams {
        repetition_penalty: options.repetition_penalty,
        no_repeat_ngram_size: options.no_repeat_ngram_size,
        ..params
    })
}

impl Answer for Write {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let (source, truncated) = take_source(&mut row, &self.model, ["text", "ids"], &self.prefix)?;
        let max_tokens = take_max_tokens(&mut row)?;
        ensure_empty(&row)?;
        let mut options = self.options.clone();
        options.max_new_tokens = max_tokens.unwrap_or(options.max_new_tokens);
        let model = conditioned(&self.model, &source, options.max_new_tokens)?;
        let (ids, score) = if options.num_beams > 1 {
            let found = beam_search(&model, &[model.start()], &options).map_err(RowError::failed)?;
            found.into_iter().next().map(|found| (found.ids, found.score)).unwrap_or_default()
        } else {
            let length_penalty = options.length_penalty;
            let options = GenerateOptions {
                sampling: self.sampling.clone(),
                max_new_tokens: options.max_new_tokens,
                stop_ids: options.stop_ids,
                ..GenerateOptions::default()
            };
            let text = Text::after(&[], None, Vec::new(), &[])?;
            let done = complete(&model, &[model.start()], options, text, |_| ())?;
            let score = done.sum_logprob as f32 / (done.ids.len() as f32).powf(length_penalty);
            (done.ids, score)
        };
        let text = match self.model.tokenizer() {
            Ok(tokenizer) => tokenizer.decode(&ids, Special::Skip).map_err(RowError::failed)?.into(),
            Err(_) => Value::Null,
        };
        let mut answer = object(json!({ "text": text, "ids": ids, "score": score }));
        if truncated {
            answer.insert("truncated".to_owned(), json!(true));
        }
        Ok(answer)
    }
}

/// Reads, and searches for the likeliest target, as the task `generate` says it.
pub(super) struct Search {
    pub(super) model: Seq2SeqModel,
    pub(super) options: BeamOptions,
}

impl Answer for Search {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let (source, _) = take_source(&mut row, &self.model, ["prompt", "prompt_ids"], "")?;
        let max_tokens = take_max_tokens(&mut row)?;
        ensure_empty(&row)?;
        let mut options = self.options.clone();
        options.max_new_tokens = max_tokens.unwrap_or(options.max_new_tokens);
        let model = conditioned(&self.model, &source, options.max_new_tokens)?;
        let found = best(&model, &[model.start()], &options)?;
        // A target is a text of its own.
        let text = continuation(self.model.tokenizer.as_ref(), &[], &found.ids)?;
        Ok(found_row(found, text, &options))
    }
}

/// Reads, and draws a target.
pub(super) struct Draw {
    pub(super) model: Seq2SeqModel,
    pub(super) wishes: Wishes,
}

impl Answer for Draw {
    fn answer(&self, mut row: Row) -> Result<Row, RowError> {
        let (source, _) = take_source(&mut row, &self.model, ["prompt", "prompt_ids"], "")?;
        let (files, tokenizer) = (&self.model.bundle.generation, self.model.tokenizer.as_ref());
        let (mut options, stops) = self.wishes.take(&mut row, files.max_new(1), tokenizer)?;
        ensure_empty(&row)?;
        options.stop_ids.extend(files.eos_token_id.as_slice());
        let model = conditioned(&self.model, &source, options.max_new_tokens)?;
        // A target is a text of its own.
        let text = Text::after(&[], tokenizer, options.stop_ids.clone(), &stops)?;
        let done = complete(&model, &[model.start()], options, text, |_| ())?;
        Ok(super::generate::row(done))
    }
}

/// The ids of a source, and whether its end was cut off.
fn take_source(
    row: &mut Row,
    model: &Seq2SeqModel,
    [text_key, ids_key]: [&str; 2],
    prefix: &str,
) -> Result<(Vec<u32>, bool), RowError> {
    let (longest, vocab_size) = (model.bundle.config.max_positions(), model.bundle.config.vocab_size());
    let mut truncated = false;
    let ids = take_ids(row, text_key, ids_key, |text| {
        let framed = model.tokenizer()?.frame_prompt(&format!("{prefix}{text}"), longest)?;
        truncated = framed.truncated;
        Ok(framed.ids)
    })?;
    match ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(id) => {
            Err(RowError::invalid(format!("there is no token {id}: the vocabulary has {vocab_size}")))
        }
        None if ids.is_empty() => Err(RowError::invalid("there is no token to read")),
        None if ids.len() > longest => Err(RowError::invalid(format!(
            "there are {} ids, and the model reads at most {longest}",
            ids.len()
        ))),
        None => Ok((ids, truncated)),
    }
}

/// The model that has read `source`, for targets of at most `max_tokens` ids.
fn conditioned(model: &Seq2SeqModel, source: &[u32], max_tokens: usize) -> Result<Conditioned, RowError> {
    Ok(Conditioned::new(&model.bundle, source).with_length_limit(max_tokens.saturating_add(1)))
}
