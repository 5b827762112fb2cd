//! Batches of records, each a function of its index.
//!
//! The rows of all batches form one sequence. Row `s` of it belongs to epoch `s / n`, where `n` is the number of records, and
//! is a function of `s`, the seed and the dataset. A batch is the next `rows` of the sequence, so that one may continue into
//! the next epoch. Hence all batches have the same number of rows, a run resumes from nothing but the number of the next
//! batch, and a step sees the same rows whether they come as one batch or as several that are accumulated. A short batch at
//! the end of each epoch would make the rows of a step, and its learning rate per row, depend on how they are divided.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::RecordDataset;
use crate::batch::HostBatch;
use crate::collate::{CollateRecords, Sample};
use crate::loader::{BatchSource, EpochLength, LoaderError};
use crate::seed::{COLLATE, LENGTHS, LOADER, Seed};

/// The order in which records are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordOrder {
    /// Each record once per epoch, shuffled anew in each epoch, without end.
    Epochs,
    /// The same, with records of similar length side by side, so that batches have little padding.
    EpochsByLength(LengthGroups),
    /// Each record once, in the order of the dataset, for evaluation. The last batch may be shorter.
    Sequential,
}

/// How records of similar length come together: of each `groups * rows` shuffled records, the longest `rows` become a group,
/// then the next longest, and so on; the groups are shuffled.
///
/// `transformers` (`LengthGroupedSampler`) sorts the same way, by 50 batches or a quarter of the dataset, and leaves the groups
/// in the order of their length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthGroups {
    /// Records in a group: those of a batch, or of all batches of a step.
    pub rows: usize,
    /// Groups whose records are sorted together. The more, the less padding and the less shuffling.
    pub groups: usize,
}

/// The rows and order of a [`RecordLoader`]'s batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordLoaderOptions {
    /// Records per batch.
    pub rows: usize,
    /// The order in which records are read.
    pub order: RecordOrder,
}

/// Makes batches of a fixed number of records. A [`TokenLoader`](super::TokenLoader) makes batches of a bounded number of
/// tokens.
#[derive(Clone, Debug)]
pub struct RecordLoader {
    dataset: Arc<RecordDataset>,
    collator: Arc<dyn CollateRecords>,
    options: RecordLoaderOptions,
    order: Seed,
    rows: Seed,
}

impl RecordLoader {
    /// `seed` is that of the run: the loader derives its own streams from it.
    ///
    /// # Errors
    /// If a batch has no rows, or the dataset no records.
    pub fn new(
        dataset: Arc<RecordDataset>,
        collator: Arc<dyn CollateRecords>,
        options: RecordLoaderOptions,
        seed: Seed,
    ) -> Result<Self, LoaderError> {
        let no_groups = matches!(options.order, RecordOrder::EpochsByLength(by) if by.rows * by.groups == 0);
        if options.rows == 0 || no_groups {
            return Err(LoaderError::NoRows);
        }
        if dataset.n_records() == 0 {
            return Err(LoaderError::NoRecords { path: dataset.path().to_owned() });
        }
        Ok(Self { dataset, collator, options, order: seed.derive(LOADER), rows: seed.derive(COLLATE) })
    }

    /// The dataset it reads.
    pub fn dataset(&self) -> &Arc<RecordDataset> {
        &self.dataset
    }

    /// The rows and order of its batches.
    pub fn options(&self) -> RecordLoaderOptions {
        self.options
    }

    /// Some rows of the batch with an index, so that several processes can share one batch.
    ///
    /// # Panics
    /// If there is no such batch or row.
    pub fn rows_at(&self, index: u64, rows: Range<usize>) -> HostBatch {
        let samples = self.samples(index);
        assert!(samples.start + rows.end as u64 <= samples.end, "row {} of batch {index}", rows.end);
        let samples = samples.start + rows.start as u64..samples.start + rows.end as u64;
        let records = self.records_in(samples.clone());
        let sample =
            |(sample, record)| Sample { data: self.dataset.record(record), seed: self.rows.at(sample) };
        let records: Vec<Sample<_>> = samples.zip(records).map(sample).collect();
        self.collator.collate(&records)
    }

