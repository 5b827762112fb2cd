//! Datasets as people have them: rows of JSON and of tables, read as the examples of an objective.
//!
//! A [`RowReader`] reads the rows of a file. A [`Shape`] makes an example of a row; its fields have the usual names unless they
//! are set. [`Examples`] does both for several files, and counts the rows that are skipped. [`detect`] tells which shapes a row
//! could have, and [`LabelVocabulary`] numbers classes.
//!
//! | shape | usual fields | example |
//! |---|---|---|
//! | [`TextFields`] | `text` | [`String`] |
//! | [`ClassifyFields`] | `text`, `label`; a `pair`; classes, several classes or numbers | [`LabelledText`] |
//! | [`TagFields`] | `tokens`, `tags` | [`TaggedTokens`] |
//! | [`ChatFields`] | `messages` or ShareGPT's `conversations`, `tools` | [`Conversation`] |
//! | [`InstructionFields`] | `instruction`, `input`, `output` | [`Conversation`] |
//! | [`CompletionFields`] | `prompt`, `completion` | [`Completion`] |
//! | [`PreferenceFields`] | `prompt`, `chosen`, `rejected` | [`Preference`] |
//! | [`Seq2SeqFields`] | `source`, `target`; `translation.en`, `translation.es` | [`SourceTarget`] |
//! | [`QuestionFields`] | `question`, `context`, `answers` | [`Question`] |
//! | [`ContrastFields`] | `anchor`, `positive`, negatives | [`Contrast`] |

mod error;
mod examples;
mod json;
mod labels;
#[cfg(feature = "parquet")]
mod parquet;
mod reader;
mod row;
mod shape;
mod table;

pub(crate) use error::list;
pub use error::{Origin, Place, RowError, RowFault, RowsError};
pub use examples::{Examples, Part, Skipped};
pub use labels::{ClassName, LabelCollector, LabelVocabulary};
pub use reader::{RowOptions, RowReader};
pub use row::Row;
pub use shape::*;

#[cfg(test)]
mod tests;
