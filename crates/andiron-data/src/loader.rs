//! Batches of a dataset, each a function of its index.
//!
//! A loader keeps no buffer, no shuffled list and no position: the tokens of batch `n` depend only on `n`, the seed and the
//! dataset. A run resumes exactly by asking for the next index, several processes can share a batch by rows, and every
//! training step can be traced back to the documents in it.

use std::fmt::Debug;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::HostBatch;
use crate::collate::{CollateWindows, Sample};
use crate::seed::{COLLATE, LOADER, Seed};
use crate::shard::Dataset;

/// Batches, each a function of its index.
pub trait BatchSource: Debug + Send + Sync {
    /// The batch with an index.
    ///
    /// # Panics
    /// If there is no such batch.
    fn batch_at(&self, index: u64) -> HostBatch;

    /// Some rows of the batch with an index, so that several processes can share one batch.
    ///
    /// # Panics
    /// If there is no such batch or row.
    fn rows_at(&self, index: u64, rows: Range<usize>) -> HostBatch;

    /// Number of batches, if they are read once; `None` if they have no end.
    fn n_batches(&self) -> Option<u64>;

    /// Number of rows of the batch with an index: windows, records, or rows that records are packed into.
    ///
    /// # Panics
    /// If there is no such batch.
    fn n_rows_at(&self, index: u64) -> u64;

    /// When every example was read once; `None` if they are drawn with replacement.
    fn epoch(&self) -> Option<EpochLength>;

    /// The documents of which the batch with an index contains a part, row by row; `None` if the source does not hold documents.
    ///
    /// # Panics
    /// If there is no such batch.
    fn documents_of(&self, _index: u64) -> Option<Vec<SeenDocument>> {
        None
    }
}

/// The length of an epoch: `rows / rows_per_batch` batches, which need not be a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochLength {
    /// Rows of an epoch, or its batches if those differ in their number of rows.
    pub rows: u64,
    /// How many of them a batch has; 1 if batches are counted.
    pub rows_per_batch: u64,
}

impl EpochLength {
    /// Epochs in a number of batches.
    pub fn epochs(self, batches: u64) -> f64 {
        batches as f64 * self.rows_per_batch as f64 / self.rows as f64
    }

    /// Steps of `accumulate` batches in a number of epochs, rounded up; at least 1.
    pub fn steps(self, epochs: f64, accumulate: u64) -> u64 {
        let rows_per_step = self.rows_per_batch as f64 * accumulate as f64;
        (epochs * self.rows as f64 / rows_per_step).ceil().max(1.0) as u64
    }
}

/// Sampling order. A window is as many consecutive tokens as the collator reads for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Windows at random positions, drawn with replacement, without end. Source: Karpathy's nanoGPT.
    Windows,
    /// Disjoint windows, each once per epoch, shuffled anew in each epoch, without end. The tokens after the last whole
    /// window are never used.
    Epochs,
    /// Disjoint windows from the first token to the last, once, for evaluation: every token but the first is a
    /// target exactly once. The last window and the last batch are padded with weight 0.
    Sequential,
}

/// The rows and order of a [`Loader`]'s batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderOptions {
    /// Sequences per batch.
    pub rows: usize,
    /// Sampling order.
    pub order: Order,
}

/// Makes batches of windows of a dataset.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use andiron_data::collate::Causal;
/// use andiron_data::loader::{BatchSource as _, Loader, LoaderOptions, Order};
/// use andiron_data::seed::Seed;
/// # use andiron_data::shard::{Dataset, DatasetWriter, WriterOptions};
/// # let dir = tempfile::tempdir()?;
/// # let mut writer = DatasetWriter::create(&dir.path().join("d"), WriterOptions::new(50, "x"))?;
/// # writer.push("a", &(0..50).collect::<Vec<_>>(), "")?;
/// # writer.finish()?;
/// let dataset = Arc::new(Dataset::open(&dir.path().join("d"))?);
/// let options = LoaderOptions { rows: 2, order: Order::Epochs };
/// let loader = Loader::new(dataset, Arc::new(Causal { columns: 8, pad: 0 }), options, Seed::new(1))?;
/// let batch = loader.batch_at(7);
/// assert_eq!(batch, loader.batch_at(7));
/// assert_eq!(batch.inputs.row(0), loader.rows_at(7, 0..1).inputs.row(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Loader {
    dataset: Arc<Dataset>,
    collator: Arc<dyn CollateWindows>,
    options: LoaderOptions,
    order: Seed,
    rows: Seed,
}

