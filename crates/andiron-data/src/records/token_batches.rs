//! Which records form a batch of a bounded number of tokens, computed from their sizes alone.
//!
//! Records are sorted into buckets of about one length, the longest first, and a batch takes as many as fit. A plan says how
//! many records of which buckets stand in a batch; which records of a bucket these are is drawn anew in each epoch. So batches
//! mix records differently from epoch to epoch, and yet every epoch has the same number of batches: a batch stays a function
//! of its number.
//!
//! fairseq 0.12 (`--max-tokens`) counts in the same way, rows times the longest one, and of an encoder-decoder the longer side;
//! it sorts by the exact length, so that its batches hold the same records in every epoch.

use super::length_runs::LengthRuns;
use crate::seed::Seed;

/// The shortest bucket, in positions.
const SHORTEST: u32 = 8;

/// What a record takes in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSize {
    /// Rows: one, or one for each of its texts.
    pub rows: u32,
    /// Positions of its longest row.
    pub columns: u32,
}

/// How large a batch may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchBudget {
    /// Positions at most, padding included: rows times the longest.
    pub tokens: u64,
    /// Records at most.
    pub records: Option<usize>,
}

/// A record that takes more than a batch may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordTooLong {
    /// The record.
    pub record: u64,
    /// The positions that it takes.
    pub needed: u64,
}

/// Which records form a batch.
///
/// It takes 8 bytes per record and 8 per batch.
///
/// # Example
/// ```
/// use andiron_data::records::{BatchBudget, RecordSize, TokenBatches};
/// let sizes: Vec<_> = [20, 3, 5, 20, 4].map(|columns| RecordSize { rows: 1, columns }).into();
/// let batches = TokenBatches::new(&sizes, BatchBudget { tokens: 40, records: None }).unwrap();
/// let all: Vec<Vec<u64>> = (0..batches.n_batches()).map(|index| batches.batch(index, None).collect()).collect();
/// assert_eq!(all, [vec![0, 3], vec![1, 2, 4]]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBatches {
    records: LengthRuns,
    /// The first place of each batch, and at the end the number of records.
    starts: Vec<u64>,
}

impl TokenBatches {
    /// Plans batches of records of these sizes.
    ///
    /// # Errors
    /// With the first record that exceeds the budget alone.
    pub fn new(sizes: &[RecordSize], budget: BatchBudget) -> Result<Self, RecordTooLong> {
        let too_long = (0..).zip(sizes).find(|(_, size)| positions(**size) > budget.tokens);
        if let Some((record, &size)) = too_long {
            return Err(RecordTooLong { record, needed: positions(size) });
        }
        let longest = sizes.iter().map(|size| size.columns).max().unwrap_or(0);
        let bounds = bucket_bounds(longest);
        let bucket = |record: u64| {
            let RecordSize { rows, columns } = sizes[record as usize];
            (bounds.partition_point(|&bound| bound < columns), rows)
        };
        let records = LengthRuns::new(sizes.len() as u64, bucket);
        let most = budget.records.map_or(u64::MAX, |records| records.max(1) as u64);
        let mut starts = vec![0];
        let (mut rows, mut columns) = (0, 0);
        for run in records.runs() {
            // Any record of a run may take any place of it.
            let of_run = &records.records()[run.start as usize..run.end as usize];
            let size = |&record: &u64| sizes[record as usize];
            let widest =
                of_run.iter().map(|record| u64::from(size(record).columns)).max().unwrap_or(0).max(1);
            let rows_each = u64::from(size(&of_run[0]).rows);
            for place in run.clone() {
                let first = starts.last().copied().unwrap_or(0);
                let (with_it, at_most) = (rows + rows_each, columns.max(widest));
                if place > first && (with_it * at_most > budget.tokens || place - first >= most) {
                    starts.push(place);
                    (rows, columns) = (rows_each, widest);
                } else {
                    (rows, columns) = (with_it, at_most);
                }
            }
        }
        if !sizes.is_empty() {
            starts.push(sizes.len() as u64);
        }
        Ok(Self { records, starts })
    }

    /// Number of batches in an epoch.
    pub fn n_batches(&self) -> u64 {
        self.starts.len() as u64 - 1
    }

    /// Number of records in a batch.
    ///
    /// # Panics
    /// If there is no such batch.
    pub fn n_records(&self, index: u64) -> u64 {
        self.starts[index as usize + 1] - self.starts[index as usize]
    }

