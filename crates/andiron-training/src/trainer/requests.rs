//! Requests to a run in progress.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Requests to a run, from another thread or a signal handler; the run checks them after each step.
#[derive(Debug, Default)]
pub struct Requests {
    stop: AtomicBool,
    save: AtomicBool,
    /// 0 if none.
    stop_after: AtomicU64,
}

impl Requests {
    /// Requests that the run save a checkpoint and stop. Returns whether this was requested before.
    pub fn stop(&self) -> bool {
        self.stop.swap(true, Ordering::Relaxed)
    }

    /// Requests that the run save a checkpoint and stop once step `step` is done.
    pub fn stop_after(&self, step: u64) {
        self.stop_after.store(step, Ordering::Relaxed);
    }

    /// Requests that the run save a checkpoint and continue.
    pub fn save(&self) {
        self.save.store(true, Ordering::Relaxed);
    }

    /// Whether to stop after `step` steps.
    pub(super) fn is_stopped_at(&self, step: u64) -> bool {
        let last = self.stop_after.load(Ordering::Relaxed);
        self.is_stopped() || (last > 0 && step >= last)
    }

    /// Whether to stop wherever the run is.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether a checkpoint was requested since the last call.
    pub(super) fn take_save(&self) -> bool {
        self.save.swap(false, Ordering::Relaxed)
    }
}
