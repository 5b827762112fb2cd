//! Files that are whole or absent, and reads with a bound.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Reads a file of at most `limit` bytes; a longer one is an error of kind `FileTooLarge`.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    if length <= limit {
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    }
    if length > limit || bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// Writes a file and waits until it is on the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Replaces a file at once: readers see the old or the new content, never a part.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let scratch = sibling(path, "tmp");
    write_synced(&scratch, bytes)?;
    fs::rename(&scratch, path)?;
    sync_directory(parent(path))
}

/// Waits until the names in a directory are on the disk.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    parent(path).join(format!(".{name}.{suffix}"))
}

const LOCK: &str = ".lock";

/// A directory under construction beside its final place, to which it moves when it is complete.
///
/// A process that dies leaves the unfinished directory behind; the next one that builds the same target starts
/// it afresh. Two processes cannot build the same target at once.
pub(crate) struct PartialDirectory {
    partial: PathBuf,
    target: PathBuf,
    published: bool,
    // Held open, and thereby locked, until the directory is in its place.
    _lock: File,
}

impl PartialDirectory {
    /// Begins to build `target`. An error of kind `ResourceBusy` says that another process is building it.
    pub(crate) fn begin(target: &Path) -> io::Result<Self> {
        if target.file_name().is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no directory"));
        }
        let partial = sibling(target, "partial");
        fs::create_dir_all(&partial)?;
        let lock = File::options().create(true).write(true).truncate(false).open(partial.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::ResourceBusy, "another process is writing it")
            }
            TryLockError::Error(error) => error,
        })?;
        for entry in fs::read_dir(&partial)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else if entry.file_name() != LOCK {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { partial, target: target.to_owned(), published: false, _lock: lock })
    }

    /// Where the files go until then.
    pub(crate) fn path(&self) -> &Path {
        &self.partial
    }

    /// Moves the directory to its place, in exchange for what may stand there.
    pub(crate) fn publish(mut self) -> io::Result<()> {
        sync_directory(&self.partial)?;
        let old = sibling(&self.target, "old");
        if old.exists() {
            fs::remove_dir_all(&old)?;
        }
        if self.target.exists() {
            fs::rename(&self.target, &old)?;
        }
        fs::rename(&self.partial, &self.target)?;
        self.published = true;
        sync_directory(parent(&self.target))?;
        fs::remove_file(self.target.join(LOCK))?;
        if old.exists() {
            fs::remove_dir_all(&old)?;
        }
        Ok(())
    }
}

impl Drop for PartialDirectory {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: whoever builds the target next clears what stays.
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let building = PartialDirectory::begin(&target).unwrap();
        write_synced(&building.path().join("a"), b"1").unwrap();
        assert_eq!(PartialDirectory::begin(&target).err().unwrap().kind(), io::ErrorKind::ResourceBusy);
        drop(building);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        for content in [b"1", b"2"] {
            let building = PartialDirectory::begin(&target).unwrap();
            write_synced(&building.path().join("a"), content).unwrap();
            building.publish().unwrap();
            assert_eq!(fs::read(target.join("a")).unwrap(), content);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
            assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
        }
    }

    #[test]
    fn leftovers_of_a_dead_process_are_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        fs::create_dir_all(dir.path().join(".out.partial/sub")).unwrap();
        fs::write(dir.path().join(".out.partial/stale"), b"").unwrap();
        PartialDirectory::begin(&target).unwrap().publish().unwrap();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    }

    #[test]
    fn reads_stop_at_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        replace(&path, b"abc").unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap(), b"abc");
        assert_eq!(read_bounded(&path, 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
