//! Batches of a dataset, each a function of its index.
//!
//! A loader keeps no buffer, no shuffled list and no position: the tokens of batch `n` depend only on `n`, the seed and the
//! dataset. A run resumes exactly by asking for the next index, several processes can share a batch by rows, and every
//! training step can be traced back to the documents in it.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::HostBatch;
use crate::collate::Causal;
use crate::seed::{LOADER, Seed};
use crate::shard::Dataset;

/// Sampling order. A window is `columns + 1` consecutive tokens; its last token is only a target.
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

/// The shape and order of a [`Loader`]'s batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderOptions {
    /// Sequences per batch.
    pub rows: usize,
    /// Positions per sequence.
    pub columns: usize,
    /// Sampling order.
    pub order: Order,
}

/// Makes batches for next-token prediction from a dataset.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use andiron_data::loader::{Loader, LoaderOptions, Order};
/// use andiron_data::seed::Seed;
/// # use andiron_data::shard::{Dataset, DatasetWriter, WriterOptions};
/// # let dir = tempfile::tempdir()?;
/// # let mut writer = DatasetWriter::create(&dir.path().join("d"), WriterOptions::new(50, "x"))?;
/// # writer.push("a", &(0..50).collect::<Vec<_>>(), "")?;
/// # writer.finish()?;
/// let dataset = Arc::new(Dataset::open(&dir.path().join("d"))?);
/// let options = LoaderOptions { rows: 2, columns: 8, order: Order::Epochs };
/// let loader = Loader::new(dataset, options, Seed::new(1))?;
/// let batch = loader.batch_at(7);
/// assert_eq!(batch, loader.batch_at(7));
/// assert_eq!(batch.ids[..8], loader.rows_at(7, 0..1).ids);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Loader {
    dataset: Arc<Dataset>,
    options: LoaderOptions,
    stream: Seed,
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
}

