//! Totals of an engine since it started.

use std::sync::atomic::{AtomicU64, Ordering};

/// Totals since an engine started. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Prompt tokens of the jobs that have started.
    pub prompt_tokens: u64,
    /// Generated tokens.
    pub generated_tokens: u64,
    /// Prompt tokens that were looked up in the prefix cache.
    pub prefix_queries: u64,
    /// Prompt tokens that the prefix cache held, so that they were not prefilled.
    pub prefix_hits: u64,
    /// Running jobs that were sent back to the queue because the KV cache was full.
    pub preemptions: u64,
}

/// [`Counters`] that the engine's thread adds to while others read them.
#[derive(Debug, Default)]
pub(super) struct Totals {
    prompt_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    prefix_queries: AtomicU64,
    prefix_hits: AtomicU64,
    preemptions: AtomicU64,
}

impl Totals {
    pub(super) fn started(&self, prompt_tokens: usize) {
        add(&self.prompt_tokens, prompt_tokens);
    }

    pub(super) fn generated(&self, tokens: usize) {
        add(&self.generated_tokens, tokens);
    }

    /// A prompt of `tokens` was looked up in the prefix cache, which held the first `hits`.
    pub(super) fn looked_up(&self, tokens: usize, hits: usize) {
        add(&self.prefix_queries, tokens);
        add(&self.prefix_hits, hits);
    }

    pub(super) fn read(&self) -> Counters {
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counters {
            prompt_tokens: read(&self.prompt_tokens),
            generated_tokens: read(&self.generated_tokens),
            prefix_queries: read(&self.prefix_queries),
            prefix_hits: read(&self.prefix_hits),
            preemptions: read(&self.preemptions),
        }
    }
}

fn add(total: &AtomicU64, more: usize) {
    total.fetch_add(more as u64, Ordering::Relaxed);
}
