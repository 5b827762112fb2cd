//! Tokenized corpora on disk.
//!
//! A dataset is a directory:
//!
//! | file | holds |
//! |---|---|
//! | `manifest.json` | [`Manifest`]: format, token type, vocabulary size, tokenizer hash, counts, a BLAKE3 hash per file |
//! | `shard-00000.ids` … | the token ids of whole documents, one after the other, `u16` or `u32`, little-endian |
//! | `shard-00000.docs` … | where each document begins, and its id (layout: [`Dataset`]) |
//! | `stats.json` | [`Stats`]: counts of tokens, characters and bytes |
//!
//! A [`DatasetWriter`] writes it and publishes it atomically when it is complete; it does not change afterwards. A
//! [`Dataset`] memory-maps its files: the cost of opening does not depend on the number of tokens, and the system pages in
//! what is used.

mod dataset;
mod documents;
pub(crate) mod file;
mod manifest;
mod writer;

use std::path::PathBuf;

pub use dataset::{Dataset, DocumentRef};
pub use manifest::{Manifest, ShardEntry, Stats, TokenType};
pub use writer::{DatasetWriter, WriterOptions};

/// Why a dataset could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSON file has another form.
    #[error("{} is not what it should be; prepare the dataset again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The directory was written by another version, or is not a dataset.
    #[error("{}: format {found:?} version {version} is not one this program reads ({wanted:?} version {wanted_version})", path.display())]
    Format {
        /// The manifest.
        path: PathBuf,
        /// The format it names.
        found: String,
        /// The version it names.
        version: u32,
        /// The format that is read.
        wanted: &'static str,
        /// The version that is read.
        wanted_version: u32,
    },
    /// A file is shorter or longer than the manifest says.
    #[error("{}: {found} bytes, the manifest says {wanted}; the file is damaged, prepare the dataset again", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length it should have.
        wanted: u64,
    },
    /// A file contradicts the manifest or itself.
    #[error("{}: {problem}; the file is damaged, prepare the dataset again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        problem: &'static str,
    },
    /// A directory that would be replaced holds something else.
    #[error("{} is there and holds no records; move it away or choose another directory", path.display())]
    NotRecords {
        /// The directory.
        path: PathBuf,
    },
    /// A column of records has a name that cannot be one.
    #[error("the column {name:?} cannot be stored; names are up to 64 of a-z, 0-9 and _, and differ")]
    ColumnName {
        /// The name.
        name: String,
    },
    /// An id of a record is outside of its range.
    #[error("record {record}: {id} in column {column:?} is not below {limit}")]
    RecordId {
        /// Index of the record.
        record: u64,
        /// The column.
        column: String,
        /// The id.
        id: u32,
        /// Ids are below this.
        limit: u32,
    },
    /// An id is outside of the vocabulary.
    #[error("token {position} is the id {id}, the vocabulary has {vocab_size}")]
    IdOutOfRange {
        /// The id.
        id: u32,
        /// Its place in the document or shard.
        position: u64,
        /// The size of the vocabulary.
        vocab_size: u32,
    },
    /// A document's id is too long to keep.
    #[error("a document's id has {bytes} bytes; at most {limit} are kept")]
    DocumentId {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

#[cfg(test)]
mod tests;
