//! What may be asked of a run while it goes on.

use std::sync::atomic::{AtomicBool, Ordering};

/// Requests to a run, from another thread or a signal handler; it looks at them after each step.
#[derive(Debug, Default)]
pub struct Requests {
    stop: AtomicBool,
    save: AtomicBool,
}

impl Requests {
    /// Asks the run to save a checkpoint and end. Returns whether that had been asked before.
    pub fn stop(&self) -> bool {
        self.stop.swap(true, Ordering::Relaxed)
    }

    /// Asks the run to save a checkpoint and go on.
    pub fn save(&self) {
        self.save.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether a checkpoint was asked for since this was last called.
    pub(super) fn take_save(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }
}
