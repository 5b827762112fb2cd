//! Supervised fine-tuning: next tokens with a weight each, so that only an assistant's answers are learned.
//!
//! Several short conversations are not packed into one row: they would attend to each other. That needs an attention mask and
//! positions by segment, which [`Sequences`](crate::batch::Sequences) does not express. With rows padded to the longest, a
//! batch of conversations of similar lengths loses little.

use super::{CollateRecords, Sample};
use crate::batch::{HostBatch, Sequences, TokenLabels};
use crate::records::{Record, columns};

/// Collates records of a text (`ids`) and the weight of each of its tokens as a target (`weights`).
///
/// # Example
/// ```
/// use andiron_data::collate::{CollateRecords as _, Sample, Supervised};
/// use andiron_data::records::{Record, columns};
/// use andiron_data::Seed;
/// let record =
///     Record::default().with_ids(columns::IDS, vec![5, 6, 7]).with_numbers(columns::WEIGHTS, vec![0.0, 0.0, 1.0]);
/// let batch = Supervised { limit: 100, pad: 0 }.collate(&[Sample { data: record, seed: Seed::new(0) }]);
/// assert_eq!(batch.inputs.ids, [5, 6]);
/// assert_eq!(batch.token_labels().unwrap().ids, [6, 7]);
/// assert_eq!(batch.token_labels().unwrap().weights, [0.0, 1.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supervised {
    /// Most ids of a text; a longer one is truncated on the right, as in TRL.
    pub limit: usize,
    /// The padding id, with weight 0. No position sees those after it.
    pub pad: u32,
}

impl CollateRecords for Supervised {
    /// # Panics
    /// If a record has not a weight for each id.
    fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch {
        let rows: Vec<_> = records
            .iter()
            .map(|Sample { data, .. }| {
                let (ids, weights) = (data.ids(columns::IDS), data.numbers(columns::WEIGHTS));
                assert_eq!(ids.len(), weights.len(), "a weight for each id");
                (ids, weights)
            })
            .collect();
        let (inputs, labels) = next_tokens(&rows, self.limit, self.pad);
        HostBatch::tokens(inputs, labels.ids, labels.weights)
    }
}

/// Inputs and labels for predicting each id from those before it: the last id is only a target, the first only an input.
/// Rows are truncated to `limit` ids and padded to the longest.
pub(super) fn next_tokens(rows: &[(&[u32], &[f32])], limit: usize, pad: u32) -> (Sequences, TokenLabels) {
    let kept = |ids: &[u32]| ids.len().min(limit);
    let inputs: Vec<&[u32]> = rows.iter().map(|(ids, _)| &ids[..kept(ids).saturating_sub(1)]).collect();
    let targets = |&(ids, weights): &(&'_ [u32], &'_ [f32])| {
        let range = 1.min(kept(ids))..kept(ids);
        (ids[range.clone()].to_vec(), weights[range].to_vec())
    };
    let labels: Vec<(Vec<u32>, Vec<f32>)> = rows.iter().map(targets).collect();
    // No length: padding comes last, and a position sees only those before it.
    let inputs = Sequences { lengths: None, ..Sequences::padded(&inputs, pad) };
    let labels = TokenLabels::padded_to(&labels, inputs.columns, pad);
    (inputs, labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collate::testing::{of_ids, samples};

    #[test]
    fn long_texts_are_truncated_and_short_ones_padded() {
        let record =
            |ids: &[u32], weights: &[f32]| of_ids(ids).with_numbers(columns::WEIGHTS, weights.to_vec());
        let records = samples([
            record(&[1, 2, 3, 4], &[0.0, 0.5, 1.0, 1.0]),
            record(&[5, 6], &[1.0, 1.0]),
            record(&[], &[]),
        ]);
        let batch = Supervised { limit: 3, pad: 9 }.collate(&records);
        assert_eq!(batch.inputs, Sequences::full(vec![1, 2, 5, 9, 9, 9], [3, 2]));
        let labels = batch.token_labels().unwrap();
        assert_eq!(labels.ids, [2, 3, 6, 9, 9, 9]);
        assert_eq!(labels.weights, [0.5, 1.0, 1.0, 0.0, 0.0, 0.0]);
    }
}
