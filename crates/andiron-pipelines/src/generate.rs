//! Task `generate`: continue a prompt.

use std::ops::ControlFlow;

use andiron_models::generate::{
    BatchedLm, BeamOptions, CausalLm, Decoding, FinishReason, GenerateError, GenerateOptions, Generated,
    Hypothesis, Token, beam_search, generate_batch,
};

use crate::batching::{Bounds, Size, batches};
use crate::input::PromptInput;
use crate::text_processor::TextError;
use crate::text_stream::{TextStream, TextStreamError};
use crate::{DecoderPipeline, ModelBundle, Pipeline, TextProcessor};

/// Maximum prompt tokens per batch, padding included, unless one prompt is longer.
const BATCH_PROMPT_TOKENS: usize = 1 << 13;

/// A prompt and how to continue it.
#[derive(Clone, Debug, Default)]
pub struct GenerateRequest {
    /// The ids to continue.
    pub prompt: Vec<u32>,
    /// How. The model's [end ids](crate::Pipeline::end_ids) are added to the stop ids.
    pub options: GenerateOptions,
    /// Stop strings: the text ends before the first that occurs. `None`: the `stop_strings` of `generation_config.json`.
    pub stops: Option<Vec<String>>,
}

/// A generated text.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The text up to a stop string; empty without a tokenizer.
    pub text: String,
    /// The generated ids, a stop id included.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Sum of the ids' natural-log probabilities.
    pub sum_logprob: f64,
}

/// Why nothing was generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompletionError {
    /// The prompt cannot become ids.
    #[error(transparent)]
    Prompt(#[from] TextError),
    /// The ids cannot become text.
    #[error(transparent)]
    Text(#[from] TextStreamError),
    /// The generation cannot start or go on.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A search ended without a sequence.
    #[error("nothing was found")]
    NothingFound,
    /// The model's files have stop strings, which a beam search does not look for.
    #[error(
        "generation_config.json sets stop_strings, which a beam search does not support: generate without beams \
         (num_beams 1)"
    )]
    StopStringsWithBeams,
}

impl DecoderPipeline {
    /// The ids of a prompt, with the special tokens that the tokenizer puts before a text, such as Llama's BOS. An empty text becomes
    /// the BOS or else the EOS id, if the model has one.
    ///
    /// # Errors
    /// If there is no tokenizer for a text, if tokenizing fails, or if the text is empty and the model has neither BOS nor EOS.
    pub fn prompt_ids(&self, prompt: &PromptInput) -> Result<Vec<u32>, TextError> {
        let text = match prompt {
            PromptInput::Ids(ids) => return Ok(ids.clone()),
            PromptInput::Text(text) => text,
        };
        let ids = self.text.require_tokenizer()?.encode_prompt(text)?;
        if !ids.is_empty() {
            return Ok(ids);
        }
        let sizes = self.bundle.config.sizes();
        let first = sizes.bos_token_id.or(sizes.eos_token_id);
        Ok(vec![first.ok_or(TextError::EmptyPrompt)?])
    }

    /// Continues a prompt, calling `show` with each piece of text as soon as it is final.
    ///
    /// # Errors
    /// If the request does not fit the model, or a stop string cannot be found.
    pub fn generate(
        &self,
        request: GenerateRequest,
        show: impl FnMut(&str),
    ) -> Result<Completion, CompletionError> {
        let GenerateRequest { prompt, mut options, stops } = request;
        options.stop_ids.extend(self.end_ids());
        let text = self.text_stream(&prompt, &options.stop_ids, stops.as_deref())?;
        let mut decoding = Decoding::new(&self.bundle, &prompt, options)?;
        complete(&self.bundle, &mut decoding, text, show)
    }

    /// Continues several prompts, in batches of up to `max_rows` with similar lengths. Results are in the order of the requests; an
    /// error concerns its request only.
    ///
    /// Results equal those of [`generate`](Self::generate), up to the rounding of logits.
    pub fn generate_batch(
        &self,
        requests: Vec<GenerateRequest>,
        max_rows: usize,
    ) -> Vec<Result<Completion, CompletionError>> {
        let sizes: Vec<Size<()>> =
            requests.iter().map(|request| Size { kind: (), len: request.prompt.len() }).collect();
        let mut requests: Vec<Option<GenerateRequest>> = requests.into_iter().map(Some).collect();
        let mut done: Vec<Option<Result<Completion, CompletionError>>> =
            requests.iter().map(|_| None).collect();
        for batch in batches(&sizes, Bounds { rows: max_rows, tokens: BATCH_PROMPT_TOKENS }) {
            let together: Vec<GenerateRequest> =
                batch.iter().filter_map(|&row| requests[row].take()).collect();
            for (row, result) in batch.into_iter().zip(self.generate_together(together)) {
                done[row] = Some(result);
            }
        }
        done.into_iter().map(|result| result.expect("every request is in a batch")).collect()
    }

    fn generate_together(
        &self,
        mut requests: Vec<GenerateRequest>,
    ) -> Vec<Result<Completion, CompletionError>> {
        if requests.len() < 2 {
            return requests.drain(..).map(|request| self.generate(request, |_| ())).collect();
        }
        let (mut texts, mut prompts) = (Vec::new(), Vec::new());
        for GenerateRequest { prompt, mut options, stops } in requests {
            options.stop_ids.extend(self.end_ids());
            texts.push(self.text_stream(&prompt, &options.stop_ids, stops.as_deref()));
            prompts.push((prompt, options));
        }
        complete_batch(&self.bundle, prompts, texts)
    }

