//! Samples for the tests of collators.

use super::Sample;
use crate::records::Record;
use crate::seed::Seed;

/// Samples with streams of their own.
pub(super) fn samples<T>(data: impl IntoIterator<Item = T>) -> Vec<Sample<T>> {
    let seeds = (0..).map(|row| Seed::new(1).at(row));
    data.into_iter().zip(seeds).map(|(data, seed)| Sample { data, seed }).collect()
}

/// A record with one column of ids.
pub(super) fn of_ids(ids: &[u32]) -> Record<'static> {
    Record::default().with_ids(crate::records::columns::IDS, ids.to_vec())
}
