//! Extractive question answering: where in a text the answer to a question stands.

use super::{CollateRecords, Sample, inputs};
use crate::batch::{HostBatch, Labels};
use crate::records::{Record, columns};

/// Collates records of a question framed with a window of a text, and the first and last token of the answer (`span`).
/// [`Framed::answer_span`](crate::tokenizer::Framed::answer_span) finds it.
///
/// # Example
/// ```
/// use andiron_data::batch::Labels;
/// use andiron_data::collate::{CollateRecords as _, QuestionAnswering, Sample};
/// use andiron_data::records::{Record, columns};
/// use andiron_data::Seed;
/// let record = Record::default().with_ids(columns::IDS, vec![1, 5, 2, 6, 7, 2]).with_ids(columns::SPAN, vec![3, 4]);
/// let batch = QuestionAnswering { pad: 0 }.collate(&[Sample { data: record, seed: Seed::new(0) }]);
/// assert_eq!(batch.labels, Labels::Spans(vec![[3, 4]]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuestionAnswering {
    /// The padding id.
    pub pad: u32,
}

impl CollateRecords for QuestionAnswering {
    /// # Panics
    /// If a span is not two indices of its record's tokens, in order.
    fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch {
        let spans = records.iter().map(|Sample { data, .. }| {
            let (span, n) = (data.ids(columns::SPAN), data.ids(columns::IDS).len());
            match *span {
                [first, last] if first <= last && (last as usize) < n => [first, last],
                _ => panic!("a span {span:?} in a text of {n} tokens"),
            }
        });
        let labels = Labels::Spans(spans.collect());
        HostBatch { inputs: inputs(records, self.pad), decoder_inputs: None, labels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collate::testing::{of_ids, samples};

    #[test]
    #[should_panic(expected = "a span [1, 3] in a text of 3 tokens")]
    fn a_span_lies_in_its_text() {
        QuestionAnswering { pad: 0 }
            .collate(&samples([of_ids(&[1, 2, 3]).with_ids(columns::SPAN, vec![1, 3])]));
    }
}
