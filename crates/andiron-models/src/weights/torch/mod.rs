//! `pytorch_model.bin`: a zip archive of a pickled state dict and the storages of its tensors, read without executing
//! anything.
//!
//! The archive holds `NAME/data.pkl`, with each tensor's storage and view, and the elements of each storage,
//! uncompressed, in `NAME/data/KEY`. Everything is checked when the file is opened: storages are within the file,
//! tensors within their storages. Elements are read on demand from their position in the file.
//!
//! Source: `torch/serialization.py` and `torch/_utils.py` of PyTorch 1.6 to 2.15. Files of earlier versions are not
//! zip archives and are refused.

mod pickle;

use std::collections::BTreeMap;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use andiron_files::ReadFile;
use safetensors::Dtype;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

pub use pickle::PickleError;
use pickle::{TensorView, read_state_dict};

use super::FileError;
use super::elements::{Elements, read_elements};
use super::source::TensorSource;

const PICKLE: &str = "data.pkl";
/// Maximum pickle size; that of a model with ten thousand tensors has 2 MB.
const MAX_PICKLE: u64 = 64 << 20;

/// An open file whose tensors have been checked.
pub(crate) struct TorchFile {
    path: PathBuf,
    file: ReadFile,
    tensors: BTreeMap<String, Tensor>,
}

/// A strided view of elements in the file.
#[derive(Debug)]
struct Tensor {
    dtype: Dtype,
    /// Byte offset of the first element in the file.
    start: u64,
    shape: Vec<usize>,
    strides: Vec<usize>,
    /// Elements from first to last, inclusive; 0 if empty.
    span: usize,
}

impl TorchFile {
    /// Opens and validates `path`.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let read = |source| FileError::Read { path: path.to_owned(), source };
        let mut file = andiron_files::open(path).map_err(read)?;
        let len = file.metadata().map_err(read)?.len();
        let mut begin = Vec::new();
        (&mut file).take(16).read_to_end(&mut begin).map_err(read)?;
        let refuse = |reason: String| TorchError::NotRead { path: path.to_owned(), reason };
        if !begin.starts_with(b"PK") {
            return Err(refuse(kind(&begin).to_owned()).into());
        }
        let zip = |error| match error {
            ZipError::Io(source) => read(source),
            source => TorchError::Zip { path: path.to_owned(), source }.into(),
        };
        let mut archive = ZipArchive::new(BufReader::new(&mut file)).map_err(zip)?;
        let root = root(&archive).ok_or_else(|| refuse(format!("the archive has no {PICKLE}")))?;

        let order = format!("{root}byteorder");
        if archive.index_for_name(&order).is_some() {
            let mut text = String::new();
            let entry = archive.by_name(&order).map_err(zip)?;
            entry.take(16).read_to_string(&mut text).map_err(read)?;
            if text.trim() != "little" {
                return Err(refuse(format!("its byte order is {text:?}; little is read")).into());
            }
        }
        let entry = archive.by_name(&format!("{root}{PICKLE}")).map_err(zip)?;
        if entry.size() > MAX_PICKLE {
            return Err(refuse(format!("{PICKLE} has {} bytes; {MAX_PICKLE} are read", entry.size())).into());
        }
        let mut bytes = Vec::new();
        entry.take(MAX_PICKLE).read_to_end(&mut bytes).map_err(read)?;
        let views = read_state_dict(&bytes);
        let views = views.map_err(|source| TorchError::Pickle { path: path.to_owned(), source })?;

        let mut storages: BTreeMap<String, Result<[u64; 2], String>> = BTreeMap::new();
        let mut tensors = BTreeMap::new();
        for (name, view) in views {
            let refuse = |reason| TorchError::Tensor { path: path.to_owned(), tensor: name.clone(), reason };
            let place = storages
                .entry(view.storage.clone())
                .or_insert_with(|| storage(&mut archive, &format!("{root}data/{}", view.storage), len));
            let [start, bytes] = place.clone().map_err(refuse)?;
            let tensor = Tensor::check(&view, start, bytes).map_err(refuse)?;
            tensors.insert(name, tensor);
        }
        drop(archive);
        Ok(Self { path: path.to_owned(), file, tensors })
    }

    /// Treats tensors whose names match `is_stale` as absent.
    pub(super) fn leave_out(&mut self, is_stale: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| !is_stale(name));
    }

    /// Whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
}

/// Describes a file that is not a zip archive by its first bytes.
fn kind(begin: &[u8]) -> &'static str {
    // A pickle of the magic number at the start of old PyTorch files.
    if begin.starts_with(&[0x80, 2, 0x8a, 10, 0x6c, 0xfc]) {
        return "it was written by PyTorch before 1.6: load it with torch.load and save it again";
    }
    if begin.starts_with(b"version https://") {
        return "it is a pointer of Git LFS, not the file itself: fetch it with git lfs pull";
    }
    "it is no zip archive, as torch.save writes it"
}

