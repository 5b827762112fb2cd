//! The bounded queue between clients and the thread of a one-shot model.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::task::{Output, Task, TaskError};
use super::{OneShotConfig, Reply};
use crate::engine::{Load, SubmitError};
use crate::status::{IDLE_BEAT, Phase, Status, exceeds_share};

/// A task with the channel to its client.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) task: Task,
    pub(super) tokens: usize,
    client: u64,
    queued_at: Instant,
    reply: oneshot::Sender<Result<Output, TaskError>>,
}

impl Ticket {
    /// Time since it was submitted.
    pub(super) fn age(&self) -> Duration {
        self.queued_at.elapsed()
    }

    /// Whether the client still waits.
    pub(super) fn is_awaited(&self) -> bool {
        !self.reply.is_closed()
    }

    /// Answers the client, unless it has gone.
    pub(super) fn answer(self, result: Result<Output, TaskError>) {
        drop(self.reply.send(result));
    }
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Ticket>,
    queued_tokens: usize,
    running: usize,
    phase: Phase,
}

impl State {
    /// Drops the tasks whose clients have gone.
    fn sweep(&mut self) {
        self.queue.retain(|ticket| !ticket.reply.is_closed());
        self.queued_tokens = self.queue.iter().map(|ticket| ticket.tokens).sum();
    }

    fn load(&self) -> Load {
        Load {
            running: self.running,
            queued: self.queue.len(),
            queued_tokens: self.queued_tokens,
            ..Load::default()
        }
    }

    /// Takes a batch of about `budget` tokens that go together with the oldest task. Clients take turns, each with its oldest task.
    fn choose(&mut self, budget: usize) -> Vec<Ticket> {
        let Some(oldest) = self.queue.pop_front() else { return Vec::new() };
        let mut left = budget.saturating_sub(oldest.tokens);
        let mut taken: HashMap<u64, usize> = HashMap::new();
        // How many of its client's tasks come before each task.
        let mut turns: Vec<(usize, usize)> = Vec::new();
        *taken.entry(oldest.client).or_default() += 1;
        for (at, ticket) in self.queue.iter().enumerate() {
            if oldest.task.goes_with(&ticket.task) {
                let before = taken.entry(ticket.client).or_default();
                turns.push((*before, at));
                *before += 1;
            }
        }
        turns.sort_unstable();
        let mut chosen = vec![false; self.queue.len()];
        for (_, at) in turns {
            let tokens = self.queue[at].tokens;
            if tokens > left {
                break;
            }
            left -= tokens;
            chosen[at] = true;
        }
        let mut batch = vec![oldest];
        let mut rest = VecDeque::with_capacity(self.queue.len());
        for (ticket, chosen) in std::mem::take(&mut self.queue).into_iter().zip(chosen) {
            match chosen {
                true => batch.push(ticket),
                false => rest.push_back(ticket),
            }
        }
        self.queue = rest;
        self.queued_tokens = self.queue.iter().map(|ticket| ticket.tokens).sum();
        batch
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    config: OneShotConfig,
    /// Tokens of a text at most.
    limit: usize,
    state: Mutex<State>,
    wake: Condvar,
    status: Status,
}

impl Shared {
    pub(super) fn new(config: OneShotConfig, limit: usize) -> Self {
        let state = State { queue: VecDeque::new(), queued_tokens: 0, running: 0, phase: Phase::Open };
        Self { config, limit, state: Mutex::new(state), wake: Condvar::new(), status: Status::default() }
    }

    /// Nothing below can panic while the lock is held, so a poisoned lock still guards a whole state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn submit(&self, client: u64, tasks: Vec<Task>) -> Result<Vec<Reply>, SubmitError> {
        let costs: Vec<usize> = tasks.iter().map(|task| task.tokens(self.limit)).collect();
        let tokens = costs.iter().fold(0usize, |sum, &cost| sum.saturating_add(cost));
        let (jobs, max_jobs, max_tokens) =
            (tasks.len(), self.config.max_queued, self.config.max_queued_tokens);
        if jobs > max_jobs || tokens > max_tokens {
            return Err(SubmitError::TooLarge { jobs, tokens, max_jobs, max_tokens });
        }
        let mut state = self.lock();
        state.phase.check()?;
        state.sweep();
        let (queued, queued_tokens) = (state.queue.len(), state.queued_tokens);
        if queued + jobs > max_jobs || queued_tokens + tokens > max_tokens {
            return Err(SubmitError::Full { queued, queued_tokens });
        }
        // Whoever has nothing waiting gets in as long as there is room at all.
        let own = || state.queue.iter().filter(|ticket| ticket.client == client);
        let (waiting, waiting_tokens) = (own().count(), own().map(|ticket| ticket.tokens).sum::<usize>());
        if waiting > 0
            && (exceeds_share(waiting + jobs, max_jobs - queued - jobs)
                || exceeds_share(waiting_tokens + tokens, max_tokens - queued_tokens - tokens))
        {
            return Err(SubmitError::ShareFull { waiting, waiting_tokens });
        }
        let queued_at = Instant::now();
        let mut replies = Vec::with_capacity(jobs);
        for (task, tokens) in tasks.into_iter().zip(costs) {
            let (reply, receiver) = oneshot::channel();
            state.queue.push_back(Ticket { task, tokens, client, queued_at, reply });
            replies.push(Reply { receiver });
        }
        state.queued_tokens += tokens;
        self.publish(&state);
        drop(state);
        self.wake.notify_one();
        Ok(replies)
    }

    /// The thread's call between two batches: waits for work, then a little for more of it, and takes a batch of about `budget`
    /// tokens. `None` at the end.
    pub(super) fn next_batch(&self, budget: usize) -> Option<Vec<Ticket>> {
        let mut state = self.lock();
        state.running = 0;
        loop {
            self.status.beat();
            state.sweep();
            self.publish(&state);
            if state.phase == Phase::Stopped {
                return None;
            }
            let waited = state.queue.front().map(|ticket| ticket.queued_at.elapsed());
            let wait = match waited {
                None => IDLE_BEAT,
                // A whole batch need not wait, nor what nothing could join in time.
                Some(waited)
                    if waited >= self.config.window
                        || state.queued_tokens >= budget
                        || state.phase == Phase::Draining =>
                {
                    let batch = state.choose(budget);
                    state.running = batch.len();
                    self.publish(&state);
                    return Some(batch);
                }
                Some(waited) => self.config.window - waited,
            };
            state = self.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The thread's last call: takes the queued tasks.
    pub(super) fn close(&self) -> Vec<Ticket> {
        let mut state = self.lock();
        state.phase = Phase::Stopped;
        state.running = 0;
        state.queued_tokens = 0;
        let left = state.queue.drain(..).collect();
        self.publish(&state);
        left
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().phase == Phase::Stopped
    }

    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    pub(super) fn max_batch_tokens(&self) -> usize {
        self.config.max_batch_tokens
    }

    pub(super) fn load(&self) -> Load {
        let mut state = self.lock();
        state.sweep();
        state.load()
    }

    pub(super) fn accepts_work(&self) -> bool {
        let mut state = self.lock();
        state.sweep();
        state.phase == Phase::Open
            && state.queue.len() < self.config.max_queued
            && state.queued_tokens < self.config.max_queued_tokens
    }

    pub(super) fn drain(&self) {
        let mut state = self.lock();
        state.phase = state.phase.max(Phase::Draining);
        drop(state);
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.lock().phase = Phase::Stopped;
        self.wake.notify_one();
    }

    /// Under the lock.
    fn publish(&self, state: &State) {
        self.status.publish(state.load());
    }
}
