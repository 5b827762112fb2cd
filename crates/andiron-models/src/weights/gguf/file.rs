//! A GGUF file: header, metadata and tensor table are validated before use.
//!
//! Source: the specification at <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little
//! endian.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use andiron_files::Operation;
use andiron_kernels::mapped::MappedFile;

use super::blocks::ElementType;
use super::value::{Array, Value};

pub(super) const MAGIC: [u8; 4] = *b"GGUF";
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;
pub(super) const ALIGNMENT: &str = "general.alignment";

/// Bytes dequantized at a time, so that a tensor's bytes are never in memory beside its elements.
const READ_AT_ONCE: usize = 1 << 20;

/// Maximum number of dimensions.
const MAX_DIMS: u32 = 4;
/// Maximum nesting of arrays: no known key exceeds one.
const MAX_DEPTH: usize = 4;

/// An open GGUF file whose header, metadata and tensor table have been validated.
///
/// The file is mapped: do not write to it while it is open.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    map: MappedFile,
    version: u32,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<TensorEntry>,
    by_name: HashMap<String, usize>,
}

/// An entry of the tensor table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Shape, outermost axis first; the file stores the innermost first.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub element: ElementType,
    /// Its bytes in the file.
    pub bytes: Range<usize>,
}

impl GgufFile {
    /// Opens and validates `path`. Allocates at most a small multiple of the header's size.
    ///
    /// # Errors
    /// If the file cannot be read, is not GGUF, has an unsupported version or element type, or contradicts itself or
    /// its length.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let map = andiron_files::allow(Operation::Open, path)
            .and_then(|()| MappedFile::open(path))
            .map_err(|source| GgufError::Read { path: path.to_owned(), source })?;
        let at = || path.to_owned();
        let mut cursor = Cursor { bytes: &map, at: 0, path };
        if cursor.bytes.get(..4) != Some(&MAGIC) {
            return Err(GgufError::NotGguf { path: at() });
        }
        cursor.at = 4;
        let version = cursor.u32("header")?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version { path: at(), version });
        }
        let n_tensors = cursor.u64("header")?;
        let n_pairs = cursor.u64("header")?;
        // A tensor takes at least 24 bytes of the table, a key with its value 13.
        let n_tensors = cursor.count(n_tensors, 24, "number of tensors")?;
        let n_pairs = cursor.count(n_pairs, 13, "number of metadata keys")?;
        let metadata = read_metadata(&mut cursor, n_pairs)?;
        let alignment = alignment(&metadata, path)?;
        let tensors = read_tensors(&mut cursor, n_tensors, alignment)?;
        let by_name = index(&tensors, path)?;
        Ok(Self { path: at(), map, version, metadata, tensors, by_name })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file in bytes.
    pub fn n_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Format version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The value of a metadata key.
    pub fn metadata(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// All metadata, sorted by key.
    pub fn all_metadata(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.metadata.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// All tensors, in the order of the file's table.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorEntry> {
        self.tensors.iter()
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        self.by_name.get(name).map(|&number| &self.tensors[number])
    }

    /// The stored bytes of a tensor.
    ///
    /// # Errors
    /// If there is no such tensor.
    pub fn read_bytes(&self, name: &str) -> Result<&[u8], GgufError> {
        Ok(&self.map[self.required(name)?.bytes.clone()])
    }

    /// The elements of a tensor as f32, dequantized if needed.
    ///
    /// # Errors
    /// If there is no such tensor.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, GgufError> {
        let tensor = self.required(name)?;
        Ok(tensor.element.to_f32(&self.map[tensor.bytes.clone()]))
    }

    /// As above, releasing the mapped pages as they are read.
    pub(super) fn read_f32_once(&mut self, name: &str) -> Result<Vec<f32>, GgufError> {
        let TensorEntry { element, bytes, shape, .. } = self.required(name)?.clone();
        let step = (READ_AT_ONCE / element.block_bytes()).max(1) * element.block_bytes();
        let mut values = Vec::with_capacity(shape.iter().product());
        for start in bytes.clone().step_by(step) {
            let part = start..bytes.end.min(start + step);
            values.extend(element.to_f32(&self.map[part.clone()]));
            self.map.release(part);
        }
        Ok(values)
    }

    /// The bytes of a tensor, releasing the mapped pages.
    pub(super) fn read_bytes_once(&mut self, name: &str) -> Result<Vec<u8>, GgufError> {
        let bytes = self.required(name)?.bytes.clone();
        let mut copy = Vec::with_capacity(bytes.len());
        for start in bytes.clone().step_by(READ_AT_ONCE) {
            let part = start..bytes.end.min(start + READ_AT_ONCE);
            copy.extend_from_slice(&self.map[part.clone()]);
            self.map.release(part);
        }
        Ok(copy)
    }

    fn required(&self, name: &str) -> Result<&TensorEntry, GgufError> {
        let missing = || GgufError::NoTensor { path: self.path.clone(), tensor: name.to_owned() };
        self.tensor(name).ok_or_else(missing)
    }

    /// The value of `key` converted by `read`; an error if it is missing or has the wrong type.
    pub(super) fn wanted<'a, T>(
        &'a self,
        key: &str,
        wanted: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, GgufError> {
        self.optional(key, wanted, read)?
            .ok_or_else(|| GgufError::NoKey { path: self.path.clone(), key: key.to_owned() })
    }

    /// The value of `key` converted by `read`, if present; an error if it has the wrong type.
    pub(super) fn optional<'a, T>(
        &'a self,
        key: &str,
        wanted: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.metadata(key) else { return Ok(None) };
        let wrong = || GgufError::Key { path: self.path.clone(), key: key.to_owned(), wanted };
        read(value).map(Some).ok_or_else(wrong)
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, n_pairs: usize) -> Result<BTreeMap<String, Value>, GgufError> {
    let mut metadata = BTreeMap::new();
    for number in 0..n_pairs {
        let key = cursor.string(|| format!("metadata key {number}"))?;
        let type_id = cursor.u32(&key)?;
        let value = read_value(cursor, type_id, &key)?;
        if metadata.contains_key(&key) {
            return Err(cursor.malformed(&key, "the key is there twice"));
        }
        metadata.insert(key, value);
    }
    Ok(metadata)
}

