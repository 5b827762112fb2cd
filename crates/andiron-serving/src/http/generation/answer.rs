//! The generations of a request, merged into one sequence of updates.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::Stream;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use super::choice::{Choice, Delta, Logprobs};
use super::json::{Envelope, Usage};
use super::plan::Plan;
use super::request::CompletionRequest;
use crate::engine::{Event, Generation};
use crate::http::{Answering, ApiError, App, Phase};
use crate::registry::Served;

/// A request in progress.
pub(super) struct Answer {
    app: Arc<App>,
    served: Arc<Served>,
    pub(super) envelope: Envelope,
    choices: Vec<Choice>,
    /// One per choice, `None` once finished; dropping one cancels its job.
    generations: Vec<Option<Generation>>,
    /// The choice to poll first, for fairness.
    turn: usize,
    /// Updates that need no engine, such as an echoed prompt.
    ready: VecDeque<(usize, Delta)>,
    prompt_tokens: usize,
    deadline: Instant,
    _answering: Answering,
}

impl Answer {
    /// Plans and submits all generations of a request.
    pub(super) async fn start(
        app: &Arc<App>,
        served: &Arc<Served>,
        request: CompletionRequest,
        client: u64,
    ) -> Result<Self, ApiError> {
        let deadline = Instant::now() + app.config.limits.request_timeout;
        let (id, fresh_seed) = app.next_request();
        let Plan { jobs, mut choices, prompt_tokens } =
            Plan::new(app, served, &request, client, fresh_seed).await?;
        let mut ready = VecDeque::new();
        if request.echo && !request.scores_prompt() {
            for (index, choice) in choices.iter_mut().enumerate() {
                ready.push_back((index, choice.prompt(&served.text, &[])?));
            }
        }
        let answering = app.answering();
        let generations = served.decoder()?.submit(jobs)?.into_iter().map(Some).collect();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        Ok(Self {
            app: Arc::clone(app),
            served: Arc::clone(served),
            envelope: Envelope { id, created, model: served.info.id.clone() },
            choices,
            generations,
            turn: 0,
            ready,
            prompt_tokens,
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
            let (choice, text) = (&mut self.choices[index], &self.served.text);
            let delta = match event {
                Event::Prompt(tokens) => choice.prompt(text, &tokens)?,
                Event::Token(token) => choice.token(text, &token)?,
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

    /// The whole response in one object.
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
        Ok(self.envelope.whole(whole, self.usage()))
    }

    /// The token usage, when finished.
    pub(super) fn usage(&self) -> Usage {
        let completion_tokens = self.choices.iter().map(Choice::tokens).sum();
        let usage = Usage { prompt_tokens: self.prompt_tokens, completion_tokens };
        tracing::info!(id = self.envelope.id, ?usage, "completion");
        usage
    }
}