/// A document of which a batch contains a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenDocument {
    /// The row of the batch.
    pub row: usize,
    /// Index of the document in the dataset.
    pub index: u64,
    /// Its name.
    pub id: String,
    /// Its tokens in the row, as positions in the dataset.
    pub tokens: Range<u64>,
    /// How many of its tokens come before those.
    pub offset: u64,
    /// The tokens.
    pub ids: Vec<u32>,
}

/// Why a loader cannot be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoaderError {
    /// A batch without rows, or rows without positions.
    #[error("a batch of {rows} rows of {window} tokens is empty")]
    EmptyBatch {
        /// Sequences in a batch.
        rows: usize,
        /// Tokens in a sequence.
        window: usize,
    },
    /// A batch, or a group of records of similar length, has no rows.
    #[error("a batch has no rows; set at least one")]
    NoRows,
    /// The dataset has no records.
    #[error("{} has no records", path.display())]
    NoRecords {
        /// The dataset.
        path: PathBuf,
    },
    /// A record takes more tokens than a batch has.
    #[error(
        "record {record} of {} takes {needed} tokens and a batch has {tokens}; raise the tokens of a batch, or truncate \
         the records",
        path.display()
    )]
    RecordTooLong {
        /// The dataset.
        path: PathBuf,
        /// The record, from 0.
        record: u64,
        /// Tokens that it takes, those of all its texts with padding.
        needed: u64,
        /// Tokens of a batch.
        tokens: u64,
    },
    /// The dataset is shorter than one window.
    #[error("{tokens} tokens are too few for one window of {needed}; use more text or a shorter context")]
    TooShort {
        /// Tokens in the dataset.
        tokens: u64,
        /// Tokens in a window.
        needed: u64,
    },
}

impl Loader {
    /// `seed` is that of the run: the loader derives its own streams from it.
    ///
    /// # Errors
    /// If the batch is empty or the dataset too short for one window (one of any length, for [`Order::Sequential`]).
    pub fn new(
        dataset: Arc<Dataset>,
        collator: Arc<dyn CollateWindows>,
        options: LoaderOptions,
        seed: Seed,
    ) -> Result<Self, LoaderError> {
        let LoaderOptions { rows, order } = options;
        let (window, stride) = (collator.window(), collator.stride());
        if rows == 0 || stride == 0 {
            return Err(LoaderError::EmptyBatch { rows, window });
        }
        let tokens = dataset.tokens();
        let needed = if order == Order::Sequential { window - stride + 1 } else { window } as u64;
        if tokens < needed {
            return Err(LoaderError::TooShort { tokens, needed });
        }
        Ok(Self { dataset, collator, options, order: seed.derive(LOADER), rows: seed.derive(COLLATE) })
    }

    /// The dataset it reads.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// The rows and order of its batches.
    pub fn options(&self) -> LoaderOptions {
        self.options
    }

    /// Some rows of the batch with an index, so that several processes can share one batch.
    ///
    /// # Panics
    /// If there is no such batch or row.
    pub fn rows_at(&self, index: u64, rows: Range<usize>) -> HostBatch {
        assert!(rows.end <= self.options.rows, "row {} of {}", rows.end, self.options.rows);
        let windows: Vec<Sample<Vec<u32>>> = rows
            .map(|row| {
                let window = self.window(index, row);
                let mut ids = vec![0; (window.end - window.start) as usize];
                self.dataset.read(window.start, &mut ids);
                Sample { data: ids, seed: self.rows.at(self.sample(index, row)) }
            })
            .collect();
        self.collator.collate(&windows)
    }

    /// The documents of which the batch with an index contains a part, row by row.
    ///
    /// # Panics
    /// If there is no such batch.
    pub fn documents_of(&self, index: u64) -> Vec<SeenDocument> {
        let mut seen = Vec::new();
        for row in 0..self.options.rows {
            let window = self.window(index, row);
            for document in self.dataset.documents_in(window.clone()) {
                let tokens = document.tokens.start.max(window.start)..document.tokens.end.min(window.end);
                let offset = tokens.start - document.tokens.start;
                let mut ids = vec![0; (tokens.end - tokens.start) as usize];
                self.dataset.read(tokens.start, &mut ids);
                let (index, id) = (document.index, document.id.to_owned());
                seen.push(SeenDocument { row, index, id, tokens, offset, ids });
            }
        }
        seen
    }

    /// Tokens at the end of a window that the next one begins with.
    fn overlap(&self) -> u64 {
        (self.collator.window() - self.collator.stride()) as u64
    }