fn read_value(cursor: &mut Cursor<'_>, type_id: u32, key: &str) -> Result<Value, GgufError> {
    Ok(match type_id {
        0 => Value::Unsigned(cursor.array::<1>(key)?[0].into()),
        1 => Value::Signed(i8::from_le_bytes(cursor.array(key)?).into()),
        2 => Value::Unsigned(u16::from_le_bytes(cursor.array(key)?).into()),
        3 => Value::Signed(i16::from_le_bytes(cursor.array(key)?).into()),
        4 => Value::Unsigned(cursor.u32(key)?.into()),
        5 => Value::Signed(i32::from_le_bytes(cursor.array(key)?).into()),
        6 => Value::F32(f32::from_le_bytes(cursor.array(key)?)),
        7 => Value::Bool(cursor.bool(key)?),
        8 => Value::String(cursor.string(|| key.to_owned())?),
        9 => Value::Array(read_array(cursor, key, 0)?),
        10 => Value::Unsigned(cursor.u64(key)?),
        11 => Value::Signed(i64::from_le_bytes(cursor.array(key)?)),
        12 => Value::F64(f64::from_le_bytes(cursor.array(key)?)),
        other => return Err(cursor.malformed(key, &format!("its type is {other}, which is none"))),
    })
}

fn read_array(cursor: &mut Cursor<'_>, key: &str, depth: usize) -> Result<Array, GgufError> {
    let type_id = cursor.u32(key)?;
    let n = cursor.u64(key)?;
    // Minimum size of an element.
    let width = match type_id {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        9 => 12,
        other => return Err(cursor.malformed(key, &format!("its elements' type is {other}, which is none"))),
    };
    let n = cursor.count(n, width, key)?;
    let signed = |narrow: &[u8]| {
        let fill = if narrow.last().is_some_and(|&top| top >= 0x80) { 0xff } else { 0 };
        let mut wide = [fill; 8];
        wide[..narrow.len()].copy_from_slice(narrow);
        i64::from_le_bytes(wide)
    };
    let unsigned = |narrow: &[u8]| {
        let mut wide = [0; 8];
        wide[..narrow.len()].copy_from_slice(narrow);
        u64::from_le_bytes(wide)
    };
    Ok(match type_id {
        0 | 2 | 4 | 10 => Array::Unsigned(cursor.take(n * width, key)?.chunks(width).map(unsigned).collect()),
        1 | 3 | 5 | 11 => Array::Signed(cursor.take(n * width, key)?.chunks(width).map(signed).collect()),
        6 => {
            let bytes = cursor.take(n * 4, key)?.as_chunks().0;
            Array::F32(bytes.iter().map(|&b| f32::from_le_bytes(b)).collect())
        }
        12 => {
            let bytes = cursor.take(n * 8, key)?.as_chunks().0;
            Array::F64(bytes.iter().map(|&b| f64::from_le_bytes(b)).collect())
        }
        7 => Array::Bool((0..n).map(|_| cursor.bool(key)).collect::<Result<_, _>>()?),
        8 => {
            let what = |number| move || format!("{key}, string {number}");
            Array::String((0..n).map(|number| cursor.string(what(number))).collect::<Result<_, _>>()?)
        }
        _ if depth + 1 == MAX_DEPTH => {
            return Err(cursor.malformed(key, &format!("arrays are nested deeper than {MAX_DEPTH}")));
        }
        _ => Array::Nested((0..n).map(|_| read_array(cursor, key, depth + 1)).collect::<Result<_, _>>()?),
    })
}

