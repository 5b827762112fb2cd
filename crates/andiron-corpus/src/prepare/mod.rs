//! From files of text to a tokenizer and two datasets: the library side of `andiron prepare`.
//!
//! ```text
//! OUT/
//! ├── tokenizer/       tokenizer.json and its settings
//! ├── train/           a dataset (see andiron_data::shard)
//! ├── valid/           the held-out part, likewise
//! ├── removed.jsonl    each document left out: id, filter, reason, score
//! ├── pipeline.toml    the settings, defaults included
//! └── prepare.json     a PrepareReport: inputs with hashes, counts, settings
//! ```
//!
//! The directory is published atomically at the end. The same inputs and settings give the same bytes, whatever the number
//! of threads; if the output is up to date, nothing is done. After an interruption the next run starts from the beginning.
//! `removed.jsonl` is not compressed.

mod chain;
mod config;
mod encode;
mod inputs;
mod pipeline;
mod progress;
mod read;
mod report;
mod reuse;
mod split;
mod train;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use andiron_data::shard::DatasetError;
use andiron_data::source::SourceError;
use andiron_data::tokenizer::{TokenizerError, TrainError};

pub use andiron_data::source::InputFile;
pub use config::{
    DedupConfig, Duplicates, PrepareConfig, PrepareConfigError, Separator, ShardsConfig, SourceConfig, Split,
    SplitBy, TokenizerChoice,
};
pub use pipeline::prepare;
pub use report::{DocumentCounts, PrepareReport, SplitReport, StepCounts};

/// How [`prepare`] does its work: nothing here changes a byte of the output.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// What to do if the output exists and was made from other inputs or settings.
    pub existing: Existing,
    /// Number of threads.
    pub threads: NonZeroUsize,
}

impl Default for PrepareOptions {
    /// An output made from something else is left alone; one thread.
    fn default() -> Self {
        Self { existing: Existing::Refuse, threads: NonZeroUsize::MIN }
    }
}

/// What to do with an output directory that was made from other inputs or settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it and fail.
    Refuse,
    /// Replace it, once the new one is complete.
    Replace,
}

/// Progress of [`prepare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrepareProgress {
    /// The current stage.
    pub stage: Stage,
    /// Bytes of the inputs read in this stage.
    pub bytes_done: u64,
    /// Bytes of the inputs.
    pub bytes_total: u64,
    /// Documents read in this stage, including those left out.
    pub documents: u64,
    /// Tokens written.
    pub tokens: u64,
}

/// The stages, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The inputs are hashed, to detect an output that is up to date.
    Hash,
    /// Documents are read, cleaned and counted.
    Survey,
    /// A tokenizer is trained.
    Train,
    /// Documents are encoded and written.
    Encode,
}

/// Why [`prepare`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// An input cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The tokenizer cannot be loaded or used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A tokenizer cannot be trained.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A dataset cannot be written or read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// One document cannot be encoded.
    #[error("document {id} cannot be encoded")]
    Encode {
        /// The document.
        id: String,
        /// Why.
        source: TokenizerError,
    },
    /// A file of the output cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The output exists and was made from other inputs or settings.
    #[error("{} was made from other inputs or settings ({differs}); choose another output directory, remove this one, or ask for it to be replaced", path.display())]
    Exists {
        /// The output directory.
        path: PathBuf,
        /// What is different.
        differs: &'static str,
    },
    /// No document is left.
    #[error("no text to prepare: {read} documents were read and {dropped} of them left out")]
    NoText {
        /// Documents read.
        read: u64,
        /// Documents left out.
        dropped: u64,
    },
    /// A setting is invalid.
    #[error(transparent)]
    Config(#[from] PrepareConfigError),
    /// Nothing says where the output goes.
    #[error("there is no output directory; set `output`")]
    NoOutput,
    /// One split would be empty.
    #[error(
        "the {part} part would be empty: {documents} documents cannot be split so; give more text or another fraction"
    )]
    EmptyPart {
        /// `training` or `validation`.
        part: &'static str,
        /// Documents that there are.
        documents: u64,
    },
    /// An input was changed while it was read.
    #[error("the inputs changed while they were being read; start again")]
    InputChanged,
}

#[cfg(test)]
mod tests;
