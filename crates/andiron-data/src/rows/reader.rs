//! Rows of a file, whatever its format.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::RowsError;
use super::json::{self, LineRows};
use super::row::Row;
use super::table::TableRows;
use crate::input::DEFAULT_EXPANSION;
use crate::source::extension;

/// How rows are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RowOptions {
    /// The longest row read, in bytes.
    pub max_row_bytes: u64,
    /// How many times its size a compressed file may expand to. The first 64 MiB are read of any file.
    pub max_expansion: u64,
    /// The separator of tables. Without it, that of `.csv` files is the first of comma, semicolon and tab that the header has,
    /// that of others a tab.
    pub separator: Option<char>,
    /// Whether quotes around a cell of a table are part of the syntax. They are not in GLUE's `.tsv` files.
    pub quotes: bool,
}

impl Default for RowOptions {
    /// Rows of at most 64 MiB, files that expand at most [`DEFAULT_EXPANSION`] times, tables with quotes.
    fn default() -> Self {
        Self { max_row_bytes: 64 << 20, max_expansion: DEFAULT_EXPANSION, separator: None, quotes: true }
    }
}

/// The rows of a format.
pub(super) trait Rows: Iterator<Item = Result<Row, RowsError>> + Send {
    fn bytes_read(&self) -> u64;
}

/// The rows of a file. After a bad row ([`RowsError::Row`]) the iterator continues; any other error ends it.
///
/// # Example
/// ```
/// use andiron_data::rows::{RowOptions, RowReader};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("rows.csv");
/// std::fs::write(&path, "text,label\n\"To be, or not\",1\nto be,x\n")?;
/// let rows: Vec<_> = RowReader::open(&path, &RowOptions::default())?.collect::<Result<_, _>>()?;
/// assert_eq!(rows[0].text("text")?, "To be, or not");
/// let error = rows[1].number("label").unwrap_err().to_string();
/// assert!(error.ends_with("rows.csv:3: field \"label\" is the text \"x\", not a number"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RowReader {
    path: PathBuf,
    rows: Box<dyn Rows>,
}

impl RowReader {
    /// Opens a file by its extension, behind which `.gz` or `.zst` may stand:
    ///
    /// | extension | content |
    /// |---|---|
    /// | `.jsonl`, `.ndjson` | a JSON object per line |
    /// | `.json` | a list of objects, `{"data": […]}` with objects or with SQuAD's articles, or an object per line |
    /// | `.csv`, `.tsv`, `.tab` | a table with a header |
    /// | `.txt` | a table with a header and tabs |
    /// | `.parquet` | columns, nested ones too; needs the feature `parquet` |
    ///
    /// Byte order marks and blank lines are skipped. `NaN` and `Infinity`, which Python writes into JSON, are read as `null`.
    ///
    /// # Errors
    /// If the file cannot be opened, or is of another format.
    pub fn open(path: &Path, options: &RowOptions) -> Result<Self, RowsError> {
        let extension = extension(path);
        let rows: Box<dyn Rows> = match extension.as_str() {
            "jsonl" | "ndjson" => Box::new(LineRows::open(path, options)?),
            "json" => json::open(path, options)?,
            "csv" | "tsv" | "tab" | "txt" => Box::new(TableRows::open(path, &extension, options)?),
            "parquet" => open_parquet(path, options)?,
            _ => return Err(RowsError::Unsupported { path: path.to_owned() }),
        };
        Ok(Self { path: path.to_owned(), rows })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file consumed so far, for progress.
    pub fn bytes_read(&self) -> u64 {
        self.rows.bytes_read()
    }
}

#[cfg(feature = "parquet")]
fn open_parquet(path: &Path, options: &RowOptions) -> Result<Box<dyn Rows>, RowsError> {
    Ok(Box::new(super::parquet::ParquetRows::open(path, options)?))
}

#[cfg(not(feature = "parquet"))]
fn open_parquet(path: &Path, _: &RowOptions) -> Result<Box<dyn Rows>, RowsError> {
    Err(RowsError::NoParquet { path: path.to_owned() })
}

impl Iterator for RowReader {
    type Item = Result<Row, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next()
    }
}
