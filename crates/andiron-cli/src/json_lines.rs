//! JSONL input: the lines of a file or of standard input, of bounded length.

use std::path::{Path, PathBuf};

use andiron_data::lines::{Line as Read, Lines};
use anyhow::Context as _;

/// Maximum length of a line in bytes: a line is held in memory.
pub const MAX_LINE: u64 = 64 << 20;

/// A reader of lines.
pub struct JsonLines {
    lines: Lines,
    path: PathBuf,
}

/// A line that was read.
pub struct Line {
    /// Its number in the file, from 1.
    pub number: u64,
    /// Whether it is longer than [`MAX_LINE`]; then it was not read as a whole.
    pub too_long: bool,
}

impl JsonLines {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let lines = match path == Path::new("-") {
            true => Lines::of(Box::new(std::io::stdin()), MAX_LINE),
            false => Lines::open(path, MAX_LINE),
        };
        let lines = lines.with_context(|| failed(path))?;
        Ok(Self { lines, path: path.to_owned() })
    }

    /// Reads the next line that is not blank into `line`; `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn next(&mut self, line: &mut Vec<u8>) -> anyhow::Result<Option<Line>> {
        let read = self.lines.next(line).with_context(|| failed(&self.path))?;
        let number = self.lines.number();
        Ok(read.map(|read| Line { number, too_long: read == Read::TooLong }))
    }
}

fn failed(path: &Path) -> String {
    match path == Path::new("-") {
        true => "cannot read standard input".to_owned(),
        false => format!("cannot read {}", path.display()),
    }
}
