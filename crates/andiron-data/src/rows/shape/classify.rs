//! A text, or a pair of texts, with a label: classes, several classes, or numbers to regress to.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Shape, first_of, first_text};
use crate::rows::{ClassName, Row, RowError};

/// Rows with a text or a pair of texts and a label: `{text, label}`, `{premise, hypothesis, label}`,
/// `{sentence1, sentence2, score}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifyFields {
    /// The text, or the first of two.
    pub text: String,
    /// The second text, if there are two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair: Option<String>,
    /// The label.
    pub label: String,
    /// The name of the label, where `label` is a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_name: Option<String>,
    /// What the label is.
    pub label_type: LabelType,
}

/// What a label is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelType {
    /// One class: a text or a whole number.
    #[default]
    Class,
    /// Any number of classes: a list of texts or whole numbers, or, as `transformers` wants it, a list with a float 0.0 or 1.0
    /// for each class. A label that is no list is one class.
    Classes,
    /// A number, or a list of numbers.
    Numbers,
}

/// A text with its label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledText {
    /// The text, or the first of two.
    pub text: String,
    /// The second text.
    pub pair: Option<String>,
    /// The label.
    pub label: Label,
}

/// The label of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Label {
    /// One class.
    Class(ClassName),
    /// Any number of classes.
    Classes(Vec<ClassName>),
    /// Numbers to regress to.
    Numbers(Vec<f32>),
}

impl Default for ClassifyFields {
    fn default() -> Self {
        Self {
            text: "text".into(),
            pair: None,
            label: "label".into(),
            label_name: None,
            label_type: LabelType::Class,
        }
    }
}

const FIRST: [&str; 8] =
    ["premise", "sentence1", "text1", "question1", "query", "text_a", "sentence_a", "sentence_A"];
const SECOND: [&str; 8] =
    ["hypothesis", "sentence2", "text2", "question2", "document", "text_b", "sentence_b", "sentence_B"];
const TEXT: [&str; 9] =
    ["text", "sentence", "content", "review", "comment", "message", "utterance", "tweet", "title"];
const CLASS: [&str; 8] =
    ["label", "labels", "class", "category", "intent", "sentiment", "target", "gold_label"];
const NUMBER: [&str; 5] = ["score", "similarity", "similarity_score", "relatedness_score", "rating"];
const NAME: [&str; 2] = ["label_name", "label_text"];

impl Shape for ClassifyFields {
    type Example = LabelledText;

    fn read(&self, row: &Row) -> Result<LabelledText, RowError> {
        let text = row.text(&self.text)?.to_owned();
        let pair = self.pair.as_deref().map(|pair| row.text(pair).map(str::to_owned)).transpose()?;
        Ok(LabelledText { text, pair, label: self.label(row)? })
    }

    fn guess(row: &Row) -> Option<Self> {
        let pair = FIRST.iter().zip(SECOND).find(|(first, second)| {
            [**first, *second].iter().all(|name| row.find(name).is_some_and(Value::is_string))
        });
        let (text, pair) = match pair {
            Some((first, second)) => ((*first).to_owned(), Some(second.to_owned())),
            None => (first_text(row, &TEXT)?, None),
        };
        let name = first_text(row, &NAME);
        // A label that is a fraction is a number to regress to, and so is one that is named as such.
        let label = first_of(row, &CLASS);
        let is_number = |label: &String| {
            let number = row.find(label).and_then(|value| row.number_in(value));
            number.is_some_and(|number| number.fract() != 0.0)
        };
        let (label, label_name, label_type) = match (label, name) {
            (Some(label), _) if is_number(&label) => (label, None, LabelType::Numbers),
            (Some(label), _) if row.find(&label).is_some_and(Value::is_array) => {
                (label, None, LabelType::Classes)
            }
            (Some(label), name) => (label, name, LabelType::Class),
            (None, Some(name)) => (name, None, LabelType::Class),
            (None, None) => (first_of(row, &NUMBER)?, None, LabelType::Numbers),
        };
        Some(Self { text, pair, label, label_name, label_type })
    }
}

impl ClassifyFields {
    fn label(&self, row: &Row) -> Result<Label, RowError> {
        let field = &self.label;
        let value = row.get(field)?;
        match self.label_type {
            LabelType::Class => {
                let mut class = class_in(row, field, value)?;
                if let (Some(name), Some(_)) = (&self.label_name, class.number) {
                    class.text = Some(row.some_text(name)?.to_owned());
                }
                Ok(Label::Class(class))
            }
            LabelType::Classes => match value {
                Value::Array(items) if items.iter().any(Value::is_f64) => {
                    marked(row, field, items).map(Label::Classes)
                }
                Value::Array(items) => {
                    let classes = items.iter().map(|item| class_in(row, field, item));
                    classes.collect::<Result<_, _>>().map(Label::Classes)
                }
                value => Ok(Label::Classes(vec![class_in(row, field, value)?])),
            },
            LabelType::Numbers => {
                let number =
                    |value: &Value| row.number_in(value).ok_or_else(|| row.wrong(field, value, "a number"));
                let numbers = match value {
                    Value::Array(items) => items.iter().map(number).collect::<Result<_, _>>()?,
                    value => vec![number(value)?],
                };
                Ok(Label::Numbers(numbers))
            }
        }
    }
}

/// A class: a text, a whole number, or true or false.
pub(super) fn class_in(row: &Row, field: &str, value: &Value) -> Result<ClassName, RowError> {
    let number = row.whole_in(value);
    let text = match value {
        Value::String(text) if number.is_none() => Some(text.trim()).filter(|text| !text.is_empty()),
        Value::Bool(true) => Some("true"),
        Value::Bool(false) => Some("false"),
        _ => None,
    };
    let number = number.or_else(|| value.as_bool().map(i64::from));
    if number.is_none() && text.is_none() {
        return Err(row.wrong(
            field,
            value,
            "a class: text or a whole number (numbers to predict are regression)",
        ));
    }
    Ok(ClassName { number, text: text.map(str::to_owned) })
}

/// The classes that are marked by 1.0 in a list with a float for each.
fn marked(row: &Row, field: &str, items: &[Value]) -> Result<Vec<ClassName>, RowError> {
    let mut classes = Vec::new();
    for (number, item) in items.iter().enumerate() {
        match item.as_f64() {
            Some(0.0) => {}
            Some(1.0) => classes.push(ClassName { number: Some(number as i64), text: None }),
            _ => return Err(row.wrong(field, item, "0.0 or 1.0 for each class")),
        }
    }
    Ok(classes)
}
