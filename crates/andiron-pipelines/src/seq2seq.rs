//! Tasks of encoder-decoders: `translate`, `summarize`, and `generate` from a source.

use andiron_data::tokenizer::{Special, Tokenizer};
use andiron_models::encoder_decoder::{Seq2SeqBatch, Seq2SeqGenerator};
use andiron_models::generate::{
    BeamOptions, Decoding, GenerateError, GenerateOptions, GenerationConfig, Hypothesis, SamplingError,
    SamplingParams, beam_search_batch, beam_search_while,
};

use crate::Seq2SeqPipeline;
use crate::batching::{BATCH_TOKENS, Bounds, Size, for_good, in_similar_batches};
use crate::generate::{Completion, CompletionError, best, complete, complete_batch, found_completion};
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

/// A source and how long its target may be.
struct Asked {
    source: Source,
    max_tokens: usize,
}

impl Seq2SeqPipeline {
    /// A translation of each source, of at most the given number of tokens, `max_rows` sources at a time as one batch. A source gets
    /// what it gets alone; on backends that are not batch-invariant up to rounding.
    pub fn translate(
        &self,
        sources: &[(PromptInput, Option<usize>)],
        options: &RewriteOptions,
        max_rows: usize,
    ) -> Vec<Result<Rewritten, SourceError>> {
        let read = |(source, max_tokens): &(PromptInput, Option<usize>)| {
            let source = self.source(source, &options.prefix)?;
            Ok(Asked { source, max_tokens: max_tokens.unwrap_or(options.beams.max_new_tokens) })
        };
        let asked = sources.iter().map(read).collect();
        let done = for_good(asked, |asked: &[Asked]| {
            let size = |asked: &Asked| Size { kind: asked.max_tokens, len: asked.source.ids.len() };
            let bounds = Bounds { rows: max_rows, tokens: BATCH_TOKENS };
            in_similar_batches(asked, size, bounds, |batch| self.rewrite(batch, options))
        });
        done.into_iter().map(|done| done.and_then(|done| done)).collect()
    }

    /// A summary of each source, as [`translate`](Self::translate) gives its translation.
    pub fn summarize(
        &self,
        sources: &[(PromptInput, Option<usize>)],
        options: &RewriteOptions,
        max_rows: usize,
    ) -> Vec<Result<Rewritten, SourceError>> {
        self.translate(sources, options, max_rows)
    }

    /// Targets of sources, all of at most the same length.
    fn rewrite(&self, batch: &[&Asked], options: &RewriteOptions) -> Vec<Result<Rewritten, SourceError>> {
        let sources: Vec<&[u32]> = batch.iter().map(|asked| asked.source.ids.as_slice()).collect();
        let max_new_tokens = batch[0].max_tokens;
        let model =
            Seq2SeqBatch::new(&self.bundle, &sources).with_length_limit(max_new_tokens.saturating_add(1));
        let start = [self.bundle.start_id()];
        let beams = BeamOptions { max_new_tokens, ..options.beams.clone() };
        if beams.num_beams > 1 {
            return match self.ensure_no_stop_strings() {
                Ok(()) => self.search_together(&model, batch, &beams),
                Err(_) => batch.iter().map(|_| Err(CompletionError::StopStringsWithBeams.into())).collect(),
            };
        }
        let options = GenerateOptions {
            sampling: options.sampling.clone(),
            max_new_tokens,
            stop_ids: beams.stop_ids,
            ..GenerateOptions::default()
        };
        // The target is a text of its own, so no prompt comes before it.
        let texts = batch.iter().map(|_| self.text_stream(&[], &options.stop_ids, None)).collect();
        let prompts = vec![(start.to_vec(), options); batch.len()];
        let rewritten = |(done, asked): (Result<Completion, CompletionError>, &&Asked)| {
            let Completion { text, ids, sum_logprob, .. } = done?;
            let score = sum_logprob as f32 / (ids.len() as f32).powf(beams.length_penalty);
            let truncated = asked.source.truncated;
            Ok(Rewritten { text: self.text.tokenizer().map(|_| text), ids, score, truncated })
        };
        complete_batch(&model, prompts, texts).into_iter().zip(batch).map(rewritten).collect()
    }

    fn search_together(
        &self,
        model: &Seq2SeqBatch<'_>,
        batch: &[&Asked],
        beams: &BeamOptions,
    ) -> Vec<Result<Rewritten, SourceError>> {
        let start = [self.bundle.start_id()];
        let prompts = vec![&start[..]; batch.len()];
        let best = |(found, asked): (Result<Vec<Hypothesis>, SamplingError>, &&Asked)| {
            let found = found.map_err(GenerateError::from)?.into_iter().next();
            self.rewritten(found.ok_or(CompletionError::NothingFound)?, asked.source.truncated)
        };
        match beam_search_batch(model, &prompts, beams, || true) {
            Ok(found) => found.into_iter().zip(batch).map(best).collect(),
            Err(error) => batch.iter().map(|_| Err(error.clone().into())).collect(),
        }
    }

    fn rewritten(&self, found: Hypothesis, truncated: bool) -> Result<Rewritten, SourceError> {
        let Hypothesis { ids, score } = found;
        let decode = |tokenizer: &Tokenizer| tokenizer.decode(&ids, Special::Skip);
        let text = self.text.tokenizer().map(decode).transpose().map_err(TextError::from)?;
        Ok(Rewritten { text, ids, score, truncated })
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
        found.into_iter().map(|found| self.rewritten(found, truncated)).collect()
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
