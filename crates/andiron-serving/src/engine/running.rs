//! One running job.

use std::panic::{AssertUnwindSafe, catch_unwind};

use andiron_models::generate::{CausalLm, Decoding, GenerateOptions, Progress};

use super::Job;
use super::feed::Feed;
use super::generation::{Event, GenerationError};
use super::kv_memory::Held;
use super::queue::Ticket;
use crate::metrics::ModelMetrics;

/// A job that runs, or did and was preempted.
pub(super) struct Running<S> {
    pub(super) decoding: Decoding<S>,
    pub(super) feed: Feed,
    pub(super) options: GenerateOptions,
    pub(super) held: Held,
    pub(super) stage: Stage,
    /// Its number in the order of admission.
    pub(super) admitted: u64,
    /// Whether it prefills by itself, since a batch that it was in has failed.
    alone: bool,
    pub(super) client: u64,
    prompt_len: usize,
    scores_prompt: bool,
    max_behind: Option<usize>,
    /// Where the window began when the job last took a step.
    window_start: usize,
    /// Whether its prompt was looked up in the prefix cache.
    looked_up: bool,
}

/// How far a job is with its prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its prompt has not been looked up.
    New,
    /// Another job prefills the beginning of its prompt.
    Waits {
        /// Number of that job.
        reader: u64,
        /// Positions to wait for.
        until: usize,
    },
    /// It prefills or decodes.
    Begun,
}

/// Whether a job continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Again,
    Over,
}

impl<S> Running<S> {
    /// Starts a job; one that cannot start is told so.
    pub(super) fn start<M: CausalLm<State = S>>(
        model: &M,
        ticket: Ticket,
        admitted: u64,
        prompt_lookup: usize,
    ) -> Option<Self> {
        let Ticket { job, feed } = ticket;
        let Job { prompt, options, choice: _, cache_scope, client, max_behind } = job;
        let options = GenerateOptions { prompt_lookup, ..options };
        let kept = options.clone();
        match guarded(|| Decoding::new(model, &prompt, options).map_err(GenerationError::from)) {
            Ok(decoding) => Some(Self {
                decoding,
                feed,
                held: Held::new(cache_scope, kept.source.as_ref().map_or(0, |source| source.len())),
                stage: Stage::New,
                admitted,
                alone: false,
                client,
                prompt_len: prompt.len(),
                scores_prompt: kept.score_prompt,
                max_behind,
                options: kept,
                window_start: 0,
                looked_up: false,
            }),
            Err(error) => {
                feed.tell(Event::Failed(error));
                None
            }
        }
    }

    /// Whether its next step is a prefill step, or computes again what was generated before it was preempted.
    pub(super) fn reads(&self) -> bool {
        let decoding = &self.decoding;
        let reads = decoding.held() < decoding.prefill_len() || decoding.unread() > 1;
        self.stage == Stage::Begun && reads && !decoding.is_ahead()
    }

    /// Whether its next prefill step can be part of a batch.
    pub(super) fn prefills_with_others(&self) -> bool {
        !self.alone && !self.feed.is_closed() && self.decoding.is_prefilling()
    }

    /// Ids that its next prefill step can read.
    pub(super) fn next_chunk(&self) -> usize {
        let (held, prefill_len) = (self.decoding.held(), self.decoding.prefill_len());
        let end = if held < prefill_len { prefill_len } else { self.decoding.window().len() };
        (end - held).min(self.options.prefill_chunk.max(1))
    }

    /// After a failure in a batch, the state of which was released.
    pub(super) fn restart_alone(&mut self) {
        (self.stage, self.alone) = (Stage::New, true);
    }

    /// Whether its next step can be part of a batched decode step.
    pub(super) fn decodes(&self) -> bool {
        let stuck = self.max_behind.is_some_and(|most| self.feed.is_stuck(most));
        self.stage == Stage::Begun && !stuck && !self.feed.is_closed() && self.decoding.is_decoding()
    }

    /// Positions of its state after the next step.
    pub(super) fn next_positions(&self) -> usize {
        match self.decoding.is_ahead() {
            true => self.decoding.held(),
            false => {
                let new = self.decoding.unread().min(self.options.prefill_chunk.max(1));
                self.decoding.held() + new + self.options.prompt_lookup
            }
        }
    }

    /// Whether the window has slid since the last call, so that the state was dropped.
    pub(super) fn has_slid(&mut self) -> bool {
        let before = std::mem::replace(&mut self.window_start, self.decoding.window_start());
        before != self.window_start
    }

    /// Tells and counts how many positions of its prompt were cached, when it begins for the first time.
    pub(super) fn tell_cached(&mut self, hits: usize, metrics: &ModelMetrics) {
        if !std::mem::replace(&mut self.looked_up, true) {
            metrics.add_prefix_query(self.prompt_len, hits);
            self.feed.tell_cached(hits);
        }
    }

    /// One step.
    pub(super) fn advance<M: CausalLm<State = S>>(&mut self, model: &M) -> Turn {
        if self.feed.is_closed() {
            return Turn::Over;
        }
        if let Some(behind) = self.max_behind.filter(|&most| self.feed.is_stuck(most)) {
            self.feed.tell(Event::Failed(GenerationError::Behind { behind }));
            return Turn::Over;
        }
        if self.stage != Stage::Begun {
            return Turn::Again;
        }
        let progress = guarded(|| self.decoding.step(model).map_err(GenerationError::from));
        if self.scores_prompt && self.decoding.prompt_tokens().len() + 1 == self.prompt_len {
            self.scores_prompt = false;
            self.feed.tell(Event::Prompt(self.decoding.prompt_tokens().to_vec()));
        }
        self.tell(progress)
    }

    /// Sends the outcome of a step to the client.
    pub(super) fn tell(&self, progress: Result<Progress, GenerationError>) -> Turn {
        match progress {
            Ok(Progress::Prefill { .. }) => return Turn::Again,
            Ok(Progress::Token(token)) => self.feed.tell(Event::Token(token)),
            Ok(Progress::Finished(_)) => {}
            Err(error) => {
                self.feed.tell(Event::Failed(error));
                return Turn::Over;
            }
        }
        match self.decoding.finish_reason() {
            Some(reason) => {
                self.feed.tell(Event::Finished(reason));
                Turn::Over
            }
            None => Turn::Again,
        }
    }

    /// Drops the job; after a failure, the destructor of its state may panic.
    pub(super) fn discard(self) {
        if catch_unwind(AssertUnwindSafe(|| drop(self))).is_err() {
            tracing::error!("a decoding state panicked when it was freed");
        }
    }
}

/// Runs a step of one job or of a batch; a panic fails only these jobs.
///
/// The model is only ever borrowed shared, so a panic leaves it as it was unless it has interior mutability; the job's
/// state may be broken and is thrown away by the caller.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, GenerationError>) -> Result<T, GenerationError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let message = payload.downcast_ref::<&str>().copied().map(str::to_owned);
        let message = message.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(message, "the model panicked; the request fails, the engine goes on");
        Err(GenerationError::Panicked)
    })
}
