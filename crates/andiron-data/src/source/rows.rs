//! Rows of tables, of Parquet and of JSON as documents.

use std::path::Path;

use super::fields::document;
use super::{RecordError, Source, SourceError, SourceOptions};
use crate::document::Document;
use crate::rows::{Place, RowReader};

/// The documents of a file that [`RowReader`] reads.
pub struct RowsSource {
    rows: RowReader,
    options: SourceOptions,
    failed: bool,
}

impl RowsSource {
    /// Opens a file.
    ///
    /// # Errors
    /// If the file cannot be opened, or is not of its format.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Self, SourceError> {
        let rows = RowReader::open(path, &options.rows())?;
        Ok(Self { rows, options: options.clone(), failed: false })
    }
}

impl Iterator for RowsSource {
    type Item = Result<Document, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = match self.rows.next()?.map_err(SourceError::from) {
            Ok(row) => row,
            Err(error) => {
                self.failed = !matches!(error, SourceError::Record(_));
                return Some(Err(error));
            }
        };
        let place = row.origin().place.clone();
        let (line, number) = match place {
            Place::Line(line) => (Some(line), line),
            Place::Item(row) => (None, row),
            // It has an id, which is the document's.
            Place::Id(_) => (None, 0),
        };
        let path = self.rows.path();
        Some(document(row.into_fields(), &self.options, path, number).map_err(|fault| {
            let row = line.is_none().then_some(number);
            RecordError { path: path.to_owned(), line, row, fault }.into()
        }))
    }
}

impl Source for RowsSource {
    fn bytes_read(&self) -> u64 {
        self.rows.bytes_read()
    }
}
