//! Requests to a run in progress.

use std::sync::atomic::{AtomicBool, Ordering};

/// Requests to a run, from another thread or a signal handler; the run checks them after each step.
#[derive(Debug, Default)]
pub struct Requests {
    stop: AtomicBool,
    save: AtomicBool,
}

impl Requests {
    /// Requests that the run save a checkpoint and stop. Returns whether this was requested before.
    pub fn stop(&self) -> bool {
        self.stop.swap(true, Ordering::Relaxed)
    }

    /// Requests that the run save a checkpoint and continue.
    pub fn save(&self) {
        self.save.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether a checkpoint was requested since the last call.
    pub(super) fn take_save(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }
}
