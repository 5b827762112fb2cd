//! From files of text to a tokenizer and two datasets: the library side of `andiron prepare`.
//!
//! ```text
//! OUT/
//! ├── tokenizer/       tokenizer.json and what belongs to it
//! ├── train/           a dataset (see crate::shard)
//! ├── valid/           the held-out part, likewise
//! ├── removed.jsonl    each document left out, and why
//! └── prepare.json     a PrepareReport: inputs with hashes, counts, settings
//! ```
//!
//! The directory appears when everything is done and not before. The same inputs and settings give the same
//! bytes, whatever the number of threads; doing it again finds that and does nothing. Work that was interrupted
//! starts again from the beginning. `removed.jsonl` is not compressed.

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
use crate::shard::DatasetError;
use crate::source::{OnError, SourceError, SourceOptions};
use crate::tokenizer::{BpeOptions, SpecialTokens, TokenizerError, TrainError};

pub use pipeline::prepare;
pub use report::{DocumentCounts, InputFile, PrepareReport, SplitReport};

/// What is to be done.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// Files, and directories whose files are taken in the order of their names.
    pub inputs: Vec<PathBuf>,
    /// The directory to make.
    pub output: PathBuf,
    /// What to do if it is there already and was made from something else.
    pub existing: Existing,
    /// How files are read.
    pub sources: SourceOptions,
    /// What a record that cannot be read does to the work.
    pub on_error: OnError,
    /// What becomes of the ends of lines.
    pub line_endings: LineEndings,
    /// What becomes of documents that repeat an earlier one byte for byte.
    pub duplicates: Duplicates,
    /// The tokenizer to use or to make.
    pub tokenizer: TokenizerChoice,
    /// What is held out for validation.
    pub split: Split,
    /// What stands between documents.
    pub separator: Separator,
    /// The seed of the run; it chooses the documents held out.
    pub seed: u64,
    /// Threads that encode.
    pub threads: NonZeroUsize,
    /// See [`WriterOptions`](crate::shard::WriterOptions).
    pub tokens_per_shard: u64,
}

impl PrepareOptions {
    /// The settings for plain language-model training: text as it is, no repeated documents, a tenth held out,
    /// one thread.
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
    /// Put the new one in its place, once that is complete.
    Replace,
}

/// What becomes of documents that repeat an earlier one byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Duplicates {
    /// They stay.
    Keep,
    /// They are left out.
    Remove,
}

/// The tokenizer to use or to make.
#[derive(Clone, Debug)]
pub enum TokenizerChoice {
    /// One that is there: a directory or a `tokenizer.json`.
    Load(PathBuf),
    /// A byte-level vocabulary made from the training part.
    Bpe(BpeOptions),
    /// A vocabulary of the characters of the whole text, the held-out part included: it could not be encoded
    /// otherwise.
    Characters(SpecialTokens),
}

/// What is held out for validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Which part of it, in `0..1`; 0 makes no `valid` dataset.
    pub fraction: f64,
    /// Of what.
    pub by: SplitBy,
}

impl Default for Split {
    /// A tenth: of the characters if there is one document, else of the documents.
    fn default() -> Self {
        Self { fraction: 0.1, by: SplitBy::Auto }
    }
}

/// Of what a part is held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplitBy {
    /// Characters if there is one document, else documents.
    Auto,
    /// Whole documents, chosen by the seed: exactly the fraction, rounded, and one at least.
    Documents,
    /// The last characters of each document, as nanoGPT does.
    Characters,
}

/// What stands between documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Separator {
    /// The tokenizer's end-of-sequence token after each document, if it has one.
    EndOfText,
    /// Nothing.
    None,
}

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrepareProgress {
    /// What is being done.
    pub stage: Stage,
    /// Bytes of the inputs read in this stage.
    pub bytes_done: u64,
    /// Bytes of the inputs.
    pub bytes_total: u64,
    /// Documents read in this stage, those left out included.
    pub documents: u64,
    /// Tokens written.
    pub tokens: u64,
}

/// The stages of the work, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The inputs are hashed, to see whether the work was done before.
    Hash,
    /// Documents are read, cleaned and counted.
    Survey,
    /// A tokenizer is made.
    Train,
    /// Documents are encoded and written.
    Encode,
}

/// Why the work failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// An input cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The tokenizer cannot be loaded or used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A tokenizer cannot be made.
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
        /// What the system said.
        source: std::io::Error,
    },
    /// The output is there and was made from something else.
    #[error("{} was made from other inputs or settings ({differs}); choose another output directory, remove this one, or ask for it to be replaced", path.display())]
    Exists {
        /// The output directory.
        path: PathBuf,
        /// What is different.
        differs: &'static str,
    },
    /// Nothing is left to write.
    #[error("no text to prepare: {read} documents were read and {dropped} of them left out")]
    NoText {
        /// Documents read.
        read: u64,
        /// Documents left out.
        dropped: u64,
    },
    /// The fraction is no fraction.
    #[error("the held-out fraction is {fraction}; it must be at least 0 and below 1")]
    Fraction {
        /// The fraction.
        fraction: f64,
    },
    /// One part would be empty.
    #[error(
        "the {part} part would be empty: {documents} documents cannot be split so; give more text or another fraction"
    )]
    EmptyPart {
        /// `training` or `validation`.
        part: &'static str,
        /// Documents that there are.
        documents: u64,
    },
    /// An input is not what it was when the work began.
    #[error("the inputs changed while they were being read; start again")]
    InputChanged,
}

#[cfg(test)]
mod tests;
