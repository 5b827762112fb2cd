//! Readers of documents: one file per kind of format.
//!
//! A [`Source`] is an iterator of documents. An unreadable record is an item of its own ([`SourceError::Record`]), after
//! which the iterator continues. The caller decides by an [`OnError`] whether one bad line of a million is an error;
//! [`Documents`] applies it.
//!
//! | extension | documents | metadata |
//! |---|---|---|
//! | `.jsonl`, `.ndjson` | one for each line, a JSON object | the other fields |
//! | `.json` | one for each object of a list, or of `{"data": […]}` | the other fields |
//! | `.csv`, `.tsv`, `.tab` | one for each row of a table with a header | the other cells |
//! | `.parquet` | one for each row; needs the feature `parquet` | the other columns |
//! | `.warc`, `.wet` | one for each page or extracted text of a web archive | `url`, `date`, `content_type` |
//! | `.html`, `.htm`, `.xhtml` | the file, tags included | `content_type` |
//! | `.md`, `.markdown` | the file | `content_type` |
//! | anything else | the file | none |
//!
//! Each may be compressed by gzip or Zstandard, which the first bytes tell. A web page is given as it is: `content_type` is
//! `text/html`, by which a filter knows what to take the text from.

mod error;
mod expand;
mod fields;
mod input_file;
mod jsonl;
mod options;
mod rows;
mod text;
mod warc;
mod web;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::document::Document;

pub use crate::input::{DEFAULT_EXPANSION, Damage};
pub use error::{RecordError, RecordFault, SourceError};
pub use expand::{Expanded, PassedOver, WhyPassedOver, expand};
pub use input_file::{FilePiece, InputFile};
pub use jsonl::{JsonlBlock, JsonlBlocks, JsonlDocuments, JsonlSource};
pub use options::SourceOptions;
pub use rows::RowsSource;
pub use text::{FileKind, FileSource};
pub use warc::WarcSource;

/// The key of metadata that says what a text is: `text/html`, `text/markdown`, or `text/plain` for the extracted text of a web
/// page. Text of other formats has no such entry.
pub const CONTENT_TYPE: &str = "content_type";

/// An iterator of documents that counts the bytes read.
pub trait Source: Iterator<Item = Result<Document, SourceError>> + Send {
    /// Bytes of the file consumed so far, for progress.
    fn bytes_read(&self) -> u64;
}

impl Source for Box<dyn Source> {
    fn bytes_read(&self) -> u64 {
        (**self).bytes_read()
    }
}

/// Whether [`open`] reads a file as rows, of which a field holds the text.
pub fn has_fields(path: &Path) -> bool {
    matches!(extension(path).as_str(), "jsonl" | "ndjson" | "json" | "csv" | "tsv" | "tab" | "parquet")
}

/// Whether [`open`] reads a file as a web page, or as an archive of them.
pub fn has_pages(path: &Path) -> bool {
    matches!(extension(path).as_str(), "html" | "htm" | "xhtml" | "warc")
}

/// Opens a file by its extension: see the table [above](self).
///
/// # Errors
/// If the file cannot be opened, or has the extension of an unsupported format other than plain text (`.zip`, `.arrow` …).
pub fn open(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    const NOT_TEXT: [&str; 11] =
        ["arrow", "feather", "orc", "xz", "bz2", "zip", "tar", "npy", "bin", "pdf", "docx"];
    let extension = extension(path);
    let whole =
        |kind| FileSource::open(path, kind, options).map(|source| Box::new(source) as Box<dyn Source>);
    match extension.as_str() {
        _ if JsonlBlocks::reads(path) => Ok(Box::new(JsonlSource::open(path, options)?)),
        _ if has_fields(path) => Ok(Box::new(RowsSource::open(path, options)?)),
        "warc" | "wet" => Ok(Box::new(WarcSource::open(path, options)?)),
        "html" | "htm" | "xhtml" => whole(FileKind::Html),
        "md" | "markdown" => whole(FileKind::Markdown),
        other if NOT_TEXT.contains(&other) => {
            Err(SourceError::Unsupported { path: path.to_owned(), extension })
        }
        _ => whole(FileKind::Text),
    }
}

/// Whether an unreadable record is an error or skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// Stop with an error that names file and line.
    #[default]
    Fail,
    /// Skip the record and count it.
    Skip,
}

/// The documents of a source under an [`OnError`].
pub struct Documents<S> {
    source: S,
    on_error: OnError,
    skipped: BTreeMap<&'static str, u64>,
}

impl<S: Source> Documents<S> {
    /// Reads `source`, with bad records handled by `on_error`.
    pub fn new(source: S, on_error: OnError) -> Self {
        Self { source, on_error, skipped: BTreeMap::new() }
    }

    /// Number of records skipped so far, by [`RecordFault::reason`].
    pub fn skipped(&self) -> &BTreeMap<&'static str, u64> {
        &self.skipped
    }
}

impl<S: Source> Iterator for Documents<S> {
    type Item = Result<Document, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.source.next()? {
                Err(SourceError::Record(error)) if self.on_error == OnError::Skip => {
                    *self.skipped.entry(error.fault.reason()).or_default() += 1;
                }
                item => return Some(item),
            }
        }
    }
}

/// The extension of a file's name in lower case, without `.gz` or `.zst` behind it.
pub(crate) fn extension(path: &Path) -> String {
    let of = |path: &Path| path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    match (of(path), path.file_stem()) {
        (extension, Some(stem)) if ["gz", "zst", "zstd"].contains(&extension.as_str()) => of(Path::new(stem)),
        (extension, _) => extension,
    }
}

/// The text of a record.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, RecordFault> {
    std::str::from_utf8(bytes).map_err(|error| RecordFault::Utf8 { offset: error.valid_up_to() })
}

/// The name of a file without its folders: the same on every machine.
pub fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
