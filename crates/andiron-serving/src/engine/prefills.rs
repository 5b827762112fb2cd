//! Prefilled prompts that several jobs share, kept until the last of them has started.

use std::sync::{Arc, Weak};

use andiron_models::generate::Prefill;

use super::SharedPrompt;

/// States of shared prompts.
pub(super) struct Prefills<S> {
    kept: Vec<(Weak<()>, Prefill<S>)>,
    /// Maximum number of prompts kept; each holds a KV cache.
    limit: usize,
}

impl<S> Prefills<S> {
    /// Room for `limit` prompts. Beyond that the oldest is dropped, and prefilled again if a job needs it.
    pub(super) fn new(limit: usize) -> Self {
        Self { kept: Vec::new(), limit }
    }

    /// Drops prompts that no queued job needs.
    pub(super) fn sweep(&mut self) {
        self.kept.retain(|(prompt, _)| prompt.strong_count() > 0);
    }

    /// Keeps a prefilled prompt for other jobs.
    pub(super) fn keep(&mut self, prompt: &SharedPrompt, prefill: Prefill<S>) {
        if self.kept.len() >= self.limit {
            self.kept.remove(0);
        }
        self.kept.push((Arc::downgrade(&prompt.0), prefill));
    }

    /// The state of a prefilled prompt.
    pub(super) fn find(&self, prompt: &SharedPrompt) -> Option<&Prefill<S>> {
        let own = Arc::as_ptr(&prompt.0);
        self.kept.iter().find(|(kept, _)| Weak::as_ptr(kept) == own).map(|(_, prefill)| prefill)
    }
}
