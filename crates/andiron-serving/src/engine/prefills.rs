//! Prompts that were read for several jobs, kept until the last of them has begun.

use std::sync::{Arc, Weak};

use andiron_models::generate::Prefill;

use super::SharedPrompt;

/// What the model knows of shared prompts.
pub(super) struct Prefills<S> {
    kept: Vec<(Weak<()>, Prefill<S>)>,
    /// Most prompts that are kept: each holds keys and values.
    limit: usize,
}

impl<S> Prefills<S> {
    /// Room for `limit` prompts; of more, the oldest is forgotten and read again by whoever needs it.
    pub(super) fn new(limit: usize) -> Self {
        Self { kept: Vec::new(), limit }
    }

    /// Forgets prompts for which no job waits any more.
    pub(super) fn sweep(&mut self) {
        self.kept.retain(|(prompt, _)| prompt.strong_count() > 0);
    }

    /// Keeps a prompt that was read for others than the job that read it.
    pub(super) fn keep(&mut self, prompt: &SharedPrompt, prefill: Prefill<S>) {
        if self.kept.len() >= self.limit {
            self.kept.remove(0);
        }
        self.kept.push((Arc::downgrade(&prompt.0), prefill));
    }

    /// A prompt that was read.
    pub(super) fn find(&self, prompt: &SharedPrompt) -> Option<&Prefill<S>> {
        let own = Arc::as_ptr(&prompt.0);
        self.kept.iter().find(|(kept, _)| Weak::as_ptr(kept) == own).map(|(_, prefill)| prefill)
    }
}