fn alignment(metadata: &BTreeMap<String, Value>, path: &Path) -> Result<u64, GgufError> {
    let Some(value) = metadata.get(ALIGNMENT) else { return Ok(DEFAULT_ALIGNMENT) };
    let fits = |n: &u64| n.is_power_of_two() && *n <= u64::from(u32::MAX);
    let wrong =
        || GgufError::Key { path: path.to_owned(), key: ALIGNMENT.to_owned(), wanted: "a power of two" };
    value.as_u64().filter(fits).ok_or_else(wrong)
}

fn read_tensors(
    cursor: &mut Cursor<'_>,
    n_tensors: usize,
    alignment: u64,
) -> Result<Vec<TensorEntry>, GgufError> {
    let mut tensors = Vec::new();
    for number in 0..n_tensors {
        tensors.push(read_entry(cursor, number, alignment)?);
    }
    let data_start = (cursor.at as u64).checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
    for tensor in &mut tensors {
        let end = data_start.checked_add(tensor.bytes.end as u64);
        match end.and_then(|end| usize::try_from(end).ok()).filter(|&end| end <= cursor.bytes.len()) {
            Some(end) => tensor.bytes = end - tensor.bytes.len()..end,
            None => {
                let reason = format!(
                    "its data ends {} bytes into those of all tensors, beyond the end of the file: it is truncated or damaged",
                    tensor.bytes.end
                );
                return Err(cursor.malformed(&tensor.name, &reason));
            }
        }
    }
    let mut by_start: Vec<&TensorEntry> = tensors.iter().collect();
    by_start.sort_by_key(|tensor| tensor.bytes.start);
    for pair in by_start.windows(2) {
        if pair[1].bytes.start < pair[0].bytes.end {
            return Err(
                cursor.malformed(&pair[1].name, &format!("its data overlaps that of {}", pair[0].name))
            );
        }
    }
    Ok(tensors)
}

/// An entry of the tensor table; its byte range is relative to the start of the data.
fn read_entry(cursor: &mut Cursor<'_>, number: usize, alignment: u64) -> Result<TensorEntry, GgufError> {
    let name = cursor.string(|| format!("name of tensor {number}"))?;
    let n_dims = cursor.u32(&name)?;
    if n_dims > MAX_DIMS {
        return Err(cursor.malformed(&name, &format!("it has {n_dims} dimensions, more than {MAX_DIMS}")));
    }
    let mut shape = Vec::with_capacity(n_dims as usize);
    let mut n_elements = 1_usize;
    for _ in 0..n_dims {
        let size = cursor.u64(&name)?;
        let size = usize::try_from(size).ok().filter(|&size| size > 0);
        let total = size.and_then(|size| n_elements.checked_mul(size));
        let (Some(size), Some(total)) = (size, total) else {
            return Err(cursor.malformed(&name, "its dimensions are zero or too large"));
        };
        n_elements = total;
        shape.push(size);
    }
    let type_id = cursor.u32(&name)?;
    let Some(element) = ElementType::from_id(type_id) else {
        return Err(GgufError::ElementType { path: cursor.path.to_owned(), tensor: name, type_id });
    };
    let block_len = element.block_len();
    let row_len = shape.first().copied().unwrap_or(1);
    if !row_len.is_multiple_of(block_len) {
        let reason = format!("its rows of {row_len} elements are no whole number of blocks of {block_len}");
        return Err(cursor.malformed(&name, &reason));
    }
    let offset = cursor.u64(&name)?;
    if !offset.is_multiple_of(alignment) {
        let reason = format!("its data begin at {offset}, which is not a multiple of {alignment}");
        return Err(cursor.malformed(&name, &reason));
    }
    let start = usize::try_from(offset).ok();
    let length = (n_elements / block_len).checked_mul(element.block_bytes());
    let end = start.zip(length).and_then(|(start, length)| start.checked_add(length));
    let (Some(start), Some(end)) = (start, end) else {
        return Err(cursor.malformed(&name, "its data would be larger than any file"));
    };
    shape.reverse();
    Ok(TensorEntry { name, shape, element, bytes: start..end })
}

