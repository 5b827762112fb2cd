//! What a row is read as: one file per shape.

mod chat;
mod classify;
mod completion;
mod contrast;
mod detect;
mod preference;
mod question;
mod seq2seq;
mod tags;
mod text;

use super::error::RowError;
use super::row::Row;

pub use chat::{ChatFields, Conversation, InstructionFields};
pub use classify::{ClassifyFields, Label, LabelType, LabelledText};
pub use completion::{Completion, CompletionFields, Turns};
pub use contrast::{Contrast, ContrastFields};
pub use detect::{RowShape, detect};
pub use preference::{Preference, PreferenceFields};
pub use question::{Answer, Question, QuestionFields};
pub use seq2seq::{Seq2SeqFields, SourceTarget};
pub use tags::{TagFields, TaggedTokens};
pub use text::TextFields;

/// Which fields of a row make an example.
pub trait Shape {
    /// What is read from a row.
    type Example;

    /// Reads a row.
    ///
    /// # Errors
    /// If a field is missing or holds something else; the error names file and line.
    fn read(&self, row: &Row) -> Result<Self::Example, RowError>;

    /// The shape with the field names of a row that looks like one. Whether the row can be read is another question.
    fn guess(row: &Row) -> Option<Self>
    where
        Self: Sized;
}

/// The first of some names that a row has as a field.
fn first_of(row: &Row, names: &[&str]) -> Option<String> {
    names.iter().find(|name| row.find(name).is_some()).map(|&name| name.to_owned())
}

/// The first of some names that a row has as a field of text.
fn first_text(row: &Row, names: &[&str]) -> Option<String> {
    let is_text = |name: &&&str| row.find(name).is_some_and(serde_json::Value::is_string);
    names.iter().find(is_text).map(|&name| name.to_owned())
}
