//! The batches of one process, as a source of its own.

use std::ops::Range;
use std::sync::Arc;

use andiron_data::batch::HostBatch;
use andiron_data::loader::{BatchSource, EpochLength};

use super::division::Part;

/// A process's part of each step, so that workers make nothing else. The parts of the first step are its first batches.
#[derive(Debug)]
pub(crate) struct OwnBatches {
    source: Arc<dyn BatchSource>,
    /// Never empty.
    parts: Vec<Part>,
    /// Batches of the source in a step.
    per_step: u64,
    /// Rows of a batch that is not divided.
    rows: usize,
}

impl OwnBatches {
    /// Of steps of `per_step` batches. The part `0..rows` is a whole batch, however many rows that has.
    pub(crate) fn new(source: Arc<dyn BatchSource>, parts: Vec<Part>, per_step: u64, rows: usize) -> Self {
        Self { source, parts, per_step, rows }
    }

    /// The own batches of a step, counted from 0.
    pub(crate) fn of_step(&self, step: u64) -> Range<u64> {
        let parts = self.parts.len() as u64;
        step * parts..(step + 1) * parts
    }

    /// Where the rows of each step begin.
    pub(crate) fn first(&self) -> &Part {
        &self.parts[0]
    }

    /// A batch of the source, and the part of it.
    fn part(&self, index: u64) -> (u64, &Part) {
        let (step, at) = (index / self.parts.len() as u64, index % self.parts.len() as u64);
        let part = &self.parts[at as usize];
        (step * self.per_step + part.batch, part)
    }

    fn is_whole(&self, part: &Part) -> bool {
        part.rows == (0..self.rows)
    }
}

impl BatchSource for OwnBatches {
    fn batch_at(&self, index: u64) -> HostBatch {
        match self.part(index) {
            (batch, part) if self.is_whole(part) => self.source.batch_at(batch),
            (batch, part) => self.source.rows_at(batch, part.rows.clone()),
        }
    }

    fn rows_at(&self, index: u64, rows: Range<usize>) -> HostBatch {
        let (batch, part) = self.part(index);
        self.source.rows_at(batch, part.rows.start + rows.start..part.rows.start + rows.end)
    }

    fn n_batches(&self) -> Option<u64> {
        Some(self.source.n_batches()? / self.per_step * self.parts.len() as u64)
    }

    fn n_rows_at(&self, index: u64) -> u64 {
        match self.part(index) {
            (batch, part) if self.is_whole(part) => self.source.n_rows_at(batch),
            (_, part) => part.rows.len() as u64,
        }
    }

    fn epoch(&self) -> Option<EpochLength> {
        None
    }
}

#[cfg(test)]
mod tests {
    use andiron_data::batch::Sequences;

    use super::super::division::{Unit, part_of};
    use super::super::threads::on_threads;
    use super::*;

    /// Batch `b` has the rows `10 b`, `10 b + 1`, …, as many as `b` is told.
    #[derive(Debug)]
    struct Numbered(fn(u64) -> usize);

    impl BatchSource for Numbered {
        fn batch_at(&self, index: u64) -> HostBatch {
            self.rows_at(index, 0..self.0(index))
        }

        fn rows_at(&self, index: u64, rows: Range<usize>) -> HostBatch {
            let n = rows.len();
            let ids: Vec<u32> = rows.map(|row| 10 * index as u32 + row as u32).collect();
            HostBatch::tokens(Sequences::full(ids, [n, 1]), vec![0; n], vec![1.0; n])
        }

        fn n_batches(&self) -> Option<u64> {
            Some(7)
        }

        fn n_rows_at(&self, index: u64) -> u64 {
            self.0(index) as u64
        }

        fn epoch(&self) -> Option<EpochLength> {
            None
        }
    }

    /// The rows of each process in the second step of two batches.
    fn second_step(size: usize, rows_of: fn(u64) -> usize, unit: Unit) -> Vec<Vec<u32>> {
        on_threads(size, |ranks| {
            let parts = part_of(ranks, 2, 3, unit).unwrap();
            let own = OwnBatches::new(Arc::new(Numbered(rows_of)), parts, 2, 3);
            assert_eq!(own.n_batches(), Some(3 * own.parts.len() as u64));
            let batches = own.of_step(1).map(|index| {
                let batch = own.batch_at(index);
                assert_eq!(batch.inputs.rows as u64, own.n_rows_at(index));
                assert_eq!(own.rows_at(index, 0..1).inputs.ids[0], batch.inputs.ids[0]);
                batch.inputs.ids
            });
            batches.flatten().collect()
        })
    }

    #[test]
    fn the_own_batches_of_a_step_are_its_rows_in_order() {
        let equal = |_| 3;
        assert_eq!(second_step(1, equal, Unit::Row), [[20, 21, 22, 30, 31, 32]]);
        assert_eq!(second_step(2, equal, Unit::Row), [[20, 21, 22], [30, 31, 32]]);
        assert_eq!(second_step(4, equal, Unit::Row), [vec![20], vec![21, 22], vec![30], vec![31, 32]]);
    }

    #[test]
    fn batches_that_are_not_divided_may_differ_in_their_rows() {
        let growing = |index| 1 + index as usize;
        assert_eq!(second_step(2, growing, Unit::Batch), [vec![20, 21, 22], vec![30, 31, 32, 33]]);
    }
}
