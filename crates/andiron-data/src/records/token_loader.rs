//! Batches of a bounded number of tokens, each a function of its index.
//!
//! An epoch is the batches of [`TokenBatches`], in an order of its own, and after it the next one begins.

use std::ops::Range;
use std::sync::Arc;

use super::{BatchBudget, RecordDataset, RecordTooLong, TokenBatches};
use crate::batch::HostBatch;
use crate::collate::{CollateRecords, Sample};
use crate::loader::{BatchSource, EpochLength, LoaderError};
use crate::seed::{COLLATE, LENGTHS, LOADER, Seed};

/// Makes batches of as many records as fit a number of tokens: few long ones, or many short ones.
///
/// Each record is read once per epoch, without end. Records of similar length come together, shuffled anew in each epoch.
#[derive(Clone, Debug)]
pub struct TokenLoader {
    dataset: Arc<RecordDataset>,
    collator: Arc<dyn CollateRecords>,
    plan: TokenBatches,
    order: Seed,
    rows: Seed,
}

impl TokenLoader {
    /// Plans the batches from the sizes of the records. `seed` is that of the run: the loader derives its own streams from it.
    ///
    /// # Errors
    /// If a batch has no records, the dataset has none, or one of them exceeds the tokens of a batch.
    pub fn new(
        dataset: Arc<RecordDataset>,
        collator: Arc<dyn CollateRecords>,
        budget: BatchBudget,
        seed: Seed,
    ) -> Result<Self, LoaderError> {
        if budget.tokens == 0 || budget.records == Some(0) {
            return Err(LoaderError::NoRows);
        }
        let n = dataset.n_records();
        if n == 0 {
            return Err(LoaderError::NoRecords { path: dataset.path().to_owned() });
        }
        let sizes: Vec<_> = (0..n).map(|record| collator.size(&dataset.record(record))).collect();
        let plan = TokenBatches::new(&sizes, budget).map_err(|RecordTooLong { record, needed }| {
            let path = dataset.path().to_owned();
            LoaderError::RecordTooLong { path, record, needed, tokens: budget.tokens }
        })?;
        Ok(Self { dataset, collator, plan, order: seed.derive(LOADER), rows: seed.derive(COLLATE) })
    }

    /// The dataset it reads.
    pub fn dataset(&self) -> &Arc<RecordDataset> {
        &self.dataset
    }

    /// Which records form a batch.
    pub fn plan(&self) -> &TokenBatches {
        &self.plan
    }

    /// Indices of the records in the batch with an index.
    pub fn records_of(&self, index: u64) -> Vec<u64> {
        let (epoch, batch) = self.place(index);
        self.plan.batch(batch, Some(epoch.derive(LENGTHS))).collect()
    }

    /// The seed of the epoch of a batch, and its number in the plan.
    fn place(&self, index: u64) -> (Seed, u64) {
        let n = self.plan.n_batches();
        let epoch = self.order.at(index / n);
        (epoch, epoch.permute(index % n, n))
    }
}

impl BatchSource for TokenLoader {
    fn batch_at(&self, index: u64) -> HostBatch {
        self.rows_at(index, 0..self.n_rows_at(index) as usize)
    }

    fn rows_at(&self, index: u64, rows: Range<usize>) -> HostBatch {
        let seed = self.rows.at(index);
        let sample = |(at, record)| Sample { data: self.dataset.record(record), seed: seed.at(at) };
        let records: Vec<Sample<_>> = (0..).zip(self.records_of(index)).map(sample).collect();
        self.collator.collate(&records[rows])
    }

    fn n_batches(&self) -> Option<u64> {
        None
    }

    fn n_rows_at(&self, index: u64) -> u64 {
        self.plan.n_records(self.place(index).1)
    }

