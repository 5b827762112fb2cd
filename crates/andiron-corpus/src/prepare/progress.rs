//! Progress reports while the stages run, from any of the threads.

use std::sync::{Mutex, PoisonError};

use super::{PrepareProgress, Stage};

/// Counts bytes and documents, and reports them.
pub(super) struct Tracker<'a> {
    now: Mutex<Now<'a>>,
}

struct Now<'a> {
    progress: &'a mut (dyn FnMut(PrepareProgress) + Send),
    now: PrepareProgress,
}

impl<'a> Tracker<'a> {
    /// `bytes_total` are those of the inputs.
    pub(super) fn new(bytes_total: u64, progress: &'a mut (dyn FnMut(PrepareProgress) + Send)) -> Self {
        let now = PrepareProgress { stage: Stage::Hash, bytes_done: 0, bytes_total, documents: 0, tokens: 0 };
        Self { now: Mutex::new(Now { progress, now }) }
    }

    fn update(&self, change: impl FnOnce(&mut PrepareProgress)) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let Now { progress, now } = &mut *now;
        change(now);
        progress(*now);
    }

    pub(super) fn begin(&self, stage: Stage) {
        self.update(|now| {
            *now = PrepareProgress { stage, bytes_done: 0, documents: 0, tokens: 0, ..*now };
        });
    }

    pub(super) fn add(&self, bytes: u64, documents: u64, tokens: u64) {
        self.update(|now| {
            now.bytes_done += bytes;
            now.documents += documents;
            now.tokens += tokens;
        });
    }
}

/// How far a stage is that reads the cleaned documents of a part, as bytes of its inputs.
pub(super) struct Share<'a, 't> {
    tracker: &'a Tracker<'t>,
    bytes: u64,
    documents: u64,
    done: u64,
    told: u64,
}

impl<'a, 't> Share<'a, 't> {
    pub(super) fn new(tracker: &'a Tracker<'t>, bytes: u64, documents: u64) -> Self {
        Self { tracker, bytes, documents, done: 0, told: 0 }
    }

    pub(super) fn add(&mut self, documents: u64, tokens: u64) {
        self.done += documents;
        let bytes = u128::from(self.bytes) * u128::from(self.done) / u128::from(self.documents.max(1));
        let bytes = bytes.min(u128::from(self.bytes)) as u64;
        self.tracker.add(bytes - self.told, documents, tokens);
        self.told = bytes;
    }

    /// The part is done.
    pub(super) fn finish(self) {
        self.tracker.add(self.bytes - self.told, 0, 0);
    }
}
