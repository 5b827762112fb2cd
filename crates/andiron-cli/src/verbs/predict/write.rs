//! Tasks of encoder-decoders: `translate`, `summarize` and `generate`.

use std::num::NonZeroUsize;

use andiron_models::generate::{BeamOptions, GenerateOptions, GenerationConfig, SamplingParams};
use andiron_pipelines::{PromptInput, RewriteOptions, Rewritten, Seq2SeqPipeline, SourceError};
use serde_json::json;

use super::generate::{self, GenerateDefaults};
use super::rows::{
    Answer, Row, RowError, answer_parsed, object, take_max_tokens, take_prompt, tell_truncation,
};
use crate::sampling::Sampling;

/// Translates or summarizes: by beam search, greedily, or by sampling if the model's files ask for it.
pub(super) struct Write {
    pub(super) model: Seq2SeqPipeline,
    pub(super) options: RewriteOptions,
    pub(super) summarizes: bool,
    pub(super) batch_size: NonZeroUsize,
}

/// Sampling parameters without beams: greedy, unless `do_sample` of the model's files is true.
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
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        let source = |row: &mut Row| Ok((take_prompt(row, "text", "ids")?, take_max_tokens(row)?));
        answer_parsed(rows, source, |sources| {
            let written = match self.summarizes {
                true => self.model.summarize(&sources, &self.options, self.batch_size.get()),
                false => self.model.translate(&sources, &self.options, self.batch_size.get()),
            };
            let row = |written: Result<Rewritten, SourceError>| {
                let Rewritten { text, ids, score, truncated } = written?;
                let mut row = object(json!({ "text": text, "ids": ids, "score": score }));
                tell_truncation(&mut row, truncated);
                Ok(row)
            };
            written.into_iter().map(row).collect()
        })
    }

    fn rows_together(&self) -> usize {
        self.batch_size.get()
    }
}

/// The task `generate` by beam search.
pub(super) struct Search {
    pub(super) model: Seq2SeqPipeline,
    pub(super) options: BeamOptions,
}

impl Answer for Search {
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        let request = |row: &mut Row| {
            let source = take_prompt(row, "prompt", "prompt_ids")?;
            let max_new_tokens = take_max_tokens(row)?.unwrap_or(self.options.max_new_tokens);
            generate::ensure_no_sampling(row)?;
            Ok((source, BeamOptions { max_new_tokens, ..self.options.clone() }))
        };
        answer_parsed(rows, request, |requests| {
            let search = |(source, options): (PromptInput, BeamOptions)| {
                Ok(generate::row(self.model.search(&source, &options)?))
            };
            requests.into_iter().map(search).collect()
        })
    }

    fn rows_together(&self) -> usize {
        1
    }
}

/// The task `generate` by sampling, or greedily.
pub(super) struct Draw {
    pub(super) model: Seq2SeqPipeline,
    pub(super) defaults: GenerateDefaults,
}

impl Answer for Draw {
    fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
        let request = |row: &mut Row| {
            let source = take_prompt(row, "prompt", "prompt_ids")?;
            let by_files = self.model.bundle.generation.max_new(1);
            Ok((source, self.defaults.take(row, by_files, &self.model.text)?))
        };
        answer_parsed(rows, request, |requests| {
            let draw = |(source, (options, stops)): (PromptInput, (GenerateOptions, Option<Vec<String>>))| {
                Ok(generate::row(self.model.generate(&source, options, stops.as_deref())?))
            };
            requests.into_iter().map(draw).collect()
        })
    }

    fn rows_together(&self) -> usize {
        1
    }
}
