//! Which rows of a step a process takes: a contiguous part of the step's one order of rows.

use std::ops::Range;

use super::Collective;
use crate::trainer::TrainError;

/// Rows of one batch of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The batch, counted from the first of the step.
    pub(crate) batch: u64,
    pub(crate) rows: Range<usize>,
}

/// What is never divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Rows are independent of each other.
    Row,
    /// The rows of a batch are compared with each other.
    Batch,
}

/// The part of this process of a step of `batches` batches of `rows` rows. The rows of a step are numbered batch by batch; process
/// `r` of `n` takes those from `r / n` of them to `(r + 1) / n`, so that parts differ by one unit at most. Where the number of
/// batches is a multiple of that of processes, each takes whole batches.
///
/// # Errors
/// If there are more processes than units.
pub(crate) fn part_of(
    collective: &dyn Collective,
    batches: u64,
    rows: usize,
    unit: Unit,
) -> Result<Vec<Part>, TrainError> {
    let (rank, size) = (collective.rank() as u64, collective.size() as u64);
    let per_unit = match unit {
        Unit::Row => 1,
        Unit::Batch => rows as u64,
    };
    let units = batches * rows as u64 / per_unit;
    if units < size {
        let size = collective.size();
        return Err(match unit {
            Unit::Row => TrainError::FewRows { rows: units, size },
            Unit::Batch => TrainError::FewBatches { batches, size },
        });
    }
    let border = |rank: u64| rank * units / size * per_unit;
    let (mut at, end) = (border(rank), border(rank + 1));
    let mut parts = Vec::new();
    while at < end {
        let batch = at / rows as u64;
        let first = batch * rows as u64;
        let until = end.min(first + rows as u64);
        parts.push(Part { batch, rows: (at - first) as usize..(until - first) as usize });
        at = until;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::super::threads::on_threads;
    use super::*;

    /// The parts of all processes, such as `"0:0-3 1:0-1 | 1:1-3"`.
    fn parts(size: usize, batches: u64, rows: usize, unit: Unit) -> String {
        let of_rank = on_threads(size, |ranks| {
            let parts = part_of(ranks, batches, rows, unit).unwrap();
            let one = |part: &Part| format!("{}:{}-{}", part.batch, part.rows.start, part.rows.end);
            parts.iter().map(one).collect::<Vec<_>>().join(" ")
        });
        of_rank.join(" | ")
    }

    #[test]
    fn parts_follow_each_other_in_the_order_of_rows() {
        assert_eq!(parts(1, 2, 3, Unit::Row), "0:0-3 1:0-3");
        assert_eq!(parts(2, 2, 3, Unit::Row), "0:0-3 | 1:0-3");
        assert_eq!(parts(4, 1, 6, Unit::Row), "0:0-1 | 0:1-3 | 0:3-4 | 0:4-6");
        assert_eq!(parts(2, 3, 3, Unit::Row), "0:0-3 1:0-1 | 1:1-3 2:0-3");
        assert_eq!(parts(4, 2, 3, Unit::Row), "0:0-1 | 0:1-3 | 1:0-1 | 1:1-3");
    }

    #[test]
    fn rows_that_are_compared_stay_together() {
        assert_eq!(parts(2, 3, 4, Unit::Batch), "0:0-4 | 1:0-4 2:0-4");
        assert_eq!(parts(3, 3, 4, Unit::Batch), "0:0-4 | 1:0-4 | 2:0-4");
    }

    #[test]
    fn more_processes_than_rows_are_an_error() {
        let error = |batches, rows, unit| {
            on_threads(4, |ranks| part_of(ranks, batches, rows, unit).unwrap_err().to_string()).remove(3)
        };
        let rows = error(1, 3, Unit::Row);
        assert!(rows.contains("3 rows") && rows.contains("4 processes"), "{rows}");
        let batches = error(2, 8, Unit::Batch);
        assert!(batches.contains("run.accumulate"), "{batches}");
    }
}
