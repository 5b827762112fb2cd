//! Next-token prediction: the target of a position is the id after it.

use super::{CollateWindows, Sample};
use crate::batch::{HostBatch, Sequences, padded};

/// Collates sequences into batches for next-token prediction.
///
/// # Example
/// ```
/// use andiron_data::collate::Causal;
/// let batch = Causal { columns: 3, pad: 0 }.batch(&[[5, 6, 7, 8].as_slice(), &[1, 2]]);
/// assert_eq!(batch.inputs.ids, [5, 6, 7, 1, 0, 0]);
/// let labels = batch.token_labels().unwrap();
/// assert_eq!(labels.ids, [6, 7, 8, 2, 0, 0]);
/// assert_eq!(labels.weights, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Causal {
    /// Positions in a row; a sequence of `columns + 1` ids fills it.
    pub columns: usize,
    /// The padding id, with weight 0. No position sees those after it, so that any id will do.
    pub pad: u32,
}

impl Causal {
    /// One row per sequence. The last id of a sequence is only a target; a sequence with fewer than two ids gives a row
    /// of padding.
    ///
    /// # Panics
    /// If a sequence has more than `columns + 1` ids.
    pub fn batch<S: AsRef<[u32]>>(&self, sequences: &[S]) -> HostBatch {
        let inputs = |ids: &'_ S| -> usize { ids.as_ref().len().saturating_sub(1) };
        let ids = padded(sequences.iter().map(|ids| &ids.as_ref()[..inputs(ids)]), self.columns, self.pad);
        let targets = padded(
            sequences.iter().map(|ids| &ids.as_ref()[ids.as_ref().len() - inputs(ids)..]),
            self.columns,
            self.pad,
        );
        let ones = vec![1.0; self.columns];
        let weights = padded(sequences.iter().map(|ids| &ones[..inputs(ids)]), self.columns, 0.0);
        HostBatch::tokens(Sequences::full(ids, [sequences.len(), self.columns]), targets, weights)
    }
}

impl CollateWindows for Causal {
    fn window(&self) -> usize {
        self.columns + 1
    }

    fn stride(&self) -> usize {
        self.columns
    }

    fn collate(&self, windows: &[Sample<Vec<u32>>]) -> HostBatch {
        let sequences: Vec<&[u32]> = windows.iter().map(|window| window.data.as_slice()).collect();
        self.batch(&sequences)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_without_a_target_is_padding() {
        let batch = Causal { columns: 2, pad: 4 }.batch(&[[].as_slice(), &[9]]);
        assert_eq!(batch, HostBatch::tokens(Sequences::full(vec![4; 4], [2, 2]), vec![4; 4], vec![0.0; 4]));
    }

    #[test]
    #[should_panic(expected = "3 values do not fit 2 columns")]
    fn a_sequence_that_is_too_long_is_the_callers_mistake() {
        Causal { columns: 2, pad: 0 }.batch(&[[1, 2, 3, 4]]);
    }
}
