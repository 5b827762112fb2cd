//! JSONL input: the lines of a file or of standard input, of bounded length.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Maximum length of a line in bytes: a line is held in memory.
pub const MAX_LINE: u64 = 64 << 20;

/// Some editors put it at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A reader of lines.
pub struct JsonLines {
    reader: Box<dyn BufRead>,
    path: PathBuf,
    number: usize,
}

/// A line that was read.
pub struct Line {
    /// Its number in the file, from 1.
    pub number: usize,
    /// Whether it is longer than [`MAX_LINE`]; then it was not read as a whole.
    pub too_long: bool,
}

impl JsonLines {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let reader: Box<dyn BufRead> = match path == Path::new("-") {
            true => Box::new(std::io::stdin().lock()),
            false => {
                let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
                Box::new(BufReader::new(file))
            }
        };
        Ok(Self { reader, path: path.to_owned(), number: 0 })
    }

    /// Reads the next line that is not blank into `line`; `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn next(&mut self, line: &mut Vec<u8>) -> anyhow::Result<Option<Line>> {
        loop {
            line.clear();
            let read = || match self.path == Path::new("-") {
                true => "cannot read standard input".to_owned(),
                false => format!("cannot read {}", self.path.display()),
            };
            let len = (&mut self.reader).take(MAX_LINE + 1).read_until(b'\n', line).with_context(read)?;
            if len == 0 {
                return Ok(None);
            }
            self.number += 1;
            if self.number == 1 && line.starts_with(BYTE_ORDER_MARK) {
                line.drain(..BYTE_ORDER_MARK.len());
            }
            let too_long = len as u64 > MAX_LINE;
            if too_long && line.last() != Some(&b'\n') {
                self.reader.skip_until(b'\n').with_context(read)?;
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(Line { number: self.number, too_long }));
            }
        }
    }
}
