//! Texts that belong together, and texts that do not.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Shape, first_of, first_text};
use crate::rows::{Row, RowError, RowFault};

/// Rows with an anchor, such as a query, and texts that belong to it and that do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastFields {
    /// The anchor.
    pub anchor: String,
    /// What belongs to it: a text or a list of texts.
    pub positive: String,
    /// What does not: fields with a text or a list of texts, which rows may lack.
    pub negatives: Vec<String>,
}

/// A text with others that belong to it and that do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contrast {
    /// The text.
    pub anchor: String,
    /// What belongs to it; at least one.
    pub positives: Vec<String>,
    /// What does not.
    pub negatives: Vec<String>,
}

impl Default for ContrastFields {
    fn default() -> Self {
        Self { anchor: "anchor".into(), positive: "positive".into(), negatives: vec!["negative".into()] }
    }
}

impl Shape for ContrastFields {
    type Example = Contrast;

    fn read(&self, row: &Row) -> Result<Contrast, RowError> {
        let anchor = row.some_text(&self.anchor)?.to_owned();
        let positives = some_texts(row, &self.positive)?;
        let mut negatives = Vec::new();
        for field in &self.negatives {
            // An empty list is as good as none.
            if row.find(field).is_some_and(|value| value.as_array().is_none_or(|items| !items.is_empty())) {
                negatives.extend(some_texts(row, field)?);
            }
        }
        Ok(Contrast { anchor, positives, negatives })
    }

    fn guess(row: &Row) -> Option<Self> {
        let anchor = first_text(row, &["anchor", "query", "question", "sentence"])?;
        let positive = first_of(row, &["positive", "positives", "pos", "positive_passages"])?;
        let is_negative = |name: &&str| {
            let rest = name.strip_prefix("negative").or_else(|| name.strip_prefix("neg"));
            rest.is_some_and(|rest| {
                let number = rest.trim_start_matches('_');
                rest.is_empty() || rest == "s" || number.parse::<u32>().is_ok()
            })
        };
        let negatives: Vec<String> = row.names().filter(is_negative).map(str::to_owned).collect();
        Some(Self { anchor, positive, negatives })
    }
}

/// A text, or a list of at least one, none of them empty.
fn some_texts(row: &Row, field: &str) -> Result<Vec<String>, RowError> {
    let texts = match row.find(field) {
        Some(Value::Array(_)) => row.texts(field)?,
        _ => vec![row.some_text(field)?.to_owned()],
    };
    if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
        return Err(row.fail(RowFault::Empty { field: field.to_owned() }));
    }
    Ok(texts)
}
