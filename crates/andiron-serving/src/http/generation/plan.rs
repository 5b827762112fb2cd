//! The plan of a request: its jobs for the engine, checked before any of them runs.

use std::sync::Arc;

use andiron_kernels::random::Seed;
use andiron_models::generate::{GenerateOptions, SamplingParams, WhenFull};
use andiron_pipelines::TextStream;

use super::choice::Choice;
use super::grammar::RequestedGrammar;
use super::request::{CompletionRequest, Prompts};
use crate::engine::{Job, SharedPrompt};
use crate::http::{ApiError, App};
use crate::registry::Served;

/// Default `max_tokens`, as in OpenAI's API.
const DEFAULT_MAX_TOKENS: usize = 16;

/// Maximum unread tokens of a stream whose client reads nothing.
const MAX_BEHIND: usize = 1000;

/// The jobs and choices of a request.
pub(super) struct Plan {
    /// One for each choice, in order.
    pub(super) jobs: Vec<Job>,
    /// The choices that collect their tokens.
    pub(super) choices: Vec<Choice>,
    pub(super) prompt_tokens: usize,
}

impl Plan {
    /// Tokenizes and checks the prompts of `request`. `seed` is for requests without one.
    pub(super) async fn new(
        app: &App,
        served: &Arc<Served>,
        request: &CompletionRequest,
        client: u64,
        seed: u64,
    ) -> Result<Self, ApiError> {
        let prompts = encode(app, served, request).await?;
        let constraint = match request.grammar.clone() {
            Some(RequestedGrammar { param, grammar }) => Some(app.constrain(served, param, grammar).await?),
            None => None,
        };
        let prompt_tokens = prompts.iter().map(|(ids, _)| ids.len()).sum();
        let mut plan = Self { jobs: Vec::new(), choices: Vec::new(), prompt_tokens };
        let mut entries = 0usize;
        for (at, (ids, text)) in prompts.into_iter().enumerate() {
            let options = GenerateOptions {
                max_new_tokens: max_new_tokens(app, served, request, &ids)?,
                constraint: constraint.clone(),
                ..generate_options(app, request)
            };
            let sizes = served.sizes();
            options.check(&ids, sizes.vocab_size, sizes.context_len)?;
            let scored = if request.scores_prompt() { ids.len() } else { 0 };
            let per_token = request.logprobs.map_or(0, |n| n + 1);
            entries = entries.saturating_add((scored + options.max_new_tokens) * per_token * request.n);
            if entries > app.config.limits.max_logprob_entries {
                let limit = app.config.limits.max_logprob_entries;
                let message = format_args!(
                    "choices x tokens x alternatives is more than {limit}; ask for less at once"
                );
                return Err(ApiError::invalid("logprobs", message));
            }
            // All choices of a prompt share its prefill.
            let shared_prompt = (request.n > 1).then(SharedPrompt::default);
            for copy in 0..request.n {
                let stream = TextStream::new(&served.text, &ids, &options.stop_ids, &request.stops)?;
                let stream = stream.with_min_tokens(request.min_tokens);
                let mut choice = Choice::new(stream, request.logprobs.is_some());
                if request.echo {
                    choice.echo(&served.text, &ids, text.as_deref())?;
                }
                plan.choices.push(choice);
                let seed = seed_of(request, seed, at, copy);
                plan.jobs.push(Job {
                    prompt: ids.clone(),
                    options: GenerateOptions {
                        sampling: SamplingParams { seed, ..options.sampling.clone() },
                        ..options.clone()
                    },
                    // Who names a seed wants the same answer again.
                    deterministic: request.seed.is_some(),
                    shared_prompt: shared_prompt.clone(),
                    client,
                    max_behind: request.stream.map(|_| MAX_BEHIND),
                });
            }
        }
        Ok(plan)
    }
}

/// Options common to all choices of a request.
fn generate_options(app: &App, request: &CompletionRequest) -> GenerateOptions {
    GenerateOptions {
        sampling: request.sampling.clone(),
        min_new_tokens: request.min_tokens,
        stop_ids: request.stop_ids.clone(),
        ignore_eos: false,
        top_logprobs: request.logprobs.unwrap_or(0),
        score_prompt: request.scores_prompt(),
        prefill_chunk: app.config.prefill_chunk,
        when_full: app.config.when_full,
        ..GenerateOptions::default()
    }
}

/// The ids of each prompt, with its text if it came as text.
async fn encode(
    app: &App,
    served: &Arc<Served>,
    request: &CompletionRequest,
) -> Result<Vec<(Vec<u32>, Option<String>)>, ApiError> {
    match &request.prompts {
        Prompts::Ids(lists) => Ok(lists.iter().map(|ids| (ids.clone(), None)).collect()),
        Prompts::Texts(texts) => {
            let mut prompts = Vec::with_capacity(texts.len());
            for text in texts {
                let ids = app.encode(served, text.clone(), request.reading).await?;
                prompts.push((ids, Some(text.clone())));
            }
            Ok(prompts)
        }
    }
}

/// Maximum number of tokens to generate for a prompt, if it fits the model's context.
fn max_new_tokens(
    app: &App,
    served: &Served,
    request: &CompletionRequest,
    ids: &[u32],
) -> Result<usize, ApiError> {
    let sizes = served.sizes();
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

/// With a seed, a choice depends on its prompt, the seed and its index among the choices of the prompt, not on other prompts in
/// the request. Without one, equal prompts in a request get different seeds.
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
