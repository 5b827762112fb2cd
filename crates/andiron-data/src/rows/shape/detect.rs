//! Which shape a row has.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ChatFields, ClassifyFields, CompletionFields, ContrastFields, InstructionFields, PreferenceFields,
    QuestionFields, Seq2SeqFields, Shape, TagFields, TextFields,
};
use crate::rows::Row;

/// A shape with its fields, as a configuration holds it.
///
/// It is displayed as its name and its fields: `classify (text = "text", label = "label", label_type = "class")`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "shape", rename_all = "kebab-case")]
pub enum RowShape {
    /// A text.
    Text(TextFields),
    /// A text or a pair of texts with a label.
    Classify(ClassifyFields),
    /// Words with tags.
    Tags(TagFields),
    /// A conversation.
    Chat(ChatFields),
    /// An instruction and its answer.
    Instruction(InstructionFields),
    /// A prompt and its completion.
    Completion(CompletionFields),
    /// A chosen and a rejected answer.
    Preference(PreferenceFields),
    /// A source and a target text.
    Seq2seq(Seq2SeqFields),
    /// A question about a context.
    Question(QuestionFields),
    /// Texts that belong together.
    Contrast(ContrastFields),
}

/// The shapes in which a row can be read, with the names of its fields; the most specific first.
pub fn detect(row: &Row) -> Vec<RowShape> {
    fn shape<S: Shape>(row: &Row, of: fn(S) -> RowShape) -> Option<RowShape> {
        S::guess(row).filter(|shape| shape.read(row).is_ok()).map(of)
    }
    let shapes = [
        shape(row, RowShape::Preference),
        shape(row, RowShape::Question),
        shape(row, RowShape::Tags),
        shape(row, RowShape::Contrast),
        shape(row, RowShape::Chat),
        shape(row, RowShape::Instruction),
        shape(row, RowShape::Completion),
        shape(row, RowShape::Classify),
        shape(row, RowShape::Seq2seq),
        shape(row, RowShape::Text),
    ];
    shapes.into_iter().flatten().collect()
}

impl fmt::Display for RowShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = serde_json::to_value(self).expect("names can be written as JSON");
        let name = fields["shape"].as_str().unwrap_or_default();
        let shown = |(key, value): (&String, &Value)| format!("{key} = {value}");
        let fields = fields.as_object().into_iter().flatten();
        let fields: Vec<String> = fields.filter(|(key, _)| *key != "shape").map(shown).collect();
        write!(f, "{name} ({})", fields.join(", "))
    }
}
