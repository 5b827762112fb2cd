//! Reading, with a size limit for untrusted files.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::operation::{Operation, allow};

/// A file that is open for reading.
#[derive(Debug)]
pub struct ReadFile {
    file: File,
    path: PathBuf,
}

/// Opens a file.
///
/// # Errors
/// If it cannot be opened.
pub fn open(path: &Path) -> io::Result<ReadFile> {
    allow(Operation::Open, path)?;
    Ok(ReadFile { file: File::open(path)?, path: path.to_owned() })
}

impl ReadFile {
    /// The file's metadata, such as its length.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn metadata(&self) -> io::Result<Metadata> {
        allow(Operation::Look, &self.path)?;
        self.file.metadata()
    }
}

impl Read for ReadFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        allow(Operation::Read, &self.path)?;
        self.file.read(buffer)
    }
}

impl Seek for ReadFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Reads a whole file.
///
/// # Errors
/// If it cannot be opened or read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// If it cannot be opened or read; of kind `FileTooLarge` if it is longer.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    if length <= limit {
        // A file may be longer than it says, as those in `/proc` are.
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    }
    if length > limit || bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// Whether there is a file or directory at `path`, following links.
///
/// # Errors
/// If that cannot be determined: a parent directory is not accessible, or links form a cycle.
pub fn is_there(path: &Path) -> io::Result<bool> {
    Ok(look(path)?.is_some())
}

/// Whether there is a directory at `path`, following links.
///
/// # Errors
/// As [`is_there`].
pub fn is_directory(path: &Path) -> io::Result<bool> {
    Ok(look(path)?.is_some_and(|metadata| metadata.is_dir()))
}

fn look(path: &Path) -> io::Result<Option<Metadata>> {
    allow(Operation::Look, path)?;
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        // A file where a directory is expected: what is asked for is not below it.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The names in a directory, sorted. In names that are not Unicode, invalid parts are replaced by U+FFFD.
///
/// # Errors
/// If the directory cannot be read.
pub fn list(path: &Path) -> io::Result<Vec<String>> {
    allow(Operation::List, path)?;
    let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<String>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// A text without the byte order mark that some editors put in front of UTF-8.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stop_at_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"abc").unwrap();
        assert_eq!(read(&path).unwrap(), b"abc");
        assert_eq!(read_bounded(&path, 3).unwrap(), b"abc");
        assert_eq!(read_bounded(&path, 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_is_missing_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, b"abc").unwrap();
        assert!(is_there(&file).unwrap() && !is_directory(&file).unwrap());
        assert!(is_directory(dir.path()).unwrap());
        for missing in [dir.path().join("g"), file.join("below a file")] {
            assert!(!is_there(&missing).unwrap() && !is_directory(&missing).unwrap());
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_in_a_circle_are_an_error_and_not_an_absence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("circle");
        std::os::unix::fs::symlink("circle", &path).unwrap();
        assert!(is_there(&path).is_err() && is_directory(&path).is_err() && open(&path).is_err());
    }
}