    /// Indices of the records in the batch with an index, row by row.
    ///
    /// # Panics
    /// If there is no such batch.
    pub fn records_of(&self, index: u64) -> Vec<u64> {
        self.records_in(self.samples(index))
    }

    /// The rows of a batch in the sequence of all rows.
    fn samples(&self, index: u64) -> Range<u64> {
        let rows = self.options.rows as u64;
        let samples = index * rows..(index + 1) * rows;
        if self.options.order != RecordOrder::Sequential {
            return samples;
        }
        let n = self.dataset.n_records();
        assert!(samples.start < n, "batch {index} of {}", n.div_ceil(rows));
        samples.start..samples.end.min(n)
    }

    fn records_in(&self, samples: Range<u64>) -> Vec<u64> {
        match self.options.order {
            RecordOrder::Sequential => samples.collect(),
            RecordOrder::Epochs => samples.map(|sample| self.shuffled(sample)).collect(),
            RecordOrder::EpochsByLength(by) => {
                let mut records = Vec::new();
                let mut at = samples.start;
                while at < samples.end {
                    let chunk = self.chunk(at, by);
                    let end = chunk.end.min(samples.end);
                    let arranged = self.arranged(chunk.clone(), by);
                    records.extend(&arranged[(at - chunk.start) as usize..(end - chunk.start) as usize]);
                    at = end;
                }
                records
            }
        }
    }

    fn shuffled(&self, sample: u64) -> u64 {
        let n = self.dataset.n_records();
        self.order.at(sample / n).permute(sample % n, n)
    }

    /// The rows that are sorted together with a row. Chunks and groups begin at multiples of their size in the sequence of all
    /// rows, so that batches of that size are groups in every epoch; an epoch's first and last chunk may be shorter.
    fn chunk(&self, sample: u64, by: LengthGroups) -> Range<u64> {
        let (n, rows) = (self.dataset.n_records(), (by.rows * by.groups) as u64);
        let (epoch, chunk) = (sample / n, sample / rows);
        (epoch * n).max(chunk * rows)..((epoch + 1) * n).min((chunk + 1) * rows)
    }

    /// The records of a chunk in their order.
    fn arranged(&self, chunk: Range<u64>, by: LengthGroups) -> Vec<u64> {
        let rows = by.rows;
        let seed = self.order.at(chunk.start / self.dataset.n_records()).derive(LENGTHS).at(chunk.start);
        // What an epoch's beginning or end leaves of a group.
        let head = (chunk.start.next_multiple_of(rows as u64).min(chunk.end) - chunk.start) as usize;
        let mut records: Vec<u64> = chunk.map(|sample| self.shuffled(sample)).collect();
        records.sort_by_cached_key(|&record| Reverse(self.dataset.length(record)));
        let n_groups = (records.len() - head) / rows;
        let (groups, rest) = records.split_at(n_groups * rows);
        let mut arranged = rest[..head].to_vec();
        for group in 0..n_groups {
            let group = seed.permute(group as u64, n_groups as u64) as usize;
            arranged.extend_from_slice(&groups[group * rows..(group + 1) * rows]);
        }
        arranged.extend_from_slice(&rest[head..]);
        arranged
    }
}

impl BatchSource for RecordLoader {
    fn batch_at(&self, index: u64) -> HostBatch {
        let samples = self.samples(index);
        self.rows_at(index, 0..(samples.end - samples.start) as usize)
    }

    fn rows_at(&self, index: u64, rows: Range<usize>) -> HostBatch {
        RecordLoader::rows_at(self, index, rows)
    }

    fn n_batches(&self) -> Option<u64> {
        let n = self.dataset.n_records().div_ceil(self.options.rows as u64);
        (self.options.order == RecordOrder::Sequential).then_some(n)
    }

