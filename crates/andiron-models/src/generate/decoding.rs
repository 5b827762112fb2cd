//! One running generation, advanced one step at a time.

mod ahead;
pub(super) mod batch;
pub(super) mod prefix;
mod state;
mod together;

use std::collections::VecDeque;
use std::sync::Arc;

use self::ahead::Pause;
use self::prefix::Shared;
use super::constraint::Guide;
use super::likelihood::{log_sum_exp, top_given};
use super::processors::{Place, Rules};
use super::{
    CausalLm, Constraint, ConstraintError, GenerationConfig, Logits, Sampler, SamplingError, SamplingParams,
};

/// Maximum logits per call when a prompt is scored (16 MiB of f32), whatever the chunk and the vocabulary.
const MAX_SCORED_LOGITS: usize = 4 << 20;

/// Behaviour when the context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// End with [`FinishReason::Length`].
    #[default]
    Stop,
    /// Keep the latest half of the context and continue (sliding the window). The kept half is prefilled again, which
    /// costs as much as a prompt of that length.
    Slide,
}

/// Settings of one [`Decoding`].
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Sampling parameters.
    pub sampling: SamplingParams,
    /// Maximum number of ids to generate; 0 only prefills (and scores) the prompt.
    pub max_new_tokens: usize,
    /// Minimum number of ids to generate: stop ids are masked until then.
    pub min_new_tokens: usize,
    /// Ids that end the generation, usually the end-of-text id. The stop id is returned as the last token.
    pub stop_ids: Vec<u32>,
    /// Ignore stop ids: sample them like any other.
    pub ignore_eos: bool,
    /// Number of likeliest ids reported with each token.
    pub top_logprobs: usize,
    /// Whether to compute the log-probability of each prompt id; see [`Decoding::prompt_tokens`].
    pub score_prompt: bool,
    /// Maximum ids per prefill step, so that a long prompt does not block others. 0 counts as 1.
    pub prefill_chunk: usize,
    /// Behaviour when the context is full.
    pub when_full: WhenFull,
    /// Speculative (prompt-lookup) decoding: number of draft ids to verify in one step, copied from where the last
    /// ids occurred earlier in the text; 0 is off. Results do not change; texts that repeat their prompt are
    /// generated faster.
    pub prompt_lookup: usize,
    /// The grammar that the generated text is constrained to; `None` allows any text.
    pub constraint: Option<Constraint>,
    /// The source of the target to generate, for a model that generates targets of many: see [`CausalLm::begin_target`].
    pub source: Option<Arc<[u32]>>,
}

impl Default for GenerateOptions {
    /// 16 ids sampled from the model's own distribution, prefill chunks of 256.
    fn default() -> Self {
        Self {
            sampling: SamplingParams::default(),
            max_new_tokens: 16,
            min_new_tokens: 0,
            stop_ids: Vec::new(),
            ignore_eos: false,
            top_logprobs: 0,
            score_prompt: false,
            prefill_chunk: 256,
            when_full: WhenFull::Stop,
            prompt_lookup: 0,
            constraint: None,
            source: None,
        }
    }
}

impl GenerateOptions {
    /// Checks that a model with this vocabulary and context can continue `prompt` with these options.
    ///
    /// # Errors
    /// [`GenerateError::IdOutsideVocabulary`] for ids of the prompt, the stop ids or the bias;
    /// [`GenerateError::EmptyPrompt`]; [`GenerateError::PromptTooLong`] if the prompt exceeds the context, with one generated
    /// id unless the window slides.
    pub fn check(&self, prompt: &[u32], vocab_size: usize, context: usize) -> Result<(), GenerateError> {
        let mut biased = self.sampling.logit_bias.iter().map(|bias| bias.0);
        let outside = |id: &u32| *id as usize >= vocab_size;
        let unknown = [("prompt", prompt), ("stop_ids", &self.stop_ids)]
            .into_iter()
            .find_map(|(what, ids)| ids.iter().copied().find(outside).map(|id| (what, id)))
            .or_else(|| biased.find(outside).map(|id| ("logit_bias", id)));
        if let Some((what, id)) = unknown {
            return Err(GenerateError::IdOutsideVocabulary { what, id, vocab_size });
        }
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        let wanted = match self.when_full {
            WhenFull::Stop => self.max_new_tokens.min(1),
            WhenFull::Slide => 0,
        };
        match prompt.len() + wanted > context {
            true => Err(GenerateError::PromptTooLong { prompt: prompt.len(), wanted, context }),
            false => Ok(()),
        }
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop id was generated, or the [`GenerateOptions::constraint`] allows nothing more.
    Stop,
    /// `max_new_tokens` was reached, or the context is full.
    Length,
}

impl FinishReason {
    /// The reason in OpenAI's API: `stop` or `length`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// A token id with its log-probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The id.
    pub id: u32,
    /// Natural-log probability under the model's own distribution.
    pub logprob: f32,
    /// The likeliest ids at this position with their natural-log probabilities, best first.
    pub top: Vec<(u32, f32)>,
}

/// The result of one [`Decoding::step`].
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Prefilled a chunk; more of the prompt remains.
    Prefill {
        /// Ids prefilled so far.
        done: usize,
        /// Ids to prefill before the next token.
        total: usize,
    },
    /// Generated this token.
    Token(Token),
    /// The generation has ended; later steps return this again.
    Finished(FinishReason),
}

