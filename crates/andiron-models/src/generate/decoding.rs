//! One running generation, advanced one step at a time.

pub(super) mod batch;
pub(super) mod prefix;

use std::collections::VecDeque;

use self::prefix::Shared;
use super::constraint::Guide;
use super::likelihood::{log_sum_exp, top_given};
use super::processors::{Place, Rules};
use super::repeats::lookup;
use super::{
    CausalLm, Constraint, ConstraintError, GenerationConfig, Logits, Sampler, SamplingError, SamplingParams,
};

/// Most logits that scoring a prompt asks of the model at once (16 MiB of f32), whatever the chunk and the vocabulary.
const MAX_SCORED_LOGITS: usize = 4 << 20;

/// Longest ending of a text that is looked up earlier in it.
const LONGEST_LOOKUP: usize = 3;

/// What to do when the model's context is full and more ids are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// End with [`FinishReason::Length`].
    #[default]
    Stop,
    /// Forget all but the latest half of the context and go on. The model then sees only a window of the text, and
    /// feeding the kept half again costs as much as a prompt of that length.
    Slide,
}

/// Settings of one [`Decoding`].
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// How each id is chosen.
    pub sampling: SamplingParams,
    /// Most ids to generate; 0 only reads (and scores) the prompt.
    pub max_new_tokens: usize,
    /// Fewest ids to generate: until then the stop ids are never drawn.
    pub min_new_tokens: usize,
    /// Ids that end the generation, usually the model's end-of-text id. The stop id itself is returned as the last token.
    pub stop_ids: Vec<u32>,
    /// Never end at a stop id, and draw it like any other.
    pub ignore_eos: bool,
    /// How many of the most likely ids are reported with each token.
    pub top_logprobs: usize,
    /// Whether the log-probability of each prompt id is computed too; see [`Decoding::prompt_tokens`].
    pub score_prompt: bool,
    /// Most ids given to the model in one step, so that one long prompt cannot keep others waiting. 0 counts as 1.
    pub prefill_chunk: usize,
    /// What happens at the end of the model's context.
    pub when_full: WhenFull,
    /// Speculative (prompt-lookup) decoding: how many draft ids to verify in one step, taken from where the last ids occurred
    /// earlier in the text; 0 is off. The result stays the same, and comes sooner where a text repeats its prompt.
    pub prompt_lookup: usize,
    /// The grammar that the generated text is constrained to; `None` allows any text.
    pub constraint: Option<Constraint>,
}

impl Default for GenerateOptions {
    /// 16 ids drawn from the model's own distribution, prompts read in chunks of 256.
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
        }
    }
}

impl GenerateOptions {
    /// Checks that a model of `vocab_size` ids and a context of `context` can continue `prompt` so.
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
    /// A stop id came, or the [`GenerateOptions::constraint`] lets nothing follow.
    Stop,
    /// The wanted number of ids was reached, or the context is full.
    Length,
}

impl FinishReason {
    /// The reason in OpenAI's words: `stop` or `length`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// An id with its likelihood.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The id.
    pub id: u32,
    /// Natural-log probability under the model's own distribution.
    pub logprob: f32,
    /// The most likely ids at this place and their natural-log probabilities, best first.
    pub top: Vec<(u32, f32)>,
}

/// What one [`Decoding::step`] did.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// Read a chunk of the prompt, and there is more to read.
    Prefill {
        /// Ids read so far.
        done: usize,
        /// Ids to read before the next token.
        total: usize,
    },
    /// Generated this token.
    Token(Token),
    /// Nothing more to do; each later step says so too.
    Finished(FinishReason),
}

/// Why a generation cannot start or go on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// There is nothing to continue.
    #[error("prompt: it is empty, give at least one token (the model's begin- or end-of-text id, say)")]
    EmptyPrompt,
    /// The prompt leaves no room.
    #[error(
        "prompt: {prompt} tokens and {wanted} to generate do not fit the model's context of {context} tokens; \
         shorten the prompt"
    )]
    PromptTooLong {
        /// Ids in the prompt.
        prompt: usize,
        /// Fewest new ids that must fit.
        wanted: usize,
        /// The model's context.
        context: usize,
    },
    /// An id that the model does not have.
    #[error("{what}: token id {id} is outside the vocabulary of {vocab_size} ids")]
    IdOutsideVocabulary {
        /// Where the id stood.
        what: &'static str,
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// An option that wants a sequence to have the model for itself.
    #[error("{option}: not for sequences that are generated together")]
    NotInBatch {
        /// The option.
        option: &'static str,
    },
    /// No id could be chosen.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The text cannot be held to its grammar.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

/// What a generation has to know of its model.
#[derive(Clone, Copy, Debug)]
struct Ground<'a> {
    vocab_size: usize,
    context: usize,
    files: Option<&'a GenerationConfig>,
    source: Option<&'a [u32]>,
}

