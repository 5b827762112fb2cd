//! A document of a corpus: a text with an id.

/// Fields of a record that Andiron keeps but does not interpret.
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// A text, its id and its metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// Names the document within its corpus; shards carry it, so that a training step leads back to it.
    pub id: String,
    /// The text itself.
    pub text: String,
    /// Every other field of the record.
    pub metadata: Metadata,
}

impl Document {
    /// A document without metadata.
    pub fn new(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self { id: id.into(), text: text.into(), metadata: Metadata::new() }
    }
}