/// Errors of a generation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The prompt is empty.
    #[error("prompt: it is empty, give at least one token (the model's begin- or end-of-text id, say)")]
    EmptyPrompt,
    /// The prompt does not fit the context.
    #[error(
        "prompt: {prompt} tokens and {wanted} to generate do not fit the model's context of {context} tokens; \
         shorten the prompt"
    )]
    PromptTooLong {
        /// Ids in the prompt.
        prompt: usize,
        /// Minimum number of new ids that must fit.
        wanted: usize,
        /// Context length of the model.
        context: usize,
    },
    /// An id outside the vocabulary.
    #[error("{what}: token id {id} is outside the vocabulary of {vocab_size} ids")]
    IdOutsideVocabulary {
        /// Where the id was given.
        what: &'static str,
        /// The id.
        id: u32,
        /// Vocabulary size.
        vocab_size: usize,
    },
    /// An option that is not supported in batches.
    #[error("{option}: not for sequences that are generated together")]
    NotInBatch {
        /// The option.
        option: &'static str,
    },
    /// Sampling failed.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The constraint cannot be applied.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

/// Facts about the model that a generation needs.
#[derive(Clone, Copy, Debug)]
struct Ground<'a> {
    vocab_size: usize,
    context: usize,
    files: Option<&'a GenerationConfig>,
    source: Option<&'a [u32]>,
}

/// One running generation: the sequence, its state in the model, and the options.
///
/// A value without threads or clocks; its owner advances it. `S` is the model's [`CausalLm::State`]. Every step must
/// be given the same model.
#[derive(Debug)]
pub struct Decoding<S> {
    options: GenerateOptions,
    sampler: Sampler,
    /// State of the grammar after all tokens, `ready` ones included.
    guide: Option<Guide>,
    state: S,
    /// Prompt and generated ids.
    ids: Vec<u32>,
    prompt_len: usize,
    /// Ids before this one are prefilled, later ones are decoded, also where several are read in one step: the end of the prompt,
    /// or of what was there when the window slid.
    prefill_end: usize,
    /// Ids before this one are no longer in `state`.
    window_start: usize,
    /// Ids before this one are in `state`, or were.
    fed: usize,
    prompt_tokens: Vec<Token>,
    /// Whether the prompt was scored before the state was released.
    scored: bool,
    /// Whether the state was released, and has to begin again.
    released: bool,
    /// Verified draft tokens, returned by the next steps.
    ready: VecDeque<Token>,
    pause: Pause,
    /// Logits after the prompt, if its prefill was adopted.
    logits: Option<Vec<f32>>,
    shared: Shared<S>,
    finish_reason: Option<FinishReason>,
}

impl<S> Decoding<S> {
    /// Starts a generation that continues `prompt`.
    ///
    /// # Errors
    /// [`GenerateError::EmptyPrompt`]; [`GenerateError::PromptTooLong`] if the prompt exceeds the model's context, with one
    /// generated id unless the window slides; [`GenerateError::IdOutsideVocabulary`] for ids of the prompt, the stop ids or the bias;
    /// [`GenerateError::Sampling`] for settings out of range; [`GenerateError::Constraint`] if the constraint's vocabulary is not
    /// the model's.
    pub fn new<M: CausalLm<State = S>>(
        model: &M,
        prompt: &[u32],
        options: GenerateOptions,
    ) -> Result<Self, GenerateError> {
        let source = options.source.clone();
        let ground = Ground {
            vocab_size: model.vocab_size(),
            context: model.context_len(),
            files: model.generation_config(),
            source: source.as_deref().or(model.source()),
        };
        // Before the source is encoded.
        options.check(prompt, ground.vocab_size, ground.context)?;
        Self::with_state(begin(model, source.as_deref()), ground, prompt, options)
    }

