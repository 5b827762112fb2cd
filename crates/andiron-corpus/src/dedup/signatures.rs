//! Signature files: what is known of the documents of one input, in their order, before duplicates are decided.
//!
//! ```text
//! NAME       for each document with a signature: number u32, place of its id u64, keys u64 × buckets, sketch u8 × hashes;
//!            at the end the count of documents u64, the settings u64 × 4, the magic number
//! NAME.ids   the ids: length u32, UTF-8
//! ```
//! Everything is little-endian.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use andiron_files::PartialFile;
use andiron_kernels::mapped::MappedFile;

use super::minhash::{MinHashConfig, Signature};

const MAGIC: [u8; 8] = *b"AndMinH1";
const TRAILER: usize = 8 + 4 * 8 + 8;
/// Bytes of a record before its keys.
const HEAD: usize = 12;

/// Writes the signatures of the documents of one input.
pub struct SignatureWriter {
    config: MinHashConfig,
    path: PathBuf,
    records: BufWriter<PartialFile>,
    ids: BufWriter<PartialFile>,
    ids_length: u64,
    documents: u64,
}

impl SignatureWriter {
    /// Begins the file at `path`, which appears when [`finish`](Self::finish) is called, and `path.ids` beside it.
    ///
    /// # Errors
    /// If a file cannot be created.
    pub fn begin(path: &Path, config: &MinHashConfig) -> Result<Self, SignatureError> {
        let begin = |path: &Path| {
            PartialFile::begin(path).map(BufWriter::new).map_err(|source| SignatureError::write(path, source))
        };
        let (records, ids) = (begin(path)?, begin(&ids_path(path))?);
        Ok(Self { config: *config, path: path.to_owned(), records, ids, ids_length: 0, documents: 0 })
    }

    /// Adds the next document.
    ///
    /// # Errors
    /// If it cannot be written, or there are 2^32 documents already.
    ///
    /// # Panics
    /// If the signature was made with other settings.
    pub fn push(&mut self, id: &str, signature: Option<&Signature>) -> Result<(), SignatureError> {
        let (Ok(number), Ok(length)) = (u32::try_from(self.documents), u32::try_from(id.len())) else {
            return Err(SignatureError::TooMany { path: self.path.clone() });
        };
        self.documents += 1;
        let Some(Signature { keys, sketch }) = signature else { return Ok(()) };
        assert_eq!((keys.len(), sketch.len()), (self.config.buckets, self.config.n_hashes()));
        let write = |this: &mut Self| -> io::Result<()> {
            this.records.write_all(&number.to_le_bytes())?;
            this.records.write_all(&this.ids_length.to_le_bytes())?;
            for key in keys {
                this.records.write_all(&key.to_le_bytes())?;
            }
            this.records.write_all(sketch)?;
            this.ids.write_all(&length.to_le_bytes())?;
            this.ids.write_all(id.as_bytes())
        };
        write(self).map_err(|source| SignatureError::write(&self.path, source))?;
        self.ids_length += 4 + id.len() as u64;
        Ok(())
    }

    /// Puts the files in their places.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn finish(mut self) -> Result<(), SignatureError> {
        let MinHashConfig { n_grams, buckets, hashes_per_bucket, seed } = self.config;
        let numbers = [self.documents, n_grams as u64, buckets as u64, hashes_per_bucket as u64, seed];
        let mut write = || -> io::Result<()> {
            for number in numbers {
                self.records.write_all(&number.to_le_bytes())?;
            }
            self.records.write_all(&MAGIC)
        };
        write().map_err(|source| SignatureError::write(&self.path, source))?;
        // The ids first: without the records nobody reads them.
        for file in [self.ids, self.records] {
            let publish = || file.into_inner().map_err(io::IntoInnerError::into_error)?.publish();
            publish().map_err(|source| SignatureError::write(&self.path, source))?;
        }
        Ok(())
    }
}

/// A signature file, memory-mapped.
pub(super) struct SignatureFile {
    path: PathBuf,
    records: MappedFile,
    ids: MappedFile,
    record_bytes: usize,
    pub(super) config: MinHashConfig,
    /// Documents, with or without a signature.
    pub(super) documents: u64,
    /// Those with one.
    pub(super) signed: usize,
}

/// What a signature file knows of a document.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    /// Of the document within its file.
    pub(super) number: u32,
    id_at: u64,
    keys: &'a [u8],
    pub(super) sketch: &'a [u8],
}

impl Record<'_> {
    pub(super) fn keys(&self) -> impl Iterator<Item = u64> {
        let (keys, _) = self.keys.as_chunks();
        keys.iter().map(|key| u64::from_le_bytes(*key))
    }
}

impl SignatureFile {
    pub(super) fn open(path: &Path) -> Result<Self, SignatureError> {
        let map = |path: &Path| {
            MappedFile::open(path).map_err(|source| SignatureError::Read { path: path.to_owned(), source })
        };
        let damaged = || SignatureError::Damaged { path: path.to_owned() };
        let (records, ids) = (map(path)?, map(&ids_path(path))?);
        let (body, trailer) = records.split_last_chunk::<TRAILER>().ok_or_else(damaged)?;
        if trailer[TRAILER - 8..] != MAGIC {
            return Err(damaged());
        }
        let number = |index: usize| u64_at(trailer, 8 * index);
        let size = |index: usize| usize::try_from(number(index)).map_err(|_| damaged());
        let config = MinHashConfig {
            n_grams: size(1)?,
            buckets: size(2)?,
            hashes_per_bucket: size(3)?,
            seed: number(4),
        };
        config.validate().map_err(|_| damaged())?;
        let record_bytes = HEAD + 8 * config.buckets + config.n_hashes();
        let (signed, rest, documents) = (body.len() / record_bytes, body.len() % record_bytes, number(0));
        if rest != 0 || documents > 1 << 32 || signed as u64 > documents {
            return Err(damaged());
        }
        Ok(Self { path: path.to_owned(), records, ids, record_bytes, config, documents, signed })
    }

    /// The record of the `index`-th document that has one.
    ///
    /// # Panics
    /// If there are not so many.
    pub(super) fn record(&self, index: usize) -> Record<'_> {
        assert!(index < self.signed, "record {index} of {}", self.signed);
        let record = &self.records[index * self.record_bytes..][..self.record_bytes];
        let (head, rest) = record.split_at(HEAD);
        let (keys, sketch) = rest.split_at(8 * self.config.buckets);
        Record { number: u32_at(head, 0), id_at: u64_at(head, 4), keys, sketch }
    }

    /// The id of a document.
    pub(super) fn id(&self, record: Record<'_>) -> Result<&str, SignatureError> {
        let damaged = || SignatureError::Damaged { path: self.path.clone() };
        let id = usize::try_from(record.id_at).ok().and_then(|at| {
            let (length, id) = self.ids.get(at..)?.split_first_chunk()?;
            id.get(..u32::from_le_bytes(*length) as usize)
        });
        std::str::from_utf8(id.ok_or_else(damaged)?).map_err(|_| damaged())
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn ids_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".ids");
    name.into()
}

/// Why signatures cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file is not what was written.
    #[error("{} is damaged, or of another version; remove it, so that it is made again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Two files were made with different settings.
    #[error("{} was made with other settings than {}; remove both, so that they are made again", path.display(), other.display())]
    Settings {
        /// One file.
        path: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// There are too many documents.
    #[error("{}: more than 4294967295 documents cannot be compared at once", path.display())]
    TooMany {
        /// The file at which the count was reached.
        path: PathBuf,
    },
}

impl SignatureError {
    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }
}
