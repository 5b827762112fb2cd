//! What can be wrong with rows.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::input::is_damage;
use crate::source::RecordFault;

/// Where a row comes from. It is displayed as `file:line`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: Arc<Path>,
    /// The row's place in it.
    pub place: Place,
}

/// The place of a row in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The line it begins in, counted from 1.
    Line(u64),
    /// The id of a row, in a file that may be a single line.
    Id(String),
    /// The number of a row without an id, counted from 1, in such a file.
    Item(u64),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.place {
            Place::Line(line) => write!(f, "{file}:{line}"),
            Place::Id(id) => write!(f, "{file}: id {:?}", excerpt(id)),
            Place::Item(item) => write!(f, "{file}: row {item}"),
        }
    }
}

/// Why rows could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowsError {
    /// The file cannot be opened or read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file format is not supported.
    #[error("{}: rows are read from .jsonl, .json, .csv, .tsv, .parquet and tables in .txt, also compressed (.gz, .zst); convert it to JSON Lines", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
    },
    /// The file format is supported, but not by this build.
    #[error("{}: this program was built without Parquet; build it with `--features parquet`", path.display())]
    NoParquet {
        /// The file.
        path: PathBuf,
    },
    /// The file as a whole is not what its format demands.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// In what way.
        problem: String,
    },
    /// A file that is one JSON value cannot be parsed.
    #[error("{} is not JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// One row is bad; the reader continues after it.
    #[error(transparent)]
    Row(#[from] RowError),
}

impl RowsError {
    /// The error that a file cannot be read from a line on: that of a bad row if its content is why.
    pub(super) fn reading(file: &Arc<Path>, line: u64, source: std::io::Error) -> Self {
        if !is_damage(&source) {
            return Self::Read { path: file.to_path_buf(), source };
        }
        let origin = Origin { file: file.clone(), place: Place::Line(line.max(1)) };
        RowError { origin, fault: RecordFault::Damaged { cause: source }.into() }.into()
    }
}

/// One row that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {fault}")]
pub struct RowError {
    /// Where it is.
    pub origin: Origin,
    /// What is wrong with it.
    pub fault: RowFault,
}

/// What can be wrong with a row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowFault {
    /// It cannot be read.
    #[error(transparent)]
    Record(#[from] RecordFault),
    /// A row of a table has more or fewer cells than the header.
    #[error(
        "{found} cells, but the header has {wanted}; cells that contain a separator or a line break are put in quotes"
    )]
    Cells {
        /// Its cells.
        found: usize,
        /// Those of the header.
        wanted: usize,
    },
    /// A cell begins with a quote that nothing closes.
    #[error("a cell begins with a quote that is never closed; close it, or read the table without quotes")]
    OpenQuote,
    /// A field is absent.
    #[error("no field {field:?}; the row has {}; name the field to read", list(has))]
    Missing {
        /// The field.
        field: String,
        /// The fields that the row has.
        has: Vec<String>,
    },
    /// A field holds something else.
    #[error("field {field:?} is {found}, not {wanted}")]
    Type {
        /// The field.
        field: String,
        /// What it holds.
        found: String,
        /// What it should hold.
        wanted: &'static str,
    },
    /// A field that the model is to learn from is empty.
    #[error("field {field:?} is empty")]
    Empty {
        /// The field.
        field: String,
    },
    /// Two lists that belong together differ in length.
    #[error("field {first:?} has {n_first} items, {second:?} has {n_second}; they must be as many")]
    Lengths {
        /// A field.
        first: String,
        /// Its items.
        n_first: usize,
        /// Another field.
        second: String,
        /// Its items.
        n_second: usize,
    },
    /// A conversation has no answer to learn.
    #[error("field {field:?} has no message of the assistant to learn from")]
    NoAssistant {
        /// The field.
        field: String,
    },
    /// A chosen and a rejected answer that are equal prefer nothing.
    #[error(
        "fields {chosen:?} and {rejected:?} are equal or one begins with the other; there is nothing to prefer"
    )]
    SameAnswers {
        /// A field.
        chosen: String,
        /// Another field.
        rejected: String,
    },
    /// An answer is not where it is said to be.
    #[error("the answer {answer:?} is not at character {start} of the context{}", elsewhere(*nearest))]
    AnswerPlace {
        /// The answer.
        answer: String,
        /// Where it should begin, in characters.
        start: u64,
        /// Where it is found.
        nearest: Option<u64>,
    },
    /// A label that the vocabulary does not have.
    #[error("the label {label:?} is none of {}", list(known))]
    UnknownLabel {
        /// The label.
        label: String,
        /// Those of the vocabulary.
        known: Vec<String>,
    },
    /// A number has two names.
    #[error("label {number} is named {found:?} here and {earlier:?} before")]
    LabelNames {
        /// The label.
        number: i64,
        /// Its name in this row.
        found: String,
        /// Its name in an earlier one.
        earlier: String,
    },
}

impl RowFault {
    /// A short fixed name, by which skipped rows are counted.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Record(fault) => fault.reason(),
            Self::Cells { .. } => "number-of-cells",
            Self::OpenQuote => "open-quote",
            Self::Missing { .. } => "missing-field",
            Self::Type { .. } => "wrong-type",
            Self::Empty { .. } => "empty-field",
            Self::Lengths { .. } => "lengths-differ",
            Self::NoAssistant { .. } => "no-assistant-message",
            Self::SameAnswers { .. } => "same-answers",
            Self::AnswerPlace { .. } => "answer-not-in-context",
            Self::UnknownLabel { .. } => "unknown-label",
            Self::LabelNames { .. } => "label-with-two-names",
        }
    }
}

/// The first of many names, for a message.
pub(crate) fn list(names: &[String]) -> String {
    const SHOWN: usize = 8;
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("{:?}", excerpt(name))).collect();
    let more = names.len().saturating_sub(SHOWN);
    shown.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}

fn elsewhere(nearest: Option<u64>) -> String {
    nearest.map_or_else(|| ", nor anywhere in it".to_owned(), |at| format!(", but at {at}"))
}

/// The beginning of a text, for a message.
pub(super) fn excerpt(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
