//! Words with a tag for each: named entities, parts of speech.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::classify::class_in;
use super::{Shape, first_of};
use crate::rows::{ClassName, Row, RowError, RowFault};

/// Rows with a list of words and a list of tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TagFields {
    /// The words.
    pub tokens: String,
    /// Their tags, texts or whole numbers.
    pub tags: String,
}

/// Words with a tag for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedTokens {
    /// The words.
    pub tokens: Vec<String>,
    /// Their tags.
    pub tags: Vec<ClassName>,
}

impl Default for TagFields {
    fn default() -> Self {
        Self { tokens: "tokens".into(), tags: "ner_tags".into() }
    }
}

impl Shape for TagFields {
    type Example = TaggedTokens;

    fn read(&self, row: &Row) -> Result<TaggedTokens, RowError> {
        let tokens = row.texts(&self.tokens)?;
        let tags = row.list(&self.tags)?;
        if tokens.is_empty() {
            return Err(row.fail(RowFault::Empty { field: self.tokens.clone() }));
        }
        if tokens.len() != tags.len() {
            return Err(row.fail(RowFault::Lengths {
                first: self.tokens.clone(),
                n_first: tokens.len(),
                second: self.tags.clone(),
                n_second: tags.len(),
            }));
        }
        let tags = tags.iter().map(|tag| class_in(row, &self.tags, tag)).collect::<Result<_, _>>()?;
        Ok(TaggedTokens { tokens, tags })
    }

    fn guess(row: &Row) -> Option<Self> {
        let tokens = first_of(row, &["tokens", "words"])?;
        let tags = first_of(row, &["ner_tags", "tags", "labels", "ner", "pos_tags", "pos", "upos"])?;
        let is_list = |field: &str| row.find(field).is_some_and(Value::is_array);
        (is_list(&tokens) && is_list(&tags)).then_some(Self { tokens, tags })
    }
}
