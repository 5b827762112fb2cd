//! Writing records.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::manifest::{FORMAT, VERSION, check_names, offsets_file};
use super::{ColumnEntry, ColumnType, Record, RecordManifest};
use crate::files::{PartialDirectory, write_synced};
use crate::shard::DatasetError;
use crate::shard::file::HashedFile;

/// Writes records one by one into a dataset that appears when [`finish`](Self::finish) succeeds and leaves nothing behind
/// when it is dropped before.
///
/// # Example
/// ```
/// use andiron_data::records::{ColumnType, Record, RecordDataset, RecordWriter, columns};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("train");
/// let settings = serde_json::json!({ "rows": "rows.jsonl", "max_tokens": 128 });
/// let columns = [(columns::IDS, ColumnType::Ids), (columns::LABELS, ColumnType::Ids)];
/// let mut writer = RecordWriter::create(&path, &columns, settings.clone())?;
/// writer.push(&Record::default().with_ids(columns::IDS, vec![5, 6, 7]).with_ids(columns::LABELS, vec![1]))?;
/// writer.finish()?;
///
/// let dataset = RecordDataset::open_if_made_from(&path, &settings)?.expect("it was made from them");
/// assert_eq!(dataset.record(0).ids(columns::IDS), [5, 6, 7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RecordWriter {
    target: PathBuf,
    directory: PartialDirectory,
    settings: Value,
    columns: Vec<OpenColumn>,
    records: u64,
    buffer: Vec<u8>,
}

struct OpenColumn {
    name: String,
    holds: ColumnType,
    values: HashedFile,
    offsets: HashedFile,
    n_values: u64,
}

impl RecordWriter {
    /// Begins a dataset with these columns that will replace whatever is at `path`. `settings` tell what it is made from
    /// ([`RecordDataset::open_if_made_from`](super::RecordDataset::open_if_made_from)).
    ///
    /// # Errors
    /// If a name is no name of a column, or the temporary directory cannot be created, or another process is building the same
    /// dataset.
    ///
    /// # Panics
    /// If there is no column.
    pub fn create(
        path: &Path,
        columns: &[(&str, ColumnType)],
        settings: Value,
    ) -> Result<Self, DatasetError> {
        assert!(!columns.is_empty(), "records without columns");
        check_names(columns.iter().map(|(name, _)| *name))?;
        let directory = PartialDirectory::begin(path)
            .map_err(|source| DatasetError::Write { path: path.to_owned(), source })?;
        let open = |&(name, holds): &(&str, ColumnType)| -> Result<OpenColumn, DatasetError> {
            let values = HashedFile::create(directory.path().join(holds.values_file(name)))?;
            let mut offsets = HashedFile::create(directory.path().join(offsets_file(name)))?;
            offsets.write(&0u64.to_le_bytes())?;
            Ok(OpenColumn { name: name.to_owned(), holds, values, offsets, n_values: 0 })
        };
        let columns = columns.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { target: path.to_owned(), directory, settings, columns, records: 0, buffer: Vec::new() })
    }

    /// Appends a record.
    ///
    /// # Errors
    /// If writing fails.
    ///
    /// # Panics
    /// If the record lacks a column of the dataset, or has another one.
    pub fn push(&mut self, record: &Record<'_>) -> Result<(), DatasetError> {
        let n_columns = record.id_columns().count() + record.number_columns().count();
        assert_eq!(n_columns, self.columns.len(), "columns of the record {record:?}");
        for column in &mut self.columns {
            self.buffer.clear();
            let n_values = match column.holds {
                ColumnType::Ids => {
                    let ids = record.ids(&column.name);
                    self.buffer.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
                    ids.len()
                }
                ColumnType::Numbers => {
                    let numbers = record.numbers(&column.name);
                    self.buffer.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
                    numbers.len()
                }
            };
            column.values.write(&self.buffer)?;
            column.n_values += n_values as u64;
            column.offsets.write(&column.n_values.to_le_bytes())?;
        }
        self.records += 1;
        Ok(())
    }

    /// Number of records so far.
    pub fn n_records(&self) -> u64 {
        self.records
    }

    /// Completes and publishes the dataset.
    ///
    /// # Errors
    /// If writing fails; then nothing is published.
    pub fn finish(self) -> Result<RecordManifest, DatasetError> {
        let close = |column: OpenColumn| {
            Ok(ColumnEntry {
                name: column.name,
                holds: column.holds,
                values: column.n_values,
                values_blake3: column.values.finish()?,
                offsets_blake3: column.offsets.finish()?,
            })
        };
        let manifest = RecordManifest {
            format: FORMAT.into(),
            version: VERSION,
            records: self.records,
            settings: self.settings,
            columns: self.columns.into_iter().map(close).collect::<Result<_, DatasetError>>()?,
        };
        let path = self.directory.path().join("manifest.json");
        write_synced(&path, &manifest.to_json()).map_err(|source| DatasetError::Write { path, source })?;
        self.directory.publish().map_err(|source| DatasetError::Write { path: self.target, source })?;
        Ok(manifest)
    }
}
