//! Configuration of a server.

use std::time::Duration;

use andiron_models::generate::WhenFull;

use super::{Access, Limits};

/// Configuration of a [`Server`](super::Server).
#[derive(Clone, Debug)]
pub struct ServerConfig {
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
    /// Maximum prompt tokens of a sequence per prefill step. Steps are shorter where these take more than about 180 ms, so that
    /// sequences that decode wait no longer, and those of clients that go away end soon.
    pub prefill_chunk: usize,
    /// Whether `/metrics` has vLLM's names besides its own, for programs that read only those. Gauges under vLLM's names are one sample
    /// for all models together.
    pub vllm_metrics: bool,
}

impl ServerConfig {
    /// A server for local use: no key, the default limits, 30 seconds to drain.
    pub fn new(seed: u64) -> Self {
        Self {
            access: Access::default(),
            limits: Limits::default(),
            drain_timeout: Duration::from_secs(30),
            seed,
            when_full: WhenFull::Stop,
            prefill_chunk: 256,
            vllm_metrics: false,
        }
    }
}
