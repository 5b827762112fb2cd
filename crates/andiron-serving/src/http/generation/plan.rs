//! What is to be generated, and its jobs for the engine, checked before any of them runs.

use andiron_kernels::random::Seed;
use andiron_models::generate::{Constraint, GenerateOptions, SamplingParams, WhenFull};
use andiron_pipelines::TextStream;

use super::choice::Choice;
use super::options::GenerationOptions;
use crate::engine::Job;
use crate::http::{ApiError, App};
use crate::registry::Served;

/// Maximum unread tokens of a stream whose client reads nothing.
const MAX_BEHIND: usize = 1000;

/// A prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::http) struct Prompt {
    pub(in crate::http) ids: Vec<u32>,
    /// Its text as the client sent it, for an echo.
    pub(in crate::http) text: Option<String>,
}

/// A checked request.
#[derive(Clone, Debug)]
pub(in crate::http) struct Work {
    pub(in crate::http) prompts: Vec<Prompt>,
    pub(in crate::http) options: GenerationOptions,
    /// The compiled grammar of the output.
    pub(in crate::http) constraint: Option<Constraint>,
    /// Whether each choice begins with its prompt.
    pub(in crate::http) echo: bool,
    /// Control tokens that are part of the text.
    pub(in crate::http) markers: Vec<&'static str>,
}

impl Work {
    /// Whether the response has log-probabilities of the prompt.
    pub(super) fn scores_prompt(&self) -> bool {
        self.echo && self.options.logprobs.is_some()
    }
}

/// The jobs and choices of a request.
pub(super) struct Plan {
    /// One for each choice, in order.
    pub(super) jobs: Vec<Job>,
    /// The choices that collect their tokens.
    pub(super) choices: Vec<Choice>,
    pub(super) prompt_tokens: usize,
}

impl Plan {
    /// Checks the prompts of `work`. `seed` is for requests without one.
    pub(super) fn new(
        app: &App,
        served: &Served,
        work: &Work,
        client: u64,
        seed: u64,
    ) -> Result<Self, ApiError> {
        let request = &work.options;
        let prompt_tokens = work.prompts.iter().map(|prompt| prompt.ids.len()).sum();
        let mut plan = Self { jobs: Vec::new(), choices: Vec::new(), prompt_tokens };
        let mut entries = 0usize;
        for (at, Prompt { ids, text }) in work.prompts.iter().enumerate() {
            let options = GenerateOptions {
                max_new_tokens: max_new_tokens(app, served, request, ids)?,
                constraint: work.constraint.clone(),
                ..generate_options(app, work)
            };
            let sizes = served.sizes();
            options.check(ids, sizes.vocab_size, sizes.context_len)?;
            let scored = if work.scores_prompt() { ids.len() } else { 0 };
            let per_token = request.logprobs.map_or(0, |n| n + 1);
            entries = entries.saturating_add((scored + options.max_new_tokens) * per_token * request.n);
            if entries > app.config.limits.max_logprob_entries {
                let limit = app.config.limits.max_logprob_entries;
                let message = format_args!(
                    "choices x tokens x alternatives is more than {limit}; ask for less at once"
                );
                return Err(ApiError::invalid("logprobs", message));
            }
            for copy in 0..request.n {
                let stream = TextStream::new(&served.text, ids, &options.stop_ids, &request.stops)?;
                let stream = stream.with_min_tokens(request.min_tokens).showing(&served.text, &work.markers);
                let mut choice = Choice::new(stream, &options.stop_ids, request.logprobs.is_some());
                if work.echo {
                    let text = text.clone().map_or_else(|| served.text.continuation(&[], ids), Ok)?;
                    choice.echo(ids, text);
                }
                plan.choices.push(choice);
                let seed = seed_of(request, seed, at, copy);
                plan.jobs.push(Job {
                    prompt: ids.clone(),
                    options: GenerateOptions {
                        sampling: SamplingParams { seed, ..options.sampling.clone() },
                        ..options.clone()
                    },
                    choice: copy,
                    // A client has a key or an address of its own.
                    cache_scope: client,
                    client,
                    max_behind: request.stream.map(|_| MAX_BEHIND),
                });
            }
        }
        Ok(plan)
    }
}

/// Options common to all choices of a request.
fn generate_options(app: &App, work: &Work) -> GenerateOptions {
    let request = &work.options;
    GenerateOptions {
        sampling: request.sampling.clone(),
        min_new_tokens: request.min_tokens,
        stop_ids: request.stop_ids.clone(),
        ignore_eos: false,
        top_logprobs: request.logprobs.unwrap_or(0),
        score_prompt: work.scores_prompt(),
        prefill_chunk: app.config.prefill_chunk,
        when_full: app.config.when_full,
        ..GenerateOptions::default()
    }
}

/// Maximum number of tokens to generate for a prompt, if it fits the model's context.
fn max_new_tokens(
    app: &App,
    served: &Served,
    request: &GenerationOptions,
    ids: &[u32],
) -> Result<usize, ApiError> {
    let (limits, bounds) = (&app.config.limits, &request.bounds);
    let (prompt, context) = (ids.len(), served.sizes().context_len);
    let slides = app.config.when_full == WhenFull::Slide;
    let asked = request.max_tokens;
    let least = if slides { 0 } else { asked.unwrap_or(1).min(1) };
    if prompt + least > context {
        let message = format!(
            "this model's context is {context} tokens and the prompt has {prompt}, which leaves no room for an answer; \
             shorten the prompt"
        );
        return Err(ApiError::context_length_exceeded(bounds.prompt, message));
    }
    let room = if slides { limits.max_tokens } else { context - prompt };
    match asked {
        Some(asked) if asked > room => {
            let message = format!(
                "this model's context is {context} tokens; the prompt has {prompt} and {} is {asked}, which is {} too many",
                bounds.max_tokens,
                prompt + asked - context
            );
            Err(ApiError::context_length_exceeded(bounds.max_tokens, message))
        }
        Some(asked) => Ok(asked),
        None => match bounds.usual {
            Some(usual) => Ok(usual.min(room)),
            // The rest of the context, whether it slides or not, and no more than the response has room for.
            None => {
                let rest = (context - prompt).max(1).min(limits.max_tokens);
                let entries = request.logprobs.map_or(0, |n| (n + 1) * request.n);
                Ok(limits.max_logprob_entries.checked_div(entries).map_or(rest, |most| rest.min(most)))
            }
        },
    }
}

/// With a seed, a choice depends on its prompt, the seed and its index among the choices of the prompt, not on other prompts in
/// the request. Without one, equal prompts in a request get different seeds.
fn seed_of(request: &GenerationOptions, fresh: u64, prompt: usize, copy: usize) -> u64 {
    let of_prompt = match request.seed {
        Some(seed) => Seed::new(seed),
        None => Seed::new(fresh).at(prompt as u64),
    };
    match copy {
        0 => of_prompt.value(),
        _ => of_prompt.derive("choice").at(copy as u64).value(),
    }
}