    /// The windows of the orders that read each once.
    fn n_windows(&self) -> u64 {
        let (tokens, stride) = (self.dataset.tokens() - self.overlap(), self.collator.stride() as u64);
        if self.options.order == Order::Sequential { tokens.div_ceil(stride) } else { tokens / stride }
    }

    /// Number of the rows before this one.
    fn sample(&self, batch: u64, row: usize) -> u64 {
        batch * self.options.rows as u64 + row as u64
    }

    /// The tokens of a row; none if it is padding.
    fn window(&self, batch: u64, row: usize) -> Range<u64> {
        let (tokens, overlap) = (self.dataset.tokens(), self.overlap());
        let (window, stride) = (self.collator.window() as u64, self.collator.stride() as u64);
        let sample = self.sample(batch, row);
        let start = match self.options.order {
            Order::Windows => self.order.below(sample, tokens - window + 1),
            Order::Epochs => {
                let n = self.n_windows();
                self.order.at(sample / n).permute(sample % n, n) * stride
            }
            Order::Sequential => {
                let batches = self.n_windows().div_ceil(self.options.rows as u64);
                assert!(batch < batches, "batch {batch} of {batches}");
                (sample * stride).min(tokens)
            }
        };
        let end = (start + window).min(tokens);
        // What the last window ended with is no window of its own: it has no target.
        if end - start <= overlap { start..start } else { start..end }
    }
}

impl BatchSource for Loader {
    fn batch_at(&self, index: u64) -> HostBatch {
        self.rows_at(index, 0..self.options.rows)
    }

    fn rows_at(&self, index: u64, rows: Range<usize>) -> HostBatch {
        Loader::rows_at(self, index, rows)
    }

    fn n_batches(&self) -> Option<u64> {
        (self.options.order == Order::Sequential).then(|| self.n_windows().div_ceil(self.options.rows as u64))
    }

    fn n_rows_at(&self, _index: u64) -> u64 {
        self.options.rows as u64
    }

    fn epoch(&self) -> Option<EpochLength> {
        let of = |rows| EpochLength { rows, rows_per_batch: self.options.rows as u64 };
        (self.options.order != Order::Windows).then(|| of(self.n_windows()))
    }

