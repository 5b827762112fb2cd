//! The answer to a request: its generations, merged, until all choices are whole.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{SystemTime, UNIX_EPOCH};

use andiron_kernels::random::Seed;
use andiron_models::generate::{FinishReason, GenerateOptions, SamplingParams, WhenFull};
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::choice::{Choice, ChoiceOptions, Delta, Logprobs};
use super::grammar::Asked;
use super::request::{CompletionRequest, Prompts, StreamOptions};
use crate::engine::{Event, Generation, Job};
use crate::http::{Answering, ApiError, App, Phase};

/// Tokens generated for a request that does not say, as OpenAI has it.
const DEFAULT_MAX_TOKENS: usize = 16;

/// Tokens that may wait for the reader of a stream who reads nothing.
const MAX_BEHIND: usize = 1000;

pub(super) struct Answer {
    app: Arc<App>,
    id: String,
    created: u64,
    choices: Vec<Choice>,
    /// One per choice, `None` once it is over; dropping one cancels its work.
    generations: Vec<Option<Generation>>,
    /// The choice to be heard first, so that none is left behind.
    turn: usize,
    /// What is known without the engine.
    ready: VecDeque<(usize, Delta)>,
    prompt_tokens: usize,
    deadline: Instant,
    _answering: Answering,
}

/// What all chunks of a stream have in common.
pub(super) struct Envelope {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
}

impl Answer {
    /// Encodes, checks and submits all generations of a request.
    pub(super) async fn start(
        app: &Arc<App>,
        request: CompletionRequest,
        client: u64,
    ) -> Result<Self, ApiError> {
        let deadline = Instant::now() + app.config.limits.request_timeout;
        let (id, fresh_seed) = app.next_request();
        let prompts = encode(app, &request).await?;
        let constraint = match request.grammar.clone() {
            Some(Asked { param, grammar }) => Some(app.constrain(param, grammar).await?),
            None => None,
        };
        let mut jobs = Vec::with_capacity(prompts.len() * request.n);
        let mut choices = Vec::with_capacity(jobs.capacity());
        let mut entries = 0usize;
        for (at, (ids, text)) in prompts.iter().enumerate() {
            let max_new_tokens = check_fits(app, &request, ids)?;
            let scored = if request.scores_prompt() { ids.len() } else { 0 };
            let per_token = request.logprobs.map_or(0, |n| n + 1);
            entries = entries.saturating_add((scored + max_new_tokens) * per_token * request.n);
            if entries > app.config.limits.max_logprob_entries {
                let limit = app.config.limits.max_logprob_entries;
                let message = format_args!(
                    "choices x tokens x alternatives is more than {limit}; ask for less at once"
                );
                return Err(ApiError::invalid("logprobs", message));
            }
            for copy in 0..request.n {
                let mut choice = Choice::new(&app.text, ids, request.choice_options())?;
                if request.echo {
                    choice.echo(&app.text, ids, text.as_deref())?;
                }
                choices.push(choice);
                let seed = seed_of(&request, fresh_seed, at, copy);
                jobs.push(Job {
                    prompt: ids.clone(),
                    options: GenerateOptions {
                        constraint: constraint.clone(),
                        ..generate_options(app, &request, max_new_tokens, seed)
                    },
                    // Who names a seed wants the same answer again.
                    alone: request.seed.is_some(),
                    client,
                    max_behind: request.stream.map(|_| MAX_BEHIND),
                });
            }
        }
        let mut ready = VecDeque::new();
        if request.echo && !request.scores_prompt() {
            for (index, choice) in choices.iter_mut().enumerate() {
                ready.push_back((index, choice.prompt(&app.text, &[])?));
            }
        }
        let answering = app.answering();
        let generations = app.engine.submit(jobs)?.into_iter().map(Some).collect();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        let prompt_tokens = prompts.iter().map(|(ids, _)| ids.len()).sum();
        Ok(Self {
            app: Arc::clone(app),
            id,
            created,
            choices,
            generations,
            turn: 0,
            ready,
            prompt_tokens,
            deadline,
            _answering: answering,
        })
    }