    fn n_rows_at(&self, index: u64) -> u64 {
        let samples = self.samples(index);
        samples.end - samples.start
    }

    fn epoch(&self) -> Option<EpochLength> {
        Some(EpochLength { rows: self.dataset.n_records(), rows_per_batch: self.options.rows as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Labels, Sequences};
    use crate::records::{ColumnType, Record, RecordWriter, columns};
    use proptest::prelude::*;

    /// A row for each record, with its first id and the value of its random stream as class.
    #[derive(Debug)]
    struct Rows;

    impl CollateRecords for Rows {
        fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch {
            let ids: Vec<&[u32]> = records.iter().map(|row| row.data.ids(columns::IDS)).collect();
            let classes = records.iter().map(|row| row.seed.value() as u32).collect();
            let inputs = Sequences::padded(&ids, 0);
            HostBatch { inputs, decoder_inputs: None, labels: Labels::Classes(classes) }
        }
    }

    /// A dataset whose record `i` begins with `i` and has a length that is no function of the order.
    fn counting(n: u32) -> (tempfile::TempDir, Arc<RecordDataset>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let columns = [(columns::IDS, ColumnType::Ids)];
        let mut writer = RecordWriter::create(&path, &columns, serde_json::Value::Null).unwrap();
        for i in 0..n {
            let ids = vec![i; 1 + (i * 7919 % 40) as usize];
            writer.push(&Record::default().with_ids(columns::IDS, ids)).unwrap();
        }
        writer.finish().unwrap();
        let dataset = Arc::new(RecordDataset::open(&path).unwrap());
        (dir, dataset)
    }

    fn loader(dataset: &Arc<RecordDataset>, rows: usize, order: RecordOrder) -> RecordLoader {
        let options = RecordLoaderOptions { rows, order };
        RecordLoader::new(dataset.clone(), Arc::new(Rows), options, Seed::new(7)).unwrap()
    }

    /// The first ids of the rows of the first `n` batches.
    fn rows(loader: &RecordLoader, n: u64) -> Vec<u64> {
        let first = |batch: HostBatch| -> Vec<u64> {
            (0..batch.inputs.rows).map(|row| u64::from(batch.inputs.row(row)[0])).collect()
        };
        (0..n).flat_map(|index| first(loader.batch_at(index))).collect()
    }

    #[test]
    fn sequential_batches_are_the_dataset_once() {
        let (_dir, dataset) = counting(7);
        let loader = loader(&dataset, 3, RecordOrder::Sequential);
        let epoch = EpochLength { rows: 7, rows_per_batch: 3 };
        assert_eq!((loader.n_batches(), loader.epoch()), (Some(3), Some(epoch)));
        assert_eq!([0, 2].map(|index| loader.n_rows_at(index)), [3, 1]);
        assert_eq!(rows(&loader, 3), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(loader.batch_at(2).inputs.rows, 1);
    }

    #[test]
    #[should_panic(expected = "batch 3 of 3")]
    fn a_sequential_batch_after_the_last_is_the_callers_mistake() {
        loader(&counting(7).1, 3, RecordOrder::Sequential).batch_at(3);
    }

    #[test]
    fn nothing_to_read_is_an_error() {
        let new = |n, rows, order| {
            let (_dir, dataset) = counting(n);
            RecordLoader::new(dataset, Arc::new(Rows), RecordLoaderOptions { rows, order }, Seed::new(0))
                .err()
        };
        assert!(matches!(new(0, 4, RecordOrder::Epochs), Some(LoaderError::NoRecords { .. })));
        assert!(matches!(new(3, 0, RecordOrder::Sequential), Some(LoaderError::NoRows)));
        let none = RecordOrder::EpochsByLength(LengthGroups { rows: 4, groups: 0 });
        assert!(matches!(new(3, 4, none), Some(LoaderError::NoRows)));
        assert!(new(3, 4, RecordOrder::Epochs).is_none());
    }

    #[test]
    fn grouping_by_length_saves_padding_in_every_epoch() {
        let (_dir, dataset) = counting(500);
        let padding = |order| {
            let loader = loader(&dataset, 8, order);
            let of = |index| {
                let inputs = loader.batch_at(index).inputs;
                inputs.ids.len() - inputs.n_tokens()
            };
            // The second epoch begins in the middle of batch 62.
            [(0..62).map(of).sum::<usize>(), (63..125).map(of).sum()]
        };
        let shuffled = padding(RecordOrder::Epochs);
        let grouped = padding(RecordOrder::EpochsByLength(LengthGroups { rows: 8, groups: 16 }));
        for (grouped, shuffled) in grouped.into_iter().zip(shuffled) {
            assert!(grouped * 8 < shuffled, "{grouped} of {shuffled}");
        }
    }

    fn orders() -> impl Strategy<Value = RecordOrder> {
        let by_length = |(rows, groups)| RecordOrder::EpochsByLength(LengthGroups { rows, groups });
        prop_oneof![Just(RecordOrder::Epochs), (1usize..6, 1usize..6).prop_map(by_length)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn each_record_comes_once_an_epoch(n in 1u32..80, order in orders(), batch in 1usize..7) {
            let (_dir, dataset) = counting(n);
            let loader = loader(&dataset, batch, order);
            let seen = rows(&loader, (3 * u64::from(n)).div_ceil(batch as u64));
            for epoch in seen.chunks_exact(n as usize) {
                let mut epoch = epoch.to_vec();
                epoch.sort_unstable();
                prop_assert_eq!(epoch, (0..u64::from(n)).collect::<Vec<_>>());
            }
        }

        #[test]
        fn rows_and_their_streams_do_not_depend_on_the_size_of_batches(
            n in 1u32..80, order in orders(), batch in 1usize..7,
        ) {
            let (_dir, dataset) = counting(n);
            let all = |rows: usize, batches: u64| {
                let loader = loader(&dataset, rows, order);
                let read = |index| match loader.batch_at(index).labels {
                    Labels::Classes(classes) => loader.records_of(index).into_iter().zip(classes),
                    _ => unreachable!("the collator gives classes"),
                };
                (0..batches).flat_map(read).collect::<Vec<_>>()
            };
            prop_assert_eq!(all(batch, 12), all(2 * batch, 6));
            prop_assert_eq!(all(batch, 12), all(3 * batch, 4));
        }

        #[test]
        fn rows_of_a_batch_are_those_of_the_whole(n in 1u32..80, order in orders(), index in 0u64..20) {
            let (_dir, dataset) = counting(n);
            let loader = loader(&dataset, 4, order);
            let whole = loader.batch_at(index);
            let first = |batch: &HostBatch, row| batch.inputs.row(row)[0];
            for row in 0..4 {
                prop_assert_eq!(first(&loader.rows_at(index, row..row + 1), 0), first(&whole, row));
            }
        }

        #[test]
        fn a_group_is_a_run_of_lengths(n in 1u32..120, rows in 1usize..6, groups in 1usize..6) {
            let (_dir, dataset) = counting(n);
            let by = LengthGroups { rows, groups };
            let loader = loader(&dataset, rows, RecordOrder::EpochsByLength(by));
            for index in 0..n as u64 {
                let samples = loader.samples(index);
                let chunk = loader.chunk(samples.start, by);
                // A batch that an epoch's end divides is no group.
                if samples.end > chunk.end || samples.start < chunk.start {
                    continue;
                }
                let length = |record: &u64| dataset.length(*record);
                let inside = loader.records_of(index);
                let (low, high) = (inside.iter().map(length).min(), inside.iter().map(length).max());
                let arranged = loader.arranged(chunk, by);
                let outside = arranged.iter().filter(|record| !inside.contains(record));
                let between = outside.map(length).filter(|&length| Some(length) > low && Some(length) < high);
                prop_assert_eq!(between.count(), 0);
            }
        }
    }
}
