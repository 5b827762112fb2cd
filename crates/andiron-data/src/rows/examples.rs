//! The examples of several files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use andiron_kernels::random::Seed;
use serde::{Deserialize, Serialize};

use super::error::{Origin, RowError, RowsError};
use super::reader::{RowOptions, RowReader};
use super::shape::Shape;
use crate::source::OnError;

/// Messages kept of the rows that were skipped.
const KEPT_MESSAGES: usize = 5;

/// The examples of some files, one file after the other, each with the place of its row.
///
/// A row that does not fit is an error, or is skipped and counted, as an [`OnError`] says. One that turns out not to fit later,
/// as when it has no token, is given back to [`refuse`](Self::refuse), which does the same.
///
/// # Example
/// ```
/// use andiron_data::rows::{ClassifyFields, Examples, RowOptions};
/// use andiron_data::source::OnError;
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("rows.jsonl");
/// std::fs::write(&path, "{\"text\": \"fine\", \"label\": 1}\n{\"text\": \"bad\"}\n")?;
/// let fields = ClassifyFields::default();
/// let mut examples = Examples::new(vec![path], fields, RowOptions::default(), OnError::Skip);
/// let (example, origin) = examples.next().unwrap()?;
/// assert_eq!(example.text, "fine");
/// assert!(origin.to_string().ends_with("rows.jsonl:1") && examples.next().is_none());
/// assert_eq!(examples.skipped().reasons["missing-field"], 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Examples<S> {
    waiting: std::vec::IntoIter<PathBuf>,
    current: Option<RowReader>,
    shape: S,
    options: RowOptions,
    on_bad_row: OnError,
    part: Part,
    next_row: u64,
    skipped: Skipped,
    bytes_before: u64,
}

/// The rows of a file that are read.
///
/// Whether a row is held out is drawn from its number in the file alone. So a file is divided in the same way each time, also
/// after rows were added at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Part {
    /// All of them.
    #[default]
    All,
    /// About this share of them, which is held out.
    HeldOut(f64),
    /// The others.
    Rest(f64),
}

impl Part {
    /// Whether it has the row with this number, counted from 0.
    pub fn has(self, row: u64) -> bool {
        let is_held_out = |share| f64::from(Seed::new(0).derive("held-out rows").uniform(row)) < share;
        match self {
            Self::All => true,
            Self::HeldOut(share) => is_held_out(share),
            Self::Rest(share) => !is_held_out(share),
        }
    }
}

/// The rows that were skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// How many.
    pub rows: u64,
    /// How many for each [`reason`](super::RowFault::reason).
    pub reasons: BTreeMap<String, u64>,
    /// What was wrong with the first of them.
    pub first: Vec<String>,
}

impl<S: Shape> Examples<S> {
    /// The examples of `files`, in their order.
    pub fn new(files: Vec<PathBuf>, shape: S, options: RowOptions, on_bad_row: OnError) -> Self {
        Self {
            waiting: files.into_iter(),
            current: None,
            shape,
            options,
            on_bad_row,
            part: Part::All,
            next_row: 0,
            skipped: Skipped::default(),
            bytes_before: 0,
        }
    }

    /// The same of a part of each file. Rows outside it are neither examples nor errors.
    #[must_use]
    pub fn of_part(self, part: Part) -> Self {
        Self { part, ..self }
    }

    /// The rows skipped so far.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Bytes of the files consumed so far, for progress.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_before + self.current.as_ref().map_or(0, RowReader::bytes_read)
    }

    /// Skips and counts a bad row.
    ///
    /// # Errors
    /// If bad rows are errors.
    pub fn refuse(&mut self, error: RowError) -> Result<(), RowsError> {
        if self.on_bad_row == OnError::Fail {
            return Err(error.into());
        }
        self.skipped.rows += 1;
        *self.skipped.reasons.entry(error.fault.reason().to_owned()).or_default() += 1;
        if self.skipped.first.len() < KEPT_MESSAGES {
            self.skipped.first.push(error.to_string());
        }
        Ok(())
    }

    /// The next row that can be read, or `None` after the last.
    fn read(&mut self) -> Result<Option<(S::Example, Origin)>, RowsError> {
        loop {
            let Some(reader) = &mut self.current else {
                let Some(path) = self.waiting.next() else { return Ok(None) };
                self.current = Some(RowReader::open(&path, &self.options)?);
                self.next_row = 0;
                continue;
            };
            let row = self.next_row;
            self.next_row += 1;
            let row = match reader.next() {
                None => {
                    self.bytes_before += reader.bytes_read();
                    self.current = None;
                    continue;
                }
                Some(Ok(_) | Err(RowsError::Row(_))) if !self.part.has(row) => continue,
                Some(Err(RowsError::Row(error))) => Err(error),
                Some(Err(error)) => return Err(error),
                Some(Ok(row)) => self.shape.read(&row).map(|example| (example, row.origin().clone())),
            };
            match row {
                Ok(example) => return Ok(Some(example)),
                Err(error) => self.refuse(error)?,
            }
        }
    }
}

impl<S: Shape> Iterator for Examples<S> {
    type Item = Result<(S::Example, Origin), RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
