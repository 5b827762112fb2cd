//! Configuration of a server.

use std::time::Duration;

use andiron_models::generate::{SamplingParams, WhenFull};
use serde_json::{Map, Value};

use super::{Access, Limits};

/// The model as the API names it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServedModel {
    /// Its id in `/v1/models` and in requests.
    pub id: String,
    /// Unix time in seconds at which it was made or loaded.
    pub created: u64,
    /// Default sampling parameters: those of `generation_config.json`, else OpenAI's. The seed is ignored.
    pub sampling: SamplingParams,
    /// Stop strings of a request without `stop`: the `stop_strings` of `generation_config.json`.
    pub stop_strings: Vec<String>,
    /// The object in `tokenizer_config.json`, served at `/tokenizer_info`.
    pub tokenizer_config: Map<String, Value>,
}

/// Configuration of a [`Server`](super::Server).
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The model as the API names it.
    pub model: ServedModel,
    /// Access control.
    pub access: Access,
    /// Bounds on requests and connections.
    pub limits: Limits,
    /// How long running requests may take after the shutdown started.
    pub drain_timeout: Duration,
    /// Source of request ids, and of seeds for requests without one. Pass fresh entropy at each start; with a fixed number, the
    /// n-th request after each start gets the same seed.
    pub seed: u64,
    /// What a generation does when the model's context is full. With [`WhenFull::Slide`], `max_tokens` is bounded by
    /// [`Limits::max_tokens`] alone.
    pub when_full: WhenFull,
    /// Maximum prompt tokens per prefill step. While other sequences decode, chunks are shorter, so that those wait about 200 ms at
    /// most; requests with a seed always use this size, because it affects rounding.
    pub prefill_chunk: usize,
}

impl ServerConfig {
    /// A server for the model `id`, for local use: no key, the default limits, 30 seconds to drain.
    pub fn new(id: impl Into<String>, seed: u64) -> Self {
        let model = ServedModel {
            id: id.into(),
            created: 0,
            sampling: SamplingParams::default(),
            stop_strings: Vec::new(),
            tokenizer_config: Map::new(),
        };
        Self {
            model,
            access: Access::default(),
            limits: Limits::default(),
            drain_timeout: Duration::from_secs(30),
            seed,
            when_full: WhenFull::Stop,
            prefill_chunk: 256,
        }
    }
}
