//! Tasks of encoder-decoders: `translate`, `summarize`, and `generate` from a source.

use andiron_data::tokenizer::{Special, Tokenizer};
use andiron_models::encoder_decoder::Seq2SeqGenerator;
use andiron_models::generate::{
    BeamOptions, Decoding, GenerateError, GenerateOptions, GenerationConfig, Hypothesis, SamplingParams,
    beam_search_while,
};

use crate::Seq2SeqPipeline;
use crate::generate::{Completion, CompletionError, best, complete, found_completion};
use crate::input::{InputError, PromptInput};
use crate::text_processor::TextError;

/// How a target is generated.
#[derive(Clone, Debug)]
pub struct RewriteOptions {
    /// Beam search options; with one beam, only lengths, length penalty and stop ids apply.
    pub beams: BeamOptions,
    /// Sampling with one beam.
    pub sampling: SamplingParams,
    /// Text to put before each source, for multi-task models, such as `summarize: ` for T5.
    pub prefix: String,
}

/// Maximum number of new tokens if the model's files set none.
const MAX_NEW_TOKENS: usize = 256;

impl RewriteOptions {
    /// What the model's files say: their beams, or one with their sampling if they draw, else greedy; at most 256 new tokens unless
    /// they say so.
    pub fn of_files(files: &GenerationConfig) -> Self {
        let mut beams = BeamOptions { num_return_sequences: 1, ..files.beam_options() };
        if files.length_limit().is_none() {
            beams.max_new_tokens = MAX_NEW_TOKENS;
        }
        let params = match files.do_sample == Some(true) && beams.num_beams == 1 {
            true => SamplingParams::from(files.sampling()),
            false => SamplingParams::greedy(),
        };
        let sampling = SamplingParams {
            repetition_penalty: beams.repetition_penalty,
            no_repeat_ngram_size: beams.no_repeat_ngram_size,
            ..params
        };
        Self { beams, sampling, prefix: String::new() }
    }
}

/// A generated target.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewritten {
    /// The text; `None` without a tokenizer.
    pub text: Option<String>,
    /// Its ids, a stop id included.
    pub ids: Vec<u32>,
    /// Its log-probability, divided by its length to the power `length_penalty`.
    pub score: f32,
    /// Whether the source was truncated.
    pub truncated: bool,
}

/// Why a source has no target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Tokenizing the source or decoding the target fails.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The source cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The generation cannot start or go on.
    #[error(transparent)]
    Completion(#[from] CompletionError),
}

impl From<GenerateError> for SourceError {
    fn from(error: GenerateError) -> Self {
        Self::Completion(error.into())
    }
}

/// A source in ids.
struct Source {
    ids: Vec<u32>,
    truncated: bool,
}

impl Seq2SeqPipeline {
    /// A translation of each source, of at most the given number of tokens.
    pub fn translate(
        &self,
        sources: &[(PromptInput, Option<usize>)],
        options: &RewriteOptions,
    ) -> Vec<Result<Rewritten, SourceError>> {
        sources.iter().map(|(source, max_tokens)| self.rewrite(source, *max_tokens, options)).collect()
    }

    /// A summary of each source, of at most the given number of tokens.
    pub fn summarize(
        &self,
        sources: &[(PromptInput, Option<usize>)],
        options: &RewriteOptions,
    ) -> Vec<Result<Rewritten, SourceError>> {
        self.translate(sources, options)
    }

    fn rewrite(
        &self,
        source: &PromptInput,
        max_tokens: Option<usize>,
        options: &RewriteOptions,
    ) -> Result<Rewritten, SourceError> {
        let Source { ids, truncated } = self.source(source, &options.prefix)?;
        let mut beams = options.beams.clone();
        beams.max_new_tokens = max_tokens.unwrap_or(beams.max_new_tokens);
        let model = self.generator(&ids, beams.max_new_tokens);
        if beams.num_beams > 1 {
            return Ok(self.found(&model, &beams, truncated, || true)?.swap_remove(0));
        }
        let length_penalty = beams.length_penalty;
        let options = GenerateOptions {
            sampling: options.sampling.clone(),
            max_new_tokens: beams.max_new_tokens,
            stop_ids: beams.stop_ids,
            ..GenerateOptions::default()
        };
        let Completion { text, ids, sum_logprob, .. } = self.draw(&model, options, None)?;
        let score = sum_logprob as f32 / (ids.len() as f32).powf(length_penalty);
        Ok(Rewritten { text: self.text.tokenizer().map(|_| text), ids, score, truncated })
    }