fn index(tensors: &[TensorEntry], path: &Path) -> Result<HashMap<String, usize>, GgufError> {
    let mut by_name = HashMap::new();
    for (number, tensor) in tensors.iter().enumerate() {
        if by_name.insert(tensor.name.clone(), number).is_some() {
            let reason = "the name is there twice".to_owned();
            return Err(GgufError::Malformed { path: path.to_owned(), what: tensor.name.clone(), reason });
        }
    }
    Ok(by_name)
}

/// A cursor in the file's bytes; every read is bounds-checked.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    path: &'a Path,
}

impl<'a> Cursor<'a> {
    fn malformed(&self, what: &str, reason: &str) -> GgufError {
        GgufError::Malformed { path: self.path.to_owned(), what: what.to_owned(), reason: reason.to_owned() }
    }

    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8], GgufError> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..n) else {
            let reason = format!("{n} bytes are wanted where {} are left: the file is truncated", rest.len());
            return Err(self.malformed(what, &reason));
        };
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let taken = self.take(N, what)?;
        Ok(*taken.first_chunk().expect("taken with this length"))
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn bool(&mut self, what: &str) -> Result<bool, GgufError> {
        match self.array(what)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.malformed(what, &format!("{other} is neither true nor false"))),
        }
    }

    /// `n` items of at least `width` bytes each, if the file can hold as many.
    fn count(&self, n: u64, width: usize, what: &str) -> Result<usize, GgufError> {
        let left = (self.bytes.len() - self.at) / width;
        match usize::try_from(n) {
            Ok(n) if n <= left => Ok(n),
            _ => {
                let reason = format!("{n} elements are claimed where at most {left} can follow");
                Err(self.malformed(what, &reason))
            }
        }
    }

    fn string(&mut self, what: impl Fn() -> String) -> Result<String, GgufError> {
        let n = self.u64(&what())?;
        let n = self.count(n, 1, &what())?;
        let bytes = self.take(n, &what())?;
        match str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.malformed(&what(), "it is not UTF-8")),
        }
    }
}

/// Errors of GGUF files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not GGUF.
    #[error("{} is not a GGUF file", path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
    },
    /// An unsupported format version.
    #[error("{} is of GGUF version {version}; 2 and 3 are read, little-endian", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The file contradicts itself.
    #[error("{} is not a whole GGUF file: {what}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The metadata key, tensor or part of the header.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An unsupported element type.
    #[error(
        "{}: tensor {tensor} is of ggml type {type_id}; F32, F16, BF16, Q4_0 to Q5_1, Q8_0 and Q2_K to Q6_K are read",
        path.display()
    )]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type's id.
        type_id: u32,
    },
    /// A missing tensor.
    #[error("{} has no tensor {tensor}", path.display())]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A missing metadata key.
    #[error("{} has no metadata key {key}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A metadata key with a wrong type or an unsupported value.
    #[error("{}: metadata key {key} must be {wanted}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Expected value.
        wanted: &'static str,
    },
    /// The model is not supported.
    #[error("{}: {what} is not supported: {reason}", path.display())]
    NotSupported {
        /// The file.
        path: PathBuf,
        /// The metadata key or tensor.
        what: String,
        /// Why.
        reason: String,
    },
    /// An unknown architecture.
    #[error("{}: architecture {architecture:?} is not supported: {known} are", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The architecture of the file, or of the configuration to write.
        architecture: String,
        /// Known architectures.
        known: String,
    },
}
