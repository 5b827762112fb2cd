//! The engine: one thread that owns a model and runs many generations by continuous batching.
//!
//! ```text
//!  submit ──► bounded queue ──► at most `max_running` sequences, decoded as one batch ─────────────────► Generation (stream of events)
//!     │            │                      │                                                        │
//!   Full       dropped: leaves         a panic fails that one, the thread lives               dropped: the work ends
//! ```
//!
//! Sequences join and leave the batch at any step. Prompts are prefilled in chunks, one sequence at a time; running sequences are
//! decoded as one batch, if the model supports it, which is much faster than one by one. Each has its own state and seed.
//! Batching can change logits by rounding; [`Job::deterministic`] jobs are never batched.
//!
//! Jobs of one [`SharedPrompt`] share one prefill: the first to run prefills the prompt, the others continue from it.
//! Source: Yu et al. 2022, "Orca: A Distributed Serving System for Transformer-Based Generative Models",
//! <https://www.usenix.org/conference/osdi22/presentation/yu>.
//!
//! The engine handles token ids only; text, stop strings and HTTP belong to [`http`](crate::http).

mod counters;
mod feed;
mod generation;
mod pace;
mod prefills;
mod queue;
mod worker;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use andiron_models::generate::{CausalLm, GenerateOptions};

pub use counters::Counters;
pub use generation::{Event, Generation, GenerationError};
pub use queue::{Load, SubmitError};

use queue::Shared;

use crate::metrics::ModelMetrics;

/// Bounds of an [`Engine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Maximum sequences in the decoding batch. More of them raise total throughput, make each slower, and take a KV cache each.
    pub max_running: NonZeroUsize,
    /// Maximum queued jobs.
    pub max_queued: usize,
    /// Maximum prompt tokens of all queued jobs together.
    pub max_queued_tokens: usize,
}

impl Default for EngineConfig {
    /// 8 running; 256 queued, with a million prompt tokens.
    fn default() -> Self {
        Self {
            max_running: NonZeroUsize::new(8).expect("not zero"),
            max_queued: 256,
            max_queued_tokens: 1 << 20,
        }
    }
}

/// One generation to run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Job {
    /// The ids to continue.
    pub prompt: Vec<u32>,
    /// How to continue them.
    pub options: GenerateOptions,
    /// Never batch it with others, so that its logits do not depend on what else runs, to the last bit. Its steps then cost as
    /// much as a whole batch's.
    pub deterministic: bool,
    /// Set if other jobs have the same prompt and differ in their seeds only: the prompt is prefilled once for all of them.
    pub shared_prompt: Option<SharedPrompt>,
    /// The client, for fairness: a free slot goes to the client with the fewest running jobs, and no client may fill the queue.
    pub client: u64,
    /// Ends the job when more than this many tokens are unread and the client has read none for a second. `None` for a client
    /// that reads at the end.
    pub max_behind: Option<usize>,
}

/// Identity of a prompt that several jobs share. Clones are the same prompt.
#[derive(Clone, Debug, Default)]
pub struct SharedPrompt(Arc<()>);

impl PartialEq for SharedPrompt {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The operating system could not start a thread.
    #[error("engine: cannot start its thread")]
    Spawn {
        /// Cause.
        source: std::io::Error,
    },
}

/// How long dropping an engine waits for its current step.
const LAST_STEP: Duration = Duration::from_secs(1);

/// A running engine. Dropping it stops the work and waits up to a second for the current step; after that the thread is left
/// behind, so that a hanging model cannot keep the program from ending.
#[derive(Debug)]
pub struct Engine {
    handle: EngineHandle,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Moves `model` to a new thread and starts serving.
    ///
    /// # Errors
    /// [`EngineError::Spawn`].
    pub fn start<M: CausalLm + 'static>(model: M, config: EngineConfig) -> Result<Self, EngineError> {
        let sizes = ModelSizes { vocab_size: model.vocab_size(), context_len: model.context_len() };
        let max_running = config.max_running;
        let shared = Arc::new(Shared::new(config));
        let handle = EngineHandle { shared: Arc::clone(&shared), sizes };
        let thread = std::thread::Builder::new()
            .name("andiron-engine".to_owned())
            .spawn(move || worker::run(&model, &shared, max_running))
            .map_err(|source| EngineError::Spawn { source })?;
        Ok(Self { handle, thread: Some(thread) })
    }

    /// A handle to submit work with; clone it freely.
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.handle.stop();
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + LAST_STEP;
        // The standard library cannot join with a time limit.
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                tracing::warn!("the engine's thread hangs in a step of the model and is left behind");
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // The worker catches panics of the model, so there is nothing to learn from the result.
        drop(thread.join());
    }
}

/// Sizes of the model an engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSizes {
    /// Number of ids.
    pub vocab_size: usize,
    /// Longest sequence, prompt and generated ids together.
    pub context_len: usize,
}

/// Submits work to an [`Engine`] and watches it.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    sizes: ModelSizes,
}

impl EngineHandle {
    /// Sizes of the model.
    pub fn sizes(&self) -> ModelSizes {
        self.sizes
    }

    /// Queues `jobs`, all of them or none, and returns one stream of events for each, in order.
    ///
    /// # Errors
    /// [`SubmitError::Full`] if they do not fit the queue now, [`SubmitError::ShareFull`] if they exceed the client's share of it,
    /// [`SubmitError::TooLarge`] if they never will fit,
    /// [`SubmitError::Draining`] or [`SubmitError::Stopped`] if the engine takes no more work.
    pub fn submit(&self, jobs: Vec<Job>) -> Result<Vec<Generation>, SubmitError> {
        self.shared.submit(jobs)
    }

    /// What the engine has done since it started.
    pub fn metrics(&self) -> &Arc<ModelMetrics> {
        self.shared.metrics()
    }

    /// The current load.
    pub fn load(&self) -> Load {
        self.shared.load()
    }

    /// Totals since the engine started.
    pub fn counters(&self) -> Counters {
        self.shared.totals.read()
    }

    /// Whether one more job with a prompt of one token would be accepted now.
    pub fn accepts_work(&self) -> bool {
        self.shared.accepts_work()
    }

    /// Time since the thread's last heartbeat, which comes between steps, and every second when idle.
    pub fn heartbeat_age(&self) -> Duration {
        self.shared.heartbeat_age()
    }

    /// Stops accepting work; running and queued jobs are finished.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Waits until no job is running or queued.
    pub async fn idle(&self) {
        self.shared.idle().await;
    }

    /// Stops after the current step: running and queued jobs get [`GenerationError::Stopped`].
    pub fn stop(&self) {
        self.shared.stop();
    }
}
