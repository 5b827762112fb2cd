//! The operations of `andiron-files` with errors that name the path, and further ones for runs.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use andiron_files::sibling;
use andiron_files::{Operation, allow};

/// A file or directory could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// The operation.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// Adds operation and path to an error.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { action, path, source }
}

/// Creates a directory and its parents.
pub(crate) fn make_directory(path: &Path) -> Result<(), FileError> {
    andiron_files::make_directory(path).map_err(failed("make the directory", path))
}

/// BLAKE3 of a file in hexadecimal.
pub(crate) fn checksum(path: &Path) -> Result<String, FileError> {
    let hash = || -> io::Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(andiron_files::open(path)?)?;
        Ok(hasher.finalize().to_hex().to_string())
    };
    hash().map_err(failed("read", path))
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    andiron_files::read_bounded(path, limit).map_err(failed("read", path))
}

/// Writes a file and syncs it to disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    andiron_files::write_synced(path, bytes).map_err(failed("write", path))
}

/// Syncs a directory and everything below it to disk.
pub(crate) fn sync_tree(root: &Path) -> Result<(), FileError> {
    andiron_files::sync_tree(root).map_err(|(path, source)| FileError { action: "write", path, source })
}

/// Renames `from` to `to` in the same directory and syncs the directory to disk.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    andiron_files::rename(from, to).map_err(failed("rename", from))
}

/// Replaces a file atomically: readers see the old or the new content, never a part.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    andiron_files::replace(path, bytes).map_err(failed("write", path))
}

/// Replaces the directory `target`, which need not exist, by `fresh`.
pub(crate) fn replace_directory(fresh: &Path, target: &Path) -> Result<(), FileError> {
    let old = sibling(target, "old");
    remove_directory(&old)?;
    if is_there(target)? {
        rename(target, &old)?;
    }
    rename(fresh, target)?;
    remove_directory(&old)
}

/// Removes a directory with its content, if it exists.
pub(crate) fn remove_directory(path: &Path) -> Result<(), FileError> {
    andiron_files::remove_directory(path).map_err(failed("remove", path))
}

/// Removes a file, if it exists.
pub(crate) fn remove_file(path: &Path) -> Result<(), FileError> {
    andiron_files::remove_file(path).map_err(failed("remove", path))
}

/// Whether `path` exists.
pub(crate) fn is_there(path: &Path) -> Result<bool, FileError> {
    andiron_files::is_there(path).map_err(failed("read", path))
}

/// Whether `path` is a directory.
pub(crate) fn is_directory(path: &Path) -> Result<bool, FileError> {
    andiron_files::is_directory(path).map_err(failed("read", path))
}

/// The names in a directory, sorted.
pub(crate) fn list(path: &Path) -> Result<Vec<String>, FileError> {
    andiron_files::list(path).map_err(failed("read", path))
}

/// All files below a directory as sorted relative paths with `/` between names.
pub(crate) fn list_files(root: &Path) -> Result<Vec<String>, FileError> {
    let mut files = Vec::new();
    let mut open = vec![String::new()];
    while let Some(directory) = open.pop() {
        for name in list(&root.join(&directory))? {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            let full = root.join(&path);
            if is_directory(&full)? {
                open.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// An exclusive lock for writing in a directory, held as long as this value lives.
///
/// The operating system releases the lock when the process ends, even if it is killed.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Acquires the lock of `directory`; `None` if another process holds it.
    pub(crate) fn take(directory: &Path) -> Result<Option<Self>, FileError> {
        let path = directory.join(".lock");
        let open = || {
            allow(Operation::Create, &path)?;
            File::options().create(true).write(true).truncate(false).open(&path)
        };
        let file = open().map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_failed_replacement_keeps_the_old_content_and_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latest");
        fs::create_dir_all(path.join("in the way")).unwrap();
        let error = replace(&path, b"x").unwrap_err();
        assert!(error.to_string().contains("latest"), "{error}");
        assert_eq!(list(dir.path()).unwrap(), ["latest"]);
        assert!(path.join("in the way").exists());
    }

    #[test]
    fn a_directory_is_replaced_whether_or_not_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("model");
        for content in ["1", "2"] {
            let fresh = dir.path().join("fresh");
            fs::create_dir(&fresh).unwrap();
            fs::write(fresh.join("file"), content).unwrap();
            replace_directory(&fresh, &target).unwrap();
            assert_eq!(fs::read_to_string(target.join("file")).unwrap(), content);
            assert_eq!(list(dir.path()).unwrap(), ["model"]);
        }
    }

    #[test]
    fn files_are_listed_with_their_directories() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/c")).unwrap();
        for name in ["a", "b/z", "b/c/d"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        assert_eq!(list_files(dir.path()).unwrap(), ["a", "b/c/d", "b/z"]);
    }

    #[test]
    fn a_lock_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(dir.path()).unwrap();
        assert!(first.is_some());
        assert!(DirectoryLock::take(dir.path()).unwrap().is_none());
        drop(first);
        assert!(DirectoryLock::take(dir.path()).unwrap().is_some());
    }
}
