//! Supervised fine-tuning: next tokens with a weight each, so that only an assistant's answers are learned.
//!
//! Several texts may be packed into one row, as documents that do not see each other: then a batch has no padding to speak of.

use super::{Around, CollatePacked, CollateRecords, FillInTheMiddle, Sample};
use crate::batch::{HostBatch, Sequences, TokenLabels};
use crate::records::{Record, RecordSize, columns};

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

/// [`Supervised`] for texts of which some are rearranged to fill in the middle, anew in each epoch. All tokens are learned.
#[derive(Clone, Debug, PartialEq)]
pub struct SupervisedInTheMiddle {
    /// Length of a text, and the padding id.
    pub supervised: Supervised,
    /// How texts are rearranged.
    pub transform: FillInTheMiddle,
    /// The special tokens around a text, which stay where they are.
    pub around: Around,
}

/// Tokens that [`FillInTheMiddle`] adds to a text.
const MIDDLE_TOKENS: usize = 3;

impl CollateRecords for Supervised {
    /// # Panics
    /// If a record has not a weight for each id.
    fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch {
        let rows: Vec<_> = records.iter().map(|Sample { data, .. }| weighted(data)).collect();
        let (inputs, labels) = next_tokens(&rows, self.limit, self.pad);
        HostBatch::tokens(inputs, labels.ids, labels.weights)
    }

    fn size(&self, record: &Record<'_>) -> RecordSize {
        RecordSize { rows: 1, columns: self.positions(record.ids(columns::IDS).len()) as u32 }
    }
}

impl CollatePacked for Supervised {
    fn positions(&self, length: usize) -> usize {
        length.min(self.limit).saturating_sub(1)
    }

    /// # Panics
    /// If a record has not a weight for each id.
    fn collate_packed(&self, rows: &[Vec<Sample<Record<'_>>>]) -> HostBatch {
        let of_row = |row: &'_ Vec<Sample<Record<'_>>>| -> Vec<(Vec<u32>, Vec<f32>)> {
            let documents = row.iter().map(|Sample { data, .. }| weighted(data));
            documents.map(|(ids, weights)| (ids.to_vec(), weights.to_vec())).collect()
        };
        packed(&rows.iter().map(of_row).collect::<Vec<_>>(), self.limit, self.pad)
    }
}

impl SupervisedInTheMiddle {
    /// A text, perhaps rearranged.
    fn rearranged(&self, Sample { data, seed }: &Sample<Record<'_>>) -> (Vec<u32>, Vec<f32>) {
        let Around { before, after } = &self.around;
        let ids = data.ids(columns::IDS);
        let text = ids.strip_prefix(before.as_slice()).unwrap_or(ids);
        let first = ids.len() - text.len();
        let text = text.strip_suffix(after.as_slice()).unwrap_or(text);
        let rearranged = self.transform.rearrange(text, *seed);
        let ids = [&ids[..first], &rearranged, &ids[first + text.len()..]].concat();
        let weights = vec![1.0; ids.len()];
        (ids, weights)
    }
}

impl CollateRecords for SupervisedInTheMiddle {
    /// The control tokens make a text longer: what exceeds the limit is cut off.
    fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch {
        let rows: Vec<_> = records.iter().map(|record| self.rearranged(record)).collect();
        let rows: Vec<_> = rows.iter().map(|(ids, weights)| (ids.as_slice(), weights.as_slice())).collect();
        let Supervised { limit, pad } = self.supervised;
        let (inputs, labels) = next_tokens(&rows, limit, pad);
        HostBatch::tokens(inputs, labels.ids, labels.weights)
    }

    fn size(&self, record: &Record<'_>) -> RecordSize {
        RecordSize { rows: 1, columns: self.positions(record.ids(columns::IDS).len()) as u32 }
    }
}

impl CollatePacked for SupervisedInTheMiddle {
    fn positions(&self, length: usize) -> usize {
        self.supervised.positions(length.saturating_add(MIDDLE_TOKENS))
    }

