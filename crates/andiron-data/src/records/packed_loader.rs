//! Batches of rows that several records are packed into, each a function of its index.
//!
//! As for a [`RecordLoader`](super::RecordLoader), the rows of all batches form one sequence, of which a batch is the next
//! `rows`. An epoch is the rows of the [`Packing`], in an order of its own.

use std::ops::Range;
use std::sync::Arc;

use super::{Packing, RecordDataset};
use crate::batch::HostBatch;
use crate::collate::{CollatePacked, Sample};
use crate::loader::{BatchSource, EpochLength, LoaderError};
use crate::seed::{COLLATE, LOADER, PACKING, Seed};

/// The order in which a [`PackedLoader`] reads rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackedOrder {
    /// Each record once per epoch, without end. Rows are shuffled anew in each epoch, and so are records of one length.
    Epochs,
    /// Each record once, for evaluation. The last batch may be shorter.
    Sequential,
}

/// The rows, their size and order of a [`PackedLoader`]'s batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedLoaderOptions {
    /// Rows per batch.
    pub rows: usize,
    /// Positions in a row.
    pub columns: usize,
    /// The order in which rows are read.
    pub order: PackedOrder,
}

/// Makes batches of records that are packed into rows.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use andiron_data::Seed;
/// use andiron_data::collate::Supervised;
/// use andiron_data::loader::BatchSource as _;
/// use andiron_data::records::{
///     ColumnType, PackedLoader, PackedLoaderOptions, PackedOrder, Record, RecordDataset, RecordWriter, columns,
/// };
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("train");
/// let columns = [(columns::IDS, ColumnType::Ids), (columns::WEIGHTS, ColumnType::Numbers)];
/// let mut writer = RecordWriter::create(&path, &columns, serde_json::Value::Null)?;
/// for length in [5, 3, 4] {
///     let record = Record::default().with_ids(columns::IDS, vec![length; length as usize]);
///     writer.push(&record.with_numbers(columns::WEIGHTS, vec![1.0; length as usize]))?;
/// }
/// writer.finish()?;
/// let dataset = Arc::new(RecordDataset::open(&path)?);
/// let options = PackedLoaderOptions { rows: 2, columns: 6, order: PackedOrder::Sequential };
/// let loader = PackedLoader::new(dataset, Arc::new(Supervised { limit: 6, pad: 0 }), options, Seed::new(1))?;
/// let batch = loader.batch_at(0);
/// assert_eq!(batch.inputs.ids, [5, 5, 5, 5, 3, 3, 4, 4, 4, 0, 0, 0]);
/// assert_eq!(batch.inputs.documents, Some(vec![vec![0, 4], vec![0, 3]]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PackedLoader {
    dataset: Arc<RecordDataset>,
    collator: Arc<dyn CollatePacked>,
    packing: Packing,
    options: PackedLoaderOptions,
    order: Seed,
    rows: Seed,
}

impl PackedLoader {
    /// Plans the rows from the lengths of the records, which are not read. `seed` is that of the run: the loader derives its own
    /// streams from it.
    ///
    /// # Errors
    /// If a batch has no rows, or the dataset no records.
    pub fn new(
        dataset: Arc<RecordDataset>,
        collator: Arc<dyn CollatePacked>,
        options: PackedLoaderOptions,
        seed: Seed,
    ) -> Result<Self, LoaderError> {
        if options.rows == 0 || options.columns == 0 {
            return Err(LoaderError::NoRows);
        }
        let n = dataset.n_records();
        if n == 0 {
            return Err(LoaderError::NoRecords { path: dataset.path().to_owned() });
        }
        let length = |record: usize| collator.positions(dataset.length(record as u64) as usize) as u64;
        let packing = Packing::new((0..n as usize).map(length), options.columns as u64);
        let (order, rows) = (seed.derive(LOADER), seed.derive(COLLATE));
        Ok(Self { dataset, collator, packing, options, order, rows })
    }

    /// The dataset it reads.
    pub fn dataset(&self) -> &Arc<RecordDataset> {
        &self.dataset
    }

    /// Which records share a row.
    pub fn packing(&self) -> &Packing {
        &self.packing
    }

    /// Indices of the records in the batch with an index, row by row.
    ///
    /// # Panics
    /// If there is no such batch.
    pub fn records_of(&self, index: u64) -> Vec<Vec<u64>> {
        self.rows_of(index).map(|row| self.records_in(row)).collect()
    }

    /// Some rows of the batch with an index, so that several processes can share one batch.
    ///
    /// # Panics
    /// If there is no such batch or row.
    pub fn rows_at(&self, index: u64, rows: Range<usize>) -> HostBatch {
        let all = self.rows_of(index);
        assert!(all.start + rows.end as u64 <= all.end, "row {} of batch {index}", rows.end);
        let of_row = |row: u64| -> Vec<Sample<_>> {
            let records = (0..).zip(self.records_in(row));
            let seed = self.rows.at(row);
            records
                .map(|(at, record)| Sample { data: self.dataset.record(record), seed: seed.at(at) })
                .collect()
        };
        let rows: Vec<_> = (all.start + rows.start as u64..all.start + rows.end as u64).map(of_row).collect();
        self.collator.collate_packed(&rows)
    }

