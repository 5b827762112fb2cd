//! Memory for the KV caches of several engines.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory for KV caches. Engines that are started with clones of one budget have equal shares of it, which change as engines come and
/// go: what an engine holds beyond its new share it gives back before its next step, except what its oldest sequence needs.
#[derive(Clone, Debug)]
pub struct KvBudget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bytes: usize,
    /// Engines with a share.
    engines: AtomicUsize,
}

impl KvBudget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { inner: Arc::new(Inner { bytes, engines: AtomicUsize::new(0) }) }
    }

    /// Bytes of all shares together.
    pub fn bytes(&self) -> usize {
        self.inner.bytes
    }

    /// Bytes for one engine.
    pub(super) fn share(&self) -> usize {
        self.inner.bytes / self.inner.engines.load(Ordering::Relaxed).max(1)
    }

    /// One more engine.
    pub(super) fn join(&self) -> Member {
        self.inner.engines.fetch_add(1, Ordering::Relaxed);
        Member(self.clone())
    }
}

impl PartialEq for KvBudget {
    /// Whether both have as many bytes.
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for KvBudget {}

/// An engine's part in a budget, until it is dropped.
#[derive(Debug)]
pub(super) struct Member(KvBudget);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.inner.engines.fetch_sub(1, Ordering::Relaxed);
    }
}