/// The archive's root folder, with its slash.
fn root<R: std::io::Read + std::io::Seek>(archive: &ZipArchive<R>) -> Option<String> {
    let names = archive.file_names().filter_map(Result::ok);
    let mut roots = names.filter_map(|name| {
        let root = name.strip_suffix(PICKLE)?;
        (root.matches('/').count() == 1 && root.ends_with('/')).then(|| root.to_owned())
    });
    roots.next()
}

/// Byte offset and length of a storage in the file.
fn storage<R: std::io::Read + std::io::Seek>(
    archive: &mut ZipArchive<R>,
    name: &str,
    file_len: u64,
) -> Result<[u64; 2], String> {
    let index = archive.index_for_name(name).ok_or_else(|| format!("the archive has no {name:?}"))?;
    let entry = archive.by_index_raw(index).map_err(|error| format!("{name:?} is not readable: {error}"))?;
    if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
        return Err(format!(
            "{name:?} is compressed or encrypted; storages as torch.save writes them are read"
        ));
    }
    let bytes = entry.size();
    let start = entry.data_start().unwrap_or(u64::MAX);
    match start.checked_add(bytes) {
        Some(end) if end <= file_len && entry.compressed_size() == bytes => Ok([start, bytes]),
        _ => Err(format!("{name:?} does not lie in the file: it is truncated or damaged")),
    }
}

impl Tensor {
    /// `view` of a storage of `bytes` bytes at byte offset `start` of the file.
    fn check(view: &TensorView, start: u64, bytes: u64) -> Result<Self, String> {
        let width = (view.dtype.bitsize() / 8) as u64;
        let len = view.storage_len;
        if len.checked_mul(width).is_none_or(|wanted| wanted > bytes) {
            return Err(format!("its storage has {bytes} bytes and should have {len} elements"));
        }
        let (shape, strides) = (&view.shape, &view.strides);
        if shape.len() != strides.len() {
            return Err(format!("its shape {shape:?} does not fit its strides {strides:?}"));
        }
        let count = shape.iter().try_fold(1_u64, |count, &n| count.checked_mul(n));
        let mut steps =
            shape.iter().zip(strides).map(|(&n, &stride)| n.saturating_sub(1).checked_mul(stride));
        let last = steps.try_fold(0_u64, |last, step| last.checked_add(step?));
        let outside = || {
            format!(
                "shape {shape:?} with strides {strides:?} from {} on lies outside its storage of {len} elements",
                view.offset
            )
        };
        let (count, last) = (count.ok_or_else(outside)?, last.ok_or_else(outside)?);
        let span = if count == 0 { 0 } else { last.checked_add(1).ok_or_else(outside)? };
        // A view that repeats elements could have any size.
        if view.offset.checked_add(span).is_none_or(|end| end > len) || count > len {
            return Err(outside());
        }
        let sizes =
            |sizes: &[u64]| sizes.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<Vec<_>>>();
        let sizes = sizes(shape).zip(sizes(strides)).zip(usize::try_from(span).ok());
        let ((shape, strides), span) = sizes.ok_or_else(outside)?;
        Ok(Self { dtype: view.dtype, start: start + view.offset * width, shape, strides, span })
    }

    /// Whether the view is contiguous and row-major.
    fn is_contiguous(&self) -> bool {
        let axes = self.shape.iter().zip(&self.strides).rev();
        let mut wanted = 1;
        for (&n, &stride) in axes.filter(|(n, _)| **n != 1) {
            if stride != wanted {
                return false;
            }
            wanted *= n;
        }
        true
    }

    /// Gathers the elements in row-major order from the span of first to last.
    fn rows(&self, span: &[f32]) -> Vec<f32> {
        let count = self.shape.iter().product();
        let mut rows = Vec::with_capacity(count);
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        while rows.len() < count {
            rows.push(span[at]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.strides[axis] * index[axis];
                index[axis] = 0;
            }
        }
        rows
    }
}

impl TensorSource for TorchFile {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect()
    }

    fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, FileError> {
        let tensor = self.tensors.get(name).expect("the caller took the name from this file");
        let read = |source| FileError::Read { path: self.path.clone(), source };
        let Some(elements) = Elements::of(tensor.dtype) else {
            let (path, tensor_name) = (self.path.clone(), name.to_owned());
            return Err(FileError::Dtype { path, tensor: tensor_name, dtype: tensor.dtype });
        };
        self.file.seek(SeekFrom::Start(tensor.start)).map_err(read)?;
        let span = read_elements(&mut self.file, elements, tensor.span).map_err(read)?;
        Ok(if tensor.is_contiguous() { span } else { tensor.rows(&span) })
    }
}

/// Errors of a `pytorch_model.bin`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// Another kind of file, or an unsupported form.
    #[error("cannot read {}: {reason}", path.display())]
    NotRead {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The archive is damaged.
    #[error("{} is not a whole zip archive", path.display())]
    Zip {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ZipError,
    },
    /// The pickle is not a state dict.
    #[error("{} holds a pickle that is not read", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: PickleError,
    },
    /// A tensor is outside its storage.
    #[error("{}: tensor {tensor}: {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
