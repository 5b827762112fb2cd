//! The OpenAI-compatible HTTP server: routes, limits, keys, event streams, bounded shutdown.
//!
//! ```text
//!  TCP ─► connection (header limits, time limits) ─► panics caught, log line ─► key and host ─► route ─► engine
//! ```
//!
//! [`Server`] holds what the routes share. [`Server::router`] is a plain [`axum::Router`] that can be merged into another program;
//! [`Server::serve`] runs one on a socket with the limits that a router cannot enforce.

mod asked;
mod auth;
mod chat;
mod config;
mod cors;
mod delivery;
mod error;
mod fields;
mod generation;
mod inputs;
mod limits;
mod openapi;
mod routes;
mod serve;
mod shutdown;
mod silent;
mod sse;
mod text;
mod traffic;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use andiron_data::tokenizer::{ChatInputs, Message};
use andiron_kernels::random::Seed;
use andiron_models::generate::{Constraint, Grammar, Interrupt};
use tokio::sync::watch;

pub use auth::{Access, ApiKey};
pub use config::ServerConfig;
pub use cors::CorsOrigin;
pub use error::ApiError;
pub use limits::{LimitError, LimitSetting, Limits};
pub use routes::{Endpoint, endpoints};
pub use serve::{ServeError, Stopped};
pub use shutdown::{Phase, Shutdown};

use generation::RequestedGrammar;
use text::{Reading, Rendered};
use traffic::Traffic;
use work::{BodyMemory, Workplace};

use crate::registry::{Capability, Loader, Registry, Served};

/// Identifies the server program.
pub(crate) const FINGERPRINT: &str = concat!("andiron-", env!("CARGO_PKG_VERSION"));

/// Concurrent tokenizations.
const TOKENIZING_AT_ONCE: usize = 2;

/// Concurrent grammar compilations; separate, so that texts do not wait for them.
const COMPILING_AT_ONCE: usize = 1;

/// Concurrent loads of models: a second one would only slow the first.
const LOADING_AT_ONCE: usize = 1;

/// A server of the models of a [`Registry`].
#[derive(Clone, Debug)]
pub struct Server {
    app: Arc<App>,
}

/// State shared by all routes.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) registry: Registry,
    loader: Option<Arc<dyn Loader>>,
    pub(crate) config: ServerConfig,
    pub(crate) shutdown: Shutdown,
    tokenizing: Workplace,
    compiling: Workplace,
    loading: Workplace,
    bodies: BodyMemory,
    requests: AtomicU64,
    /// Guards of [`Server::starting`].
    starting: AtomicUsize,
    traffic: Traffic,
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

/// While it lives, the first models of a server are being loaded.
#[derive(Debug)]
pub struct Starting {
    app: Arc<App>,
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.app.starting.fetch_sub(1, Ordering::Release);
    }
}

/// Ends the compilation of a grammar when it is dropped.
struct Unwanted(Interrupt);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Server {
    /// A server of the models in `registry`, which may come and go while it runs.
    pub fn new(registry: Registry, config: ServerConfig) -> Self {
        let bodies = BodyMemory::new(config.limits.max_body_bytes_together);
        let app = App {
            registry,
            loader: None,
            config,
            shutdown: Shutdown::new(),
            tokenizing: Workplace::new(TOKENIZING_AT_ONCE),
            compiling: Workplace::new(COMPILING_AT_ONCE),
            loading: Workplace::new(LOADING_AT_ONCE),
            bodies,
            requests: AtomicU64::new(0),
            starting: AtomicUsize::new(0),
            traffic: Traffic::default(),
            answering: watch::Sender::new(0),
        };
        Self { app: Arc::new(app) }
    }

    /// The same server, which loads models with `loader` and unloads them, as its clients ask.
    ///
    /// # Panics
    /// If the server is shared already.
    #[must_use]
    pub fn with_loader(mut self, loader: Arc<dyn Loader>) -> Self {
        let app = Arc::get_mut(&mut self.app).expect("a loader is set before the server is shared");
        app.loader = Some(loader);
        self
    }

    /// All routes with keys, host check, panic isolation and error bodies.
    pub fn router(&self) -> axum::Router {
        routes::router(Arc::clone(&self.app))
    }

    /// The models.
    pub fn registry(&self) -> &Registry {
        &self.app.registry
    }

    /// Tells clients that models are being loaded, until the result is dropped: `/ready` gives 503, and so does a request for a model
    /// that is not there yet; `/health` gives 200.
    pub fn starting(&self) -> Starting {
        self.app.starting.fetch_add(1, Ordering::Acquire);
        Starting { app: Arc::clone(&self.app) }
    }

