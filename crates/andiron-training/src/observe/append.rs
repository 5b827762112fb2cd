//! A file that grows by whole entries.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use andiron_files::{Operation, allow};

use crate::files::{FileError, failed};

/// A file that is appended to by whole entries.
///
/// A failed append can leave a part of its entry; the next append first removes it. A full disk therefore costs the entries
/// that did not fit, and none of those before and after them.
#[derive(Debug)]
pub(crate) struct AppendFile {
    path: PathBuf,
    file: File,
    /// Length of the whole entries.
    length: u64,
    /// Whether a part of an entry may follow them.
    torn: bool,
}

impl AppendFile {
    /// Opens or creates the file and cuts it to the length that `keep` returns.
    pub(crate) fn open(
        path: &Path,
        keep: impl FnOnce(&mut File) -> io::Result<u64>,
    ) -> Result<Self, FileError> {
        let open = || {
            allow(Operation::Create, path)?;
            let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
            let length = keep(&mut file)?;
            cut(&mut file, length)?;
            Ok((file, length))
        };
        let (file, length) = open().map_err(failed("open", path))?;
        Ok(Self { path: path.to_owned(), file, length, torn: false })
    }

    /// Adds an entry.
    pub(crate) fn append(&mut self, entry: &[u8]) -> Result<(), FileError> {
        let mut write = || {
            allow(Operation::Write, &self.path)?;
            if self.torn {
                cut(&mut self.file, self.length)?;
            }
            self.torn = true;
            self.file.write_all(entry)?;
            self.torn = false;
            self.length += entry.len() as u64;
            Ok(())
        };
        write().map_err(failed("write", &self.path))
    }

    /// Syncs all entries to disk.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        let sync = || {
            allow(Operation::Sync, &self.path)?;
            self.file.sync_all()
        };
        sync().map_err(failed("write", &self.path))
    }
}

fn cut(file: &mut File, length: u64) -> io::Result<()> {
    file.set_len(length)?;
    file.seek(SeekFrom::Start(length))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use andiron_files::fault::{Fault, with_fault};

    use super::*;

    #[test]
    fn a_part_of_an_entry_is_removed_before_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut file = AppendFile::open(&path, |_| Ok(0)).unwrap();
        file.append(b"one\n").unwrap();
        // What a disk that became full in the middle of an entry leaves.
        file.file.write_all(b"tw").unwrap();
        file.torn = true;
        file.append(b"three\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\nthree\n");
    }

    #[test]
    fn a_failed_append_names_the_file_and_the_next_one_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut file = AppendFile::open(&path, |_| Ok(0)).unwrap();
        let (failed, _) = with_fault(Fault::once(0, 28), || file.append(b"one\n"));
        assert!(failed.unwrap_err().to_string().contains("cannot write"));
        let (failed, _) = with_fault(Fault::once(0, 5), || file.sync());
        assert!(failed.is_err());
        file.append(b"two\n").unwrap();
        file.sync().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two\n");
    }
}
