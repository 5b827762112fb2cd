//! State shared by the engine's thread and its clients: the bounded queue, the load, the heartbeat.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use andiron_models::generate::StateBlocks;

use super::feed::{Feed, feed};
use super::generation::Generation;
use super::{EngineConfig, Job};
use crate::metrics::{Meter, ModelMetrics};
use crate::status::{IDLE_BEAT, Phase, Status, exceeds_share};

/// Shorter queues have no shares: a share would be a few places, and the wait is short.
const SHARED_FROM: usize = 16;

/// The load of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Running jobs.
    pub running: usize,
    /// Queued jobs, preempted ones included.
    pub queued: usize,
    /// Prompt tokens of the queued jobs.
    pub queued_tokens: usize,
    /// Bytes of the KV cache that running jobs hold.
    pub kv_used_bytes: usize,
    /// Bytes of the KV cache that are kept for later prompts, until running jobs need them.
    pub kv_idle_bytes: usize,
    /// The engine's share of the [`KvBudget`](super::KvBudget), in bytes; `None` if the model does not tell what it takes.
    pub kv_total_bytes: Option<usize>,
}

/// Why jobs were not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The queue is full; try again later.
    #[error(
        "the queue is full: {queued} requests with {queued_tokens} prompt tokens wait; try again in a moment"
    )]
    Full {
        /// Queued jobs.
        queued: usize,
        /// Queued prompt tokens.
        queued_tokens: usize,
    },
    /// The client has used up its share of the queue; try again later.
    #[error(
        "{waiting} of your requests with {waiting_tokens} prompt tokens wait already, and the rest of the queue is for others; try \
         again in a moment"
    )]
    ShareFull {
        /// The client's queued jobs.
        waiting: usize,
        /// Their prompt tokens.
        waiting_tokens: usize,
    },
    /// The jobs exceed the size of the queue.
    #[error(
        "{jobs} generations with {tokens} prompt tokens do not fit the queue, which holds {max_jobs} with \
         {max_tokens}; send fewer at once"
    )]
    TooLarge {
        /// Jobs submitted together.
        jobs: usize,
        /// Their prompt tokens.
        tokens: usize,
        /// Bound on jobs.
        max_jobs: usize,
        /// Bound on prompt tokens.
        max_tokens: usize,
    },
    /// A job may take more of the KV cache than there is.
    #[error(
        "{tokens} tokens of prompt and answer take up to {bytes} bytes of KV cache, and this server has {total_bytes}; send a shorter \
         prompt or ask for fewer tokens"
    )]
    NeverFits {
        /// Tokens of the prompt and the longest answer.
        tokens: usize,
        /// Their bytes.
        bytes: usize,
        /// Bytes of the KV cache.
        total_bytes: usize,
    },
    /// The engine is draining and accepts no more work.
    #[error("the server is shutting down and takes no new work")]
    Draining,
    /// The engine has stopped.
    #[error("the engine has stopped")]
    Stopped,
}

/// A job with the channel to its client.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) job: Job,
    pub(super) feed: Feed,
}

/// What the worker has in hand.
pub(super) struct Now<'a> {
    /// Clients of the running jobs.
    pub(super) clients: &'a [u64],
    /// Jobs that wait to be resumed.
    pub(super) preempted: usize,
    pub(super) kv_used_bytes: usize,
    pub(super) kv_idle_bytes: usize,
    /// The share of the budget that it keeps to.
    pub(super) kv_total_bytes: usize,
}

/// What the worker is to do next.
pub(super) enum Work {
    /// Start these jobs, then run a step.
    Go(Vec<Ticket>),
    /// End everything.
    Stop,
}

#[derive(Debug)]
pub(super) struct Shared {
    config: EngineConfig,
    metrics: Arc<ModelMetrics>,
    context_len: usize,
    blocks: Option<StateBlocks>,
    state: Mutex<State>,
    wake: Condvar,
    status: Status,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Ticket>,
    queued_tokens: usize,
    running: usize,
    preempted: usize,
    kv_used_bytes: usize,
    kv_idle_bytes: usize,
    /// `None` if the model does not tell what its cache takes.
    kv_total_bytes: Option<usize>,
    phase: Phase,
    /// Slots given out so far.
    turn: u64,
    /// When each queued client last got a slot, counted in slots given out.
    turns: HashMap<u64, u64>,
}

