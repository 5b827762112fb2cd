//! Edit distance of words, computed in a band around the diagonal of the matrix.

/// Cells beside the diagonal, on each side.
const BEAM: usize = 25;

/// The cost of a cell that is not computed.
const UNKNOWN: u32 = u32::MAX / 2;

/// How a cell was reached, from the prediction's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// The words are equal.
    Same,
    /// One word in the place of another.
    Replace,
    /// A word of the prediction goes.
    Delete,
    /// A word of the reference comes.
    Insert,
}

/// The cells of a row that are computed: those of the reference's prefixes from `first` on.
#[derive(Clone, Debug)]
struct Row {
    first: usize,
    costs: Vec<u32>,
    edits: Vec<Edit>,
}

impl Row {
    fn cost(&self, column: usize) -> u32 {
        column.checked_sub(self.first).and_then(|at| self.costs.get(at)).copied().unwrap_or(UNKNOWN)
    }
}

/// The matrix of a prediction and a reference: a row for each prefix of the prediction.
#[derive(Clone, Debug)]
pub(super) struct Matrix<'a> {
    prediction: Vec<u32>,
    reference: &'a [u32],
    rows: Vec<Row>,
}

impl<'a> Matrix<'a> {
    pub(super) fn new(prediction: Vec<u32>, reference: &'a [u32]) -> Self {
        let n = reference.len();
        let first = Row { first: 0, costs: (0..=n as u32).collect(), edits: vec![Edit::Insert; n + 1] };
        let mut rows = vec![first];
        for number in 1..=prediction.len() {
            let row = row(&prediction, reference, number, &rows[number - 1]);
            rows.push(row);
        }
        Self { prediction, reference, rows }
    }

    /// The words of the prediction.
    pub(super) fn prediction(&self) -> &[u32] {
        &self.prediction
    }

    /// The number of edits.
    pub(super) fn distance(&self) -> u32 {
        self.rows[self.prediction.len()].cost(self.reference.len())
    }

    /// The number of edits of another prediction of the same length, whose rows are only computed from the first word that differs.
    pub(super) fn distance_of(&self, other: &[u32]) -> u32 {
        let same = self.prediction.iter().zip(other).take_while(|(a, b)| a == b).count();
        let mut last = None;
        for number in same + 1..=other.len() {
            let above = last.as_ref().unwrap_or(&self.rows[same]);
            last = Some(row(other, self.reference, number, above));
        }
        last.as_ref().unwrap_or(&self.rows[same]).cost(self.reference.len())
    }

    /// The edits, from the beginning on.
    pub(super) fn edits(&self) -> Vec<Edit> {
        let (mut row, mut column) = (self.prediction.len(), self.reference.len());
        let mut edits = Vec::new();
        while row > 0 || column > 0 {
            let of_row = &self.rows[row];
            let edit = of_row.edits[column - of_row.first];
            edits.push(edit);
            row -= usize::from(edit != Edit::Insert);
            column -= usize::from(edit != Edit::Delete);
        }
        edits.reverse();
        edits
    }
}

/// The row of the first `number` words of a prediction, from the row above it.
fn row(prediction: &[u32], reference: &[u32], number: usize, above: &Row) -> Row {
    let (rows, columns) = (prediction.len(), reference.len());
    let ratio = columns as f64 / rows as f64;
    // Of very different lengths the bands of two rows would not overlap.
    let beam = if (BEAM as f64) < ratio / 2.0 { (ratio / 2.0 + BEAM as f64).ceil() as usize } else { BEAM };
    let diagonal = (number as f64 * ratio).floor() as usize;
    let first = diagonal.saturating_sub(beam);
    let end = if number == rows { columns + 1 } else { (columns + 1).min(diagonal + beam) };
    let word = prediction[number - 1];
    let mut row =
        Row { first, costs: Vec::with_capacity(end - first), edits: Vec::with_capacity(end - first) };
    let mut left = UNKNOWN;
    for column in first..end {
        // Of equal costs the first counts.
        let mut best = (UNKNOWN, Edit::Same);
        let mut offer = |cost: u32, edit| {
            if cost < best.0 {
                best = (cost, edit);
            }
        };
        if column > 0 {
            let same = word == reference[column - 1];
            let edit = if same { Edit::Same } else { Edit::Replace };
            offer(above.cost(column - 1) + u32::from(!same), edit);
        }
        offer(above.cost(column) + 1, Edit::Delete);
        offer(left + 1, Edit::Insert);
        row.costs.push(best.0);
        row.edits.push(best.1);
        left = best.0;
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_edits_a_replacement_counts_then_a_deletion() {
        let matrix = Matrix::new(vec![1, 2, 3], &[1, 4]);
        assert_eq!(matrix.distance(), 2);
        assert_eq!(matrix.edits(), [Edit::Same, Edit::Delete, Edit::Replace]);
        assert_eq!(matrix.distance_of(&[1, 4, 9]), 1);
        assert_eq!(matrix.distance_of(&[1, 2, 3]), 2);
        assert_eq!(Matrix::new(Vec::new(), &[7, 8]).edits(), [Edit::Insert; 2]);
    }
}
