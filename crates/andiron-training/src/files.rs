//! Files that are whole or absent: every write is on the disk before a name points at it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A file or directory could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// What was to be done.
    pub action: &'static str,
    /// To what.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// Names the object of a failed operation.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { action, path, source }
}

/// Makes a directory and those above it.
pub(crate) fn make_directory(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(failed("make the directory", path))
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(failed("read", path))
}

/// Writes a file and waits until it is on the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(failed("write", path))
}

/// Waits until a file, or the names in a directory, are on the disk.
pub(crate) fn sync(path: &Path) -> Result<(), FileError> {
    // Windows cannot open directories as files; it keeps names safe by itself.
    if !cfg!(unix) && path.is_dir() {
        return Ok(());
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(failed("write", path))
}

/// Waits until a directory and everything below it are on the disk.
pub(crate) fn sync_tree(root: &Path) -> Result<(), FileError> {
    for name in list(root)? {
        let path = root.join(name);
        if path.is_dir() { sync_tree(&path)? } else { sync(&path)? }
    }
    sync(root)
}

/// Gives `from` the name `to` in the same directory and waits until the new name is on the disk.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    fs::rename(from, to).map_err(failed("rename", from))?;
    sync(parent(to))
}

/// Replaces a file at once: readers see the old or the new content, never a part.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let scratch = sibling(path, "tmp");
    let written = write_synced(&scratch, bytes).and_then(|()| rename(&scratch, path));
    if written.is_err() {
        // Best effort: on a full disk the space is given back.
        let _ = fs::remove_file(&scratch);
    }
    written
}

/// Puts the directory `fresh` in the place of `target`, which may exist.
pub(crate) fn replace_directory(fresh: &Path, target: &Path) -> Result<(), FileError> {
    let old = sibling(target, "old");
    remove_directory(&old)?;
    if target.exists() {
        rename(target, &old)?;
    }
    rename(fresh, target)?;
    remove_directory(&old)
}

/// Removes a directory with all it holds, if it is there.
pub(crate) fn remove_directory(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The names in a directory, sorted.
pub(crate) fn list(path: &Path) -> Result<Vec<String>, FileError> {
    let read = || {
        let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<io::Result<Vec<String>>>()
    };
    let mut names = read().map_err(failed("read", path))?;
    names.sort_unstable();
    Ok(names)
}

/// Every file below a directory as a path relative to it with `/` between names, sorted.
pub(crate) fn list_files(root: &Path) -> Result<Vec<String>, FileError> {
    let mut files = Vec::new();
    let mut open = vec![String::new()];
    while let Some(directory) = open.pop() {
        for name in list(&root.join(&directory))? {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            if root.join(&path).is_dir() {
                open.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// A hidden name beside `path`.
pub(crate) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    parent(path).join(format!(".{name}.{suffix}"))
}

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The sole right to write in a directory, for as long as this value lives.
///
/// The operating system gives the lock back when its holder dies, however it dies.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock of `directory`; `None` if another process has it.
    pub(crate) fn take(directory: &Path) -> Result<Option<Self>, FileError> {
        let path = directory.join(".lock");
        let open = File::options().create(true).write(true).truncate(false).open(&path);
        let file = open.map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latest");
        for content in [b"a".as_slice(), b"longer", b""] {
            replace(&path, content).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content);
            assert_eq!(list(dir.path()).unwrap(), ["latest"]);
        }
    }

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

    #[test]
    fn reads_stop_at_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"abc").unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap(), b"abc");
        assert_eq!(read_bounded(&path, 2).unwrap_err().source.kind(), io::ErrorKind::FileTooLarge);
    }
}