    fn with_state(
        state: S,
        ground: Ground<'_>,
        prompt: &[u32],
        options: GenerateOptions,
    ) -> Result<Self, GenerateError> {
        let Ground { vocab_size, context, files, source } = ground;
        options.check(prompt, vocab_size, context)?;
        let wanted = prompt.len().saturating_add(options.max_new_tokens);
        let rules = Rules {
            files,
            source: source.unwrap_or(prompt),
            prompt_len: prompt.len(),
            stop_ids: if options.ignore_eos { &[] } else { &options.stop_ids },
            min_new_tokens: options.min_new_tokens,
            longest: if options.when_full == WhenFull::Stop { wanted.min(context) } else { wanted },
        };
        let sampler = Sampler::within(options.sampling.clone(), rules)?;
        let guide = options.constraint.as_ref().map(|constraint| constraint.begin(vocab_size)).transpose()?;
        Ok(Self {
            sampler,
            guide,
            options,
            state,
            ids: prompt.to_vec(),
            prompt_len: prompt.len(),
            prefill_end: prompt.len(),
            window_start: 0,
            fed: 0,
            prompt_tokens: Vec::new(),
            scored: false,
            released: false,
            ready: VecDeque::new(),
            pause: Pause::default(),
            logits: None,
            shared: Shared::default(),
            finish_reason: None,
        })
    }

    /// The prompt.
    pub fn prompt(&self) -> &[u32] {
        &self.ids[..self.prompt_len]
    }

    /// Ids generated so far, the stop id included.
    pub fn generated(&self) -> &[u32] {
        &self.ids[self.prompt_len..]
    }

    /// Log-probabilities of the prompt's ids from the second one on. Filled during prefill if
    /// [`GenerateOptions::score_prompt`] is set, else empty.
    pub fn prompt_tokens(&self) -> &[Token] {
        &self.prompt_tokens
    }

    /// Number of ids that the model must process before the next token; more than one during prefill.
    pub fn unread(&self) -> usize {
        // Verified drafts are in the state and not yet in the sequence.
        self.ids.len().saturating_sub(self.fed)
    }

    /// Sets the size of the remaining prefill chunks, in place of [`GenerateOptions::prefill_chunk`]. It changes no results,
    /// except by rounding on backends that are not batch-invariant.
    pub fn set_prefill_chunk(&mut self, ids: usize) {
        self.options.prefill_chunk = ids;
    }

    /// Why the generation ended, if it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }

    /// Advances by one forward pass: prefills a chunk, or generates one token, or both with the last chunk.
    ///
    /// # Errors
    /// [`GenerateError::Sampling`] if no id can be sampled, [`GenerateError::Constraint`] if the grammar exceeds its
    /// limits; a later step would try the same again.
    ///
    /// # Panics
    /// If the model breaks its contract on the number of logits.
    pub fn step<M: CausalLm<State = S>>(&mut self, model: &M) -> Result<Progress, GenerateError> {
        if let Some(reason) = self.finish_reason {
            return Ok(Progress::Finished(reason));
        }
        if let Some(token) = self.ready.pop_front() {
            return Ok(self.push(model, token));
        }
        let scoring = self.is_scoring();
        if self.options.max_new_tokens == 0 && !scoring {
            return Ok(self.finish(FinishReason::Length));
        }
        let reads_one = !scoring && self.fed >= self.prefill_end && self.fed + 1 == self.ids.len();
        if reads_one && self.try_ahead(model)? {
            let token = self.ready.pop_front().expect("one was chosen");
            return Ok(self.push(model, token));
        }
        let mut logits = match self.logits.take() {
            Some(logits) => logits,
            None => self.feed(model, scoring),
        };
        self.go_on(model, &mut logits)
    }

    /// Whether the next ids belong to a prompt that is to be scored. A window that slid back into the prompt feeds it
    /// again, but it has been scored.
    fn is_scoring(&self) -> bool {
        self.options.score_prompt && !self.scored && self.window_start == 0 && self.fed < self.prompt_len
    }

    /// Processes the logits of the latest ids.
    fn go_on<M: CausalLm<State = S>>(
        &mut self,
        model: &M,
        logits: &mut [f32],
    ) -> Result<Progress, GenerateError> {
        if self.fed < self.ids.len() {
            return Ok(Progress::Prefill {
                done: self.fed - self.window_start,
                total: self.ids.len() - self.window_start,
            });
        }
        let last_row = logits.len() - model.vocab_size();
        self.keep_prefill(model, &logits[last_row..]);
        if self.options.max_new_tokens == 0 {
            return Ok(self.finish(FinishReason::Length));
        }
        if self.text_is_over() {
            return Ok(self.finish(FinishReason::Stop));
        }
        let token = self.choose(&mut logits[last_row..])?;
        Ok(self.push(model, token))
    }

    fn push<M: CausalLm<State = S>>(&mut self, model: &M, token: Token) -> Progress {
        self.ids.push(token.id);
        self.after_token(model);
        Progress::Token(token)
    }

