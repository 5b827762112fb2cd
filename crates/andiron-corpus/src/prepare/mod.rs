//! From files of text to a tokenizer and two datasets: the library side of `andiron prepare`.
//!
//! ```text
//! OUT/
//! ├── documents/       the cleaned documents, JSON Lines
//! ├── removed.jsonl    each document left out: id, filter, reason, score, the beginning of its text
//! ├── tokenizer/       tokenizer.json and its settings
//! ├── train/           a dataset (see andiron_data::shard)
//! ├── valid/           the held-out part, likewise
//! ├── pipeline.toml    the settings, defaults included
//! ├── stages.json      what documents/ and tokenizer/ were made from
//! ├── report.html      all of it on one page
//! └── prepare.json     a PrepareReport: inputs with hashes, counts, settings
//! ```
//!
//! | stage | of | memory |
//! |---|---|---|
//! | filter: read, pass the filters, sign | each part: a file, or several small ones | a few MiB for each thread |
//! | documents: find duplicates and near-duplicates by signatures, keep the others; remove repeated paragraphs | all signatures; then each part | 256 MiB at most, and the Bloom filter of paragraphs |
//! | tokenizer: train, unless one is given | all documents in order | what the vocabulary needs |
//! | shards: encode | each part | 8 MiB of text for each thread |
//!
//! Each stage is one pass over bounded memory, by all threads. Its result is kept beside the output, in `.OUT.stages`, with the hash
//! of what it was made from, until the output is complete; so a run that was killed goes on where it was. The cleaned documents
//! and the tokenizer of an earlier output are used again if what they were made from is unchanged.
//!
//! The output directory is published atomically at the end. The same inputs and settings give the same bytes, whatever the number
//! of threads and however often the run was killed; if the output is up to date, nothing is done. Nothing is compressed.

mod chain;
mod config;
mod crew;
mod documents;
mod duplicates;
mod encode;
mod filter;
mod inputs;
mod mixture;
mod paragraphs;
mod parts;
mod pipeline;
mod progress;
mod report;
mod reuse;
mod split;
mod stored;
mod tasks;
mod train;
mod work;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::dedup::SignatureError;
use crate::report::CollectError;
use andiron_data::shard::DatasetError;
use andiron_data::source::SourceError;
use andiron_data::tokenizer::{TokenizerError, TrainError};

pub use andiron_data::source::InputFile;
pub use config::{
    DedupConfig, Duplicates, MixtureConfig, PrepareConfig, PrepareConfigError, Separator, ShardsConfig,
    SourceConfig, Split, SplitBy, TokenizerChoice,
};
pub use paragraphs::ParagraphReport;
pub use pipeline::prepare;
pub use report::{DocumentCounts, PrepareReport, SourceReport, SplitReport, StepCounts};
pub use tasks::{PrepareStatus, Task, TaskReport, TaskWork, merge, merge_documents, prepare_task, status};

/// Version of the pipeline: within one, the same inputs and settings give the same bytes.
const VERSION: u32 = 2;

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
    /// Documents are read and filtered.
    Clean,
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
    /// Signatures of near-duplicates cannot be written or read.
    #[error(transparent)]
    Signatures(#[from] SignatureError),
    /// The report cannot be made.
    #[error(transparent)]
    Report(#[from] CollectError),
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
    /// There is no such task.
    #[error("task {number} of {of} does not exist: tasks are counted from 1")]
    Task {
        /// The number of the task.
        number: u64,
        /// How many there are.
        of: u64,
    },
    /// The documents are in place, but not the tokenizer that encodes them.
    #[error("{}: the documents are in place and the tokenizer is not; merge first", path.display())]
    NoTokenizer {
        /// The output directory.
        path: PathBuf,
    },
    /// Parts are missing that tasks should have made.
    #[error(
        "{missing} of {parts} parts are not there, or were made from other inputs or settings; run the tasks that are missing"
    )]
    Unfinished {
        /// Parts that are missing.
        missing: usize,
        /// All parts.
        parts: usize,
    },
    /// There is nothing to merge or to report.
    #[error("{} is no output, and no task has begun one", path.display())]
    NotBegun {
        /// The output directory.
        path: PathBuf,
    },
    /// A file of an earlier stage cannot be read again.
    #[error("{} is damaged; remove its directory and start again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// An input was changed while it was read.
    #[error("the inputs changed while they were being read; start again")]
    InputChanged,
}

#[cfg(test)]
mod tests;