    /// The `num_return_sequences` best targets of a source by beam search, best first; at least one. `prefix` is put before a text.
    /// The search ends early if `goes_on`, which it asks before each step, says no.
    ///
    /// # Errors
    /// If the source or the options do not fit the model, if its files set stop strings, or if nothing was found, such as by a search
    /// that ended early.
    pub fn alternatives(
        &self,
        source: &PromptInput,
        prefix: &str,
        beams: &BeamOptions,
        goes_on: impl FnMut() -> bool,
    ) -> Result<Vec<Rewritten>, SourceError> {
        let Source { ids, truncated } = self.source(source, prefix)?;
        self.found(&self.generator(&ids, beams.max_new_tokens), beams, truncated, goes_on)
    }

    fn found(
        &self,
        model: &Seq2SeqGenerator,
        beams: &BeamOptions,
        truncated: bool,
        goes_on: impl FnMut() -> bool,
    ) -> Result<Vec<Rewritten>, SourceError> {
        self.ensure_no_stop_strings()?;
        let found = beam_search_while(model, &[model.start()], beams, goes_on)?;
        if found.is_empty() {
            return Err(CompletionError::NothingFound.into());
        }
        let rewritten = |Hypothesis { ids, score }: Hypothesis| {
            let decode = |tokenizer: &Tokenizer| tokenizer.decode(&ids, Special::Skip);
            let text = self.text.tokenizer().map(decode).transpose().map_err(TextError::from)?;
            Ok(Rewritten { text, ids, score, truncated })
        };
        found.into_iter().map(rewritten).collect()
    }

    /// A sampled target of a source; `stops` as in [`GenerateRequest`](crate::GenerateRequest).
    ///
    /// # Errors
    /// If the source or the options do not fit the model, or a stop string cannot be found.
    pub fn generate(
        &self,
        source: &PromptInput,
        mut options: GenerateOptions,
        stops: Option<&[String]>,
    ) -> Result<Completion, SourceError> {
        let source = self.source(source, "")?;
        options.stop_ids.extend(self.end_ids());
        let model = self.generator(&source.ids, options.max_new_tokens);
        Ok(self.draw(&model, options, stops)?)
    }

    fn draw(
        &self,
        model: &Seq2SeqGenerator,
        options: GenerateOptions,
        stops: Option<&[String]>,
    ) -> Result<Completion, CompletionError> {
        // The target is a text of its own, so no prompt comes before it.
        let text = self.text_stream(&[], &options.stop_ids, stops)?;
        let mut decoding = Decoding::new(model, &[model.start()], options)?;
        complete(model, &mut decoding, text, |_| ())
    }

    /// The best target of a source by beam search.
    ///
    /// # Errors
    /// If the source or the options do not fit the model, if its files set stop strings, or if nothing was found.
    pub fn search(&self, source: &PromptInput, options: &BeamOptions) -> Result<Completion, SourceError> {
        self.ensure_no_stop_strings()?;
        let source = self.source(source, "")?;
        let model = self.generator(&source.ids, options.max_new_tokens);
        let found = best(&model, &[model.start()], options)?;
        Ok(found_completion(&self.text, &[], found, options)?)
    }

    /// The ids of a source. A text gets `prefix` before it and is truncated to the model's limit.
    fn source(&self, source: &PromptInput, prefix: &str) -> Result<Source, SourceError> {
        let config = &self.bundle.config;
        let (limit, vocab_size) = (config.max_positions(), config.vocab_size());
        let source = match source {
            PromptInput::Ids(ids) => Source { ids: ids.clone(), truncated: false },
            PromptInput::Text(text) => {
                let tokenizer = self.text.require_tokenizer()?;
                let framed =
                    tokenizer.frame_prompt(&format!("{prefix}{text}"), limit).map_err(TextError::from)?;
                Source { ids: framed.ids, truncated: framed.truncated }
            }
        };
        let ids = &source.ids;
        match ids.iter().find(|&&id| id as usize >= vocab_size) {
            Some(&id) => Err(InputError::UnknownId { id, vocab_size }.into()),
            None if ids.is_empty() => Err(InputError::Empty.into()),
            None if ids.len() > limit => Err(InputError::TooManyIds { ids: ids.len(), limit }.into()),
            None => Ok(source),
        }
    }

    /// The model conditioned on `source`, for targets of at most `max_tokens` ids.
    fn generator(&self, source: &[u32], max_tokens: usize) -> Seq2SeqGenerator {
        Seq2SeqGenerator::new(&self.bundle, source).with_length_limit(max_tokens.saturating_add(1))
    }
}
