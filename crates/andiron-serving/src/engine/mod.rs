//! The engine: one thread that owns a model and advances many generations, each a step at a time.
//!
//! ```text
//!  submit ──► bounded queue ──► at most `max_running` sequences, one step each, in turn or together ──► Generation (stream of events)
//!     │            │                      │                                                        │
//!   Full       dropped: leaves         a panic fails that one, the thread lives               dropped: the work ends
//! ```
//!
//! Continuous batching: sequences join and leave at any step. Prompts are prefilled in chunks, one sequence at a time;
//! running sequences are decoded as one batch, if the model supports it, which costs far less than one by one. Each has its
//! own state and seed. Batching can change logits by rounding; [`Job::deterministic`] jobs are never batched.
//!
//! Jobs of one [`SharedPrompt`] share one prefill: the first that gets a place reads the prompt, the others continue it.
//! Source: Yu et al. 2022, "Orca: A Distributed Serving System for Transformer-Based Generative Models",
//! <https://www.usenix.org/conference/osdi22/presentation/yu>.
//!
//! The engine knows ids only; text, stop strings and HTTP are the business of [`http`](crate::http).

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

pub use generation::{Event, Generation, GenerationError};
pub use queue::{Load, SubmitError};

use queue::Shared;

/// Bounds of an [`Engine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sequences that are generated side by side. More of them share the machine fairly, each slower; each holds a key-value
    /// cache.
    pub max_running: NonZeroUsize,
    /// Requests that may wait.
    pub max_queued: usize,
    /// Prompt tokens that may wait, over all waiting requests.
    pub max_queued_tokens: usize,
}

impl Default for EngineConfig {
    /// 8 running, 256 waiting with a million prompt tokens.
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
    /// Never decode it in a batch with others: its logits are then to the last bit what they are alone, and nobody shares the
    /// cost of its steps.
    pub deterministic: bool,
    /// The prompt, if other jobs have the same one and differ in their seeds only: it is read once for all of them.
    pub shared_prompt: Option<SharedPrompt>,
    /// Whose job it is: a free place goes to the client that has fewest of them, and the queue keeps room for others, so that many
    /// jobs of one do not keep the others waiting.
    pub client: u64,
    /// Ends the job when more than so many tokens wait for a client that takes none for a second. `None` for a client that
    /// wants them at the end.
    pub max_behind: Option<usize>,
}

/// Marks jobs whose prompt is read once: its clones are the same prompt.
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
    /// The operating system gave no thread.
    #[error("engine: cannot start its thread")]
    Spawn {
        /// Cause.
        source: std::io::Error,
    },
}

/// How long a dropped engine waits for the step that its thread is in.
const LAST_STEP: Duration = Duration::from_secs(1);

/// A running engine. Dropping it stops the work and waits for the thread, which ends after the step it is in; a thread
/// that takes longer than a second for that is left behind, so that a hanging model cannot keep a program from ending.
#[derive(Debug)]
pub struct Engine {
    handle: EngineHandle,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Moves `model` to a thread of its own and begins to serve.
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
    /// [`SubmitError::Full`] if they do not fit the queue now, [`SubmitError::ShareFull`] if others could not come any more,
    /// [`SubmitError::TooLarge`] if they never will fit,
    /// [`SubmitError::Draining`] or [`SubmitError::Stopped`] if the engine takes no more work.
    pub fn submit(&self, jobs: Vec<Job>) -> Result<Vec<Generation>, SubmitError> {
        self.shared.submit(jobs)
    }

    /// What the engine is busy with.
    pub fn load(&self) -> Load {
        self.shared.load()
    }

    /// Whether one more job with a prompt of one token would be accepted now.
    pub fn accepts_work(&self) -> bool {
        self.shared.accepts_work()
    }

    /// Time since the thread last showed that it lives: it does so between two steps, and each second when idle.
    pub fn heartbeat_age(&self) -> Duration {
        self.shared.heartbeat_age()
    }

    /// Takes no more work from now on; what runs or waits is finished.
    pub fn drain(&self) {
        self.shared.drain();
    }

    /// Waits until nothing runs and nothing waits.
    pub async fn idle(&self) {
        self.shared.idle().await;
    }

    /// Ends everything after the current step: what runs or waits gets [`GenerationError::Stopped`].
    pub fn stop(&self) {
        self.shared.stop();
    }
}
