//! Lines of bounded length.

use std::io::{self, BufRead, Read};

use crate::input::Input;

/// The lines of a file. One that is longer than the limit is passed over without being held in memory.
pub(crate) struct Lines {
    input: Input,
    limit: u64,
    number: u64,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line, without its line feed.
    Whole,
    /// One that is longer than the limit.
    TooLong,
}

impl Lines {
    pub(crate) fn new(input: Input, limit: u64) -> Self {
        Self { input, limit, number: 0 }
    }

    /// Number of the last line, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// See [`Input::bytes_read`].
    pub(crate) fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }

    /// The longest line read, in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Reads the next line into `line`; `None` at the end of the file.
    pub(crate) fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Option<Line>> {
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
        Ok(Some(Line::Whole))
    }
}