    /// The best continuation that a beam search finds.
    ///
    /// # Errors
    /// If the prompt or the options do not fit the model, if its files set stop strings, or if nothing was found.
    pub fn search(&self, prompt: &[u32], options: &BeamOptions) -> Result<Completion, CompletionError> {
        self.ensure_no_stop_strings()?;
        let found = best(&self.bundle, prompt, options)?;
        found_completion(&self.text, prompt, found, options)
    }
}

impl<B: ModelBundle> Pipeline<B> {
    /// The text after that of `prompt`, up to one of `stops`; `None` is the `stop_strings` of the model's files.
    pub(crate) fn text_stream(
        &self,
        prompt: &[u32],
        end_ids: &[u32],
        stops: Option<&[String]>,
    ) -> Result<TextStream, TextStreamError> {
        TextStream::new(&self.text, prompt, end_ids, stops.unwrap_or(self.stop_strings()))
    }

    /// Refuses a model whose files set stop strings, for a beam search.
    pub(crate) fn ensure_no_stop_strings(&self) -> Result<(), CompletionError> {
        match self.stop_strings() {
            [] => Ok(()),
            _ => Err(CompletionError::StopStringsWithBeams),
        }
    }

    fn stop_strings(&self) -> &[String] {
        self.generation().map_or(&[], |files| &files.stop_strings)
    }
}

/// The best hypothesis of a beam search.
pub(crate) fn best<M: BatchedLm>(
    model: &M,
    prompt: &[u32],
    options: &BeamOptions,
) -> Result<Hypothesis, CompletionError> {
    beam_search(model, prompt, options)?.into_iter().next().ok_or(CompletionError::NothingFound)
}

/// A hypothesis as a continuation of the text of `prompt`.
pub(crate) fn found_completion(
    text: &TextProcessor,
    prompt: &[u32],
    found: Hypothesis,
    options: &BeamOptions,
) -> Result<Completion, CompletionError> {
    let text = text.continuation(prompt, &found.ids)?;
    let stopped = found.ids.last().is_some_and(|id| options.stop_ids.contains(id));
    let finish_reason = if stopped { FinishReason::Stop } else { FinishReason::Length };
    let length = (found.ids.len() as f64).powf(options.length_penalty.into());
    let sum_logprob = f64::from(found.score) * length;
    Ok(Completion { text, ids: found.ids, finish_reason, sum_logprob })
}

/// Runs `decoding` to its end, calling `show` with each piece of `text` as soon as it is final.
pub(crate) fn complete<M: CausalLm>(
    model: &M,
    decoding: &mut Decoding<M::State>,
    text: TextStream,
    mut show: impl FnMut(&str),
) -> Result<Completion, CompletionError> {
    let mut text = Writing::new(text);
    while let Some(token) = decoding.next_token(model)? {
        if text.push(&token, &mut show)?.is_break() {
            break;
        }
    }
    Ok(text.finish(decoding.generated().to_vec(), decoding.finish_reason(), show)?)
}

/// Continues several prompts as one batch. A text that fails is the error of its prompt only.
pub(crate) fn complete_batch<M: BatchedLm>(
    model: &M,
    prompts: Vec<(Vec<u32>, GenerateOptions)>,
    texts: Vec<Result<TextStream, TextStreamError>>,
) -> Vec<Result<Completion, CompletionError>> {
    let mut texts: Vec<_> = texts.into_iter().map(|text| text.map(Writing::new)).collect();
    let done = generate_batch(model, prompts, |row, token| {
        match texts[row].as_mut().map(|text| text.push(token, |_| ())) {
            Ok(Ok(flow)) => flow,
            Ok(Err(error)) => {
                texts[row] = Err(error);
                ControlFlow::Break(())
            }
            Err(_) => ControlFlow::Break(()),
        }
    });
    let finish = |(text, done): (Result<Writing, TextStreamError>, Result<Generated, GenerateError>)| {
        let Generated { tokens, finish_reason } = done?;
        let ids = tokens.iter().map(|token| token.id).collect();
        Ok(text?.finish(ids, Some(finish_reason), |_| ())?)
    };
    texts.into_iter().zip(done).map(finish).collect()
}

/// A completion in progress.
struct Writing {
    stream: TextStream,
    text: String,
    sum_logprob: f64,
    stopped: bool,
}

impl Writing {
    fn new(stream: TextStream) -> Self {
        Self { stream, text: String::new(), sum_logprob: 0.0, stopped: false }
    }

    /// Takes the next token; breaks at a stop string.
    fn push(
        &mut self,
        token: &Token,
        mut show: impl FnMut(&str),
    ) -> Result<ControlFlow<()>, TextStreamError> {
        self.sum_logprob += f64::from(token.logprob);
        let piece = self.stream.push(token.id)?;
        show(&piece.text);
        self.text.push_str(&piece.text);
        self.stopped |= piece.stopped;
        Ok(if self.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn finish(
        mut self,
        ids: Vec<u32>,
        reason: Option<FinishReason>,
        mut show: impl FnMut(&str),
    ) -> Result<Completion, TextStreamError> {
        let piece = self.stream.finish()?;
        show(&piece.text);
        self.text.push_str(&piece.text);
        let finish_reason = match reason {
            Some(reason) if !(self.stopped || piece.stopped) => reason,
            _ => FinishReason::Stop,
        };
        Ok(Completion { text: self.text, ids, finish_reason, sum_logprob: self.sum_logprob })
    }
}
