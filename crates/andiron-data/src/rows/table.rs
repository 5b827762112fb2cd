//! Rows of tables: comma- or tab-separated values with a header.

use std::io::{self, BufRead, Chain, Read};
use std::path::Path;
use std::sync::Arc;

use csv::{ByteRecord, Reader, ReaderBuilder, Terminator};
use serde_json::{Map, Value};

use super::error::{Origin, Place, RowError, RowFault, RowsError};
use super::reader::{RowOptions, Rows};
use super::row::{Cells, Row};
use crate::input::Input;
use crate::source::{RecordFault, utf8};

const BUFFER: usize = 1 << 16;

/// The rows of a table. All cells are text.
pub(super) struct TableRows {
    file: Arc<Path>,
    reader: Reader<Bounded>,
    header: Vec<String>,
    limit: u64,
    ended: bool,
}

/// A table that ends with a line break, of which at most `left` bytes are read: a quote that is never closed makes a cell of
/// the whole rest of the file.
struct Bounded {
    input: Chain<Input, &'static [u8]>,
    left: u64,
}

/// How much of the table [`Bounded`] may read for one row.
#[derive(Debug, thiserror::Error)]
#[error("too long")]
struct TooLong;

/// A row as it stands.
struct RawRow {
    /// The line it begins in.
    line: u64,
    cells: Vec<Vec<u8>>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, TooLong));
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.input.read(&mut buffer[..most])?;
        self.left -= n as u64;
        Ok(n)
    }
}

impl TableRows {
    pub(super) fn open(path: &Path, extension: &str, options: &RowOptions) -> Result<Self, RowsError> {
        let read = |source| RowsError::reading(&path.into(), 1, source);
        let mut input = Input::open(path, options.max_expansion).map_err(read)?;
        let separator = match options.separator {
            Some(separator) if separator.is_ascii() => separator as u8,
            Some(separator) => {
                let problem = format!("the separator {separator:?} is not one byte");
                return Err(RowsError::Content { path: path.to_owned(), problem });
            }
            None if extension == "csv" => separator_of(input.fill_buf().map_err(read)?),
            None if extension == "txt" && !header(input.fill_buf().map_err(read)?).contains(&b'\t') => {
                let problem =
                    "rows of a .txt file are a table with tabs, and its first line has none".to_owned();
                return Err(RowsError::Content { path: path.to_owned(), problem });
            }
            None => b'\t',
        };
        let limit = options.max_row_bytes;
        let reader = ReaderBuilder::new()
            .delimiter(separator)
            .quoting(options.quotes)
            .has_headers(false)
            .flexible(true)
            // Carriage returns are removed below, from the end of a row: with the parser's own rule for them, its line numbers
            // are not exact.
            .terminator(Terminator::Any(b'\n'))
            .buffer_capacity(BUFFER)
            .from_reader(Bounded { input: input.chain(b"\n".as_slice()), left: 0 });
        let mut rows = Self { file: path.into(), reader, header: Vec::new(), limit, ended: false };
        if let Some(RawRow { line, cells }) = rows.raw()? {
            let header: Result<Vec<_>, _> = cells.iter().map(|name| utf8(name).map(str::to_owned)).collect();
            rows.header = header.map_err(|fault| rows.fail(line, fault.into()))?;
        }
        let repeated = (1..rows.header.len()).find(|&i| rows.header[..i].contains(&rows.header[i]));
        if let Some(repeated) = repeated {
            let problem = format!("the header has {:?} twice", rows.header[repeated]);
            return Err(RowsError::Content { path: path.to_owned(), problem });
        }
        Ok(rows)
    }

    /// The next row that is not blank.
    fn raw(&mut self) -> Result<Option<RawRow>, RowsError> {
        let mut record = ByteRecord::new();
        while !self.ended {
            // The parser has read up to a buffer of what comes before.
            self.reader.get_mut().left = self.limit.saturating_add(BUFFER as u64);
            let first = self.reader.position().line();
            match self.reader.read_byte_record(&mut record) {
                Ok(true) => {}
                Ok(false) => self.ended = true,
                Err(error) => return Err(self.stop(error, first)),
            }
            let mut cells: Vec<Vec<u8>> = record.iter().map(<[u8]>::to_vec).collect();
            if let Some(last) = cells.last_mut()
                && last.last() == Some(&b'\r')
            {
                last.pop();
            }
            if self.ended || cells.iter().all(Vec::is_empty) && cells.len() <= 1 {
                continue;
            }
            let breaks = cells.iter().flatten().filter(|&&byte| byte == b'\n').count() as u64;
            // The parser skips blank lines before a row, but the row ends with its last line.
            let line = self.reader.position().line().saturating_sub(1 + breaks);
            if line < first {
                // No line break ended it, but there is one at the end of every table.
                self.ended = true;
                return Err(self.fail(first, RowFault::OpenQuote));
            }
            return Ok(Some(RawRow { line, cells }));
        }
        Ok(None)
    }

    /// The error that ends the table.
    fn stop(&mut self, error: csv::Error, line: u64) -> RowsError {
        self.ended = true;
        let source = match error.into_kind() {
            csv::ErrorKind::Io(source) => source,
            kind => io::Error::other(format!("{kind:?}")),
        };
        if source.get_ref().is_some_and(|inner| inner.is::<TooLong>()) {
            return self.fail(line, RecordFault::TooLong { limit: self.limit }.into());
        }
        RowsError::reading(&self.file, line, source)
    }

    fn fail(&self, line: u64, fault: RowFault) -> RowsError {
        let origin = Origin { file: self.file.clone(), place: Place::Line(line) };
        RowError { origin, fault }.into()
    }

    fn row(&self, RawRow { line, cells }: RawRow) -> Result<Row, RowsError> {
        let (found, wanted) = (cells.len(), self.header.len());
        if found != wanted {
            return Err(self.fail(line, RowFault::Cells { found, wanted }));
        }
        let cell =
            |(name, cell): (&String, &Vec<u8>)| Ok((name.clone(), Value::String(utf8(cell)?.to_owned())));
        let fields: Result<Map<String, Value>, RecordFault> =
            self.header.iter().zip(&cells).map(cell).collect();
        let fields = fields.map_err(|fault| self.fail(line, fault.into()))?;
        let origin = Origin { file: self.file.clone(), place: Place::Line(line) };
        Ok(Row::new(fields, origin, Cells::Text))
    }
}

impl Iterator for TableRows {
    type Item = Result<Row, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.raw() {
            Ok(row) => row.map(|row| self.row(row)),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Rows for TableRows {
    fn bytes_read(&self) -> u64 {
        self.reader.get_ref().input.get_ref().0.bytes_read()
    }
}

/// The separator of a `.csv` file: where a comma is the decimal separator, spreadsheets write semicolons.
fn separator_of(start: &[u8]) -> u8 {
    [b',', b';', b'\t'].into_iter().find(|separator| header(start).contains(separator)).unwrap_or(b',')
}

/// The first line of the start of a table.
fn header(start: &[u8]) -> &[u8] {
    start.split(|&byte| byte == b'\n').next().unwrap_or_default()
}