    /// The records of a batch. With the seed of an epoch, those of a bucket are shuffled.
    ///
    /// # Panics
    /// If there is no such batch.
    pub fn batch(&self, index: u64, epoch: Option<Seed>) -> impl Iterator<Item = u64> {
        let places = self.starts[index as usize]..self.starts[index as usize + 1];
        places.map(move |place| self.records.record(place, epoch))
    }
}

/// Positions of a record alone.
fn positions(RecordSize { rows, columns }: RecordSize) -> u64 {
    u64::from(rows) * u64::from(columns.max(1))
}

/// The longest lengths of the buckets: each is a tenth longer than the one before, so that padding to the longest record of a
/// bucket is less than a tenth. Source: Vaswani et al. 2018, "Tensor2Tensor for Neural Machine Translation"
/// (`length_bucket_step`), <https://arxiv.org/abs/1803.07416>.
fn bucket_bounds(longest: u32) -> Vec<u32> {
    let mut bounds = vec![SHORTEST];
    while let Some(&last) = bounds.last()
        && last < longest
    {
        bounds.push(last.saturating_add((last / 10).max(1)));
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(columns: &[u32]) -> Vec<RecordSize> {
        columns.iter().map(|&columns| RecordSize { rows: 1, columns }).collect()
    }

    fn batches(plan: &TokenBatches, epoch: Option<Seed>) -> Vec<Vec<u64>> {
        (0..plan.n_batches()).map(|index| plan.batch(index, epoch).collect()).collect()
    }

    #[test]
    fn a_record_that_exceeds_a_batch_is_named() {
        let too_long = TokenBatches::new(&of(&[4, 41, 50]), BatchBudget { tokens: 40, records: None });
        assert_eq!(too_long, Err(RecordTooLong { record: 1, needed: 41 }));
        let pairs = [RecordSize { rows: 2, columns: 21 }];
        let too_long = TokenBatches::new(&pairs, BatchBudget { tokens: 40, records: None });
        assert_eq!(too_long, Err(RecordTooLong { record: 0, needed: 42 }));
    }

    #[test]
    fn a_batch_has_at_most_as_many_records_as_are_allowed() {
        let plan = TokenBatches::new(&of(&[2; 7]), BatchBudget { tokens: 1000, records: Some(3) }).unwrap();
        assert_eq!(batches(&plan, None), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
        assert_eq!(plan.n_records(2), 1);
    }

    #[test]
    fn buckets_grow_by_a_tenth() {
        assert_eq!(bucket_bounds(0), [8]);
        assert_eq!(bucket_bounds(24), [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 24]);
        let bounds = bucket_bounds(8192);
        assert!(bounds.len() < 80 && bounds.last() >= Some(&8192), "{bounds:?}");
    }

    proptest! {
        #[test]
        fn each_record_is_in_one_batch_and_no_batch_exceeds_the_budget(
            columns in prop::collection::vec(0u32..300, 0..200),
            rows in 1u32..3,
            tokens in 600u64..3000,
            records in prop::option::of(1usize..20),
            epoch: u64,
        ) {
            let sizes: Vec<_> = columns.iter().map(|&columns| RecordSize { rows, columns }).collect();
            let plan = TokenBatches::new(&sizes, BatchBudget { tokens, records }).unwrap();
            let all = [None, Some(Seed::new(epoch))].map(|epoch| batches(&plan, epoch));
            for batches in &all {
                let mut seen = batches.concat();
                seen.sort_unstable();
                prop_assert_eq!(seen, (0..sizes.len() as u64).collect::<Vec<_>>());
                let size = |batch: &Vec<u64>| {
                    let of_batch = || batch.iter().map(|&record| sizes[record as usize]);
                    let rows: u32 = of_batch().map(|size| size.rows).sum();
                    u64::from(rows) * u64::from(of_batch().map(|size| size.columns).max().unwrap_or(0))
                };
                prop_assert!(batches.iter().all(|batch| !batch.is_empty() && size(batch) <= tokens));
                prop_assert!(batches.iter().all(|batch| records.is_none_or(|most| batch.len() <= most)));
            }
            let sizes = |batches: &Vec<Vec<u64>>| batches.iter().map(Vec::len).collect::<Vec<_>>();
            prop_assert_eq!(sizes(&all[0]), sizes(&all[1]));
        }
    }
}