impl State {
    /// Drops the jobs whose clients have disconnected.
    fn sweep(&mut self) {
        self.queue.retain(|ticket| !ticket.feed.is_closed());
        self.queued_tokens = self.queue.iter().map(|ticket| ticket.job.prompt.len()).sum();
    }

    /// Queued jobs, and their prompt tokens, of the clients of `jobs`.
    fn waiting_of(&self, jobs: &[Job]) -> (usize, usize) {
        let clients: HashSet<u64> = jobs.iter().map(|job| job.client).collect();
        let own = self.queue.iter().filter(|ticket| clients.contains(&ticket.job.client));
        own.fold((0, 0), |(count, tokens), ticket| (count + 1, tokens + ticket.job.prompt.len()))
    }

    /// Takes at most `count` queued jobs: each time the oldest job of the client with the fewest slots; of several such clients, the
    /// one whose latest slot was longest ago. One that does not fit is waited for.
    fn choose(&mut self, count: usize, clients: &[u64], fits: &mut impl FnMut(&Job) -> bool) -> Vec<Ticket> {
        let mut places: HashMap<u64, usize> = HashMap::new();
        for &client in clients {
            *places.entry(client).or_default() += 1;
        }
        let mut chosen = Vec::with_capacity(count);
        for _ in 0..count {
            let rank = |ticket: &Ticket| {
                let client = ticket.job.client;
                (places.get(&client).copied().unwrap_or(0), self.turns.get(&client).copied().unwrap_or(0))
            };
            let next = self.queue.iter().enumerate().min_by_key(|(at, ticket)| (rank(ticket), *at));
            let next = next.filter(|(_, ticket)| fits(&ticket.job)).map(|(at, _)| at);
            let Some(ticket) = next.and_then(|at| self.queue.remove(at)) else { break };
            self.turn += 1;
            self.turns.insert(ticket.job.client, self.turn);
            *places.entry(ticket.job.client).or_default() += 1;
            ticket.feed.started();
            chosen.push(ticket);
        }
        if self.turns.len() > 2 * self.queue.len() + 64 {
            let waiting: HashSet<u64> = self.queue.iter().map(|ticket| ticket.job.client).collect();
            self.turns.retain(|client, _| waiting.contains(client));
        }
        chosen
    }

    fn load(&self) -> Load {
        Load {
            running: self.running,
            queued: self.queue.len() + self.preempted,
            queued_tokens: self.queued_tokens,
            kv_used_bytes: self.kv_used_bytes,
            kv_idle_bytes: self.kv_idle_bytes,
            kv_total_bytes: self.kv_total_bytes,
        }
    }
}

impl Shared {
    pub(super) fn new(config: EngineConfig, context_len: usize, blocks: Option<StateBlocks>) -> Self {
        let state = State {
            queue: VecDeque::new(),
            queued_tokens: 0,
            running: 0,
            preempted: 0,
            kv_used_bytes: 0,
            kv_idle_bytes: 0,
            kv_total_bytes: blocks.map(|_| config.kv_cache.share()),
            phase: Phase::Open,
            turn: 0,
            turns: HashMap::new(),
        };
        Self {
            config,
            metrics: Arc::default(),
            context_len,
            blocks,
            state: Mutex::new(state),
            wake: Condvar::new(),
            status: Status::default(),
        }
    }

