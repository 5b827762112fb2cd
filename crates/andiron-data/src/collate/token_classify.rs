//! Classification of tokens, such as named entities.

use super::{CollateRecords, Sample, inputs};
use crate::batch::{HostBatch, TokenLabels};
use crate::records::{Record, columns};

/// Collates records with a class (`labels`) and a weight (`weights`) for each token.
/// [`Tokenizer::frame_words`](crate::Tokenizer::frame_words) aligns the labels of words with tokens.
///
/// # Example
/// ```
/// use andiron_data::collate::{CollateRecords as _, Sample, TokenClassify};
/// use andiron_data::records::{Record, columns};
/// use andiron_data::Seed;
/// let record = Record::default()
///     .with_ids(columns::IDS, vec![1, 5, 6, 2])
///     .with_ids(columns::LABELS, vec![0, 3, 3, 0])
///     .with_numbers(columns::WEIGHTS, vec![0.0, 1.0, 0.0, 0.0]);
/// let batch = TokenClassify { pad: 0 }.collate(&[Sample { data: record, seed: Seed::new(0) }]);
/// assert_eq!(batch.weight(), 1.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenClassify {
    /// The padding id. Padding has class 0 and weight 0.
    pub pad: u32,
}

impl CollateRecords for TokenClassify {
    /// # Panics
    /// If a record has not a class and a weight for each token.
    fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch {
        let inputs = inputs(records, self.pad);
        let labels: Vec<_> = records
            .iter()
            .map(|Sample { data, .. }| {
                let classes = data.ids(columns::LABELS);
                assert_eq!(classes.len(), data.ids(columns::IDS).len(), "a class for each token");
                (classes, data.numbers(columns::WEIGHTS))
            })
            .collect();
        let TokenLabels { ids, weights } = TokenLabels::padded_to(&labels, inputs.columns, 0);
        HostBatch::tokens(inputs, ids, weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collate::testing::{of_ids, samples};

    #[test]
    fn padding_has_no_weight() {
        let record = |ids: &[u32], weights: &[f32]| {
            of_ids(ids)
                .with_ids(columns::LABELS, vec![4; ids.len()])
                .with_numbers(columns::WEIGHTS, weights.to_vec())
        };
        let batch = TokenClassify { pad: 9 }
            .collate(&samples([record(&[1, 2, 3], &[0.0, 1.0, 0.0]), record(&[1], &[1.0])]));
        assert_eq!(batch.inputs.ids, [1, 2, 3, 1, 9, 9]);
        let labels = batch.token_labels().unwrap();
        assert_eq!(labels.ids, [4, 4, 4, 4, 0, 0]);
        assert_eq!(labels.weights, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    }
}
