//! Why a task cannot be read or run.

use std::path::PathBuf;

use andiron_data::jinja::TemplateError;
use andiron_data::rows::RowsError;
use andiron_data::tokenizer::TokenizerError;
use andiron_pipelines::{CompletionError, ScoreError, TextError};

use super::yaml::YamlError;

/// Why a task cannot be read or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A file is no YAML, or needs Python.
    #[error("{}: {source}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: YamlError,
    },
    /// A key cannot be used.
    #[error("{}: {key} {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key, with those around it.
        key: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// Files lead to each other without end, or give a task twice.
    #[error("{}: {problem}", path.display())]
    Files {
        /// A file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The rows of a task cannot be read.
    #[error("task {task}, split {split}")]
    Rows {
        /// The task.
        task: String,
        /// The split.
        split: String,
        /// Cause.
        source: Box<RowsError>,
    },
    /// A template of a task does not suit it.
    #[error("task {task}, {key}: {source}")]
    Template {
        /// The task.
        task: String,
        /// The key of the template.
        key: &'static str,
        /// Cause.
        source: TemplateError,
    },
    /// A row of a task does not suit it.
    #[error("task {task}, row {row}: {problem}")]
    Row {
        /// The task.
        task: String,
        /// Number of the row, from 0.
        row: usize,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A task as a whole cannot be run.
    #[error("task {task}: {problem}")]
    Task {
        /// The task.
        task: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The model has no token to begin a text with.
    #[error(
        "task {task}: the tokenizer has neither a BOS nor an EOS token, from which the first token would be predicted"
    )]
    NoPrefix {
        /// The task.
        task: String,
    },
    /// A text cannot be tokenized, or tokens not decoded.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The same.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Tokens cannot be scored.
    #[error("task {task}, row {row}: {source}")]
    Score {
        /// The task.
        task: String,
        /// Number of the row, from 0.
        row: usize,
        /// Cause.
        source: ScoreError,
    },
    /// A text cannot be generated.
    #[error("task {task}, row {row}: {source}")]
    Generate {
        /// The task.
        task: String,
        /// Number of the row, from 0.
        row: usize,
        /// Cause.
        source: CompletionError,
    },
}
