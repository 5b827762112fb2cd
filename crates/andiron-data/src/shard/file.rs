//! The files of a dataset: written with a hash, mapped, and parsed with bounds.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use andiron_kernels::mapped::MappedFile;
use serde::de::DeserializeOwned;

use super::DatasetError;
use crate::files::{Operation, WriteFile, allow, create, read_bounded};

const JSON_LIMIT: u64 = 64 << 20;

/// A file that is hashed while it is written.
pub(crate) struct HashedFile {
    path: PathBuf,
    file: BufWriter<WriteFile>,
    hasher: blake3::Hasher,
}

impl HashedFile {
    pub(crate) fn create(path: PathBuf) -> Result<Self, DatasetError> {
        let file = create(&path).map_err(|source| DatasetError::Write { path: path.clone(), source })?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 18, file), hasher: blake3::Hasher::new() })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), DatasetError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|source| DatasetError::Write { path: self.path.clone(), source })
    }

    /// Syncs the file to disk and gives its BLAKE3 hash in hexadecimal.
    pub(crate) fn finish(self) -> Result<String, DatasetError> {
        let failed = |source| DatasetError::Write { path: self.path.clone(), source };
        self.file.into_inner().map_err(|error| failed(error.into_error()))?.sync().map_err(failed)?;
        Ok(self.hasher.finalize().to_hex().to_string())
    }
}

pub(crate) fn map(path: &Path) -> Result<MappedFile, DatasetError> {
    allow(Operation::Open, path)
        .and_then(|()| MappedFile::open(path))
        .map_err(|source| DatasetError::Read { path: path.to_owned(), source })
}

/// Maps a file that holds `count` values of `width` bytes and nothing else.
pub(crate) fn map_values(path: PathBuf, count: u64, width: usize) -> Result<MappedFile, DatasetError> {
    let file = map(&path)?;
    let found = file.len() as u64;
    match count.checked_mul(width as u64) {
        Some(wanted) if wanted == found => Ok(file),
        wanted => Err(DatasetError::Size { path, found, wanted: wanted.unwrap_or(u64::MAX) }),
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DatasetError> {
    read_bounded(path, JSON_LIMIT).map_err(|source| DatasetError::Read { path: path.to_owned(), source })
}

pub(crate) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, DatasetError> {
    serde_json::from_slice(bytes).map_err(|source| DatasetError::Json { path: path.to_owned(), source })
}

/// Compares the hash of a file's content with that of the manifest.
pub(crate) fn verify(path: PathBuf, bytes: &[u8], wanted: &str) -> Result<(), DatasetError> {
    if blake3::hash(bytes).to_hex().as_str() == wanted {
        return Ok(());
    }
    Err(DatasetError::Damaged { path, problem: "its hash differs from the manifest" })
}