/// One running generation: the sequence so far, its state in the model, and what is still wanted.
///
/// A value without threads or clocks; whoever owns it decides when it advances. `S` is the model's
/// [`CausalLm::State`]. The model is passed to each step and must be the same each time.
#[derive(Debug)]
pub struct Decoding<S> {
    options: GenerateOptions,
    sampler: Sampler,
    /// The state of the grammar after all tokens, ready ones included.
    guide: Option<Guide>,
    state: S,
    /// Prompt and generated ids.
    ids: Vec<u32>,
    prompt_len: usize,
    /// Ids before this one are no longer in `state`.
    window_start: usize,
    /// Ids before this one were given to the model.
    fed: usize,
    prompt_tokens: Vec<Token>,
    /// Tokens that are chosen already, and come with the next steps.
    ready: VecDeque<Token>,
    /// The model's prediction after the prompt, if another decoding has read it.
    logits: Option<Vec<f32>>,
    shared: Shared<S>,
    finish_reason: Option<FinishReason>,
}

impl<S> Decoding<S> {
    /// A generation that continues `prompt`.
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
        let ground = Ground {
            vocab_size: model.vocab_size(),
            context: model.context_len(),
            files: model.generation_config(),
            source: model.source(),
        };
        Self::with_state(model.begin(), ground, prompt, options)
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
            window_start: 0,
            fed: 0,
            prompt_tokens: Vec::new(),
            ready: VecDeque::new(),
            logits: None,
            shared: Shared::default(),
            finish_reason: None,
        })
    }

    /// The prompt.
    pub fn prompt(&self) -> &[u32] {
        &self.ids[..self.prompt_len]
    }

    /// The ids generated so far, the stop id included.
    pub fn generated(&self) -> &[u32] {
        &self.ids[self.prompt_len..]
    }

    /// Likelihood of the prompt's ids from the second one on, each given those before it; filled while the prompt is
    /// read if [`GenerateOptions::score_prompt`] is set, else empty.
    pub fn prompt_tokens(&self) -> &[Token] {
        &self.prompt_tokens
    }

    /// Ids that the model has yet to be given before it can say what comes next; more than one while the prompt is read.
    pub fn unread(&self) -> usize {
        self.ids.len() - self.fed
    }

    /// Reads the rest of the prompt in chunks of other sizes than [`GenerateOptions::prefill_chunk`] said. Chunks decide how numbers are
    /// rounded and nothing else.
    pub fn set_prefill_chunk(&mut self, ids: usize) {
        self.options.prefill_chunk = ids;
    }

    /// Why the generation ended, once it did.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }

    /// Advances by one call of the model: reads a chunk of the prompt, or generates one token, or both when the last chunk
    /// is read.
    ///
    /// # Errors
    /// [`GenerateError::Sampling`] if no id can be chosen, [`GenerateError::Constraint`] if the grammar needs more than is
    /// allowed to tell what may come; a later step would try the same again.
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
        let reads_one = !scoring && !self.shared.is_wanted() && self.fed + 1 == self.ids.len();
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

    /// Whether the next step is a plain decode step, of one id over what was read, so that it can be one of a
    /// [batch](Self::decode_step_batch).
    pub fn is_decoding(&self) -> bool {
        let reads_one = self.fed > self.window_start && self.fed + 1 == self.ids.len() && !self.is_scoring();
        let chooses_one =
            self.ready.is_empty() && self.options.prompt_lookup == 0 && self.options.max_new_tokens > 0;
        self.finish_reason.is_none() && reads_one && chooses_one
    }

    /// A decode step of several generations in one call of the model; `None` if it takes only one sequence at a time. Each
    /// must be [decoding](Self::is_decoding). A batch changes results by rounding only.
    ///
    /// # Panics
    /// As [`step`](Self::step), or if a generation has something else to do. None of them can go on after a panic of the
    /// model.
    pub fn decode_step_batch<M: CausalLm<State = S>>(
        model: &M,
        decodings: &mut [&mut Self],
    ) -> Option<Vec<Result<Progress, GenerateError>>> {
        assert!(decodings.iter().all(|decoding| decoding.is_decoding()), "each has one id to give");
        let ids: Vec<u32> = decodings.iter().map(|decoding| decoding.ids[decoding.fed]).collect();
        let mut states: Vec<&mut S> = decodings.iter_mut().map(|decoding| &mut decoding.state).collect();
        let mut logits = model.decode_batch(&mut states, &ids)?;
        let vocab_size = model.vocab_size();
        assert_eq!(logits.len(), ids.len() * vocab_size, "a row of {vocab_size} logits for each sequence");
        let rows = decodings.iter_mut().zip(logits.chunks_exact_mut(vocab_size));
        let step = |(decoding, logits): (&mut &mut Self, &mut [f32])| {
            decoding.fed += 1;
            decoding.go_on(model, logits)
        };
        Some(rows.map(step).collect())
    }

    /// Whether the next ids are of a prompt whose likelihood is asked for. A window that slid back into the prompt reads it
    /// again, but it has been scored.
    fn is_scoring(&self) -> bool {
        self.options.score_prompt && self.window_start == 0 && self.fed < self.prompt_len
    }

    /// What follows from the logits that the model gave for the latest ids.
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

    /// Gives the model the last id and those that may follow it, and makes ready as many tokens as turn out to. False if
    /// there is nothing to try, or the model cannot take back what did not come.
    fn try_ahead<M: CausalLm<State = S>>(&mut self, model: &M) -> Result<bool, GenerateError> {
        let held = self.fed - self.window_start;
        let room = model.context_len().saturating_sub(held + 1);
        let left = self.options.max_new_tokens - self.generated().len();
        // The last token wanted needs no guess.
        let n = self.options.prompt_lookup.min(room).min(left.saturating_sub(1));
        let guess = lookup(&self.ids, LONGEST_LOOKUP, n).to_vec();
        if guess.is_empty() || !model.rewind(&mut self.state, held) {
            return Ok(false);
        }
        let given = [&self.ids[self.fed..], &guess].concat();
        let mut logits = model.forward(&mut self.state, &given, Logits::All);
        let known = self.ids.len();
        let mut came = 0;
        for (row, logits) in logits.chunks_exact_mut(model.vocab_size()).enumerate() {
            let chosen = self.choose(logits);
            let token = match chosen {
                Ok(token) => token,
                // The step that comes to it says so.
                Err(_) if row > 0 => break,
                Err(error) => {
                    self.ids.truncate(known);
                    model.rewind(&mut self.state, held);
                    return Err(error);
                }
            };
            self.ids.push(token.id);
            let as_guessed = guess.get(row) == Some(&token.id);
            let ends = self.ends_at(token.id) || self.text_is_over();
            self.ready.push_back(token);
            came = row;
            if !as_guessed || ends {
                break;
            }
        }
        self.ids.truncate(known);
        // The model has been given all tokens that came but the last.
        self.fed += 1 + came;
        model.rewind(&mut self.state, self.fed - self.window_start);
        Ok(true)
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

    /// Gives the model its next chunk, scores it if wanted, and returns the rows it gave.
    fn feed<M: CausalLm<State = S>>(&mut self, model: &M, scoring: bool) -> Vec<f32> {
        let vocab_size = model.vocab_size();
        let limit = match scoring {
            true => self.options.prefill_chunk.min(MAX_SCORED_LOGITS / vocab_size.max(1)),
            false => self.options.prefill_chunk,
        };
        let end = self.ids.len().min(self.fed + limit.max(1));
        let chunk = &self.ids[self.fed..end];
        let (wanted, rows) = if scoring { (Logits::All, chunk.len()) } else { (Logits::Last, 1) };
        let logits = model.forward(&mut self.state, chunk, wanted);
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

    /// Chooses what comes after the ids so far; what is chosen does come.
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

    /// Whether the grammar lets nothing follow the tokens so far, ready ones included.
    fn text_is_over(&self) -> bool {
        self.guide.as_ref().is_some_and(Guide::is_over)
    }

    /// Decides whether the generation goes on after the id just pushed, and slides the window if it must.
    fn after_token<M: CausalLm<State = S>>(&mut self, model: &M) {
        self.end_if_done(model.context_len());
        let in_window = self.ids.len() - self.window_start;
        if self.finish_reason.is_none() && in_window > model.context_len() {
            self.window_start = self.ids.len() - (model.context_len() / 2).max(1);
            self.fed = self.window_start;
            self.state = model.begin();
        }
    }

    /// Ends the generation if the id just pushed is its last.
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

#[cfg(test)]
mod tests;
