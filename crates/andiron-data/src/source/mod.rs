//! Readers of documents: one file per file format.
//!
//! A [`Source`] is an iterator of documents. An unreadable record is an item of its own ([`SourceError::Record`]), after
//! which the iterator continues. The caller decides by an [`OnError`] whether one bad line of a million is an error;
//! [`Documents`] applies it.

mod expand;
mod input_file;
mod jsonl;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::document::Document;

pub use expand::{Expanded, PassedOver, WhyPassedOver, expand};
pub use input_file::InputFile;
pub use jsonl::{JsonlOptions, JsonlSource};
pub use text::{TextOptions, TextSource};

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

/// How each kind of file is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceOptions {
    /// Plain text files.
    #[serde(default)]
    pub text: TextOptions,
    /// Files with one JSON object per line.
    #[serde(default)]
    pub jsonl: JsonlOptions,
}

impl SourceOptions {
    /// The defaults, with the text of a JSON Lines record in another field than `text`.
    pub fn of_field(name: &str) -> Self {
        let jsonl = JsonlOptions { text_key: name.to_owned(), ..JsonlOptions::default() };
        Self { jsonl, ..Self::default() }
    }
}

/// Whether [`open`] reads a file as JSON Lines.
pub fn is_jsonl(path: &Path) -> bool {
    matches!(extension(path).as_str(), "jsonl" | "ndjson")
}

/// Opens a file by its extension: `.jsonl` and `.ndjson` hold one JSON object per line, anything else is plain text. Each may be
/// compressed (`.jsonl.gz`).
///
/// # Errors
/// If the file cannot be opened, or has the extension of an unsupported format other than plain text (`.json`, `.csv`,
/// `.parquet`, `.zst` …).
pub fn open(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    const NOT_TEXT: [&str; 12] =
        ["json", "csv", "tsv", "parquet", "arrow", "zst", "xz", "bz2", "zip", "tar", "npy", "bin"];
    let extension = extension(path);
    match extension.as_str() {
        _ if is_jsonl(path) => Ok(Box::new(JsonlSource::open(path, options.jsonl.clone())?)),
        other if NOT_TEXT.contains(&other) => {
            Err(SourceError::Unsupported { path: path.to_owned(), extension })
        }
        _ => Ok(Box::new(TextSource::open(path, options.text.clone())?)),
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

/// Why documents could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file format is not supported.
    #[error("{}: files ending in .{extension} cannot be read; convert it to plain text or to JSON Lines (.jsonl)", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Its extension, in lower case.
        extension: String,
    },
    /// It is a pipe or a device, which cannot be read several times.
    #[error("{} is no ordinary file, and is read several times: write its content to a file first", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// One record is bad; the source continues after it.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// One record that could not be turned into a document.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {fault}", path.display(), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct RecordError {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1; none if the record is the whole file.
    pub line: Option<u64>,
    /// What is wrong with it.
    pub fault: RecordFault,
}

impl RecordError {
    /// The name of the file without its folders: the same on every machine.
    pub fn file_name(&self) -> String {
        file_name(&self.path)
    }
}

/// What can be wrong with a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordFault {
    /// The bytes are not UTF-8.
    #[error("invalid UTF-8 at byte {offset} of the record; convert the file to UTF-8")]
    Utf8 {
        /// Where in the record, in bytes.
        offset: usize,
    },
    /// The line is not a JSON object.
    #[error("invalid JSON: {}", in_record(cause))]
    Json {
        /// The parser's message; its line number counts within the record.
        cause: serde_json::Error,
    },
    /// The field that should hold the text is absent.
    #[error(
        "no field `{key}`; the record has {}; name the field that holds the text",
        crate::rows::list(has)
    )]
    MissingText {
        /// The field.
        key: String,
        /// The fields that are there.
        has: Vec<String>,
    },
    /// The field that should hold the text holds something else.
    #[error("field `{key}` is not a string")]
    NotText {
        /// The field.
        key: String,
    },
    /// The record is longer than allowed.
    #[error("longer than {limit} bytes; raise the limit if this is meant")]
    TooLong {
        /// The limit, in bytes.
        limit: u64,
    },
}

impl RecordFault {
    /// A short fixed name, by which skipped records are counted.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Utf8 { .. } => "invalid-utf8",
            Self::Json { .. } => "invalid-json",
            Self::MissingText { .. } => "missing-text",
            Self::NotText { .. } => "text-is-no-string",
            Self::TooLong { .. } => "too-long",
        }
    }
}

/// The extension of a file's name in lower case, without `.gz` behind it.
pub(crate) fn extension(path: &Path) -> String {
    let of = |path: &Path| path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    match (of(path), path.file_stem()) {
        (extension, Some(stem)) if extension == "gz" => of(Path::new(stem)),
        (extension, _) => extension,
    }
}

/// The text of a record.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, RecordFault> {
    std::str::from_utf8(bytes).map_err(|error| RecordFault::Utf8 { offset: error.valid_up_to() })
}

/// The parser's message without the line number, which is always 1 in a record.
fn in_record(cause: &serde_json::Error) -> String {
    cause.to_string().replace(" at line 1 column ", " at column ")
}

/// The name of a file without its folders: the same on every machine.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_extension_chooses_the_source() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let options = SourceOptions::default();
        let texts =
            |path: &Path| -> Vec<String> { open(path, &options).unwrap().map(|d| d.unwrap().text).collect() };
        assert_eq!(texts(&write("a.JSONL", "{\"text\":\"x\"}\n")), ["x"]);
        assert_eq!(texts(&write("a.txt", "{\"text\":\"x\"}\n")), ["{\"text\":\"x\"}\n"]);
        assert_eq!(texts(&write("noextension", "y")), ["y"]);
        let gzip = dir.path().join("b.jsonl.gz");
        fs::write(&gzip, crate::input::tests::gzip(b"{\"text\":\"z\"}\n")).unwrap();
        assert_eq!(texts(&gzip), ["z"]);
        let parquet = write("a.parquet", "PAR1");
        assert!(matches!(open(&parquet, &options), Err(SourceError::Unsupported { .. })));
        let missing = dir.path().join("missing.txt");
        assert!(matches!(open(&missing, &options), Err(SourceError::Read { .. })));
    }
}
