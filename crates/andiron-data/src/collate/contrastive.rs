//! Contrastive learning of text embeddings: texts that belong together, and texts that do not.

use super::{CollateRecords, Sample, inputs_of_texts, size_of_texts};
use crate::batch::{HostBatch, Labels};
use crate::records::{Record, RecordSize, columns};

/// Collates records of several texts: an anchor, its positive, and perhaps negatives; or two texts and how similar they are
/// (the only number of `values`). All texts of a record stand in `ids`, divided by `lengths`. Each becomes a row.
///
/// # Example
/// ```
/// use andiron_data::batch::Labels;
/// use andiron_data::collate::{CollateRecords as _, Contrastive, Sample};
/// use andiron_data::records::{Record, columns};
/// use andiron_data::Seed;
/// let record = Record::default().with_ids(columns::IDS, vec![1, 5, 1, 6, 7]).with_ids(columns::LENGTHS, vec![2, 3]);
/// let batch = Contrastive { size: 2, pad: 0 }.collate(&[Sample { data: record, seed: Seed::new(0) }]);
/// assert_eq!(batch.inputs.ids, [1, 5, 0, 1, 6, 7]);
/// assert_eq!(batch.labels, Labels::Groups { size: 2, scores: None });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contrastive {
    /// Texts in a record.
    pub size: usize,
    /// The padding id.
    pub pad: u32,
}

impl CollateRecords for Contrastive {
    /// # Panics
    /// If a record has another number of texts, or only some records have a score.
    fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch {
        let mut scores = Vec::new();
        for Sample { data, .. } in records {
            assert_eq!(data.ids(columns::LENGTHS).len(), self.size, "the texts of a record");
            scores.extend(data.find_numbers(columns::VALUES).into_iter().flatten().copied());
        }
        assert!(scores.is_empty() || scores.len() == records.len(), "a score for each record, or for none");
        let scores = Some(scores).filter(|scores| !scores.is_empty());
        let labels = Labels::Groups { size: self.size, scores };
        HostBatch { inputs: inputs_of_texts(records, self.pad), decoder_inputs: None, labels }
    }

    fn size(&self, record: &Record<'_>) -> RecordSize {
        size_of_texts(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collate::testing::{of_ids, samples};

    fn pair(ids: &[u32], lengths: [u32; 2]) -> Record<'static> {
        of_ids(ids).with_ids(columns::LENGTHS, lengths.to_vec())
    }

    #[test]
    fn texts_of_a_record_are_consecutive_rows() {
        let scored = |record: Record<'static>, score| record.with_numbers(columns::VALUES, vec![score]);
        let records = samples([scored(pair(&[1, 2, 3], [1, 2]), 0.25), scored(pair(&[4, 5], [2, 0]), 1.0)]);
        let batch = Contrastive { size: 2, pad: 9 }.collate(&records);
        assert_eq!(batch.inputs.ids, [1, 9, 2, 3, 4, 5, 9, 9]);
        assert_eq!(batch.inputs.lengths, Some(vec![1, 2, 2, 0]));
        assert_eq!(batch.labels, Labels::Groups { size: 2, scores: Some(vec![0.25, 1.0]) });
        assert_eq!(batch.weight(), 2.0);
    }

    #[test]
    fn token_types_are_divided_like_the_ids() {
        let typed = pair(&[1, 2, 3], [1, 2]).with_ids(columns::TYPE_IDS, vec![0, 0, 1]);
        let batch = Contrastive { size: 2, pad: 9 }.collate(&samples([typed, pair(&[4, 5], [1, 1])]));
        assert_eq!(batch.inputs.type_ids, Some(vec![0, 0, 0, 1, 0, 0, 0, 0]));
    }

    #[test]
    #[should_panic(expected = "leave out 1 of its 3 values")]
    fn lengths_are_those_of_all_ids() {
        Contrastive { size: 2, pad: 0 }.collate(&samples([pair(&[1, 2, 3], [1, 1])]));
    }
}
