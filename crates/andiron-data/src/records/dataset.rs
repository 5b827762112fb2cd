//! Reading records.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use andiron_kernels::mapped::MappedFile;
use serde_json::Value;

use super::manifest::{FORMAT, VERSION, check_names, offsets_file};
use super::{ColumnEntry, ColumnType, Record, RecordManifest};
use crate::shard::DatasetError;
use crate::shard::file::{map_values, parse, read, verify};

/// A memory-mapped dataset of records.
///
/// A directory of `manifest.json` ([`RecordManifest`]) and two files for each column: `NAME.u32` or `NAME.f32` holds the values
/// of all records, one after the other; `NAME.offsets` holds, as `u64`, the index of each record's first value, and at the end
/// the number of values. Everything is little-endian.
pub struct RecordDataset {
    path: PathBuf,
    manifest: RecordManifest,
    fingerprint: String,
    columns: Vec<Column>,
}

/// The files of a column, whose offsets have been checked.
struct Column {
    values: MappedFile,
    offsets: MappedFile,
}

impl RecordDataset {
    /// Opens a dataset and checks that its files exist, have the sizes of the manifest, and have valid offsets. The values
    /// themselves are not read; [`verify`](Self::verify) reads them.
    ///
    /// # Errors
    /// If anything is missing, damaged or of another version.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let manifest_path = path.join("manifest.json");
        let manifest: Value = parse(&manifest_path, &read(&manifest_path)?)?;
        let (format, version) = format_of(&manifest);
        if (format, version) != (FORMAT, VERSION) {
            return Err(DatasetError::Format {
                path: manifest_path,
                found: format.to_owned(),
                version,
                wanted: FORMAT,
                wanted_version: VERSION,
            });
        }
        let manifest: RecordManifest = serde_json::from_value(manifest)
            .map_err(|source| DatasetError::Json { path: manifest_path.clone(), source })?;
        check_names(manifest.columns.iter().map(|column| column.name.as_str()))?;
        // Without a column, no file would bear out the number of records.
        let offsets = manifest.records.checked_add(1).filter(|_| !manifest.columns.is_empty());
        let Some(n_offsets) = offsets else {
            let problem = "it has no columns, or too many records";
            return Err(DatasetError::Damaged { path: manifest_path, problem });
        };
        let open = |column: &ColumnEntry| Column::open(path, column, n_offsets);
        let columns = manifest.columns.iter().map(open).collect::<Result<_, _>>()?;
        let fingerprint = manifest.fingerprint();
        Ok(Self { path: path.to_owned(), manifest, fingerprint, columns })
    }

    /// Opens a dataset that was made from the same `settings`, and verifies it. `None` if there is none, or it was made from
    /// others or by another version: then it may be replaced.
    ///
    /// # Errors
    /// If it is damaged, or what stands at `path` is not a dataset of records.
    pub fn open_if_made_from(path: &Path, settings: &Value) -> Result<Option<Self>, DatasetError> {
        let manifest_path = path.join("manifest.json");
        let read_error = |source| DatasetError::Read { path: path.to_owned(), source };
        if !andiron_files::is_there(path).map_err(read_error)? {
            return Ok(None);
        }
        let not_records = || DatasetError::NotRecords { path: path.to_owned() };
        if !andiron_files::is_directory(path).map_err(read_error)? {
            return Err(not_records());
        }
        if !andiron_files::is_there(&manifest_path).map_err(read_error)? {
            let empty = andiron_files::list(path).map_err(read_error)?.is_empty();
            return if empty { Ok(None) } else { Err(not_records()) };
        }
        let manifest: Value = parse(&manifest_path, &read(&manifest_path)?)?;
        let (format, version) = format_of(&manifest);
        if format != FORMAT {
            return Err(not_records());
        }
        if version != VERSION || manifest.get("settings") != Some(settings) {
            return Ok(None);
        }
        let dataset = Self::open(path)?;
        dataset.verify()?;
        Ok(Some(dataset))
    }

    /// Reads everything and compares the hashes.
    ///
    /// # Errors
    /// If a file differs from what was written.
    pub fn verify(&self) -> Result<(), DatasetError> {
        for (column, entry) in self.columns.iter().zip(&self.manifest.columns) {
            let values = self.path.join(entry.holds.values_file(&entry.name));
            verify(values, &column.values, &entry.values_blake3)?;
            verify(self.path.join(offsets_file(&entry.name)), &column.offsets, &entry.offsets_blake3)?;
        }
        Ok(())
    }

    /// Reads every id of a column: it must be below `limit`, such as the size of a vocabulary or a number of classes.
    ///
    /// # Errors
    /// [`DatasetError::RecordId`] with the first that is not.
    ///
    /// # Panics
    /// If there is no such column of ids.
    pub fn check_ids(&self, column: &str, limit: u32) -> Result<(), DatasetError> {
        let index = self.manifest.columns.iter().position(|entry| entry.name == column);
        let index = index.filter(|&index| self.manifest.columns[index].holds == ColumnType::Ids);
        let index = index.unwrap_or_else(|| panic!("a dataset without the ids {column:?}"));
        for record in 0..self.n_records() {
            if let Some(&id) = self.columns[index].ids(record).iter().find(|&&id| id >= limit) {
                return Err(DatasetError::RecordId { record, column: column.to_owned(), id, limit });
            }
        }
        Ok(())
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its manifest.
    pub fn manifest(&self) -> &RecordManifest {
        &self.manifest
    }

    /// The BLAKE3 hash of its manifest in hexadecimal ([`RecordManifest::fingerprint`]), which identifies its content.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Number of records.
    pub fn n_records(&self) -> u64 {
        self.manifest.records
    }

    /// The record with an index; its columns are read from the mapped files without a copy.
    ///
    /// # Panics
    /// If there is no such record.
    pub fn record(&self, index: u64) -> Record<'_> {
        assert!(index < self.n_records(), "record {index} of {}", self.n_records());
        let columns = self.manifest.columns.iter().zip(&self.columns);
        columns.fold(Record::default(), |record, (entry, column)| match entry.holds {
            ColumnType::Ids => record.with_ids(&entry.name, column.ids(index)),
            ColumnType::Numbers => record.with_numbers(&entry.name, column.numbers(index)),
        })
    }

    /// Number of ids in the columns of ids of a record: how long it is, compared with others.
    ///
    /// # Panics
    /// If there is no such record.
    pub fn length(&self, index: u64) -> u64 {
        assert!(index < self.n_records(), "record {index} of {}", self.n_records());
        let columns = self.manifest.columns.iter().zip(&self.columns);
        let ids = columns.filter(|(entry, _)| entry.holds == ColumnType::Ids);
        ids.map(|(_, column)| column.offset(index + 1) - column.offset(index)).sum()
    }
}