    /// The rows of a batch in the sequence of all rows.
    fn rows_of(&self, index: u64) -> Range<u64> {
        let rows = self.options.rows as u64;
        let of_batch = index * rows..(index + 1) * rows;
        if self.options.order == PackedOrder::Epochs {
            return of_batch;
        }
        let n = self.packing.n_rows();
        assert!(of_batch.start < n, "batch {index} of {}", n.div_ceil(rows));
        of_batch.start..of_batch.end.min(n)
    }

    fn records_in(&self, row: u64) -> Vec<u64> {
        if self.options.order == PackedOrder::Sequential {
            return self.packing.row(row, None).collect();
        }
        let n = self.packing.n_rows();
        let epoch = self.order.at(row / n);
        self.packing.row(epoch.permute(row % n, n), Some(epoch.derive(PACKING))).collect()
    }
}

impl BatchSource for PackedLoader {
    fn batch_at(&self, index: u64) -> HostBatch {
        let rows = self.rows_of(index);
        self.rows_at(index, 0..(rows.end - rows.start) as usize)
    }

    fn rows_at(&self, index: u64, rows: Range<usize>) -> HostBatch {
        PackedLoader::rows_at(self, index, rows)
    }

    fn n_batches(&self) -> Option<u64> {
        let n = self.packing.n_rows().div_ceil(self.options.rows as u64);
        (self.options.order == PackedOrder::Sequential).then_some(n)
    }

    fn n_rows_at(&self, index: u64) -> u64 {
        let rows = self.rows_of(index);
        rows.end - rows.start
    }

    fn epoch(&self) -> Option<EpochLength> {
        Some(EpochLength { rows: self.packing.n_rows(), rows_per_batch: self.options.rows as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collate::Supervised;
    use crate::records::{ColumnType, Record, RecordWriter, columns};
    use proptest::prelude::*;

    /// Records of `length` ids that are all the record's number.
    fn dataset(lengths: &[usize]) -> (tempfile::TempDir, Arc<RecordDataset>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let columns = [(columns::IDS, ColumnType::Ids), (columns::WEIGHTS, ColumnType::Numbers)];
        let mut writer = RecordWriter::create(&path, &columns, serde_json::Value::Null).unwrap();
        for (number, &length) in (0..).zip(lengths) {
            let record = Record::default().with_ids(columns::IDS, vec![number; length]);
            writer.push(&record.with_numbers(columns::WEIGHTS, vec![1.0; length])).unwrap();
        }
        writer.finish().unwrap();
        let dataset = Arc::new(RecordDataset::open(&path).unwrap());
        (dir, dataset)
    }

    fn loader(dataset: &Arc<RecordDataset>, rows: usize, order: PackedOrder) -> PackedLoader {
        let options = PackedLoaderOptions { rows, columns: 15, order };
        let collator = Arc::new(Supervised { limit: 12, pad: 99 });
        PackedLoader::new(dataset.clone(), collator, options, Seed::new(7)).unwrap()
    }

    #[test]
    fn another_epoch_packs_other_records_together() {
        let (_dir, dataset) = dataset(&[5; 60]);
        let loader = loader(&dataset, 20, PackedOrder::Epochs);
        assert_eq!(loader.epoch().unwrap().rows, 20);
        let [mut first, mut second] = [0, 1].map(|epoch| loader.records_of(epoch));
        for rows in [&mut first, &mut second] {
            rows.iter_mut().for_each(|row| row.sort_unstable());
            rows.sort_unstable();
        }
        assert_ne!(first, second);
    }

    #[test]
    fn without_records_or_rows_there_is_no_loader() {
        let (_dir, empty) = dataset(&[]);
        let new = |dataset: &Arc<RecordDataset>, rows| {
            let options = PackedLoaderOptions { rows, columns: 4, order: PackedOrder::Epochs };
            let collator = Arc::new(Supervised { limit: 4, pad: 0 });
            PackedLoader::new(dataset.clone(), collator, options, Seed::new(7)).map(|_| ())
        };
        assert!(matches!(new(&empty, 1), Err(LoaderError::NoRecords { .. })));
        let (_dir, one) = dataset(&[2]);
        assert!(matches!(new(&one, 0), Err(LoaderError::NoRows)) && new(&one, 1).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_target_is_there_once_per_epoch_whatever_the_batches(
            lengths in prop::collection::vec(2usize..20, 1..60),
            rows in 1usize..5,
        ) {
            let (_dir, dataset) = dataset(&lengths);
            let mut wanted = vec![0; lengths.len()];
            lengths.iter().zip(&mut wanted).for_each(|(&length, wanted)| *wanted = length.min(12) - 1);
            for order in [PackedOrder::Epochs, PackedOrder::Sequential] {
                let loader = loader(&dataset, rows, order);
                let per_epoch = loader.epoch().unwrap().rows;
                let one_row = self::loader(&dataset, 1, order);
                let mut found = vec![0; lengths.len()];
                for row in 0..per_epoch {
                    let batch = loader.rows_at(row / rows as u64, (row % rows as u64) as usize..(row % rows as u64) as usize + 1);
                    prop_assert_eq!(&batch, &one_row.batch_at(row));
                    let labels = batch.token_labels().unwrap();
                    for (&id, &weight) in labels.ids.iter().zip(&labels.weights) {
                        if weight > 0.0 {
                            found[id as usize] += 1;
                        }
                    }
                }
                prop_assert_eq!(&found, &wanted);
            }
        }
    }
}