    fn epoch(&self) -> Option<EpochLength> {
        Some(EpochLength { rows: self.plan.n_batches(), rows_per_batch: 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collate::{Contrastive, Seq2Seq, Supervised};
    use crate::records::{ColumnType, Record, RecordWriter, columns};

    /// The dataset of these records.
    fn dataset(
        columns: &[(&str, ColumnType)],
        records: &[Record<'_>],
    ) -> (tempfile::TempDir, Arc<RecordDataset>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let mut writer = RecordWriter::create(&path, columns, serde_json::Value::Null).unwrap();
        records.iter().for_each(|record| writer.push(record).unwrap());
        writer.finish().unwrap();
        let dataset = Arc::new(RecordDataset::open(&path).unwrap());
        (dir, dataset)
    }

    fn loader(
        dataset: &Arc<RecordDataset>,
        collator: impl CollateRecords + 'static,
        tokens: u64,
    ) -> Result<TokenLoader, LoaderError> {
        let budget = BatchBudget { tokens, records: None };
        TokenLoader::new(dataset.clone(), Arc::new(collator), budget, Seed::new(7))
    }

    fn length(record: u32) -> usize {
        2 + (record * 7919 % 60) as usize
    }

    fn texts(n: u32) -> (tempfile::TempDir, Arc<RecordDataset>) {
        let of_types = [(columns::IDS, ColumnType::Ids), (columns::WEIGHTS, ColumnType::Numbers)];
        let text = |record| {
            let ids = Record::default().with_ids(columns::IDS, vec![record; length(record)]);
            ids.with_numbers(columns::WEIGHTS, vec![1.0; length(record)])
        };
        dataset(&of_types, &(0..n).map(text).collect::<Vec<_>>())
    }

    #[test]
    fn every_record_comes_once_an_epoch_in_other_company() {
        let (_dir, dataset) = texts(200);
        let loader = loader(&dataset, Supervised { limit: 100, pad: 999 }, 256).unwrap();
        let per_epoch = loader.epoch().unwrap().rows;
        let epoch = |number: u64| -> Vec<Vec<u64>> {
            (number * per_epoch..(number + 1) * per_epoch).map(|index| loader.records_of(index)).collect()
        };
        let [first, second] = [0, 1].map(epoch);
        for batches in [&first, &second] {
            let mut all = batches.concat();
            all.sort_unstable();
            assert_eq!(all, (0..200).collect::<Vec<_>>());
        }
        let sorted = |batches: &[Vec<u64>]| -> Vec<Vec<u64>> {
            let mut batches = batches.to_vec();
            batches.iter_mut().for_each(|batch| batch.sort_unstable());
            batches.sort();
            batches
        };
        assert_ne!(sorted(&first), sorted(&second));
        for index in 0..2 * per_epoch {
            let batch = loader.batch_at(index);
            assert!(batch.inputs.ids.len() <= 256, "{} positions", batch.inputs.ids.len());
            assert_eq!(batch.inputs.rows as u64, loader.n_rows_at(index));
        }
    }

    #[test]
    fn batches_have_little_padding() {
        let (_dir, dataset) = texts(2000);
        let loader = loader(&dataset, Supervised { limit: 100, pad: 9999 }, 1024).unwrap();
        let batches: Vec<_> = (0..loader.plan().n_batches()).map(|index| loader.batch_at(index)).collect();
        let positions: usize = batches.iter().map(|batch| batch.inputs.ids.len()).sum();
        let tokens: usize = (0..2000).map(|record| length(record) - 1).sum();
        assert!(tokens as f64 > 0.93 * positions as f64, "{tokens} of {positions}");
        assert!(positions as f64 > 0.9 * 1024.0 * batches.len() as f64);
    }

    #[test]
    fn the_longer_side_and_all_texts_count() {
        let of_types = [(columns::IDS, ColumnType::Ids), (columns::TARGET_IDS, ColumnType::Ids)];
        let pair =
            Record::default().with_ids(columns::IDS, vec![1; 3]).with_ids(columns::TARGET_IDS, vec![1; 11]);
        let (_dir, pairs) = dataset(&of_types, &[pair]);
        let seq2seq = Seq2Seq { decoder_start: 0, pad: 0 };
        assert!(loader(&pairs, seq2seq, 11).is_ok());
        let error = loader(&pairs, seq2seq, 10).unwrap_err().to_string();
        assert!(
            error.contains("record 0") && error.contains("takes 11 tokens and a batch has 10"),
            "{error}"
        );

        let of_types = [(columns::IDS, ColumnType::Ids), (columns::LENGTHS, ColumnType::Ids)];
        let texts =
            Record::default().with_ids(columns::IDS, vec![1; 9]).with_ids(columns::LENGTHS, vec![2, 4, 3]);
        let (_dir, texts) = dataset(&of_types, &[texts]);
        let contrastive = Contrastive { size: 3, pad: 0 };
        assert!(loader(&texts, contrastive, 12).is_ok() && loader(&texts, contrastive, 11).is_err());
    }
}