    fn documents_of(&self, index: u64) -> Option<Vec<SeenDocument>> {
        Some(Loader::documents_of(self, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::TokenLabels;
    use crate::collate::Causal;
    use crate::shard::{DatasetWriter, WriterOptions};
    use proptest::prelude::*;

    /// A dataset whose token at position `i` is `i`, in documents of the given lengths.
    fn counting(lengths: &[usize]) -> (tempfile::TempDir, Arc<Dataset>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let options = WriterOptions { tokens_per_shard: 7, ..WriterOptions::new(1 << 17, "t") };
        let mut writer = DatasetWriter::create(&path, options).unwrap();
        let mut at = 0u32;
        for (i, &length) in lengths.iter().enumerate() {
            let ids: Vec<u32> = (at..at + length as u32).collect();
            writer.push(&format!("doc{i}"), &ids, "").unwrap();
            at += length as u32;
        }
        writer.finish().unwrap();
        let dataset = Arc::new(Dataset::open(&path).unwrap());
        (dir, dataset)
    }

    fn loader(dataset: &Arc<Dataset>, rows: usize, columns: usize, order: Order) -> Loader {
        let collator = Arc::new(Causal { columns, pad: 0 });
        Loader::new(dataset.clone(), collator, LoaderOptions { rows, order }, Seed::new(7)).unwrap()
    }

    fn labels(batch: &HostBatch) -> &TokenLabels {
        batch.token_labels().unwrap()
    }

    #[test]
    fn sequential_batches_are_padded_at_the_end() {
        let (_dir, dataset) = counting(&[4, 4]);
        let loader = loader(&dataset, 2, 3, Order::Sequential);
        assert_eq!(loader.n_batches(), Some(2));
        let first = loader.batch_at(0);
        assert_eq!(first.inputs.ids, [0, 1, 2, 3, 4, 5]);
        assert_eq!(labels(&first).ids, [1, 2, 3, 4, 5, 6]);
        let last = loader.batch_at(1);
        assert_eq!(last.inputs.ids, [6, 0, 0, 0, 0, 0]);
        assert_eq!(labels(&last).ids, [7, 0, 0, 0, 0, 0]);
        assert_eq!(labels(&last).weights, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn random_windows_reach_every_start_and_no_further() {
        let (_dir, dataset) = counting(&[10]);
        let loader = loader(&dataset, 4, 3, Order::Windows);
        let mut starts = [0; 10];
        for batch in 0..100 {
            let batch = loader.batch_at(batch);
            for row in 0..4 {
                let ids = batch.inputs.row(row);
                assert!(ids.iter().zip(&labels(&batch).ids[row * 3..]).all(|(id, target)| id + 1 == *target));
                starts[ids[0] as usize] += 1;
            }
        }
        assert!(starts[..7].iter().all(|&n| n > 20) && starts[7..] == [0, 0, 0], "{starts:?}");
    }

    #[test]
    fn a_batch_leads_back_to_its_documents() {
        let (_dir, dataset) = counting(&[3, 0, 9, 5]);
        let loader = loader(&dataset, 2, 4, Order::Sequential);
        let seen = |row, (index, id): (u64, &str), tokens: Range<u64>, offset| {
            let ids = tokens.clone().map(|id| id as u32).collect();
            SeenDocument { row, index, id: id.into(), tokens, offset, ids }
        };
        let [first, third, fourth] = [(0, "doc0"), (2, "doc2"), (3, "doc3")];
        let expected = [seen(0, first, 0..3, 0), seen(0, third, 3..5, 0), seen(1, third, 4..9, 1)];
        assert_eq!(loader.documents_of(0), expected);
        assert_eq!(loader.documents_of(1)[1], seen(0, fourth, 12..13, 0));
    }

    #[test]
    fn impossible_shapes_are_errors() {
        let (_dir, dataset) = counting(&[5]);
        let new = |rows, columns, order| {
            let collator = Arc::new(Causal { columns, pad: 0 });
            Loader::new(dataset.clone(), collator, LoaderOptions { rows, order }, Seed::new(0)).err()
        };
        assert!(matches!(new(0, 4, Order::Windows), Some(LoaderError::EmptyBatch { .. })));
        assert!(matches!(new(1, 5, Order::Epochs), Some(LoaderError::TooShort { tokens: 5, needed: 6 })));
        assert!(new(1, 4, Order::Epochs).is_none());
        assert!(new(9, 500, Order::Sequential).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn each_window_comes_once_an_epoch(
            tokens in 2usize..400, rows in 1usize..6, columns in 1usize..9, epochs in 1u64..4,
        ) {
            prop_assume!(tokens > columns);
            let (_dir, dataset) = counting(&[tokens]);
            let loader = loader(&dataset, rows, columns, Order::Epochs);
            let n = ((tokens - 1) / columns) as u64;
            let mut times = vec![0; n as usize];
            let samples = n * epochs;
            for sample in 0..samples {
                let batch = loader.batch_at(sample / rows as u64);
                let start = batch.inputs.row((sample % rows as u64) as usize)[0] as usize;
                prop_assert_eq!(start % columns, 0);
                times[start / columns] += 1;
                // Never a window again before all others had their turn.
                let epoch = sample / n + 1;
                prop_assert!(times[start / columns] == epoch);
            }
        }

        #[test]
        fn sequential_targets_are_all_tokens_but_the_first(
            lengths in prop::collection::vec(1usize..30, 1..6), rows in 1usize..6, columns in 1usize..40,
        ) {
            let (_dir, dataset) = counting(&lengths);
            prop_assume!(dataset.tokens() >= 2);
            let loader = loader(&dataset, rows, columns, Order::Sequential);
            let mut targets = Vec::new();
            for index in 0..loader.n_batches().unwrap() {
                let batch = loader.batch_at(index);
                prop_assert_eq!((batch.inputs.rows, batch.inputs.columns), (rows, columns));
                let labels = labels(&batch);
                let counted = labels.ids.iter().zip(&labels.weights).filter(|(_, w)| **w > 0.0);
                targets.extend(counted.map(|(t, _)| *t));
            }
            prop_assert_eq!(targets, (1..dataset.tokens() as u32).collect::<Vec<_>>());
        }

        #[test]
        fn rows_of_a_batch_are_those_of_the_whole(
            index in 0u64..20, rows in 1usize..5,
            order in prop::sample::select(vec![Order::Windows, Order::Epochs, Order::Sequential]),
        ) {
            let (_dir, dataset) = counting(&[130, 300, 277]);
            let loader = loader(&dataset, rows, 5, order);
            let batch = loader.batch_at(index);
            let split = rows / 2;
            let (top, bottom) = (loader.rows_at(index, 0..split), loader.rows_at(index, split..rows));
            let both = |of: fn(&HostBatch) -> &[u32]| [of(&top), of(&bottom)].concat();
            prop_assert_eq!(both(|batch| &batch.inputs.ids), batch.inputs.ids.clone());
            prop_assert_eq!(both(|batch| &labels(batch).ids), labels(&batch).ids.clone());
        }
    }
}
