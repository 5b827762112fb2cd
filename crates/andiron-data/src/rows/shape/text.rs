//! Plain text.

use serde::{Deserialize, Serialize};

use super::{Shape, first_text};
use crate::rows::{Row, RowError};

/// Rows with a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TextFields {
    /// The text.
    pub text: String,
}

impl Default for TextFields {
    fn default() -> Self {
        Self { text: "text".into() }
    }
}

impl Shape for TextFields {
    type Example = String;

    fn read(&self, row: &Row) -> Result<String, RowError> {
        row.some_text(&self.text).map(str::to_owned)
    }

    fn guess(row: &Row) -> Option<Self> {
        first_text(row, &["text", "content", "document", "sentence"]).map(|text| Self { text })
    }
}
