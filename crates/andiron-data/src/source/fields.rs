//! A document of the fields of a record.

use std::path::Path;

use serde_json::Value;

use super::{RecordFault, SourceOptions};
use crate::document::{Document, Metadata};

/// The document of a record's fields. `number` is that of the line or row, for an id.
pub(super) fn document(
    mut fields: Metadata,
    options: &SourceOptions,
    path: &Path,
    number: u64,
) -> Result<Document, RecordFault> {
    let key = &options.text_field;
    // The order of the other fields stays.
    let text = match fields.shift_remove(key) {
        Some(Value::String(text)) => text,
        Some(_) => return Err(RecordFault::NotText { key: key.clone() }),
        None => {
            let has = fields.keys().cloned().collect();
            return Err(RecordFault::MissingText { key: key.clone(), has });
        }
    };
    let id = match fields.shift_remove(&options.id_field) {
        Some(Value::String(id)) if !id.is_empty() => id,
        Some(Value::Number(id)) => id.to_string(),
        _ => format!("{}:{number}", options.name_of(path)),
    };
    Ok(Document { id, text, metadata: fields })
}
