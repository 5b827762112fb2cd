//! How files become documents.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::file_name;
use crate::input::DEFAULT_EXPANSION;
use crate::rows::RowOptions;

/// How files of every format are read.
///
/// # Example
/// ```
/// use andiron_data::source::SourceOptions;
/// let options: SourceOptions = serde_json::from_str(r#"{"text_field": "content", "id_field": "url"}"#)?;
/// assert_eq!(options.max_record_bytes, 64 << 20);
/// assert!(serde_json::from_str::<SourceOptions>(r#"{"text_key": "content"}"#).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceOptions {
    /// The field, or column, that holds the text of a document.
    pub text_field: String,
    /// The field that holds the id, a string or a number. Without it the id is `file:line`, or `file:row`.
    pub id_field: String,
    /// The longest record read, in bytes: a line, a row, a page of a web archive.
    pub max_record_bytes: u64,
    /// The longest file read that is one document, in bytes. It is held in memory as a whole.
    pub max_file_bytes: u64,
    /// How many times its size a compressed file may expand to. The first 64 MiB are read of any file.
    pub max_expansion: u64,
    /// The separator of tables. Without it, that of `.csv` files is the first of comma, semicolon and tab that the header has,
    /// that of others a tab.
    pub separator: Option<char>,
    /// Whether quotes around a cell of a table are part of the syntax.
    pub quotes: bool,
    /// The name of the file in the ids of its documents; without it, that is its own name without folders. It belongs to one file, so
    /// it is no setting.
    #[serde(skip)]
    pub name: Option<String>,
}

impl Default for SourceOptions {
    /// Fields `text` and `id`, records of at most 64 MiB, files of at most one gibibyte that expand at most
    /// [`DEFAULT_EXPANSION`] times, tables with quotes.
    fn default() -> Self {
        let RowOptions { max_row_bytes, max_expansion: _, separator, quotes } = RowOptions::default();
        Self {
            text_field: "text".into(),
            id_field: "id".into(),
            max_record_bytes: max_row_bytes,
            max_file_bytes: 1 << 30,
            max_expansion: DEFAULT_EXPANSION,
            separator,
            quotes,
            name: None,
        }
    }
}

impl SourceOptions {
    /// The defaults, with the text of a record in another field than `text`.
    pub fn of_field(name: &str) -> Self {
        Self { text_field: name.to_owned(), ..Self::default() }
    }

    /// What the file is called in ids.
    pub(super) fn name_of(&self, path: &Path) -> String {
        self.name.clone().unwrap_or_else(|| file_name(path))
    }

    /// How rows are read.
    pub(super) fn rows(&self) -> RowOptions {
        RowOptions {
            max_row_bytes: self.max_record_bytes,
            max_expansion: self.max_expansion,
            separator: self.separator,
            quotes: self.quotes,
        }
    }
}