impl std::fmt::Debug for RecordDataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordDataset")
            .field("path", &self.path)
            .field("records", &self.n_records())
            .finish_non_exhaustive()
    }
}

impl Column {
    fn open(dir: &Path, entry: &ColumnEntry, n_offsets: u64) -> Result<Self, DatasetError> {
        let values = map_values(dir.join(entry.holds.values_file(&entry.name)), entry.values, 4)?;
        let path = dir.join(offsets_file(&entry.name));
        let offsets = map_values(path.clone(), n_offsets, 8)?;
        let column = Self { values, offsets };
        let rises = (1..n_offsets).all(|i| column.offset(i - 1) <= column.offset(i));
        if column.offset(0) != 0 || column.offset(n_offsets - 1) != entry.values || !rises {
            return Err(DatasetError::Damaged { path, problem: "the records do not cover the values" });
        }
        Ok(column)
    }

    /// Index of the first value of a record; for the number of records, the number of values.
    fn offset(&self, record: u64) -> u64 {
        let at = record as usize * 8;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.offsets[at..at + 8]);
        u64::from_le_bytes(bytes)
    }

    fn bytes(&self, record: u64) -> &[u8] {
        &self.values[self.offset(record) as usize * 4..self.offset(record + 1) as usize * 4]
    }

    fn ids(&self, record: u64) -> Cow<'_, [u32]> {
        values(self.bytes(record), u32::from_le_bytes)
    }

    fn numbers(&self, record: u64) -> Cow<'_, [f32]> {
        values(self.bytes(record), f32::from_le_bytes)
    }
}

/// Values as they stand in memory, or decoded where memory is big-endian or not aligned.
fn values<T: bytemuck::AnyBitPattern>(bytes: &[u8], decode: fn([u8; 4]) -> T) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(values) if cfg!(target_endian = "little") => Cow::Borrowed(values),
        _ => bytes.as_chunks::<4>().0.iter().map(|bytes| decode(*bytes)).collect(),
    }
}

/// Format and version of a manifest, empty and 0 if it does not name them.
fn format_of(manifest: &Value) -> (&str, u32) {
    let version = manifest.get("version").and_then(Value::as_u64).and_then(|version| version.try_into().ok());
    (manifest.get("format").and_then(Value::as_str).unwrap_or_default(), version.unwrap_or_default())
}
