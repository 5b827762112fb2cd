//! Rows of Parquet files.

mod file;
mod pages;
mod value;

use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::{ReaderIter, TreeBuilder};

use super::error::{Origin, Place, RowError, RowFault, RowsError};
use super::reader::{RowOptions, Rows};
use super::row::{Cells, Row};
use crate::source::RecordFault;
use file::{BytesRead, SharedFile};
use pages::CheckedGroup;

/// What a row group may hold in any case, in bytes.
const ALWAYS: u64 = 64 << 20;

/// The rows of a Parquet file, one row group after the other. Lists and structures are values of JSON.
///
/// What cannot be read ends its row group, not the file: nothing tells where in the other columns the next row begins.
///
/// Text is what the format itself calls text, or bytes that are UTF-8. The schema of Arrow that pandas and others store beside
/// the format's own, where text is `LargeUtf8` or a dictionary of it, changes no value and is not read.
pub(super) struct ParquetRows {
    file: Arc<Path>,
    reader: SerializedFileReader<SharedFile>,
    bytes: BytesRead,
    options: RowOptions,
    /// The next row group.
    next_group: usize,
    group: Option<Group>,
    /// The last row, counted from 1.
    number: u64,
}

/// A row group that is being read.
struct Group {
    rows: ReaderIter,
    /// The number of its last row.
    last: u64,
}

impl ParquetRows {
    pub(super) fn open(path: &Path, options: &RowOptions) -> Result<Self, RowsError> {
        let read = |source| RowsError::Read { path: path.to_owned(), source };
        let (shared, bytes) = SharedFile::new(crate::files::open(path).map_err(read)?).map_err(read)?;
        let reader = guard(|| SerializedFileReader::new(shared)).map_err(|problem| {
            bytes.failure().map_or_else(|| RowsError::Content { path: path.to_owned(), problem }, read)
        })?;
        Ok(Self {
            file: path.into(),
            reader,
            bytes,
            options: options.clone(),
            next_group: 0,
            group: None,
            number: 0,
        })
    }

    /// Opens the next row group; `None` after the last one.
    fn open_group(&mut self) -> Option<Result<Group, RowsError>> {
        if self.next_group >= self.reader.num_row_groups() {
            return None;
        }
        let index = self.next_group;
        self.next_group += 1;
        let metadata = self.reader.metadata();
        let rows = metadata.row_group(index).num_rows();
        if let Err(problem) = check(metadata.row_group(index), self.options.max_expansion) {
            self.number += 1;
            let fault = self.fault(&problem);
            self.number = self.number.saturating_add(u64::try_from(rows).unwrap_or(1)).saturating_sub(1);
            return Some(Err(fault));
        }
        let opened = guard(|| {
            let schema = metadata.file_metadata().schema_descr_ptr();
            TreeBuilder::new().as_iter(schema, &CheckedGroup(self.reader.get_row_group(index)?))
        });
        let last = self.number.saturating_add(u64::try_from(rows).unwrap_or(0));
        match opened {
            Ok(rows) => Some(Ok(Group { rows, last })),
            Err(problem) => {
                self.number += 1;
                let fault = self.fault(&problem);
                self.number = last;
                Some(Err(fault))
            }
        }
    }

    /// The error that ends a row group.
    fn fault(&self, problem: &str) -> RowsError {
        if let Some(source) = self.bytes.failure() {
            return RowsError::Read { path: self.file.to_path_buf(), source };
        }
        let problem = format!("{problem}; the rest of its row group is not read");
        self.fail(RecordFault::Format { problem }.into())
    }

    fn fail(&self, fault: RowFault) -> RowsError {
        RowError { origin: self.origin(), fault }.into()
    }

    fn origin(&self) -> Origin {
        Origin { file: self.file.clone(), place: Place::Item(self.number) }
    }
}

impl Iterator for ParquetRows {
    type Item = Result<Row, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.group.is_none() {
                match self.open_group()? {
                    Ok(group) => self.group = Some(group),
                    Err(error) => return Some(Err(error)),
                }
            }
            let group = self.group.as_mut()?;
            let Some(read) = guard(|| group.rows.next().transpose()).transpose() else {
                self.group = None;
                continue;
            };
            self.number += 1;
            return Some(match read.and_then(|row| value::fields(row, self.options.max_row_bytes)) {
                Ok(Some(fields)) => Ok(Row::new(fields, self.origin(), Cells::Typed)),
                Ok(None) => Err(self.fail(RecordFault::TooLong { limit: self.options.max_row_bytes }.into())),
                Err(problem) => {
                    let fault = self.fault(&problem);
                    self.number = group_end(self.group.take(), self.number);
                    Err(fault)
                }
            });
        }
    }
}

impl Rows for ParquetRows {
    fn bytes_read(&self) -> u64 {
        self.bytes.count()
    }
}

fn group_end(group: Option<Group>, number: u64) -> u64 {
    group.map_or(number, |group| group.last.max(number))
}

/// What is wrong with a row group by its own numbers.
fn check(group: &RowGroupMetaData, max_expansion: u64) -> Result<(), String> {
    let (Ok(rows), true) = (u64::try_from(group.num_rows()), group.num_columns() > 0) else {
        return Err("it has a row group without rows or columns".into());
    };
    for column in group.columns() {
        let codec = match column.compression() {
            Compression::BROTLI(_) => Some("Brotli"),
            Compression::LZO => Some("LZO"),
            _ => None,
        };
        if let Some(codec) = codec {
            return Err(format!(
                "column {} is compressed with {codec}, which cannot be read; write the file anew with Zstandard, Snappy, gzip or LZ4",
                column.column_path()
            ));
        }
        let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
        if number(column.num_values()) < rows {
            return Err(format!(
                "column {} has {} values, its row group {rows} rows",
                column.column_path(),
                column.num_values()
            ));
        }
        let compressed = number(column.compressed_size());
        if number(column.uncompressed_size()) > compressed.saturating_mul(max_expansion).max(ALWAYS) {
            return Err(format!(
                "column {} is over {max_expansion} times as long as in the file; raise `max_expansion` if this is meant",
                column.column_path()
            ));
        }
    }
    Ok(())
}

/// Runs the library, whose errors and panics become a message.
fn guard<T>(run: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    crate::guard::guard(|| run().map_err(|error| plain(&error)))
}

/// The library's message without what it says before each.
fn plain(error: &ParquetError) -> String {
    let message = error.to_string();
    let message = message.trim_start_matches("Parquet error: ").trim_start_matches("EOF: ");
    // It shows all bytes of a text that is not UTF-8.
    match message.find("Bytes: ") {
        Some(at) => message[..at].trim_end().to_owned() + " it is not UTF-8",
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests;