    /// The next thing to tell the client; `None` when all choices are whole. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<(usize, Delta)>, ApiError> {
        loop {
            if let Some(delta) = self.ready.pop_front() {
                return Ok(Some(delta));
            }
            let app = Arc::clone(&self.app);
            let event = tokio::select! {
                biased;
                () = app.shutdown.reached(Phase::Cut) => return Err(ApiError::shutting_down()),
                () = sleep_until(self.deadline) => {
                    return Err(ApiError::deadline_exceeded(app.config.limits.request_timeout.as_secs()));
                }
                event = self.next_event() => event,
            };
            let Some((index, event)) = event else {
                return Ok(None);
            };
            let choice = &mut self.choices[index];
            let delta = match event {
                Event::Prompt(tokens) => choice.prompt(&app.text, &tokens)?,
                Event::Token(token) => choice.token(&app.text, &token)?,
                Event::Finished(reason) => choice.finish(reason)?,
                Event::Failed(error) => return Err(error.into()),
            };
            if delta.finish.is_some() {
                self.generations[index] = None;
            }
            if !delta.is_empty() {
                return Ok(Some((index, delta)));
            }
        }
    }

    async fn next_event(&mut self) -> Option<(usize, Event)> {
        let (generations, turn) = (&mut self.generations, &mut self.turn);
        poll_fn(|cx| {
            let mut all_over = true;
            for step in 0..generations.len() {
                let index = (*turn + step) % generations.len();
                let Some(generation) = &mut generations[index] else {
                    continue;
                };
                match Pin::new(generation).poll_next(cx) {
                    Poll::Ready(Some(event)) => {
                        *turn = index + 1;
                        return Poll::Ready(Some((index, event)));
                    }
                    Poll::Ready(None) => generations[index] = None,
                    Poll::Pending => all_over = false,
                }
            }
            if all_over { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    /// Ends all work that is left.
    pub(super) fn cancel(&mut self) {
        self.generations.clear();
    }

    /// The whole answer in one object.
    pub(super) async fn collect(&mut self) -> Result<Value, ApiError> {
        let mut whole = vec![Delta::default(); self.choices.len()];
        while let Some((index, delta)) = self.next().await? {
            let choice = &mut whole[index];
            choice.text.push_str(&delta.text);
            if let Some(logprobs) = delta.logprobs {
                choice.logprobs.get_or_insert_with(Logprobs::default).append(logprobs);
            }
            choice.finish = choice.finish.or(delta.finish);
        }
        let choices: Vec<Value> =
            whole.into_iter().enumerate().map(|(index, delta)| choice_json(index, delta)).collect();
        let usage = self.usage();
        tracing::info!(id = self.id, ?usage, "completion");
        Ok(json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.app.config.model.id,
            "choices": choices,
            "usage": usage,
            "system_fingerprint": FINGERPRINT,
        }))
    }

    pub(super) fn envelope(&self, options: StreamOptions) -> Envelope {
        Envelope {
            id: self.id.clone(),
            created: self.created,
            model: self.app.config.model.id.clone(),
            include_usage: options.include_usage,
        }
    }

    fn usage(&self) -> Value {
        let completion_tokens: usize = self.choices.iter().map(Choice::tokens).sum();
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        })
    }
}

impl Envelope {
    pub(super) fn chunk(&self, index: usize, delta: Delta) -> Value {
        let mut chunk = self.with_choices(vec![choice_json(index, delta)]);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The last chunk, if the client asked for it.
    pub(super) fn usage_chunk(&self, answer: &Answer) -> Option<Value> {
        let usage = answer.usage();
        tracing::info!(id = self.id, ?usage, "completion");
        self.include_usage.then(|| {
            let mut chunk = self.with_choices(Vec::new());
            chunk["usage"] = usage;
            chunk
        })
    }

    fn with_choices(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            "system_fingerprint": FINGERPRINT,
        })
    }
}

