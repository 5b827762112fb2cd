//! Batches made ahead of time by a thread of their own.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::batch::HostBatch;
use crate::loader::{Cursor, Loader, LoaderError};

/// A batch, and where training goes on after it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prefetched {
    /// The batch.
    pub batch: HostBatch,
    /// Where a loader stands that has given this batch and none after it: what a checkpoint taken after this
    /// step must hold, however many batches were made ahead.
    pub resume: Cursor,
}

/// A [`Loader`] that works in a thread of its own, a few batches ahead. The batches and their order are those of
/// the loader. Dropping it ends the thread.
pub struct Prefetch {
    // Taken before the thread is joined: the closed channel is what ends it.
    batches: Option<Receiver<Prefetched>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Starts a thread that keeps up to `ahead` batches ready.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(mut loader: Loader, ahead: usize) -> Result<Self, LoaderError> {
        let (sender, receiver) = sync_channel(ahead);
        let work = move || {
            while let Some(batch) = loader.next_batch() {
                if sender.send(Prefetched { batch, resume: loader.cursor() }).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("andiron-data".into())
            .spawn(work)
            .map_err(|source| LoaderError::Thread { source })?;
        Ok(Self { batches: Some(receiver), thread: Some(thread) })
    }
}

impl Iterator for Prefetch {
    type Item = Prefetched;

    fn next(&mut self) -> Option<Prefetched> {
        self.batches.as_ref()?.recv().ok()
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // The thread has no result, and its panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::{LoaderOptions, Order};
    use crate::seed::Seed;
    use crate::shard::{Dataset, DatasetWriter, WriterOptions};
    use std::sync::Arc;

    #[test]
    fn batches_and_cursors_are_those_of_the_loader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let mut writer = DatasetWriter::create(&path, WriterOptions::new(300, "t")).unwrap();
        writer.push("a", &(0..300).collect::<Vec<_>>(), "").unwrap();
        writer.finish().unwrap();
        let dataset = Arc::new(Dataset::open(&path).unwrap());
        for order in [Order::Windows, Order::Sequential] {
            let options = LoaderOptions { rows: 3, columns: 8, order };
            let loader = Loader::new(dataset.clone(), options, Seed::new(3)).unwrap();
            for ahead in [0, 4] {
                let mut plain = loader.clone();
                for prefetched in Prefetch::start(loader.clone(), ahead).unwrap().take(20) {
                    assert_eq!(Some(prefetched.batch), plain.next_batch());
                    assert_eq!(prefetched.resume, plain.cursor());
                }
            }
        }
        let options = LoaderOptions { rows: 3, columns: 8, order: Order::Sequential };
        let loader = Loader::new(dataset, options, Seed::new(3)).unwrap();
        let n = loader.n_batches().unwrap();
        assert_eq!(Prefetch::start(loader, 2).unwrap().count() as u64, n);
    }
}
