//! Collators, which turn examples into batches: one file per kind of objective.
//!
//! A collator is a function of its rows and of their random streams ([`Sample::seed`]). It keeps no state, so that a batch
//! can be computed again, alone and in any order.
//!
//! | collator | reads | columns of a record | labels |
//! |---|---|---|---|
//! | [`Causal`] | windows | | the next token |
//! | [`CausalInTheMiddle`] | windows | | the next token, in rearranged documents |
//! | [`Masked`] | windows, records | `ids`, `type_ids`? | the masked tokens |
//! | [`SpanCorruption`] | windows | | the removed spans (T5) |
//! | [`Denoise`] | windows, records | `ids` | the whole text (BART) |
//! | [`Seq2Seq`] | records | `ids`, `target_ids` | the target |
//! | [`Supervised`] | records, packed or not | `ids`, `weights` | the next token, weighted |
//! | [`SupervisedInTheMiddle`] | records, packed or not | `ids`, `weights` | the next token, in rearranged documents |
//! | [`Classify`] | records | `ids`, `type_ids`?, `labels` or `values` | a class, or numbers |
//! | [`TokenClassify`] | records | `ids`, `type_ids`?, `labels`, `weights` | a class for each token |
//! | [`QuestionAnswering`] | records | `ids`, `type_ids`?, `span` | first and last token of the answer |
//! | [`Contrastive`] | records | `ids`, `lengths`, `type_ids`?, `values`? | groups of texts |
//! | [`Preference`] | records | `ids`, `lengths`, `weights`, `reference`? | pairs of answers |

mod causal;
mod classify;
mod contrastive;
mod denoise;
mod fill_in_the_middle;
mod masked;
mod noise;
mod preference;
mod question_answering;
mod seq2seq;
mod span_corruption;
mod supervised;
mod token_classify;

use std::fmt::Debug;

use crate::batch::{HostBatch, Sequences};
use crate::records::{Record, RecordSize, columns};
use crate::seed::Seed;

pub use causal::Causal;
pub use classify::{Classify, Target};
pub use contrastive::Contrastive;
pub use denoise::{Denoise, TextInfilling};
pub use fill_in_the_middle::{CausalInTheMiddle, FillInTheMiddle, MiddleOrder, MiddleTokens};
pub use masked::{Masked, Masking};
pub use preference::Preference;
pub use question_answering::QuestionAnswering;
pub use seq2seq::Seq2Seq;
pub use span_corruption::{NoiseSpans, Sentinels, SpanCorruption, SpanCorruptionError};
pub use supervised::{Supervised, SupervisedInTheMiddle};
pub use token_classify::TokenClassify;

/// One row of a batch before it is collated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<T> {
    /// What the row is made of.
    pub data: T,
    /// The row's own random stream, for collators that draw. It is a function of the run's seed and of how many rows came
    /// before, so that a row does not depend on how rows are divided into batches.
    pub seed: Seed,
}

/// Makes batches from windows of a token stream.
pub trait CollateWindows: Debug + Send + Sync {
    /// Ids in a window.
    fn window(&self) -> usize;

    /// Distance between the beginnings of windows that are read one after the other. It is the window, or one less if its
    /// last id is only a target, which the next window begins with.
    fn stride(&self) -> usize {
        self.window()
    }

    /// One row for each window. A window has at most [`CollateWindows::window`] ids; it has fewer at the end of a stream, and
    /// none in a row that is only padding.
    fn collate(&self, windows: &[Sample<Vec<u32>>]) -> HostBatch;
}

