//! The OpenAI-compatible HTTP server: routes, limits, keys, event streams, bounded shutdown.
//!
//! ```text
//!  TCP ─► connection (header limits, time limits) ─► panics caught, log line ─► key and host ─► route ─► engine
//! ```
//!
//! [`Server`] holds what the routes share. [`Server::router`] is a plain [`axum::Router`] that can be merged into another program;
//! [`Server::serve`] runs one on a socket with the limits that a router cannot enforce.

mod auth;
mod config;
mod delivery;
mod error;
mod fields;
mod limits;
mod routes;
mod serve;
mod shutdown;
mod silent;
mod sse;
mod text;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use andiron_kernels::random::Seed;
use andiron_models::generate::{Constraint, Grammar};
use andiron_pipelines::TextProcessor;
use tokio::sync::watch;

pub use auth::{Access, ApiKey};
pub use config::{ServedModel, ServerConfig};
pub use error::ApiError;
pub use limits::Limits;
pub use routes::{Endpoint, endpoints};
pub use serve::{ServeError, Stopped};
pub use shutdown::{Phase, Shutdown};

use text::Reading;
use work::{BodyMemory, Workplace};

use crate::engine::EngineHandle;

/// Concurrent tokenizations.
const TOKENIZING_AT_ONCE: usize = 2;

/// Concurrent grammar compilations; separate, so that texts do not wait for them.
const COMPILING_AT_ONCE: usize = 1;

/// A server of one model.
#[derive(Clone, Debug)]
pub struct Server {
    app: Arc<App>,
}

/// State shared by all routes.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) engine: EngineHandle,
    pub(crate) text: TextProcessor,
    pub(crate) config: ServerConfig,
    pub(crate) shutdown: Shutdown,
    tokenizing: Workplace,
    compiling: Workplace,
    bodies: BodyMemory,
    requests: AtomicU64,
    /// Completions being answered.
    answering: watch::Sender<usize>,
}

/// Held while a completion is answered, so that the shutdown can wait for it.
#[derive(Debug)]
pub(crate) struct Answering {
    app: Arc<App>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.app.answering.send_modify(|count| *count -= 1);
    }
}

impl Server {
    /// A server for `engine`; `text` tokenizes and decodes. Without a tokenizer, prompts are token ids and texts are empty.
    pub fn new(engine: EngineHandle, text: TextProcessor, config: ServerConfig) -> Self {
        let bodies = BodyMemory::new(config.limits.max_body_bytes_together);
        let app = App {
            engine,
            text,
            config,
            shutdown: Shutdown::new(),
            tokenizing: Workplace::new(TOKENIZING_AT_ONCE),
            compiling: Workplace::new(COMPILING_AT_ONCE),
            bodies,
            requests: AtomicU64::new(0),
            answering: watch::Sender::new(0),
        };
        Self { app: Arc::new(app) }
    }

    /// All routes with keys, host check, panic isolation and error bodies.
    pub fn router(&self) -> axum::Router {
        routes::router(Arc::clone(&self.app))
    }

    /// The handle to shut the service down, for example from a signal handler.
    pub fn shutdown(&self) -> Shutdown {
        self.app.shutdown.clone()
    }
}

impl App {
    fn answering(self: &Arc<Self>) -> Answering {
        self.answering.send_modify(|count| *count += 1);
        Answering { app: Arc::clone(self) }
    }

    /// Waits until the engine is idle and every response has been handed to its connection.
    async fn idle(&self) {
        self.engine.idle().await;
        // Fails only if the sender is gone, and `self` holds it.
        drop(self.answering.subscribe().wait_for(|&count| count == 0).await);
    }

    /// A unique number for a request, and its seed if it has none.
    fn next_request(&self) -> (String, u64) {
        let request = Seed::new(self.config.seed).at(self.requests.fetch_add(1, Ordering::Relaxed));
        (format!("cmpl-{:016x}", request.bits(0)), request.bits(1))
    }

    /// Compiles `grammar`, given in the field `param`, on a blocking thread.
    async fn constrain(
        self: &Arc<Self>,
        param: &'static str,
        grammar: Grammar,
    ) -> Result<Constraint, ApiError> {
        let app = Arc::clone(self);
        let made = self.compiling.run(move || text::constrain(&app.text, param, grammar)).await;
        made.unwrap_or_else(|| Err(ApiError::internal("the grammar could not be read")))
    }

    /// Tokenizes `text` on a blocking thread. A text with too many bytes for the model's context is refused first.
    async fn encode(self: &Arc<Self>, text: String, how: Reading) -> Result<Vec<u32>, ApiError> {
        let app = Arc::clone(self);
        let encoded = self.tokenizing.run(move || {
            text::check_bytes(&app.text, &text, app.engine.sizes().context_len)?;
            text::encode(&app.text, &text, how)
        });
        encoded.await.unwrap_or_else(|| Err(ApiError::internal("the tokenizer failed on this request")))
    }

    /// The vocabulary's spelling of each of `ids`.
    async fn names(self: &Arc<Self>, ids: Vec<u32>) -> Result<Vec<String>, ApiError> {
        let app = Arc::clone(self);
        let named =
            self.tokenizing.run(move || ids.into_iter().map(|id| app.text.token_name(id)).collect()).await;
        named.ok_or_else(|| ApiError::internal("the tokenizer failed on this request"))
    }
}
