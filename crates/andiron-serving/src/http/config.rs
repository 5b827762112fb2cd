//! What a server is told at its start.

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
    /// How ids are chosen for a request that does not say: what `generation_config.json` says, else OpenAI's defaults. Its seed
    /// is not looked at.
    pub sampling: SamplingParams,
    /// Stop strings of a request without `stop`: the `stop_strings` of `generation_config.json`.
    pub stop_strings: Vec<String>,
    /// The object in `tokenizer_config.json`, served at `/tokenizer_info`.
    pub tokenizer_config: Map<String, Value>,
}

/// Everything a [`Server`](super::Server) is told at its start.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The model as the API names it.
    pub model: ServedModel,
    /// Who may use the server.
    pub access: Access,
    /// Bounds on requests and connections.
    pub limits: Limits,
    /// How long running requests may still take after the shutdown began.
    pub drain_timeout: Duration,
    /// Source of the seeds of requests that bring none, and of request ids. Pass fresh entropy at each start; a fixed
    /// number makes a server whose answers repeat in the order of its requests.
    pub seed: u64,
    /// What a generation does when the model's context is full. With [`WhenFull::Slide`], `max_tokens` is bounded by
    /// [`Limits::max_tokens`] alone.
    pub when_full: WhenFull,
    /// Most prompt tokens read in one step of the engine. While other sequences are written, fewer are read, so that those wait
    /// some 200 ms at most; not so for requests with a seed, whose numbers depend on it.
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
