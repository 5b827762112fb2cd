//! The output: standard output, or a file that appears when it is complete.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use andiron_files::PartialFile;
use anyhow::Context as _;

/// A writer of answers.
pub trait Output: Write {
    /// Flushes, and publishes a file.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

struct Standard(BufWriter<io::StdoutLock<'static>>);

struct File(BufWriter<PartialFile>);

impl Write for Standard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Output for Standard {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Output for File {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.0.into_inner().map_err(io::IntoInnerError::into_error)?.publish()
    }
}

/// Opens the file `path`, or standard output for `-`.
pub fn open(path: &Path) -> anyhow::Result<Box<dyn Output>> {
    if path == Path::new("-") {
        return Ok(Box::new(Standard(BufWriter::new(io::stdout().lock()))));
    }
    let file = PartialFile::begin(path).with_context(|| format!("cannot write {}", path.display()))?;
    // Answers may have taken hours, so a partial file is kept after a failure.
    Ok(Box::new(File(BufWriter::new(file.kept()))))
}
