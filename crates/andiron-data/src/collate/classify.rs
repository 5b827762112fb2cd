//! Classification and regression of whole texts.

use super::{CollateRecords, Sample, inputs};
use crate::batch::{HostBatch, Labels};
use crate::records::{Record, columns};

/// Collates records of a text, or of two framed as one, and what is to be predicted of it.
///
/// # Example
/// ```
/// use andiron_data::batch::Labels;
/// use andiron_data::collate::{Classify, CollateRecords as _, Sample, Target};
/// use andiron_data::records::{Record, columns};
/// use andiron_data::Seed;
/// let record = Record::default().with_ids(columns::IDS, vec![5, 6]).with_ids(columns::LABELS, vec![3]);
/// let batch = Classify { target: Target::Class, pad: 0 }.collate(&[Sample { data: record, seed: Seed::new(0) }]);
/// assert_eq!(batch.labels, Labels::Classes(vec![3]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classify {
    /// What is predicted.
    pub target: Target,
    /// The padding id.
    pub pad: u32,
}

/// What is known of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One of several classes: the only id of `labels`.
    Class,
    /// This many numbers, the column `values`: 0 or 1 for each of several labels, or values to regress to.
    Values(usize),
}

impl CollateRecords for Classify {
    /// # Panics
    /// If a record has another number of labels or values than the target has.
    fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch {
        let labels = match self.target {
            Target::Class => {
                let class = |record: &Sample<Record<'_>>| match record.data.ids(columns::LABELS) {
                    [class] => *class,
                    others => panic!("a record with {} classes", others.len()),
                };
                Labels::Classes(records.iter().map(class).collect())
            }
            Target::Values(width) => {
                let mut values = Vec::with_capacity(records.len() * width);
                for record in records {
                    let own = record.data.numbers(columns::VALUES);
                    assert_eq!(own.len(), width, "the values of a record");
                    values.extend_from_slice(own);
                }
                Labels::Values { values, width }
            }
        };
        HostBatch { inputs: inputs(records, self.pad), decoder_inputs: None, labels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collate::testing::{of_ids, samples};

    #[test]
    fn texts_are_padded_to_the_longest() {
        let pair = of_ids(&[1, 5, 2, 6, 2]).with_ids(columns::TYPE_IDS, vec![0, 0, 0, 1, 1]);
        let records = samples([
            pair.with_ids(columns::LABELS, vec![1]),
            of_ids(&[1, 5, 2]).with_ids(columns::LABELS, vec![0]),
        ]);
        let batch = Classify { target: Target::Class, pad: 9 }.collate(&records);
        assert_eq!(batch.inputs.ids, [1, 5, 2, 6, 2, 1, 5, 2, 9, 9]);
        assert_eq!(batch.inputs.type_ids, Some(vec![0, 0, 0, 1, 1, 0, 0, 0, 0, 0]));
        assert_eq!(batch.inputs.lengths, Some(vec![5, 3]));
        assert_eq!((&batch.labels, batch.weight()), (&Labels::Classes(vec![1, 0]), 2.0));
    }

    #[test]
    fn values_are_rows() {
        let record = |values: [f32; 2]| of_ids(&[4]).with_numbers(columns::VALUES, values.to_vec());
        let batch = Classify { target: Target::Values(2), pad: 0 }
            .collate(&samples([record([0.0, 1.0]), record([1.0, 1.0])]));
        assert_eq!(batch.labels, Labels::Values { values: vec![0.0, 1.0, 1.0, 1.0], width: 2 });
    }

    #[test]
    #[should_panic(expected = "a record with 2 classes")]
    fn a_text_has_one_class() {
        let record = of_ids(&[4]).with_ids(columns::LABELS, vec![0, 1]);
        Classify { target: Target::Class, pad: 0 }.collate(&samples([record]));
    }
}
