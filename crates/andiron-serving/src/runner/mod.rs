//! Models that answer a text at once: encoders, classifiers, and beam search.
//!
//! ```text
//!  submit ──► bounded queue ──► batches of tasks of one kind, by tokens ──► Reply
//!     │            │                       │
//!   Full      dropped: leaves      a panic fails one task, the thread lives
//! ```
//!
//! One thread owns the model. While it runs a batch, tasks of all clients gather; an idle model waits a few milliseconds for more than
//! the first. A batch has as many tokens as the model reads in about 100 ms, so that nobody waits long for another's texts. The
//! pipelines run texts of equal length together, and pad those to embed by little, so an answer does not depend on its company but for
//! rounding.

mod attention;
mod pipelines;
mod queue;
mod rewriter;
mod task;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub use attention::AttentionView;
pub use rewriter::Rewriter;
pub use task::{Output, Task, TaskError, TextEntities, TextEntity, TextLabels};

use crate::engine::{EngineError, Load, ModelSizes, SubmitError};
use crate::metrics::ModelMetrics;
use crate::registry::Capability;
use queue::Shared;

/// A model that answers tasks as a whole.
pub trait OneShotModel: Send {
    /// What it can do, its main task first.
    fn can(&self) -> Vec<Capability>;

    /// Its vocabulary, and its longest text.
    fn sizes(&self) -> ModelSizes;

    /// What the API tells of it.
    fn shape(&self) -> ModelShape;

    /// One result per task, in order. The tasks are of one kind. Those that take long ask `waits` now and then whether anybody waits
    /// for the task at an index, and end early if not.
    fn run(&self, tasks: &[&Task], waits: &dyn Fn(usize) -> bool) -> Vec<Result<Output, TaskError>>;
}

/// What the API tells of a one-shot model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelShape {
    /// The labels of its head.
    pub labels: Vec<String>,
    /// Width of its embeddings; 0 if it has none.
    pub width: usize,
    /// Whether its embeddings have length 1.
    pub normalizes: bool,
    /// Pooling of its embeddings, as Text Embeddings Inference names it.
    pub pooling: &'static str,
    /// Element type of its weights.
    pub dtype: &'static str,
}

/// Bounds of a [`OneShot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneShotConfig {
    /// Maximum queued tasks: texts, not requests.
    pub max_queued: usize,
    /// Maximum tokens of all queued tasks, estimated from their bytes.
    pub max_queued_tokens: usize,
    /// Maximum tokens of a batch, unless one task has more. Speed bounds it too.
    pub max_batch_tokens: usize,
    /// How long an idle model waits for more tasks after the first.
    pub window: Duration,
}

impl Default for OneShotConfig {
    /// 4,096 queued with a million tokens, batches of at most 8,192 tokens, a window of 2 ms.
    fn default() -> Self {
        Self {
            max_queued: 1 << 12,
            max_queued_tokens: 1 << 20,
            max_batch_tokens: 1 << 13,
            window: Duration::from_millis(2),
        }
    }
}

/// How long dropping the last handle waits for the current batch.
const LAST_BATCH: Duration = Duration::from_secs(1);

/// Submits tasks to a one-shot model and watches it. When the last clone is dropped, the model ends.
#[derive(Clone, Debug)]
pub struct OneShot {
    inner: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    sizes: ModelSizes,
    shape: ModelShape,
    can: Vec<Capability>,
    metrics: Arc<ModelMetrics>,
    thread: Option<JoinHandle<()>>,
}

impl OneShot {
    /// Moves `model` to a new thread and starts serving.
    ///
    /// # Errors
    /// [`EngineError::Spawn`].
    pub fn start<M: OneShotModel + 'static>(model: M, config: OneShotConfig) -> Result<Self, EngineError> {
        let (sizes, shape, can) = (model.sizes(), model.shape(), model.can());
        let max_tokens = config.max_batch_tokens;
        let shared = Arc::new(Shared::new(config, sizes.context_len));
        let metrics = Arc::new(ModelMetrics::default());
        let (on_thread, counted) = (Arc::clone(&shared), Arc::clone(&metrics));
        let thread = std::thread::Builder::new()
            .name("andiron-one-shot".to_owned())
            .spawn(move || worker::run(&model, &on_thread, &counted, max_tokens))
            .map_err(|source| EngineError::Spawn { source })?;
        Ok(Self { inner: Arc::new(Running { shared, sizes, shape, can, metrics, thread: Some(thread) }) })
    }

    /// What the model can do.
    pub fn can(&self) -> &[Capability] {
        &self.inner.can
    }

    /// Sizes of the model.
    pub fn sizes(&self) -> ModelSizes {
        self.inner.sizes
    }

    /// What the API tells of the model.
    pub fn shape(&self) -> &ModelShape {
        &self.inner.shape
    }

    /// What the model has read since it was loaded.
    pub fn metrics(&self) -> &ModelMetrics {
        &self.inner.metrics
    }

    /// Maximum tokens of a batch.
    pub fn max_batch_tokens(&self) -> usize {
        self.inner.shared.max_batch_tokens()
    }

    /// Queues `tasks` of `client`, all of them or none, and returns a reply for each, in order.
    ///
    /// # Errors
    /// As [`EngineHandle::submit`](crate::engine::EngineHandle::submit).
    pub fn submit(&self, client: u64, tasks: Vec<Task>) -> Result<Vec<Reply>, SubmitError> {
        self.inner.shared.submit(client, tasks)
    }

    /// The current load, in tasks.
    pub fn load(&self) -> Load {
        self.inner.shared.load()
    }

    /// Whether one more small task would be accepted now.
    pub fn accepts_work(&self) -> bool {
        self.inner.shared.accepts_work()
    }

    /// Time since the thread's last heartbeat, which comes between batches, and every second when idle.
    pub fn heartbeat_age(&self) -> Duration {
        self.inner.shared.status().heartbeat_age()
    }

    /// Stops accepting work; running and queued tasks are finished.
    pub fn drain(&self) {
        self.inner.shared.drain();
    }

    /// Waits until no task is running or queued.
    pub async fn idle(&self) {
        self.inner.shared.status().idle().await;
    }

    /// Stops after the current batch: queued tasks get [`TaskError::Stopped`].
    pub fn stop(&self) {
        self.inner.shared.stop();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop();
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + LAST_BATCH;
        // The standard library cannot join with a time limit.
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                tracing::warn!("the thread of a one-shot model hangs in a batch and is left behind");
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // The worker catches panics of the model, so there is nothing to learn from the result.
        drop(thread.join());
    }
}

/// The answer to a task, to be awaited. Dropping it cancels the task if it has not begun.
#[derive(Debug)]
pub struct Reply {
    receiver: oneshot::Receiver<Result<Output, TaskError>>,
}

impl Reply {
    /// Waits for the answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn output(self) -> Result<Output, TaskError> {
        // A channel that closes without an answer means that the thread is gone.
        self.receiver.await.unwrap_or(Err(TaskError::Stopped))
    }
}
