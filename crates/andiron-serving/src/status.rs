//! What a thread that runs a model shows of itself: its load, its sign of life, and whether it takes work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::engine::{Load, SubmitError};

/// Heartbeat interval of an idle thread.
pub(crate) const IDLE_BEAT: Duration = Duration::from_secs(1);

/// A client may occupy at most this many times as much of a queue as stays free. So there is always room for one more client: a
/// single client gets three quarters, a second one three quarters of the rest.
///
/// Source: Choudhury & Hahne 1998, "Dynamic queue length thresholds for shared-memory packet switches".
const SHARE: usize = 3;

/// Whether a client with `own` places of a queue, of which `free` stay free, has more than its share.
pub(crate) fn exceeds_share(own: usize, free: usize) -> bool {
    own > free.saturating_mul(SHARE)
}

/// Whether a thread takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It does.
    Open,
    /// It finishes what it has.
    Draining,
    /// It has ended.
    Stopped,
}

impl Phase {
    /// Why work is not taken.
    pub(crate) fn check(self) -> Result<(), SubmitError> {
        match self {
            Self::Open => Ok(()),
            Self::Draining => Err(SubmitError::Draining),
            Self::Stopped => Err(SubmitError::Stopped),
        }
    }
}

/// The load and the heartbeat of a thread.
#[derive(Debug)]
pub(crate) struct Status {
    load: watch::Sender<Load>,
    born: Instant,
    /// Milliseconds from `born` to the latest heartbeat.
    beat_ms: AtomicU64,
}

impl Default for Status {
    fn default() -> Self {
        Self { load: watch::Sender::new(Load::default()), born: Instant::now(), beat_ms: AtomicU64::new(0) }
    }
}

impl Status {
    /// Records a heartbeat.
    pub(crate) fn beat(&self) {
        self.beat_ms.store(self.born.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Time since the latest heartbeat.
    pub(crate) fn heartbeat_age(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(self.beat_ms.load(Ordering::Relaxed)))
    }

    /// Shows a load; under the lock of what it is the load of, so that watchers see the loads in order.
    pub(crate) fn publish(&self, load: Load) {
        self.load.send_if_modified(|seen| std::mem::replace(seen, load) != load);
    }

    /// Waits until nothing runs and nothing waits.
    pub(crate) async fn idle(&self) {
        let mut load = self.load.subscribe();
        // Fails only if the sender is gone, and `self` holds it.
        drop(load.wait_for(|load| load.running == 0 && load.queued == 0).await);
    }
}