/// Makes batches from records.
pub trait CollateRecords: Debug + Send + Sync {
    /// One row or several for each record, in their order.
    fn collate(&self, records: &[Sample<Record<'_>>]) -> HostBatch;

    /// The rows of a record and the positions of the longest of them, at most; of an encoder-decoder those of its longer side.
    /// By default one row of the record's `ids`.
    fn size(&self, record: &Record<'_>) -> RecordSize {
        RecordSize { rows: 1, columns: record.ids(columns::IDS).len() as u32 }
    }
}

/// Makes batches from records that are packed into rows.
pub trait CollatePacked: CollateRecords {
    /// Positions that a record of `length` ids takes, at most.
    fn positions(&self, length: usize) -> usize;

    /// One row for each list of records, which become its documents
    /// ([`Sequences::documents`](crate::batch::Sequences::documents)).
    fn collate_packed(&self, rows: &[Vec<Sample<Record<'_>>>]) -> HostBatch;
}

/// The special tokens around a window, such as BERT's `[CLS]` and `[SEP]`. Both lists may be empty.
///
/// [`Tokenizer::added_around`](crate::Tokenizer::added_around) finds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Ids before a text.
    pub before: Vec<u32>,
    /// Ids after it.
    pub after: Vec<u32>,
}

impl Around {
    /// Number of ids around a text.
    pub fn len(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `ids` with the special tokens around them; nothing if there are no ids, because the row is padding.
    fn framed(&self, ids: &[u32]) -> Vec<u32> {
        if ids.is_empty() { Vec::new() } else { [&self.before, ids, &self.after].concat() }
    }
}

/// The inputs of records, padded to the longest, with the token types of records that have them.
fn inputs(records: &[Sample<Record<'_>>], pad: u32) -> Sequences {
    let texts: Vec<Vec<&[u32]>> = records.iter().map(|record| vec![record.data.ids(columns::IDS)]).collect();
    let types: Vec<_> = records
        .iter()
        .map(|record| record.data.find_ids(columns::TYPE_IDS).map(|types| vec![types]))
        .collect();
    sequences(&texts, &types, pad)
}

/// The inputs of records with several texts each, one row for each text.
fn inputs_of_texts(records: &[Sample<Record<'_>>], pad: u32) -> Sequences {
    let texts: Vec<_> =
        records.iter().map(|record| texts(&record.data, record.data.ids(columns::IDS))).collect();
    let types: Vec<_> = records
        .iter()
        .map(|record| record.data.find_ids(columns::TYPE_IDS).map(|types| self::texts(&record.data, types)))
        .collect();
    sequences(&texts, &types, pad)
}

/// Rows of texts, with token types if any record has them.
fn sequences(texts: &[Vec<&[u32]>], types: &[Option<Vec<&[u32]>>], pad: u32) -> Sequences {
    let rows: Vec<&[u32]> = texts.concat();
    let sequences = Sequences::padded(&rows, pad);
    if types.iter().all(Option::is_none) {
        return sequences;
    }
    let of_record = |(texts, types): (&Vec<&[u32]>, &Option<Vec<&'_ [u32]>>)| match types {
        Some(types) => types.iter().map(|types| types.to_vec()).collect::<Vec<_>>(),
        None => texts.iter().map(|text| vec![0; text.len()]).collect(),
    };
    let types: Vec<Vec<u32>> = texts.iter().zip(types).flat_map(of_record).collect();
    sequences.with_type_ids(&types)
}

/// The size of a record with several texts.
fn size_of_texts(record: &Record<'_>) -> RecordSize {
    let lengths = record.ids(columns::LENGTHS);
    RecordSize { rows: lengths.len() as u32, columns: lengths.iter().copied().max().unwrap_or(0) }
}

/// Divides a column by the `lengths` of a record's texts.
///
/// # Panics
/// If they do not add up to the column's length.
fn texts<'a, T>(record: &Record<'_>, column: &'a [T]) -> Vec<&'a [T]> {
    let mut rest = column;
    let mut texts = Vec::new();
    for &length in record.ids(columns::LENGTHS) {
        assert!(length as usize <= rest.len(), "a record's lengths exceed its {} values", column.len());
        let (text, after) = rest.split_at(length as usize);
        texts.push(text);
        rest = after;
    }
    assert!(rest.is_empty(), "a record's lengths leave out {} of its {} values", rest.len(), column.len());
    texts
}

#[cfg(test)]
mod testing;
