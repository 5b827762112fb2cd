//! Decisions about near-duplicates, as they are on disk.
//!
//! ```text
//! summary.json   a DuplicateSummary
//! 00000.jsonl    for the first file of signatures: a line for each document that is in a cluster, in order
//! ```

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use andiron_files::{ReadFile, open, read_bounded};
use serde::{Deserialize, Serialize};

use super::{DuplicateSummary, SignatureError};

pub(super) const SUMMARY: &str = "summary.json";
/// The largest summary, and the longest line, in bytes.
const LIMIT: u64 = 64 << 20;

pub(super) fn decisions_name(file: usize) -> String {
    format!("{file:05}.jsonl")
}

pub(super) fn write_line(out: &mut impl Write, line: &Clustered) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// A document that is in a cluster of near-duplicates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clustered {
    /// The number of the document within its file of signatures, from 0.
    pub document: u32,
    /// The cluster, numbered by the order of first documents, from 0.
    pub cluster: u32,
    /// Documents of the cluster, with its first document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// The id of the first document, which stays, with every other document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_of: Option<String>,
    /// The estimated Jaccard similarity to the first document. It may be low: the two may be joined by others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f64>,
}

impl Clustered {
    /// Whether the document is a duplicate of an earlier one.
    pub fn is_duplicate(&self) -> bool {
        self.duplicate_of.is_some()
    }
}

/// The decisions about the documents of one file of signatures, in order.
pub struct Decisions {
    path: PathBuf,
    lines: BufReader<ReadFile>,
    line: String,
    next: Option<Clustered>,
    number: u32,
}

impl Decisions {
    /// Those about the `file`-th of the files that were given to [`decide`](super::decide), which wrote `directory`.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn open(directory: &Path, file: usize) -> Result<Self, SignatureError> {
        let path = directory.join(decisions_name(file));
        let lines = open(&path).map_err(|source| SignatureError::Read { path: path.clone(), source })?;
        let mut decisions =
            Self { path, lines: BufReader::new(lines), line: String::new(), next: None, number: 0 };
        decisions.advance()?;
        Ok(decisions)
    }

    /// What was decided about the next document, if it is in a cluster. All documents are asked for in order, those without a
    /// signature too.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn next_document(&mut self) -> Result<Option<Clustered>, SignatureError> {
        let number = self.number;
        self.number = number.saturating_add(1);
        match &self.next {
            Some(next) if next.document == number => {
                let next = self.next.take();
                self.advance()?;
                Ok(next)
            }
            _ => Ok(None),
        }
    }

    fn advance(&mut self) -> Result<(), SignatureError> {
        self.line.clear();
        let read = io::Read::take(&mut self.lines, LIMIT).read_line(&mut self.line);
        let damaged = || SignatureError::Damaged { path: self.path.clone() };
        match read.map_err(|source| SignatureError::Read { path: self.path.clone(), source })? {
            0 => self.next = None,
            _ => self.next = Some(serde_json::from_str(&self.line).map_err(|_| damaged())?),
        }
        Ok(())
    }
}

impl DuplicateSummary {
    /// Reads the summary that [`decide`](super::decide) wrote into `directory`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, SignatureError> {
        let path = directory.join(SUMMARY);
        let json = read_bounded(&path, LIMIT)
            .map_err(|source| SignatureError::Read { path: path.clone(), source })?;
        serde_json::from_slice(&json).map_err(|_| SignatureError::Damaged { path })
    }
}