    /// What `/health` tells: whether every model's thread gives signs of life.
    ///
    /// # Errors
    /// Names the model whose thread has given none for `Limits::max_heartbeat_age`.
    pub fn check_health(&self) -> Result<(), ApiError> {
        self.app.check_health()
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

    /// Finds a model whose thread hangs.
    fn check_health(&self) -> Result<(), ApiError> {
        for served in self.registry.list() {
            let age = served.heartbeat_age();
            if age >= self.config.limits.max_heartbeat_age {
                let (model, seconds) = (&served.info.id, age.as_secs());
                let message =
                    format!("the engine of `{model}` has given no sign of life for {seconds} seconds");
                return Err(ApiError::unhealthy(message));
            }
        }
        Ok(())
    }

    /// Whether the first models are being loaded.
    fn is_starting(&self) -> bool {
        self.starting.load(Ordering::Acquire) > 0
    }

    /// The model that a request names in `model`; without a name, the first.
    pub(crate) fn served(&self, name: Option<&str>) -> Result<Arc<Served>, ApiError> {
        self.find(name, None)
    }

    fn find(&self, name: Option<&str>, wanted: Option<Capability>) -> Result<Arc<Served>, ApiError> {
        let found = match name {
            Some(name) => self.registry.get(name),
            None => self.registry.usual(wanted),
        };
        match found {
            // It may be the next one to be loaded.
            Err(_) if self.is_starting() => Err(ApiError::loading()),
            found => Ok(found?),
        }
    }

    /// The same for a route that needs a model with `wanted`: without a name, the first that has it.
    pub(crate) fn served_for(&self, name: Option<&str>, wanted: Capability) -> Result<Arc<Served>, ApiError> {
        let served = self.find(name, Some(wanted))?;
        match served.ensure(wanted) {
            // A later model may be able to.
            Err(_) if name.is_none() && self.is_starting() => Err(ApiError::loading()),
            able => {
                able?;
                Ok(served)
            }
        }
    }

    /// Waits until all models are idle and every response has been handed to its connection.
    async fn idle(&self) {
        for served in self.registry.list() {
            served.idle().await;
        }
        // Fails only if the sender is gone, and `self` holds it.
        drop(self.answering.subscribe().wait_for(|&count| count == 0).await);
    }

    /// A unique number for a request, and its seed if it has none.
    fn next_request(&self) -> (String, u64) {
        let request = Seed::new(self.config.seed).at(self.requests.fetch_add(1, Ordering::Relaxed));
        (format!("{:016x}", request.bits(0)), request.bits(1))
    }

    /// Compiles `grammar`, given in the field `param`, on a blocking thread, for as long as the client waits and the request may take.
    async fn constrain(
        &self,
        served: &Arc<Served>,
        param: &'static str,
        grammar: Grammar,
    ) -> Result<Constraint, ApiError> {
        let served = Arc::clone(served);
        let interrupt = Interrupt::default();
        // Dropped with this future, when the client goes.
        let _unwanted = Unwanted(interrupt.clone());
        let timeout = self.config.limits.request_timeout;
        tokio::select! {
            biased;
            made = self.compiling.run(move || text::constrain(&served.text, param, grammar, &interrupt)) => {
                made.unwrap_or_else(|| Err(ApiError::internal("the grammar could not be read")))
            }
            () = tokio::time::sleep(timeout) => Err(ApiError::deadline_exceeded(timeout.as_secs())),
            () = self.shutdown.reached(Phase::Cut) => Err(ApiError::shutting_down()),
        }
    }

    /// The same for a request that may have no grammar.
    async fn constrain_if(
        &self,
        served: &Arc<Served>,
        requested: Option<RequestedGrammar>,
    ) -> Result<Option<Constraint>, ApiError> {
        match requested {
            Some(RequestedGrammar { param, grammar }) => {
                self.constrain(served, param, grammar).await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// Tokenizes `text` on a blocking thread. A text with too many bytes for the model's context is refused first.
    async fn encode(&self, served: &Arc<Served>, text: String, how: Reading) -> Result<Vec<u32>, ApiError> {
        let served = Arc::clone(served);
        let encoded = self.tokenizing.run(move || {
            text::check_bytes(&served.text, "prompt", &text, served.sizes().context_len)?;
            text::encode(&served.text, &text, how)
        });
        encoded.await.unwrap_or_else(|| Err(ApiError::internal("the tokenizer failed on this request")))
    }

    /// Renders a conversation and tokenizes it, on a blocking thread.
    async fn render_chat(
        &self,
        served: &Arc<Served>,
        messages: Vec<Message>,
        inputs: ChatInputs,
    ) -> Result<Rendered, ApiError> {
        let served = Arc::clone(served);
        let rendered = self
            .tokenizing
            .run(move || text::render_chat(&served.text, &messages, &inputs, served.sizes().context_len));
        rendered.await.unwrap_or_else(|| Err(ApiError::internal("the tokenizer failed on this request")))
    }

    /// The text of `ids`, control tokens included, decoded on a blocking thread.
    async fn decode(&self, served: &Arc<Served>, ids: Vec<u32>) -> Result<String, ApiError> {
        let served = Arc::clone(served);
        let decoded = self.tokenizing.run(move || text::decode(&served.text, &ids));
        decoded.await.unwrap_or_else(|| Err(ApiError::internal("the tokenizer failed on this request")))
    }

    /// The vocabulary's spelling of each of `ids`.
    async fn names(&self, served: &Arc<Served>, ids: Vec<u32>) -> Result<Vec<String>, ApiError> {
        let served = Arc::clone(served);
        let named =
            self.tokenizing.run(move || ids.into_iter().map(|id| served.text.token_name(id)).collect()).await;
        named.ok_or_else(|| ApiError::internal("the tokenizer failed on this request"))
    }
}
