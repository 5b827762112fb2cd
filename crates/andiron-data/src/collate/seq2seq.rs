//! Sequence to sequence: a target is predicted from a source, as in translation and summarization.

use super::{CollateRecords, Sample, inputs};
use crate::batch::{HostBatch, Labels, Sequences, TokenLabels};
use crate::records::{Record, RecordSize, columns};

/// Collates records of a source and a target (`ids`, `target_ids`), both with their special tokens.
///
/// The decoder reads the target shifted to the right by one position, after the start id, as in `transformers`.
///
/// # Example
/// ```
/// use andiron_data::collate::{CollateRecords as _, Sample, Seq2Seq};
/// use andiron_data::records::{Record, columns};
/// use andiron_data::Seed;
/// let record = Record::default().with_ids(columns::IDS, vec![5, 6, 1]).with_ids(columns::TARGET_IDS, vec![7, 8, 1]);
/// let batch = Seq2Seq { decoder_start: 0, pad: 0 }.collate(&[Sample { data: record, seed: Seed::new(0) }]);
/// assert_eq!(batch.predicted().ids, [0, 7, 8]);
/// assert_eq!(batch.token_labels().unwrap().ids, [7, 8, 1]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seq2Seq {
    /// What the decoder reads first: the model's `decoder_start_token_id`.
    pub decoder_start: u32,
    /// The padding id.
    pub pad: u32,
}

impl Seq2Seq {
    /// What the decoder reads and what it predicts, padded to the longest target, and to at least one position.
    pub(super) fn decoder_side<S: AsRef<[u32]>>(&self, targets: &[S]) -> (Sequences, TokenLabels) {
        let longest = targets.iter().map(|target| target.as_ref().len()).max().unwrap_or(0);
        self.decoder_side_of(targets, longest.max(1))
    }

    /// The same, padded to `columns`.
    pub(super) fn decoder_side_of<S: AsRef<[u32]>>(
        &self,
        targets: &[S],
        columns: usize,
    ) -> (Sequences, TokenLabels) {
        let shifted: Vec<Vec<u32>> = targets
            .iter()
            .map(|target| {
                let read = std::iter::once(self.decoder_start).chain(target.as_ref().iter().copied());
                read.take(columns).collect()
            })
            .collect();
        let labels: Vec<_> =
            targets.iter().map(|target| (target.as_ref(), vec![1.0; target.as_ref().len()])).collect();
        // No length: padding comes after all targets, and a position sees only those before it.
        let inputs = Sequences { lengths: None, ..Sequences::padded_to(&shifted, columns, self.pad) };
        (inputs, TokenLabels::padded_to(&labels, columns, self.pad))
    }
}

impl CollateRecords for Seq2Seq {
    fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch {
        let targets: Vec<&[u32]> =
            records.iter().map(|record| record.data.ids(columns::TARGET_IDS)).collect();
        let (decoder_inputs, labels) = self.decoder_side(&targets);
        HostBatch {
            inputs: inputs(records, self.pad),
            decoder_inputs: Some(decoder_inputs),
            labels: Labels::Tokens(labels),
        }
    }

    fn size(&self, record: &Record<'_>) -> RecordSize {
        let sides = [columns::IDS, columns::TARGET_IDS].map(|side| record.ids(side).len());
        RecordSize { rows: 1, columns: sides[0].max(sides[1]) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collate::testing::{of_ids, samples};

    // The batch that `DataCollatorForSeq2Seq` of transformers 5.24.0 makes of these records with a BART model whose start id
    // is 2 and whose padding id is 1. Labels of -100 there have weight 0 here.
    #[test]
    fn targets_are_shifted_as_in_transformers() {
        let record =
            |ids: &[u32], targets: &[u32]| of_ids(ids).with_ids(columns::TARGET_IDS, targets.to_vec());
        let records = samples([record(&[0, 5, 2], &[0, 6, 7, 2]), record(&[0, 8, 9, 10, 2], &[0, 2])]);
        let batch = Seq2Seq { decoder_start: 2, pad: 1 }.collate(&records);
        assert_eq!(batch.inputs.ids, [0, 5, 2, 1, 1, 0, 8, 9, 10, 2]);
        assert_eq!(batch.inputs.lengths, Some(vec![3, 5]));
        let decoder = batch.predicted();
        assert_eq!((decoder.rows, decoder.columns, &decoder.lengths), (2, 4, &None));
        assert_eq!(decoder.ids, [2, 0, 6, 7, 2, 0, 2, 1]);
        let labels = batch.token_labels().unwrap();
        assert_eq!(labels.weights, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!(labels.ids, [0, 6, 7, 2, 0, 2, 1, 1]);
    }

    #[test]
    fn an_empty_target_predicts_nothing() {
        let record = of_ids(&[3]).with_ids(columns::TARGET_IDS, Vec::new());
        let batch = Seq2Seq { decoder_start: 2, pad: 1 }.collate(&samples([record]));
        assert_eq!((batch.predicted().ids.as_slice(), batch.weight()), (&[2][..], 0.0));
    }
}