/// Why a loader cannot be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoaderError {
    /// A batch without rows or columns.
    #[error("a batch of {rows} rows and {columns} columns is empty")]
    EmptyBatch {
        /// Sequences in a batch.
        rows: usize,
        /// Positions in a sequence.
        columns: usize,
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
    /// `seed` is that of the run: the loader derives its own stream from it.
    ///
    /// # Errors
    /// If the batch is empty or the dataset too short for one window (two tokens, for
    /// [`Order::Sequential`]).
    pub fn new(dataset: Arc<Dataset>, options: LoaderOptions, seed: Seed) -> Result<Self, LoaderError> {
        let LoaderOptions { rows, columns, order } = options;
        if rows == 0 || columns == 0 {
            return Err(LoaderError::EmptyBatch { rows, columns });
        }
        let tokens = dataset.tokens();
        let needed = if order == Order::Sequential { 2 } else { columns as u64 + 1 };
        if tokens < needed {
            return Err(LoaderError::TooShort { tokens, needed });
        }
        Ok(Self { dataset, options, stream: seed.derive(LOADER) })
    }

    /// The dataset it reads.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// The shape and order of its batches.
    pub fn options(&self) -> LoaderOptions {
        self.options
    }

    /// Number of batches of [`Order::Sequential`]; `None` for the other orders, which have no end.
    pub fn n_batches(&self) -> Option<u64> {
        (self.options.order == Order::Sequential).then(|| self.n_windows().div_ceil(self.options.rows as u64))
    }

    /// The batch with an index.
    ///
    /// # Panics
    /// If there is no such batch.
    pub fn batch_at(&self, index: u64) -> HostBatch {
        self.rows_at(index, 0..self.options.rows)
    }

    /// Some rows of the batch with an index, so that several processes can share one batch.
    ///
    /// # Panics
    /// If there is no such batch or row.
    pub fn rows_at(&self, index: u64, rows: Range<usize>) -> HostBatch {
        assert!(rows.end <= self.options.rows, "row {} of {}", rows.end, self.options.rows);
        let sequences: Vec<Vec<u32>> = rows
            .map(|row| {
                let window = self.window(index, row);
                let mut ids = vec![0; (window.end - window.start) as usize];
                self.dataset.read(window.start, &mut ids);
                ids
            })
            .collect();
        Causal { columns: self.options.columns, pad: 0 }.collate(&sequences)
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
                seen.push(SeenDocument { row, index: document.index, id: document.id.to_owned(), tokens });
            }
        }
        seen
    }

    /// The disjoint windows of the orders that have such.
    fn n_windows(&self) -> u64 {
        let (targets, columns) = (self.dataset.tokens() - 1, self.options.columns as u64);
        if self.options.order == Order::Sequential { targets.div_ceil(columns) } else { targets / columns }
    }

    /// The tokens of a row; none if it is padding.
    fn window(&self, batch: u64, row: usize) -> Range<u64> {
        let (tokens, columns) = (self.dataset.tokens(), self.options.columns as u64);
        let sample = batch * self.options.rows as u64 + row as u64;
        let start = match self.options.order {
            Order::Windows => self.stream.below(sample, tokens - columns),
            Order::Epochs => {
                let n = self.n_windows();
                self.stream.at(sample / n).permute(sample % n, n) * columns
            }
            Order::Sequential => {
                let batches = self.n_windows().div_ceil(self.options.rows as u64);
                assert!(batch < batches, "batch {batch} of {batches}");
                (sample * columns).min(tokens - 1)
            }
        };
        let end = (start + columns + 1).min(tokens);
        // The last token alone is no window: it has no target.
        if end - start < 2 { start..start } else { start..end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        Loader::new(dataset.clone(), LoaderOptions { rows, columns, order }, Seed::new(7)).unwrap()
    }

    #[test]
    fn sequential_batches_are_padded_at_the_end() {
        let (_dir, dataset) = counting(&[4, 4]);
        let loader = loader(&dataset, 2, 3, Order::Sequential);
        assert_eq!(loader.n_batches(), Some(2));
        let first = loader.batch_at(0);
        assert_eq!(first.ids, [0, 1, 2, 3, 4, 5]);
        assert_eq!(first.targets, [1, 2, 3, 4, 5, 6]);
        let last = loader.batch_at(1);
        assert_eq!(last.ids, [6, 0, 0, 0, 0, 0]);
        assert_eq!(last.targets, [7, 0, 0, 0, 0, 0]);
        assert_eq!(last.weights, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn random_windows_reach_every_start_and_no_further() {
        let (_dir, dataset) = counting(&[10]);
        let loader = loader(&dataset, 4, 3, Order::Windows);
        let mut starts = [0; 10];
        for batch in 0..100 {
            let batch = loader.batch_at(batch);
            for row in 0..4 {
                let (ids, targets, _) = batch.row(row);
                assert!(ids.iter().zip(targets).all(|(id, target)| id + 1 == *target));
                starts[ids[0] as usize] += 1;
            }
        }
        assert!(starts[..7].iter().all(|&n| n > 20) && starts[7..] == [0, 0, 0], "{starts:?}");
    }

    #[test]
    fn a_batch_leads_back_to_its_documents() {
        let (_dir, dataset) = counting(&[3, 0, 9, 5]);
        let loader = loader(&dataset, 2, 4, Order::Sequential);
        let seen = |row, index, id: &str, tokens| SeenDocument { row, index, id: id.into(), tokens };
        assert_eq!(
            loader.documents_of(0),
            [seen(0, 0, "doc0", 0..3), seen(0, 2, "doc2", 3..5), seen(1, 2, "doc2", 4..9),]
        );
        assert_eq!(loader.documents_of(1)[1], seen(0, 3, "doc3", 12..13));
    }

    #[test]
    fn impossible_shapes_are_errors() {
        let (_dir, dataset) = counting(&[5]);
        let new = |rows, columns, order| {
            Loader::new(dataset.clone(), LoaderOptions { rows, columns, order }, Seed::new(0)).err()
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
                let start = batch.row((sample % rows as u64) as usize).0[0] as usize;
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
                prop_assert_eq!((batch.rows, batch.columns), (rows, columns));
                let counted = batch.targets.iter().zip(&batch.weights).filter(|(_, w)| **w > 0.0);
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
            prop_assert_eq!([top.ids, bottom.ids].concat(), batch.ids);
            prop_assert_eq!([top.targets, bottom.targets].concat(), batch.targets);
        }
    }
}