/// Names the program that answered.
const FINGERPRINT: &str = concat!("andiron-", env!("CARGO_PKG_VERSION"));

fn choice_json(index: usize, delta: Delta) -> Value {
    let finish = delta.finish.map(|reason| match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    });
    json!({"index": index, "text": delta.text, "logprobs": delta.logprobs, "finish_reason": finish})
}

/// The ids of each prompt, with its text if it came as text.
async fn encode(
    app: &Arc<App>,
    request: &CompletionRequest,
) -> Result<Vec<(Vec<u32>, Option<String>)>, ApiError> {
    match &request.prompts {
        Prompts::Ids(lists) => Ok(lists.iter().map(|ids| (ids.clone(), None)).collect()),
        Prompts::Texts(texts) => {
            let mut prompts = Vec::with_capacity(texts.len());
            for text in texts {
                let ids = app.encode(text.clone(), request.reading).await?;
                prompts.push((ids, Some(text.clone())));
            }
            Ok(prompts)
        }
    }
}

/// Checks a prompt against the model and returns how many tokens to generate.
fn check_fits(app: &App, request: &CompletionRequest, ids: &[u32]) -> Result<usize, ApiError> {
    let sizes = app.engine.sizes();
    if ids.is_empty() {
        return Err(ApiError::invalid("prompt", "empty, send at least one token"));
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= sizes.vocab_size) {
        let message = format_args!("token id {id} is outside the vocabulary of {} ids", sizes.vocab_size);
        return Err(ApiError::invalid("prompt", message));
    }
    let (prompt, context) = (ids.len(), sizes.context_len);
    let slides = app.config.when_full == WhenFull::Slide;
    let asked = request.max_tokens;
    let least = if slides { 0 } else { asked.unwrap_or(1).min(1) };
    if prompt + least > context {
        let message = format!(
            "this model's context is {context} tokens and the prompt has {prompt}, which leaves no room for an answer; \
             shorten the prompt"
        );
        return Err(ApiError::context_length_exceeded("prompt", message));
    }
    let room = if slides { app.config.limits.max_tokens } else { context - prompt };
    match asked {
        Some(asked) if asked > room => {
            let message = format!(
                "this model's context is {context} tokens; the prompt has {prompt} and max_tokens is {asked}, which is {} \
                 too many",
                prompt + asked - context
            );
            Err(ApiError::context_length_exceeded("max_tokens", message))
        }
        Some(asked) => Ok(asked),
        None => Ok(DEFAULT_MAX_TOKENS.min(room)),
    }
}

/// With a seed, a choice depends on the prompt, the seed and its number among the choices of that prompt, whatever
/// other prompts are in the request. Without one, equal prompts in a request differ.
fn seed_of(request: &CompletionRequest, fresh: u64, prompt: usize, copy: usize) -> u64 {
    let of_prompt = match request.seed {
        Some(seed) => Seed::new(seed),
        None => Seed::new(fresh).at(prompt as u64),
    };
    match copy {
        0 => of_prompt.value(),
        _ => of_prompt.derive("choice").at(copy as u64).value(),
    }
}

fn generate_options(
    app: &App,
    request: &CompletionRequest,
    max_new_tokens: usize,
    seed: u64,
) -> GenerateOptions {
    let ChoiceOptions { stop_ids, .. } = request.choice_options();
    GenerateOptions {
        sampling: SamplingParams { seed, ..request.sampling.clone() },
        max_new_tokens,
        min_new_tokens: request.min_tokens,
        stop_ids,
        ignore_eos: false,
        top_logprobs: request.logprobs.unwrap_or(0),
        score_prompt: request.scores_prompt(),
        prefill_chunk: app.config.prefill_chunk,
        when_full: app.config.when_full,
        ..GenerateOptions::default()
    }
}
