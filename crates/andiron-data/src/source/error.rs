//! What can be wrong with documents.

use std::io;
use std::path::{Path, PathBuf};

use super::file_name;
use crate::input::is_damage;
use crate::rows::{Origin, Place, RowError, RowFault, RowsError};

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
        source: io::Error,
    },
    /// The file format is not supported.
    #[error("{}: files ending in .{extension} cannot be read; convert it to plain text or to JSON Lines (.jsonl)", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Its extension, in lower case.
        extension: String,
    },
    /// The file format is supported, but not by this build.
    #[error("{}: this program was built without Parquet; build it with `--features parquet`", path.display())]
    NoParquet {
        /// The file.
        path: PathBuf,
    },
    /// A pattern that no file matches.
    #[error("{pattern}: {problem}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: String,
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
#[error("{}{}: {fault}", path.display(), place(*line, *row))]
pub struct RecordError {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1; none if the format has none, or the record is the whole file.
    pub line: Option<u64>,
    /// The number of the record, counted from 1, in a format without lines: a row of Parquet, a record of WARC.
    pub row: Option<u64>,
    /// What is wrong with it.
    pub fault: RecordFault,
}

impl RecordError {
    /// The error that a whole file is bad.
    pub(crate) fn of_file(path: &Path, fault: RecordFault) -> Self {
        Self { path: path.to_owned(), line: None, row: None, fault }
    }

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
    /// A row is not what its format demands.
    #[error(transparent)]
    Row(Box<RowFault>),
    /// The file as a whole is not what its format demands.
    #[error("{problem}")]
    Format {
        /// In what way.
        problem: String,
    },
    /// A record of a web archive is not what the format demands.
    #[error("not a WARC record: {problem}")]
    Warc {
        /// In what way.
        problem: &'static str,
    },
    /// The content of a web page is compressed in a way that is not supported.
    #[error("the page is encoded as {encoding:?}, which cannot be decoded")]
    ContentEncoding {
        /// The encoding.
        encoding: String,
    },
    /// The rest of the file cannot be read, because of what is in it.
    #[error("{cause}; the rest of the file is not read")]
    Damaged {
        /// What is wrong.
        cause: io::Error,
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
            Self::Row(fault) => fault.reason(),
            Self::Format { .. } => "not-the-format",
            Self::Warc { .. } => "not-a-warc-record",
            Self::ContentEncoding { .. } => "content-encoding",
            Self::Damaged { .. } => "damaged-file",
        }
    }
}

impl SourceError {
    /// The error that a file cannot be read: that of a bad record if its content is why.
    pub(crate) fn reading(path: &Path, source: io::Error) -> Self {
        match is_damage(&source) {
            true => RecordError::of_file(path, RecordFault::Damaged { cause: source }).into(),
            false => Self::Read { path: path.to_owned(), source },
        }
    }
}

impl From<RowsError> for SourceError {
    fn from(error: RowsError) -> Self {
        match error {
            RowsError::Read { path, source } => Self::Read { path, source },
            RowsError::Unsupported { path } => {
                let extension = super::extension(&path);
                Self::Unsupported { path, extension }
            }
            RowsError::NoParquet { path } => Self::NoParquet { path },
            RowsError::Content { path, problem } => {
                RecordError::of_file(&path, RecordFault::Format { problem }).into()
            }
            RowsError::Json { path, source } => {
                RecordError::of_file(&path, RecordFault::Json { cause: source }).into()
            }
            RowsError::Row(RowError { origin: Origin { file, place }, fault }) => {
                let fault = match fault {
                    RowFault::Record(fault) => fault,
                    fault => RecordFault::Row(Box::new(fault)),
                };
                let (line, row) = match place {
                    Place::Line(line) => (Some(line), None),
                    Place::Item(row) => (None, Some(row)),
                    Place::Id(_) => (None, None),
                };
                RecordError { path: file.to_path_buf(), line, row, fault }.into()
            }
        }
    }
}

fn place(line: Option<u64>, row: Option<u64>) -> String {
    match (line, row) {
        (Some(line), _) => format!(":{line}"),
        (None, Some(row)) => format!(": record {row}"),
        (None, None) => String::new(),
    }
}

/// The parser's message without the line number, which is always 1 in a record.
fn in_record(cause: &serde_json::Error) -> String {
    cause.to_string().replace(" at line 1 column ", " at column ")
}
