//! Batches that worker threads make ahead of the step that reads them.
//!
//! Each batch is a function of its index, so it does not matter who makes it. Worker `w` of `n` makes the batches `first + w`,
//! `first + w + n`, … and sends them over a bounded channel of its own; the reader asks the workers in turn. So batches arrive
//! in the order of their indices, whatever the number of workers, and a run resumes from nothing but the next index.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use crate::batch::HostBatch;
use crate::loader::BatchSource;

/// Batches that stand ready in the channel of a worker; it holds one more in its hands.
const READY: usize = 1;

/// Reads the batches of a source in their order, made ahead by worker threads.
///
/// With `n` workers at most `2n` batches are ready that nobody has read. Without workers, a batch is made when it is read.
/// Dropping it ends the workers: one that makes a batch finishes that first.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use andiron_data::collate::Causal;
/// use andiron_data::loader::{BatchSource as _, Loader, LoaderOptions, Order};
/// use andiron_data::{Prefetch, Seed};
/// # use andiron_data::shard::{Dataset, DatasetWriter, WriterOptions};
/// # let dir = tempfile::tempdir()?;
/// # let mut writer = DatasetWriter::create(&dir.path().join("d"), WriterOptions::new(50, "x"))?;
/// # writer.push("a", &(0..50).collect::<Vec<_>>(), "")?;
/// # writer.finish()?;
/// # let dataset = Arc::new(Dataset::open(&dir.path().join("d"))?);
/// let options = LoaderOptions { rows: 2, order: Order::Epochs };
/// let loader = Arc::new(Loader::new(dataset, Arc::new(Causal { columns: 8, pad: 0 }), options, Seed::new(1))?);
/// let mut batches = Prefetch::new(loader.clone(), 2);
/// assert_eq!(batches.take(7)?, loader.batch_at(7));
/// assert_eq!(batches.take(8)?, loader.batch_at(8));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Prefetch {
    source: Arc<dyn BatchSource>,
    workers: usize,
    running: Option<Workers>,
}

impl Prefetch {
    /// Starts no thread yet: the first batch that is read does.
    pub fn new(source: Arc<dyn BatchSource>, workers: usize) -> Self {
        Self { source, workers, running: None }
    }

    /// Where the batches come from.
    pub fn source(&self) -> &dyn BatchSource {
        &*self.source
    }

    /// The batch with an index. If it is not the one after the last, the workers start again from it.
    ///
    /// # Errors
    /// If a thread cannot be started.
    ///
    /// # Panics
    /// If there is no such batch. A panic of a worker goes on here, with its message, when its batch is read.
    pub fn take(&mut self, index: u64) -> io::Result<HostBatch> {
        if self.workers == 0 {
            return Ok(self.source.batch_at(index));
        }
        if self.running.as_ref().is_none_or(|running| running.next != index) {
            // Those that made other batches end first.
            self.running = None;
            self.running = Some(Workers::start(&self.source, self.workers, index)?);
        }
        match self.running.as_mut().and_then(Workers::next) {
            Some(Ok(batch)) => Ok(batch),
            Some(Err(panic)) => {
                self.running = None;
                resume_unwind(panic)
            }
            // The source ends before it.
            None => Ok(self.source.batch_at(index)),
        }
    }
}

/// A batch, or the panic of the worker that made it.
type Made = Result<HostBatch, Box<dyn Any + Send>>;

/// Threads that make consecutive batches.
#[derive(Debug)]
struct Workers {
    workers: Vec<Worker>,
    first: u64,
    /// The batch that is read next.
    next: u64,
}

#[derive(Debug)]
struct Worker {
    /// `None` once it is to end.
    batches: Option<Receiver<Made>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    fn start(source: &Arc<dyn BatchSource>, n: usize, first: u64) -> io::Result<Self> {
        let worker = |number: usize| {
            let (sender, batches) = sync_channel(READY);
            let source = source.clone();
            let indices = (first + number as u64..).step_by(n);
            let thread = Builder::new()
                .name(format!("data-{number}"))
                .spawn(move || make(&*source, indices, &sender))?;
            Ok(Worker { batches: Some(batches), thread: Some(thread) })
        };
        Ok(Self { workers: (0..n).map(worker).collect::<io::Result<_>>()?, first, next: first })
    }