    fn collate_packed(&self, rows: &[Vec<Sample<Record<'_>>>]) -> HostBatch {
        let of_row =
            |row: &Vec<Sample<Record<'_>>>| row.iter().map(|record| self.rearranged(record)).collect();
        let Supervised { limit, pad } = self.supervised;
        packed(&rows.iter().map(of_row).collect::<Vec<_>>(), limit, pad)
    }
}

/// The ids of a record and their weights.
fn weighted<'a>(record: &'a Record<'_>) -> (&'a [u32], &'a [f32]) {
    let (ids, weights) = (record.ids(columns::IDS), record.numbers(columns::WEIGHTS));
    assert_eq!(ids.len(), weights.len(), "a weight for each id");
    (ids, weights)
}

/// A row for each list of documents, each of which predicts its own next tokens, as in [`next_tokens`]. Rows are padded to the
/// longest. Padding is documents of its own, none longer than the longest text, so that it costs little attention and needs no
/// positions beyond those of texts.
fn packed(rows: &[Vec<(Vec<u32>, Vec<f32>)>], limit: usize, pad: u32) -> HostBatch {
    let mut starts = Vec::with_capacity(rows.len());
    let mut longest = 0;
    let (mut inputs, mut targets) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in rows {
        let (mut of_row, mut input): (Vec<usize>, Vec<u32>) = Default::default();
        let (mut target, mut weight): (Vec<u32>, Vec<f32>) = Default::default();
        for (ids, weights) in row {
            let kept = ids.len().min(limit);
            if kept < 2 {
                continue;
            }
            of_row.push(input.len());
            longest = longest.max(kept - 1);
            input.extend_from_slice(&ids[..kept - 1]);
            target.extend_from_slice(&ids[1..kept]);
            weight.extend_from_slice(&weights[1..kept]);
        }
        starts.push(of_row);
        inputs.push(input);
        targets.push((target, weight));
    }
    let mut sequences = Sequences { lengths: None, ..Sequences::padded(&inputs, pad) };
    if starts.iter().any(|starts| starts.len() > 1) {
        for (starts, input) in starts.iter_mut().zip(&inputs) {
            starts.extend((input.len()..sequences.columns).step_by(longest));
        }
        sequences.documents = Some(starts);
    }
    let labels = TokenLabels::padded_to(&targets, sequences.columns, pad);
    HostBatch::tokens(sequences, labels.ids, labels.weights)
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
    use crate::collate::MiddleTokens;
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

    #[test]
    fn packed_texts_are_documents_of_a_row() {
        let record = |ids: &[u32]| of_ids(ids).with_numbers(columns::WEIGHTS, vec![1.0; ids.len()]);
        let row = |texts: &[&[u32]]| samples(texts.iter().map(|ids| record(ids)));
        let supervised = Supervised { limit: 3, pad: 9 };
        let batch =
            supervised.collate_packed(&[row(&[&[1, 2, 3, 4], &[8], &[5, 6]]), row(&[&[7, 8]]), row(&[])]);
        assert_eq!(batch.inputs.ids, [1, 2, 5, 7, 9, 9, 9, 9, 9]);
        assert_eq!(batch.inputs.documents, Some(vec![vec![0, 2], vec![0, 1], vec![0, 2]]));
        let labels = batch.token_labels().unwrap();
        assert_eq!(labels.ids, [2, 3, 6, 8, 9, 9, 9, 9, 9]);
        assert_eq!(labels.weights, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!([4, 3, 2, 1, 0].map(|length| supervised.positions(length)), [2, 2, 1, 0, 0]);
        // Rows of one document each are the same as without packing.
        let alone = [record(&[1, 2, 3, 4]), record(&[7, 8])];
        let packed = supervised.collate_packed(&[row(&[&[1, 2, 3, 4]]), row(&[&[7, 8]])]);
        assert_eq!(packed, supervised.collate(&samples(alone)));
    }

    #[test]
    fn rearranged_texts_keep_what_is_around_them() {
        let tokens = MiddleTokens { prefix: 91, middle: 92, suffix: 93 };
        let collator = SupervisedInTheMiddle {
            supervised: Supervised { limit: 100, pad: 0 },
            transform: FillInTheMiddle { tokens, rate: 1.0, suffix_first: 0.0 },
            around: Around { before: vec![1], after: vec![2] },
        };
        let record = || of_ids(&[1, 5, 6, 7, 8, 2]).with_numbers(columns::WEIGHTS, vec![1.0; 6]);
        let batch = collator.collate(&samples([record()]));
        let targets = &batch.token_labels().unwrap().ids;
        assert_eq!((batch.inputs.ids[0], targets[0], targets.last()), (1, 91, Some(&2)));
        assert_eq!((targets.len(), collator.positions(6)), (8, 8));
        let parts = [91, 92, 93].map(|token| targets.iter().filter(|&&id| id == token).count());
        assert_eq!(parts, [1; 3]);
        let packed = collator.collate_packed(&[samples([record(), record()])]);
        assert_eq!(packed.inputs.documents, Some(vec![vec![0, 8]]));
        assert_eq!(packed.inputs.ids[..8], batch.inputs.ids);
    }
}
