//! One safetensors file, read tensor by tensor: the header is checked against the file before anything else.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use andiron_files::ReadFile;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::elements::{Elements, read_elements};
use super::gguf::GgufError;
use super::source::TensorSource;
use super::torch::TorchError;

/// Maximum header length, as in the format's reference reader.
const MAX_HEADER: u64 = 100_000_000;
const LENGTH_BYTES: u64 = 8;

/// An open file whose header has been validated.
pub(crate) struct TensorFile {
    path: PathBuf,
    file: ReadFile,
    metadata: Metadata,
    /// Tensors treated as absent.
    left_out: BTreeSet<String>,
    data_start: u64,
}

impl TensorFile {
    /// Opens and checks `path`. Allocates no more than the file's own header.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let at = || path.to_owned();
        let read = |source| FileError::Read { path: at(), source };
        let mut file = andiron_files::open(path).map_err(read)?;
        let file_len = file.metadata().map_err(read)?.len();
        let malformed = |reason: String| FileError::Malformed { path: at(), reason };
        if file_len < LENGTH_BYTES {
            return Err(malformed(format!("it has {file_len} bytes, fewer than the header's length takes")));
        }
        let mut length = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut length).map_err(read)?;
        let header_len = u64::from_le_bytes(length);
        if header_len > MAX_HEADER || header_len > file_len - LENGTH_BYTES {
            return Err(malformed(format!(
                "it claims a header of {header_len} bytes in a file of {file_len}"
            )));
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact(&mut header).map_err(read)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|source| FileError::Header { path: at(), source })?;
        let data_start = LENGTH_BYTES + header_len;
        let data_len = file_len - data_start;
        if metadata.data_len() as u64 != data_len {
            let wanted = metadata.data_len();
            return Err(malformed(format!(
                "its header describes {wanted} bytes of tensors but {data_len} follow: the file is truncated or damaged"
            )));
        }
        Ok(Self { path: at(), file, metadata, left_out: BTreeSet::new(), data_start })
    }

    /// Treats tensors whose names match `is_stale` as absent.
    pub(super) fn leave_out(&mut self, is_stale: impl Fn(&str) -> bool) {
        self.left_out = self.metadata.tensors().into_keys().filter(|name| is_stale(name)).collect();
    }

    /// Whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some() && !self.left_out.contains(name)
    }
}

impl TensorSource for TensorFile {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let there = self.metadata.tensors().into_iter().filter(|(name, _)| !self.left_out.contains(name));
        there.map(|(name, info)| (name, info.shape.clone())).collect()
    }

    fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, FileError> {
        let info = self.metadata.info(name).expect("the caller took the name from this file");
        let (start, end) = info.data_offsets;
        let Some(elements) = Elements::of(info.dtype) else {
            let (path, tensor) = (self.path.clone(), name.to_owned());
            return Err(FileError::Dtype { path, tensor, dtype: info.dtype });
        };
        let read = |source| FileError::Read { path: self.path.clone(), source };
        self.file.seek(SeekFrom::Start(self.data_start + start as u64)).map_err(read)?;
        let count = (end - start) * 8 / info.dtype.bitsize();
        read_elements(&mut self.file, elements, count).map_err(read)
    }
}

/// Errors of a weight file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Lengths in the file contradict each other.
    #[error("{} is not a whole safetensors file: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The header is not what the format prescribes.
    #[error("{} has an invalid safetensors header", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// An unsupported element type.
    #[error("{}: tensor {tensor} holds {dtype:?}; F32, F16 and BF16 are read", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: Dtype,
    },
    /// An error of a GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// An error of a PyTorch file.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}
