//! What runs an encoder-decoder.

use std::sync::Arc;
use std::time::Duration;

use andiron_models::encoder_decoder::Targets;
use andiron_models::generate::{GenerateOptions, WhenFull};
use andiron_pipelines::{RewriteOptions, Seq2SeqPipeline};

use super::{OneShot, OneShotConfig};
use crate::engine::{Engine, EngineConfig, EngineError, EngineHandle, Job, Load, ModelSizes};
use crate::metrics::ModelMetrics;
use crate::registry::Capability;

/// Longest source of a model that sets no limit, in tokens: attention takes memory by its square.
const UNSAID_SOURCE: usize = 1024;

/// Writes targets of sources: an engine decodes those without beams as one batch, a thread searches with beams, one source after
/// another. Both share the weights.
#[derive(Clone, Debug)]
pub struct Rewriter {
    engine: EngineHandle,
    search: OneShot,
    options: RewriteOptions,
    start: u32,
    source_limit: usize,
}

impl Rewriter {
    /// Starts the engine and the search of `pipeline`. The engine ends when the first value is dropped.
    ///
    /// # Errors
    /// [`EngineError::Spawn`].
    pub fn start(
        pipeline: Seq2SeqPipeline,
        options: RewriteOptions,
        engine: EngineConfig,
        search: OneShotConfig,
    ) -> Result<(Engine, Self), EngineError> {
        let tokenizer = pipeline.text.tokenizer();
        let by_tokenizer = tokenizer.and_then(|tokenizer| tokenizer.model_max_length());
        let by_model = Some(pipeline.bundle.config.max_positions()).filter(|&most| most < usize::MAX);
        let source_limit = match (by_model, by_tokenizer) {
            (Some(model), Some(tokenizer)) => model.min(tokenizer),
            (limit, None) | (None, limit) => limit.unwrap_or(UNSAID_SOURCE),
        };
        let start = pipeline.bundle.start_id();
        let engine = Engine::start(Targets::new(pipeline.bundle.clone()), engine)?;
        let search = OneShot::start(pipeline, search)?;
        let rewriter = Self { engine: engine.handle(), search, options, start, source_limit };
        Ok((engine, rewriter))
    }

    /// How targets are written unless a request says otherwise.
    pub fn options(&self) -> &RewriteOptions {
        &self.options
    }

    /// Longest source, in tokens.
    pub fn source_limit(&self) -> usize {
        self.source_limit
    }

    /// The engine, for targets without beams.
    pub fn engine(&self) -> &EngineHandle {
        &self.engine
    }

    /// The search, for targets with beams.
    pub fn search(&self) -> &OneShot {
        &self.search
    }

    /// The job of a target of `source` without beams.
    pub fn job(&self, source: Vec<u32>, max_new_tokens: usize, client: u64) -> Job {
        let options = GenerateOptions {
            sampling: self.options.sampling.clone(),
            max_new_tokens,
            stop_ids: self.options.beams.stop_ids.clone(),
            when_full: WhenFull::Stop,
            source: Some(Arc::from(source)),
            ..GenerateOptions::default()
        };
        Job { prompt: vec![self.start], options, client, ..Job::default() }
    }

    pub(crate) fn can(&self) -> &[Capability] {
        self.search.can()
    }

    pub(crate) fn sizes(&self) -> ModelSizes {
        ModelSizes { context_len: self.source_limit, ..self.search.sizes() }
    }

    pub(crate) fn load(&self) -> Load {
        let (engine, search) = (self.engine.load(), self.search.load());
        Load {
            running: engine.running + search.running,
            queued: engine.queued + search.queued,
            queued_tokens: engine.queued_tokens + search.queued_tokens,
            ..engine
        }
    }

    pub(crate) fn metrics(&self) -> &ModelMetrics {
        self.engine.metrics()
    }

    pub(crate) fn accepts_work(&self) -> bool {
        self.engine.accepts_work() && self.search.accepts_work()
    }

    pub(crate) fn heartbeat_age(&self) -> Duration {
        self.engine.heartbeat_age().max(self.search.heartbeat_age())
    }

    pub(crate) fn drain(&self) {
        self.engine.drain();
        self.search.drain();
    }

    pub(crate) async fn idle(&self) {
        self.engine.idle().await;
        self.search.idle().await;
    }

    pub(crate) fn stop(&self) {
        self.engine.stop();
        self.search.stop();
    }
}
