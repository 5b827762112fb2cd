//! The engine: one thread that owns a model and runs many generations by continuous batching.
//!
//! ```text
//!  submit ──► bounded queue ──► at most `max_running` sequences, decoded as one batch ─────────────────► Generation (stream of events)
//!     │            │                      │                                                        │
//!   Full       dropped: leaves         a panic fails that one, the thread lives               dropped: the work ends
//! ```
//!
//! Sequences join and leave the batch at any step. Prompts are prefilled in chunks, one sequence at a time; running sequences are
//! decoded as one batch, if the model supports it, which is much faster than one by one. Each has its own state and seed. With a
//! batch-invariant model, which those of `andiron-models` are on CPUs, a sequence's text does not depend on what else runs.
//!
//! The KV cache has a budget in bytes ([`EngineConfig::kv_cache`]), which engines may share. Sequences take blocks of it as they grow. Queued jobs are
//! admitted when their prompts fit. If the budget is used up, the sequence that was admitted last is preempted: it gives its blocks
//! back, and is computed again later; its client notices a pause.
//!
//! What no sequence needs of the budget is the prefix cache: a prompt that begins like an earlier one of the same
//! [`Job::cache_scope`] is prefilled only from where it differs, and a prompt that was prefilled whole, such as that of the `n`
//! choices of a request, is not prefilled again. A prompt that begins like one that is being prefilled waits for it.
//! Source: Yu et al. 2022, "Orca: A Distributed Serving System for Transformer-Based Generative Models",
//! <https://www.usenix.org/conference/osdi22/presentation/yu>.
//!
//! The engine handles token ids only; text, stop strings and HTTP belong to [`http`](crate::http).

mod feed;
mod generation;
mod kv_budget;
mod kv_memory;
mod pace;
mod prefix_cache;
mod queue;
mod running;
mod worker;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use andiron_models::generate::{CausalLm, GenerateOptions};

pub use generation::{Event, Generation, GenerationError};
pub use kv_budget::KvBudget;
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
    /// Memory for the KV cache, of running sequences and of the prefix cache together. Jobs that could need more than the engine's
    /// share are refused.
    pub kv_cache: KvBudget,
    /// Whether prompts are kept for other prompts that begin in the same way. Results do not change, except by rounding if the
    /// model is not batch-invariant.
    pub prefix_cache: bool,
    /// Speculative (prompt-lookup) decoding while a single sequence decodes: number of draft ids to verify in one step; 0 is off. Texts
    /// that repeat their prompt come faster; results do not change, except by rounding if the model is not batch-invariant.
    pub prompt_lookup: usize,
}

impl Default for EngineConfig {
    /// 8 running; 256 queued, with a million prompt tokens; 1 GiB of KV cache with a prefix cache; no drafts.
    fn default() -> Self {
        Self {
            max_running: NonZeroUsize::new(8).expect("not zero"),
            max_queued: 256,
            max_queued_tokens: 1 << 20,
            kv_cache: KvBudget::new(1 << 30),
            prefix_cache: true,
            prompt_lookup: 0,
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
    /// Its index among the choices of one prompt, whose tokens are counted once.
    pub choice: usize,
    /// Prompts of one scope share the prefix cache. How long a prefill takes tells whether a prompt is cached, so clients that must not
    /// learn about each other need scopes of their own.
    pub cache_scope: u64,
    /// The client, for fairness: a free slot goes to the client with the fewest running jobs, and no client may fill the queue.
    pub client: u64,
    /// Ends the job when more than this many tokens are unread and the client has read none for a second. `None` for a client
    /// that reads at the end.
    pub max_behind: Option<usize>,
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
        let blocks = model.state_blocks();
        // States that cannot be copied cannot be kept.
        let forks = blocks.is_some() && model.fork(&model.begin()).is_some();
        let config = EngineConfig { prefix_cache: config.prefix_cache && forks, ..config };
        let share = blocks.map(|_| config.kv_cache.join());
        let shared = Arc::new(Shared::new(config.clone(), sizes.context_len, blocks));
        let handle = EngineHandle { shared: Arc::clone(&shared), sizes };
        let thread = std::thread::Builder::new()
            .name("andiron-engine".to_owned())
            .spawn(move || {
                worker::run(&model, &shared, &config, blocks);
                drop(share);
            })
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
    /// [`SubmitError::TooLarge`] or [`SubmitError::NeverFits`] if they never will fit,
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

    /// Whether one more job with a prompt of one token would be accepted now.
    pub fn accepts_work(&self) -> bool {
        self.shared.accepts_work()
    }

    /// Time since the thread's last heartbeat, which comes between steps, and every second when idle.
    pub fn heartbeat_age(&self) -> Duration {
        self.shared.status().heartbeat_age()
    }

    /// Stops accepting work; running and queued jobs are finished.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Waits until no job is running or queued.
    pub async fn idle(&self) {
        self.shared.status().idle().await;
    }

    /// Stops after the current step: running and queued jobs get [`GenerationError::Stopped`].
    pub fn stop(&self) {
        self.shared.stop();
    }
}