    /// Steps until the next token; `None` after the last.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    ///
    /// # Panics
    /// As [`step`](Self::step).
    pub fn next_token<M: CausalLm<State = S>>(&mut self, model: &M) -> Result<Option<Token>, GenerateError> {
        loop {
            match self.step(model)? {
                Progress::Prefill { .. } => {}
                Progress::Token(token) => return Ok(Some(token)),
                Progress::Finished(_) => return Ok(None),
            }
        }
    }

    /// Feeds the next chunk, scores it if requested, and returns its logits.
    fn feed<M: CausalLm<State = S>>(&mut self, model: &M, scoring: bool) -> Vec<f32> {
        self.begin_again(model);
        let vocab_size = model.vocab_size();
        let limit = match scoring {
            true => self.options.prefill_chunk.min(MAX_SCORED_LOGITS / vocab_size.max(1)),
            false => self.options.prefill_chunk,
        };
        let prefills = self.fed < self.prefill_end;
        let end = if prefills { self.prefill_end } else { self.ids.len() };
        let end = end.min(self.fed + limit.max(1));
        let chunk = &self.ids[self.fed..end];
        let (wanted, rows) = if scoring { (Logits::All, chunk.len()) } else { (Logits::Last, 1) };
        let logits = match prefills {
            true => model.forward(&mut self.state, chunk, wanted),
            false => model.decode(&mut self.state, chunk, wanted),
        };
        assert_eq!(
            logits.len(),
            rows * vocab_size,
            "the model must return {rows} rows of {vocab_size} logits"
        );
        if scoring {
            // The row of an id predicts the next one; the row of the prompt's last id predicts the first new one.
            let targets = &self.ids[self.fed + 1..self.prompt_len.min(end + 1)];
            let scored = logits.chunks_exact(vocab_size).zip(targets).map(|(row, &id)| {
                let log_sum = log_sum_exp(row);
                let top = top_given(row, self.options.top_logprobs, log_sum);
                Token { id, logprob: row[id as usize] - log_sum, top }
            });
            self.prompt_tokens.extend(scored);
        }
        self.fed = end;
        logits
    }

    /// Samples the next id and advances the grammar by it.
    fn choose(&mut self, logits: &mut [f32]) -> Result<Token, GenerateError> {
        let top = match self.options.top_logprobs {
            0 => Vec::new(),
            n => top_given(logits, n, log_sum_exp(logits)),
        };
        let stop_ids = if self.options.ignore_eos { &[] } else { self.options.stop_ids.as_slice() };
        let banned = match &mut self.guide {
            Some(guide) => guide.banned(stop_ids)?,
            None => Vec::new(),
        };
        let at = Place { ids: &self.ids, prompt_len: self.prompt_len };
        let sampled = self.sampler.sample_at(at, &banned, logits)?;
        if !self.ends_at(sampled.id)
            && let Some(guide) = &mut self.guide
        {
            guide.push(sampled.id)?;
        }
        Ok(Token { id: sampled.id, logprob: sampled.logprob, top })
    }

    fn ends_at(&self, id: u32) -> bool {
        !self.options.ignore_eos && self.options.stop_ids.contains(&id)
    }

    /// Whether the grammar allows nothing after the tokens so far, `ready` ones included.
    fn text_is_over(&self) -> bool {
        self.guide.as_ref().is_some_and(Guide::is_over)
    }

    /// Ends the generation if the id just pushed is the last.
    fn after_token<M: CausalLm<State = S>>(&mut self, model: &M) {
        self.end_if_done(model.context_len());
        let in_window = self.ids.len() - self.window_start;
        if self.finish_reason.is_none() && in_window > model.context_len() {
            self.window_start = self.ids.len() - (model.context_len() / 2).max(1);
            (self.fed, self.prefill_end) = (self.window_start, self.ids.len());
            self.state = begin(model, self.options.source.as_deref());
        }
    }

    /// Ends the generation if the id just pushed is the last.
    fn end_if_done(&mut self, context: usize) {
        let at_stop_id = self.ids.last().is_some_and(|&id| self.ends_at(id));
        if at_stop_id || (self.ready.is_empty() && self.text_is_over()) {
            self.finish_reason = Some(FinishReason::Stop);
        } else {
            let full = self.options.when_full == WhenFull::Stop && self.ids.len() >= context;
            let enough = self.generated().len() >= self.options.max_new_tokens;
            self.finish_reason = (full || enough).then_some(FinishReason::Length);
        }
    }

    fn finish(&mut self, reason: FinishReason) -> Progress {
        self.finish_reason = Some(reason);
        Progress::Finished(reason)
    }
}

/// The state of an empty sequence.
fn begin<M: CausalLm>(model: &M, source: Option<&[u32]>) -> M::State {
    match source {
        Some(source) => model.begin_target(source),
        None => model.begin(),
    }
}

#[cfg(test)]
mod tests;
