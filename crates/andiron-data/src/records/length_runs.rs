//! Records by length, with those of one length in an order of their own in each epoch.

use std::cmp::Reverse;
use std::ops::Range;

use crate::seed::Seed;

/// Records, the longest first, and their runs of one length.
///
/// A plan names a record by its place in this list. Which record of a run has the place is drawn anew in each epoch, so that a
/// plan made once from the lengths mixes records differently each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LengthRuns {
    /// The records, the longest first.
    records: Vec<u64>,
    /// For each length, its records as a range of `records`.
    runs: Vec<Range<u64>>,
}

impl LengthRuns {
    /// Of the records 0 to `n`, whose lengths `length` gives.
    pub(super) fn new<L: Ord>(n: u64, length: impl Fn(u64) -> L) -> Self {
        let mut records: Vec<u64> = (0..n).collect();
        records.sort_by_key(|&record| Reverse(length(record)));
        let mut runs: Vec<Range<u64>> = Vec::new();
        for (place, &record) in (0..).zip(&records) {
            match runs.last_mut() {
                Some(run) if length(records[run.start as usize]) == length(record) => run.end = place + 1,
                _ => runs.push(place..place + 1),
            }
        }
        Self { records, runs }
    }

    /// The records, the longest first, as they are before an epoch shuffles them.
    pub(super) fn records(&self) -> &[u64] {
        &self.records
    }

    /// The runs, as places.
    pub(super) fn runs(&self) -> &[Range<u64>] {
        &self.runs
    }

    /// The record that has a place, in an epoch of this seed.
    ///
    /// # Panics
    /// If there is no such place.
    pub(super) fn record(&self, place: u64, epoch: Option<Seed>) -> u64 {
        let Some(seed) = epoch else { return self.records[place as usize] };
        let run = &self.runs[self.runs.partition_point(|run| run.end <= place)];
        let drawn = seed.at(run.start).permute(place - run.start, run.end - run.start);
        self.records[(run.start + drawn) as usize]
    }
}