    /// The next batch; `None` if the source has none.
    fn next(&mut self) -> Option<Made> {
        let worker = ((self.next - self.first) % self.workers.len() as u64) as usize;
        self.next += 1;
        self.workers[worker].batches.as_ref()?.recv().ok()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // All are told before any is waited for. Their panics have been passed on, or are of batches that nobody reads.
        self.workers.iter_mut().for_each(|worker| worker.batches = None);
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// Makes batches until the source ends, a batch panics, or nobody reads them.
fn make(source: &dyn BatchSource, indices: impl Iterator<Item = u64>, sender: &SyncSender<Made>) {
    let n_batches = source.n_batches().unwrap_or(u64::MAX);
    for index in indices.take_while(|&index| index < n_batches) {
        let made = catch_unwind(AssertUnwindSafe(|| source.batch_at(index)));
        let is_last = made.is_err();
        if sender.send(made).is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Condvar, Mutex};

    use proptest::prelude::*;

    use super::*;
    use crate::Seed;
    use crate::batch::Sequences;
    use crate::collate::{Causal, Masked, Masking, Supervised};
    use crate::loader::{EpochLength, Loader, LoaderOptions, Order};
    use crate::records::{
        BatchBudget, ColumnType, LengthGroups, PackedLoader, PackedLoaderOptions, PackedOrder, Record,
        RecordDataset, RecordLoader, RecordLoaderOptions, RecordOrder, RecordWriter, TokenLoader, columns,
    };
    use crate::shard::{Dataset, DatasetWriter, WriterOptions};

    /// Batches of their own index.
    #[derive(Debug, Default)]
    struct Counting {
        /// How many were begun.
        begun: AtomicU64,
        end: Option<u64>,
        panics_at: Option<u64>,
        /// An even batch waits for the one after it: the highest that is done. The last is odd.
        out_of_order: Option<(Mutex<u64>, Condvar)>,
    }

    impl BatchSource for Counting {
        fn batch_at(&self, index: u64) -> HostBatch {
            self.begun.fetch_add(1, Ordering::SeqCst);
            assert!(self.panics_at != Some(index), "batch {index} is cursed");
            assert!(self.end.is_none_or(|end| index < end), "batch {index} of {:?}", self.end);
            if let Some((done, changed)) = &self.out_of_order {
                let mut done = done.lock().unwrap();
                while index.is_multiple_of(2) && index < self.end.unwrap_or(0) && *done <= index {
                    done = changed.wait(done).unwrap();
                }
                *done = index.max(*done);
                changed.notify_all();
            }
            HostBatch::tokens(Sequences::full(vec![index as u32], [1, 1]), vec![0], vec![1.0])
        }

        fn rows_at(&self, index: u64, _rows: Range<usize>) -> HostBatch {
            self.batch_at(index)
        }

        fn n_batches(&self) -> Option<u64> {
            self.end
        }

        fn n_rows_at(&self, _index: u64) -> u64 {
            1
        }

        fn epoch(&self) -> Option<EpochLength> {
            None
        }
    }

    fn take(batches: &mut Prefetch, indices: impl IntoIterator<Item = u64>) -> Vec<u32> {
        indices.into_iter().map(|index| batches.take(index).unwrap().inputs.ids[0]).collect()
    }

    #[test]
    fn batches_come_in_order_though_later_ones_are_ready_first() {
        for workers in [2, 3, 4] {
            let out_of_order = Some(Default::default());
            let source = Arc::new(Counting { out_of_order, end: Some(26), ..Counting::default() });
            let mut batches = Prefetch::new(source, workers);
            assert_eq!(take(&mut batches, 5..26), (5..26).collect::<Vec<_>>(), "{workers} workers");
        }
    }

    #[test]
    fn reading_elsewhere_starts_again_there() {
        let mut batches = Prefetch::new(Arc::new(Counting::default()), 2);
        assert_eq!(take(&mut batches, [3, 4, 9, 10, 2, 2]), [3, 4, 9, 10, 2, 2]);
    }

    #[test]
    fn workers_make_two_batches_ahead_each() {
        let source = Arc::new(Counting::default());
        let mut batches = Prefetch::new(source.clone(), 3);
        for index in 0..200 {
            take(&mut batches, [index]);
            let ahead = source.begun.load(Ordering::SeqCst) - (index + 1);
            assert!(ahead <= 6, "{ahead} ahead");
        }
        // They get that far.
        while source.begun.load(Ordering::SeqCst) < 206 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_panic_is_passed_on_when_its_batch_is_read() {
        for workers in [1, 4] {
            let source = Arc::new(Counting { panics_at: Some(2), ..Counting::default() });
            let mut batches = Prefetch::new(source, workers);
            assert_eq!(take(&mut batches, 0..2), [0, 1]);
            let panic = catch_unwind(AssertUnwindSafe(|| batches.take(2))).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().unwrap(), "batch 2 is cursed");
            // Others can still be read.
            assert_eq!(take(&mut batches, 3..6), [3, 4, 5]);
        }
    }

    #[test]
    fn a_source_that_ends_panics_as_it_does_without_workers() {
        for workers in [0, 2] {
            let source = Arc::new(Counting { end: Some(3), ..Counting::default() });
            let mut batches = Prefetch::new(source, workers);
            assert_eq!(take(&mut batches, 0..3), [0, 1, 2]);
            let panic = catch_unwind(AssertUnwindSafe(|| batches.take(3))).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>().unwrap(), "batch 3 of Some(3)");
        }
    }

    #[test]
    fn dropping_it_ends_the_workers() {
        let source = Arc::new(Counting::default());
        let mut batches = Prefetch::new(source.clone(), 4);
        take(&mut batches, 0..3);
        drop(batches);
        assert_eq!(Arc::strong_count(&source), 1);
    }

    /// A loader of each kind, over tokens and texts whose number and lengths are given.
    fn loaders(lengths: &[usize], rows: usize, directory: &std::path::Path) -> Vec<Arc<dyn BatchSource>> {
        let mut writer =
            DatasetWriter::create(&directory.join("shards"), WriterOptions::new(1000, "t")).unwrap();
        let of_types = [(columns::IDS, ColumnType::Ids), (columns::WEIGHTS, ColumnType::Numbers)];
        let null = serde_json::Value::Null;
        let mut records = RecordWriter::create(&directory.join("records"), &of_types, null).unwrap();
        for (number, &length) in (0u32..).zip(lengths) {
            let ids: Vec<u32> = (0..length as u32).map(|at| (number * 31 + at) % 1000).collect();
            writer.push(&number.to_string(), &ids, "").unwrap();
            let record = Record::default().with_ids(columns::IDS, ids);
            records.push(&record.with_numbers(columns::WEIGHTS, vec![1.0; length])).unwrap();
        }
        writer.finish().unwrap();
        records.finish().unwrap();
        let shards = Arc::new(Dataset::open(&directory.join("shards")).unwrap());
        let records = Arc::new(RecordDataset::open(&directory.join("records")).unwrap());
        let seed = Seed::new(11);
        let causal = Arc::new(Causal { columns: 7, pad: 0 });
        let stream =
            |order| Loader::new(shards.clone(), causal.clone(), LoaderOptions { rows, order }, seed).unwrap();
        let masking = Masking { probability: 0.3, ..Masking::bert(1, 1000, vec![false; 1000].into()) };
        let masked = Arc::new(Masked { columns: 7, around: Default::default(), pad: 0, masking });
        let masked_windows =
            Loader::new(shards.clone(), masked.clone(), LoaderOptions { rows, order: Order::Epochs }, seed)
                .unwrap();
        let by_length = RecordOrder::EpochsByLength(LengthGroups { rows, groups: 3 });
        let grouped = RecordLoaderOptions { rows, order: by_length };
        let supervised = Arc::new(Supervised { limit: 30, pad: 0 });
        let packed = PackedLoaderOptions { rows, columns: 40, order: PackedOrder::Epochs };
        let budget = BatchBudget { tokens: 60, records: None };
        vec![
            Arc::new(stream(Order::Windows)),
            Arc::new(stream(Order::Epochs)),
            Arc::new(masked_windows),
            Arc::new(RecordLoader::new(records.clone(), masked.clone(), grouped, seed).unwrap()),
            Arc::new(PackedLoader::new(records.clone(), supervised, packed, seed).unwrap()),
            Arc::new(TokenLoader::new(records, masked, budget, seed).unwrap()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn any_number_of_workers_gives_the_same_batches_from_any_point(
            lengths in prop::collection::vec(8usize..50, 2..30),
            rows in 1usize..4,
            first in 0u64..1000,
        ) {
            let dir = tempfile::tempdir().unwrap();
            for source in loaders(&lengths, rows, dir.path()) {
                let expected: Vec<HostBatch> = (first..first + 12).map(|index| source.batch_at(index)).collect();
                for workers in [0, 1, 4] {
                    let mut batches = Prefetch::new(source.clone(), workers);
                    let all: Vec<HostBatch> = (first..first + 12).map(|at| batches.take(at).unwrap()).collect();
                    prop_assert_eq!(&all, &expected);
                    // A run that is stopped in between and resumed.
                    let mut resumed = Prefetch::new(source.clone(), workers);
                    let rest: Vec<HostBatch> = (first + 5..first + 12).map(|at| resumed.take(at).unwrap()).collect();
                    prop_assert_eq!(&rest[..], &expected[5..]);
                }
            }
        }
    }
}
