//! Next-token prediction: the target of a position is the id after it.

use crate::batch::HostBatch;

/// Collates sequences into batches for next-token prediction.
///
/// # Example
/// ```
/// use andiron_data::collate::Causal;
/// let batch = Causal { columns: 3, pad: 0 }.collate(&[[5, 6, 7, 8].as_slice(), &[1, 2]]);
/// assert_eq!(batch.ids, [5, 6, 7, 1, 0, 0]);
/// assert_eq!(batch.targets, [6, 7, 8, 2, 0, 0]);
/// assert_eq!(batch.weights, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Causal {
    /// Positions in a row; a sequence of `columns + 1` ids fills it.
    pub columns: usize,
    /// The padding id, with weight 0.
    pub pad: u32,
}

impl Causal {
    /// One row per sequence. The last id of a sequence is only a target; a sequence with fewer than two ids gives a row
    /// of padding.
    ///
    /// # Panics
    /// If a sequence has more than `columns + 1` ids.
    pub fn collate<S: AsRef<[u32]>>(&self, sequences: &[S]) -> HostBatch {
        let mut batch = HostBatch::padding(sequences.len(), self.columns, self.pad);
        for (row, sequence) in sequences.iter().enumerate() {
            let sequence = sequence.as_ref();
            let n = sequence.len().saturating_sub(1);
            assert!(n <= self.columns, "{} ids do not fit {} columns", sequence.len(), self.columns);
            let at = row * self.columns..row * self.columns + n;
            if n > 0 {
                batch.ids[at.clone()].copy_from_slice(&sequence[..n]);
                batch.targets[at.clone()].copy_from_slice(&sequence[1..]);
                batch.weights[at].fill(1.0);
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_without_a_target_is_padding() {
        let collator = Causal { columns: 2, pad: 4 };
        let batch = collator.collate(&[[].as_slice(), &[9]]);
        assert_eq!(batch, HostBatch::padding(2, 2, 4));
    }

    #[test]
    #[should_panic(expected = "4 ids do not fit 2 columns")]
    fn a_sequence_that_is_too_long_is_the_callers_mistake() {
        Causal { columns: 2, pad: 0 }.collate(&[[1, 2, 3, 4]]);
    }
}
