//! Preferences: of two answers to a prompt, the chosen one and the rejected one.

use super::supervised::next_tokens;
use super::{CollateRecords, Sample, size_of_texts, texts};
use crate::batch::{HostBatch, Labels};
use crate::records::{Record, RecordSize, columns};

/// Collates records of two texts, a prompt with its chosen answer and the same prompt with its rejected one. Both stand in
/// `ids`, divided by `lengths`; `weights` are 1 for the tokens of the answers. Each becomes a row.
///
/// # Example
/// ```
/// use andiron_data::collate::{CollateRecords as _, Preference, Sample};
/// use andiron_data::records::{Record, columns};
/// use andiron_data::Seed;
/// let record = Record::default()
///     .with_ids(columns::IDS, vec![5, 6, 5, 7])
///     .with_ids(columns::LENGTHS, vec![2, 2])
///     .with_numbers(columns::WEIGHTS, vec![0.0, 1.0, 0.0, 1.0])
///     .with_numbers(columns::REFERENCE, vec![-1.5, -2.0]);
/// let batch = Preference { limit: 100, pad: 0 }.collate(&[Sample { data: record, seed: Seed::new(0) }]);
/// assert_eq!((batch.inputs.ids.as_slice(), batch.n_targets()), (&[5, 5][..], 1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preference {
    /// Most ids of a text; a longer one is truncated on the right, as in TRL.
    pub limit: usize,
    /// The padding id, with weight 0.
    pub pad: u32,
}

impl CollateRecords for Preference {
    /// A record without reference log-probabilities has NaN in their place: the batch can be used to compute them, and not to
    /// train without notice.
    ///
    /// # Panics
    /// If a record has not two texts, a weight for each id, and two reference log-probabilities if any.
    fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch {
        let mut rows: Vec<(&[u32], &[f32])> = Vec::new();
        let mut reference = Vec::new();
        for Sample { data, .. } in records {
            let (ids, weights) = (data.ids(columns::IDS), data.numbers(columns::WEIGHTS));
            assert_eq!(ids.len(), weights.len(), "a weight for each id");
            let (ids, weights) = (texts(data, ids), texts(data, weights));
            assert_eq!(ids.len(), 2, "a chosen and a rejected answer");
            rows.extend(ids.into_iter().zip(weights));
            let of_record = data.find_numbers(columns::REFERENCE).unwrap_or(&[f32::NAN; 2]);
            assert_eq!(of_record.len(), 2, "a reference log-probability for each answer");
            reference.extend_from_slice(of_record);
        }
        let (inputs, tokens) = next_tokens(&rows, self.limit, self.pad);
        HostBatch { inputs, decoder_inputs: None, labels: Labels::Preferences { tokens, reference } }
    }

    fn size(&self, record: &Record<'_>) -> RecordSize {
        size_of_texts(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collate::testing::{of_ids, samples};

    #[test]
    fn answers_are_consecutive_rows() {
        let record = of_ids(&[1, 2, 3, 1, 4])
            .with_ids(columns::LENGTHS, vec![3, 2])
            .with_numbers(columns::WEIGHTS, vec![0.0, 1.0, 1.0, 0.0, 1.0]);
        let batch = Preference { limit: 100, pad: 9 }.collate(&samples([record.clone()]));
        assert_eq!(batch.inputs.ids, [1, 2, 1, 9]);
        let Labels::Preferences { tokens, reference } = &batch.labels else { panic!("{:?}", batch.labels) };
        assert_eq!(tokens.ids, [2, 3, 4, 9]);
        assert_eq!(tokens.weights, [1.0, 1.0, 1.0, 0.0]);
        assert!(reference.len() == 2 && reference.iter().all(|value| value.is_nan()));
        let cut = Preference { limit: 2, pad: 9 }.collate(&samples([record]));
        assert_eq!(cut.inputs.ids, [1, 1]);
        assert_eq!(cut.token_labels().unwrap().ids, [2, 4]);
    }
}
