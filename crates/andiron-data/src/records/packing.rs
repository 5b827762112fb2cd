//! Which records share a row: best-fit decreasing bin packing, computed from the lengths alone.
//!
//! A plan says which lengths stand in a row together; which record of a length that is, is drawn anew in each epoch. So rows
//! mix records differently from epoch to epoch, and yet every epoch has the same number of rows: a batch stays a function of
//! its number.
//!
//! Source: Johnson et al. 1974, "Worst-Case Performance Bounds for Simple One-Dimensional Packing Algorithms",
//! <https://doi.org/10.1137/0203025>; for texts Ding et al. 2024, "Fewer Truncations Improve Language Modeling",
//! <https://arxiv.org/abs/2404.10830>.

use std::collections::BTreeSet;

use super::length_runs::LengthRuns;
use crate::seed::Seed;

/// Which records share a row.
///
/// It takes 16 bytes per record and 8 per row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    records: LengthRuns,
    /// Places of records, row by row.
    places: Vec<u64>,
    /// The first of each row's `places`, and at the end their number.
    rows: Vec<u64>,
}

impl Packing {
    /// Packs records of these lengths into rows of at most `capacity`. Of rows that a record fits, it takes one with the least
    /// room left. A longer record counts as one that fills a row.
    pub fn new(lengths: impl ExactSizeIterator<Item = u64>, capacity: u64) -> Self {
        let lengths: Vec<u64> = lengths.map(|length| length.min(capacity)).collect();
        let runs = LengthRuns::new(lengths.len() as u64, |record| lengths[record as usize]);
        let records = runs.records();
        // Rows by the room that is left in them.
        let mut open: Vec<Vec<u64>> = Vec::new();
        let mut rooms = BTreeSet::new();
        let mut row_of = Vec::with_capacity(records.len());
        let mut n_rows = 0u64;
        for &record in records {
            let length = lengths[record as usize];
            let room = rooms.range(length..).next().copied();
            let row = match room.and_then(|room| Some((room, open[room as usize].pop()?))) {
                Some((room, row)) => {
                    if open[room as usize].is_empty() {
                        rooms.remove(&room);
                    }
                    (row, room - length)
                }
                None => {
                    n_rows += 1;
                    (n_rows - 1, capacity - length)
                }
            };
            let (row, room) = row;
            if open.len() <= room as usize {
                open.resize(room as usize + 1, Vec::new());
            }
            open[room as usize].push(row);
            rooms.insert(room);
            row_of.push(row);
        }
        let mut rows = vec![0; n_rows as usize + 1];
        row_of.iter().for_each(|&row| rows[row as usize + 1] += 1);
        (0..n_rows as usize).for_each(|row| rows[row + 1] += rows[row]);
        let mut next = rows.clone();
        let mut places = vec![0; records.len()];
        for (place, &row) in (0..).zip(&row_of) {
            places[next[row as usize] as usize] = place;
            next[row as usize] += 1;
        }
        Self { records: runs, places, rows }
    }

    /// Number of rows.
    pub fn n_rows(&self) -> u64 {
        self.rows.len() as u64 - 1
    }

    /// The records of a row, the longest first. With the seed of an epoch, records of one length are shuffled.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: u64, epoch: Option<Seed>) -> impl Iterator<Item = u64> {
        let [start, end] = [row, row + 1].map(|row| self.rows[row as usize] as usize);
        self.places[start..end].iter().map(move |&place| self.records.record(place, epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(packing: &Packing, epoch: Option<Seed>) -> Vec<Vec<u64>> {
        (0..packing.n_rows()).map(|row| packing.row(row, epoch).collect()).collect()
    }

    #[test]
    fn a_record_goes_where_the_least_room_is_left() {
        let lengths = [3u64, 5, 4, 2, 6, 1, 0];
        let packing = Packing::new(lengths.into_iter(), 7);
        assert_eq!(rows(&packing, None), [vec![4, 5, 6], vec![1, 3], vec![2, 0]]);
    }

    #[test]
    fn a_record_that_is_too_long_fills_a_row() {
        let packing = Packing::new([9u64, 2, 7].into_iter(), 7);
        assert_eq!(rows(&packing, None), [vec![0], vec![2], vec![1]]);
        assert_eq!(Packing::new(std::iter::empty(), 7).n_rows(), 0);
    }

    /// The packing heuristic of TRL 1.16's `pack_dataset(strategy="bfd")`, run on these lengths, needs as many rows.
    #[test]
    fn most_rows_are_full() {
        let lengths = (0..2000u64).map(|i| 1 + i * 7919 % 397 * (i % 3) / 2);
        let total: u64 = lengths.clone().sum();
        let packing = Packing::new(lengths.collect::<Vec<_>>().into_iter(), 512);
        assert_eq!(packing.n_rows(), total.div_ceil(512));
    }

    proptest! {
        #[test]
        fn each_record_is_in_one_row_and_rows_have_room(
            lengths in prop::collection::vec(0u64..50, 0..200),
            capacity in 1u64..60,
            epoch: u64,
        ) {
            let packing = Packing::new(lengths.clone().into_iter(), capacity);
            let plain = rows(&packing, None);
            let shuffled = rows(&packing, Some(Seed::new(epoch)));
            for rows in [&plain, &shuffled] {
                let mut all = rows.concat();
                all.sort_unstable();
                prop_assert_eq!(all, (0..lengths.len() as u64).collect::<Vec<_>>());
                let length = |record: &u64| lengths[*record as usize].min(capacity);
                let filled: Vec<u64> = rows.iter().map(|row| row.iter().map(length).sum()).collect();
                prop_assert!(filled.iter().all(|&filled| filled <= capacity));
                // No two rows fit into one.
                let mut least = filled;
                least.sort_unstable();
                prop_assert!(least.len() < 2 || least[0] + least[1] > capacity || least[0] == 0);
            }
            let lengths_of = |rows: &[Vec<u64>]| -> Vec<Vec<u64>> {
                rows.iter().map(|row| row.iter().map(|&record| lengths[record as usize].min(capacity)).collect()).collect()
            };
            prop_assert_eq!(lengths_of(&plain), lengths_of(&shuffled));
        }
    }
}
