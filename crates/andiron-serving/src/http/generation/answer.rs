//! The generations of a request, merged into one sequence of updates.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures_util::Stream;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::choice::{Choice, Delta};
use super::plan::{Plan, Work};
use crate::engine::{Event, Generation};
use crate::http::{Answering, ApiError, App, Phase};
use crate::registry::Served;

/// Token usage of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::http) struct Usage {
    pub(in crate::http) prompt_tokens: usize,
    pub(in crate::http) completion_tokens: usize,
    /// Tokens of the prompts that were not prefilled, because their keys and values were cached.
    pub(in crate::http) cached_tokens: usize,
}

impl Usage {
    /// As OpenAI's completions and chat write it.
    pub(in crate::http) fn to_json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        })
    }
}

/// A request in progress.
pub(super) struct Answer {
    app: Arc<App>,
    served: Arc<Served>,
    choices: Vec<Choice>,
    /// One per choice, `None` once finished; dropping one cancels its job.
    generations: Vec<Option<Generation>>,
    /// The choice to poll first, for fairness.
    turn: usize,
    /// Updates that need no engine, such as an echoed prompt.
    ready: VecDeque<(usize, Delta)>,
    prompt_tokens: usize,
    /// Choices of each prompt.
    n: usize,
    /// Cached tokens of each choice's prompt.
    cached: Vec<usize>,
    deadline: Instant,
    _answering: Answering,
}

impl Answer {
    /// Plans and submits all generations of a request. `seed` is for requests without one.
    pub(super) fn start(
        app: &Arc<App>,
        served: &Arc<Served>,
        work: &Work,
        client: u64,
        seed: u64,
    ) -> Result<Self, ApiError> {
        let deadline = Instant::now() + app.config.limits.request_timeout;
        let Plan { jobs, mut choices, prompt_tokens } = Plan::new(app, served, work, client, seed)?;
        let mut ready = VecDeque::new();
        if work.echo && !work.scores_prompt() {
            for (index, choice) in choices.iter_mut().enumerate() {
                ready.push_back((index, choice.prompt(&served.text, &[])?));
            }
        }
        let answering = app.answering();
        let cached = vec![0; choices.len()];
        let generations = served.decoder()?.submit(jobs)?.into_iter().map(Some).collect();
        Ok(Self {
            app: Arc::clone(app),
            served: Arc::clone(served),
            choices,
            generations,
            turn: 0,
            ready,
            prompt_tokens,
            n: work.options.n,
            cached,
            deadline,
            _answering: answering,
        })
    }

    /// The next update; `None` when all choices are finished. Cancel-safe.
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
            if let Some(generation) = &self.generations[index] {
                self.cached[index] = generation.cached_tokens();
            }
            let choice = &mut self.choices[index];
            let delta = match event {
                Event::Prompt(tokens) => choice.prompt(&self.served.text, &tokens)?,
                Event::Token(token) => choice.token(&token)?,
                Event::Finished(reason) => choice.finish(reason)?,
                Event::Failed(error) => return Err(error.into()),
            };
            if delta.finish.is_some()
                && let Some(generation) = self.generations[index].take()
            {
                generation.complete();
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

    /// Cancels the remaining jobs.
    pub(super) fn cancel(&mut self) {
        self.generations.clear();
    }

    /// All of every choice.
    pub(super) async fn collect(&mut self) -> Result<Vec<Delta>, ApiError> {
        let mut whole = vec![Delta::default(); self.choices.len()];
        while let Some((index, delta)) = self.next().await? {
            whole[index].append(delta);
        }
        Ok(whole)
    }

    /// The token usage so far.
    pub(super) fn usage(&self) -> Usage {
        let completion_tokens = self.choices.iter().map(Choice::tokens).sum();
        // The choices of a prompt share one prefill.
        let cached_tokens = self.cached.iter().step_by(self.n.max(1)).sum();
        Usage { prompt_tokens: self.prompt_tokens, completion_tokens, cached_tokens }
    }
}
