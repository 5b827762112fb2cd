//! Lines of bounded length.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::path::Path;

use crate::input::{DEFAULT_EXPANSION, Input};

/// The lines of a file that are not blank. A file may be compressed by gzip or Zstandard, and a byte order mark is skipped. A line that is
/// longer than the limit is passed over without being held in memory.
///
/// # Example
/// ```
/// use andiron_data::lines::{Line, Lines};
/// let mut lines = Lines::of(Box::new(&b"one\n\nthree\nfour"[..]), 4)?;
/// let mut line = Vec::new();
/// assert_eq!(lines.next(&mut line)?, Some(Line::Whole));
/// assert_eq!((&line[..], lines.number()), (&b"one"[..], 1));
/// assert_eq!((lines.next(&mut line)?, lines.number()), (Some(Line::TooLong), 3));
/// assert_eq!((lines.next(&mut line)?, lines.number()), (Some(Line::Whole), 4));
/// assert_eq!(lines.next(&mut line)?, None);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Lines {
    input: Input,
    limit: u64,
    number: u64,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line, without its line feed.
    Whole,
    /// One that is longer than the limit.
    TooLong,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { input: _, limit, number } = self;
        f.debug_struct("Lines").field("limit", limit).field("number", number).finish_non_exhaustive()
    }
}

impl Lines {
    /// The lines of a file, of at most `limit` bytes each.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        Self::open_within(path, limit, DEFAULT_EXPANSION)
    }

    /// The same of a file that expands at most `max_expansion` times.
    pub(crate) fn open_within(path: &Path, limit: u64, max_expansion: u64) -> io::Result<Self> {
        Ok(Self { input: Input::open(path, max_expansion)?, limit, number: 0 })
    }

    /// The lines of what `file` reads, such as standard input.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(file: Box<dyn Read + Send>, limit: u64) -> io::Result<Self> {
        Ok(Self { input: Input::of(file, DEFAULT_EXPANSION)?, limit, number: 0 })
    }

    /// Number of the last line, from 1, blank ones included.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes read from the file so far, compressed if it is: for progress.
    pub fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }

    /// The longest line read, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Reads the next line that is not blank into `line`; `None` at the end of the file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Option<Line>> {
        loop {
            line.clear();
            let read = self.input.by_ref().take(self.limit.saturating_add(1)).read_until(b'\n', line)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            if line.last() == Some(&b'\n') {
                line.pop();
            } else if line.len() as u64 > self.limit {
                self.input.skip_until(b'\n')?;
                return Ok(Some(Line::TooLong));
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(Line::Whole));
            }
        }
    }
}
