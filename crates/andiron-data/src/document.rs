//! What a corpus is made of: one text with a name.

/// Fields of a record that Andiron carries along but does not interpret.
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// One text, its name, and whatever else the source knew about it.
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