    /// Nothing below can panic while the lock is held, so a poisoned lock still guards a whole state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn submit(&self, jobs: Vec<Job>) -> Result<Vec<Generation>, SubmitError> {
        let tokens = jobs.iter().map(|job| job.prompt.len()).sum::<usize>();
        let (max_jobs, max_tokens) = (self.config.max_queued, self.config.max_queued_tokens);
        if jobs.len() > max_jobs || tokens > max_tokens {
            return Err(SubmitError::TooLarge { jobs: jobs.len(), tokens, max_jobs, max_tokens });
        }
        if let Some(refused) = jobs.iter().find_map(|job| self.never_fits(job)) {
            return Err(refused);
        }
        let mut state = self.lock();
        state.phase.check()?;
        state.sweep();
        if state.queue.len() + jobs.len() > max_jobs || state.queued_tokens + tokens > max_tokens {
            return Err(SubmitError::Full { queued: state.queue.len(), queued_tokens: state.queued_tokens });
        }
        // Whoever has nothing waiting gets in as long as there is room at all.
        let (waiting, waiting_tokens) = state.waiting_of(&jobs);
        let free = max_jobs - state.queue.len() - jobs.len();
        let free_tokens = max_tokens - state.queued_tokens - tokens;
        if max_jobs >= SHARED_FROM
            && waiting > 0
            && (exceeds_share(waiting + jobs.len(), free)
                || exceeds_share(waiting_tokens + tokens, free_tokens))
        {
            return Err(SubmitError::ShareFull { waiting, waiting_tokens });
        }
        let mut generations = Vec::with_capacity(jobs.len());
        for job in jobs {
            let meter = Meter::new(Arc::clone(&self.metrics), job.prompt.len(), job.choice == 0);
            let (feed, generation) = feed(meter);
            state.queue.push_back(Ticket { job, feed });
            generations.push(generation);
        }
        state.queued_tokens += tokens;
        self.publish(&state);
        drop(state);
        self.wake.notify_one();
        Ok(generations)
    }

    /// The error for a job that the whole KV cache could not hold.
    fn never_fits(&self, job: &Job) -> Option<SubmitError> {
        let blocks = self.blocks?;
        let tokens = job.prompt.len().saturating_add(job.options.max_new_tokens).min(self.context_len);
        let source = job.options.source.as_ref().map_or(0, |source| source.len() * blocks.source_bytes);
        let bytes = blocks.count(tokens).saturating_mul(blocks.bytes).saturating_add(source);
        let total_bytes = self.config.kv_cache.share();
        (bytes > total_bytes).then_some(SubmitError::NeverFits { tokens, bytes, total_bytes })
    }

    /// The worker's call between two rounds: reports what it has in hand, waits while there is nothing to do and its share of the
    /// budget stays, and takes queued jobs for the free slots as long as they fit. Preempted jobs come first.
    pub(super) fn next_work(&self, now: Now<'_>, mut fits: impl FnMut(&Job) -> bool) -> Work {
        let running = now.clients.len();
        let mut state = self.lock();
        loop {
            self.status.beat();
            state.sweep();
            state.running = running;
            state.preempted = now.preempted;
            (state.kv_used_bytes, state.kv_idle_bytes) = (now.kv_used_bytes, now.kv_idle_bytes);
            if let Some(blocks) = self.blocks {
                state.kv_total_bytes = Some(now.kv_total_bytes);
                let total = now.kv_total_bytes.max(1) as f64;
                self.metrics.set_kv_cache_usage(now.kv_used_bytes as f64 / total);
                let count = now.kv_total_bytes.checked_div(blocks.bytes).unwrap_or(0);
                self.metrics.set_kv_blocks(count, blocks.len);
            }
            if state.phase == Phase::Stopped {
                return Work::Stop;
            }
            let free = match now.preempted {
                0 => self.config.max_running.get().saturating_sub(running).min(state.queue.len()),
                _ => 0,
            };
            if running + free > 0 {
                let started = state.choose(free, now.clients, &mut fits);
                state.queued_tokens -= started.iter().map(|ticket| ticket.job.prompt.len()).sum::<usize>();
                state.running = running + started.len();
                self.publish(&state);
                return Work::Go(started);
            }
            self.publish(&state);
            if self.config.kv_cache.share() != now.kv_total_bytes {
                return Work::Go(Vec::new());
            }
            state = self.wake.wait_timeout(state, IDLE_BEAT).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The worker's last call: fails the queued jobs.
    pub(super) fn close(&self) -> Vec<Ticket> {
        let mut state = self.lock();
        state.phase = Phase::Stopped;
        (state.running, state.preempted, state.queued_tokens) = (0, 0, 0);
        (state.kv_used_bytes, state.kv_idle_bytes) = (0, 0);
        let left = state.queue.drain(..).collect();
        self.publish(&state);
        left
    }

    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    pub(super) fn metrics(&self) -> &Arc<ModelMetrics> {
        &self.metrics
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
