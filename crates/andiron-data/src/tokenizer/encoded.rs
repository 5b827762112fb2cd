//! Encoded texts as records: the columns that collators read.

use super::{Completion, Conversation, Framed};
use crate::records::{Record, columns};

/// `ids`, and `type_ids` if any is not 0.
impl From<Framed> for Record<'static> {
    fn from(Framed { ids, type_ids, .. }: Framed) -> Self {
        let record = Self::default().with_ids(columns::IDS, ids);
        match type_ids.iter().any(|&type_id| type_id != 0) {
            true => record.with_ids(columns::TYPE_IDS, type_ids),
            false => record,
        }
    }
}

/// `ids` and `weights`.
impl From<Conversation> for Record<'static> {
    fn from(conversation: Conversation) -> Self {
        let weights = conversation.weights();
        Self::default().with_ids(columns::IDS, conversation.ids).with_numbers(columns::WEIGHTS, weights)
    }
}

/// `ids` and `weights`.
impl From<Completion> for Record<'static> {
    fn from(completion: Completion) -> Self {
        let weights = completion.weights();
        Self::default().with_ids(columns::IDS, completion.ids).with_numbers(columns::WEIGHTS, weights)
    }
}

/// Several texts one after the other: `ids` and `lengths`, and those of `type_ids` and `weights` that any of them has.
///
/// Token types that a text lacks are 0.
///
/// # Panics
/// If only some of the texts have weights.
impl FromIterator<Record<'static>> for Record<'static> {
    fn from_iter<I: IntoIterator<Item = Record<'static>>>(texts: I) -> Self {
        let (mut ids, mut types, mut weights, mut lengths) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for text in texts {
            let own = text.ids(columns::IDS);
            lengths.push(own.len() as u32);
            ids.extend_from_slice(own);
            match text.find_ids(columns::TYPE_IDS) {
                Some(own) => types.extend_from_slice(own),
                None => types.resize(ids.len(), 0),
            }
            weights.extend(text.find_numbers(columns::WEIGHTS).into_iter().flatten().copied());
        }
        assert!(weights.is_empty() || weights.len() == ids.len(), "weights of all texts, or of none");
        let mut record = Self::default().with_ids(columns::LENGTHS, lengths);
        if types.iter().any(|&type_id| type_id != 0) {
            record = record.with_ids(columns::TYPE_IDS, types);
        }
        if !weights.is_empty() {
            record = record.with_numbers(columns::WEIGHTS, weights);
        }
        record.with_ids(columns::IDS, ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::frame::tests::bert;

    #[test]
    fn framed_texts_have_token_types_if_there_are_two() {
        let record = Record::from(bert().frame("the", Some("cat"), 9).unwrap());
        assert_eq!(
            (record.ids(columns::IDS), record.ids(columns::TYPE_IDS)),
            (&[2, 5, 3, 6, 3][..], &[0, 0, 0, 1, 1][..])
        );
        let record = Record::from(bert().frame("the", None, 9).unwrap());
        assert_eq!((record.ids(columns::IDS), record.find_ids(columns::TYPE_IDS)), (&[2, 5, 3][..], None));
    }

    #[test]
    fn texts_are_joined() {
        let pair = bert().frame("the", Some("cat"), 9).unwrap();
        let record: Record =
            [bert().frame("the", None, 9).unwrap(), pair].into_iter().map(Record::from).collect();
        assert_eq!(record.ids(columns::IDS), [2, 5, 3, 2, 5, 3, 6, 3]);
        assert_eq!(record.ids(columns::LENGTHS), [3, 5]);
        assert_eq!(record.ids(columns::TYPE_IDS), [0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(record.find_numbers(columns::WEIGHTS), None);
        let completion = |ids: Vec<u32>| Record::from(Completion { ids, n_prompt: 1 });
        let record: Record = [completion(vec![1, 2]), completion(vec![1, 3, 4])].into_iter().collect();
        assert_eq!(record.numbers(columns::WEIGHTS), [0.0, 1.0, 0.0, 1.0, 1.0]);
        assert_eq!(record.ids(columns::LENGTHS), [2, 3]);
    }
}
