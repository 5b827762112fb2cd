//! From files of text to a tokenizer and two datasets: the library side of `andiron prepare`.
//!
//! ```text
//! OUT/
//! ├── tokenizer/       tokenizer.json and its settings
//! ├── train/           a dataset (see andiron_data::shard)
//! ├── valid/           the held-out part, likewise
//! ├── removed.jsonl    each document left out, with the reason
//! └── prepare.json     a PrepareReport: inputs with hashes, counts, settings
//! ```
//!
//! The directory is published atomically at the end. The same inputs and settings give the same bytes, whatever the number
//! of threads; if the output is up to date, nothing is done. After an interruption the next run starts from the beginning.
//! `removed.jsonl` is not compressed.

mod encode;
mod pipeline;
mod progress;
mod read;
mod report;
mod reuse;
mod split;
mod train;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::clean::LineEndings;
use andiron_data::shard::DatasetError;
use andiron_data::source::{OnError, SourceError, SourceOptions};
use andiron_data::tokenizer::{BpeOptions, SpecialTokens, TokenizerError, TrainError};

pub use andiron_data::source::InputFile;
pub use pipeline::prepare;
pub use report::{DocumentCounts, PrepareReport, SplitReport};

/// Settings of [`prepare`].
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// Files and directories; the files of a directory are read in the order of their names.
    pub inputs: Vec<PathBuf>,
    /// The output directory.
    pub output: PathBuf,
    /// What to do if the output exists and was made from other inputs or settings.
    pub existing: Existing,
    /// How each kind of file is read.
    pub sources: SourceOptions,
    /// Whether an unreadable record is an error or skipped.
    pub on_error: OnError,
    /// How line endings are normalized.
    pub line_endings: LineEndings,
    /// Whether exact duplicates are removed.
    pub duplicates: Duplicates,
    /// The tokenizer to load or train.
    pub tokenizer: TokenizerChoice,
    /// The validation split.
    pub split: Split,
    /// The separator between documents.
    pub separator: Separator,
    /// The seed of the run, which decides the documents of the validation split.
    pub seed: u64,
    /// Number of threads for encoding.
    pub threads: NonZeroUsize,
    /// See [`WriterOptions`](andiron_data::shard::WriterOptions).
    pub tokens_per_shard: u64,
}

impl PrepareOptions {
    /// Defaults for language-model training: no cleaning, exact duplicates removed, a tenth held out, one thread.
    pub fn new(inputs: Vec<PathBuf>, output: PathBuf, tokenizer: TokenizerChoice) -> Self {
        Self {
            inputs,
            output,
            existing: Existing::Refuse,
            sources: SourceOptions::default(),
            on_error: OnError::Fail,
            line_endings: LineEndings::Keep,
            duplicates: Duplicates::Remove,
            tokenizer,
            split: Split::default(),
            separator: Separator::EndOfText,
            seed: 0,
            threads: NonZeroUsize::MIN,
            tokens_per_shard: 1 << 28,
        }
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

/// What is done with documents that equal an earlier one byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duplicates {
    /// They are kept.
    Keep,
    /// They are removed.
    Remove,
}

/// The tokenizer to load or train.
#[derive(Clone, Debug)]
pub enum TokenizerChoice {
    /// Load an existing one: a directory or a `tokenizer.json`.
    Load(PathBuf),
    /// Train byte-level BPE on the training split.
    Bpe(BpeOptions),
    /// A vocabulary of the characters of the whole text, including the validation split, which could not be encoded
    /// otherwise.
    Characters(SpecialTokens),
}

/// The validation split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// The fraction held out, in `0..1`; with 0 there is no `valid` dataset.
    pub fraction: f64,
    /// The unit of the split.
    pub by: SplitBy,
}

impl Default for Split {
    /// A tenth: of the characters if there is one document, else of the documents.
    fn default() -> Self {
        Self { fraction: 0.1, by: SplitBy::Auto }
    }
}

/// The unit of a [`Split`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitBy {
    /// Characters if there is one document, else documents.
    Auto,
    /// Whole documents, chosen by the seed: exactly the fraction, rounded, and at least one.
    Documents,
    /// The last characters of each document, as nanoGPT does.
    Characters,
}

/// The separator between documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Separator {
    /// The tokenizer's end-of-sequence token after each document, if it has one.
    EndOfText,
    /// Nothing.
    None,
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
    /// The fraction is not in `0..1`.
    #[error("the held-out fraction is {fraction}; it must be at least 0 and below 1")]
    Fraction {
        /// The fraction.
        fraction: f64,
    },
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
