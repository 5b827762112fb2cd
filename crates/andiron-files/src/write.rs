//! Durable writing: data is synced to disk before a name points at it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::operation::{Operation, allow};
use crate::read::{is_directory, list};

/// A file that is open for writing.
#[derive(Debug)]
pub struct WriteFile {
    file: File,
    path: PathBuf,
}

/// Creates a file, or truncates the existing one.
///
/// # Errors
/// If it cannot be created.
pub fn create(path: &Path) -> io::Result<WriteFile> {
    allow(Operation::Create, path)?;
    Ok(WriteFile { file: File::create(path)?, path: path.to_owned() })
}

impl WriteFile {
    /// Syncs everything written to disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sync(&self) -> io::Result<()> {
        allow(Operation::Sync, &self.path)?;
        self.file.sync_all()
    }
}

impl Write for WriteFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        allow(Operation::Write, &self.path)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a file and syncs it to disk.
///
/// # Errors
/// If it cannot be written.
pub fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(bytes)?;
    file.sync()
}

/// Replaces a file atomically: readers see the old or the new content, never a part.
///
/// # Errors
/// If it cannot be written; the old content is then unchanged.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let scratch = sibling(path, "tmp");
    let written = write_synced(&scratch, bytes).and_then(|()| rename(&scratch, path));
    if written.is_err() {
        // Best effort: on a full disk the space is given back.
        let _ = remove_file(&scratch);
    }
    written
}

/// Renames `from` to `to` in the same directory and syncs the directory to disk.
///
/// # Errors
/// If it cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    allow(Operation::Rename, from)?;
    fs::rename(from, to)?;
    sync(parent(to))
}

/// Syncs a file, or the names in a directory, to disk.
///
/// # Errors
/// If they cannot be written.
pub fn sync(path: &Path) -> io::Result<()> {
    // Windows cannot open directories as files; it keeps names safe by itself.
    if !cfg!(unix) && path.is_dir() {
        return Ok(());
    }
    allow(Operation::Sync, path)?;
    File::open(path)?.sync_all()
}

/// Syncs a directory and everything below it to disk.
///
/// # Errors
/// The path that could not be written, and why.
pub fn sync_tree(root: &Path) -> Result<(), (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        |error| (path, error)
    };
    for name in list(root).map_err(at(root))? {
        let path = root.join(name);
        if is_directory(&path).map_err(at(&path))? {
            sync_tree(&path)?;
        } else {
            sync(&path).map_err(at(&path))?;
        }
    }
    sync(root).map_err(at(root))
}

/// Gives a file a second name, or copies it where the file system has no hard links. What was at `to` is replaced.
///
/// # Errors
/// If it can be neither linked nor copied.
pub fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    remove_file(to)?;
    allow(Operation::Create, to)?;
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        Err(_) => fs::copy(from, to).map(drop),
    }
}

/// Creates a directory and its parents.
///
/// # Errors
/// If it cannot be created.
pub fn make_directory(path: &Path) -> io::Result<()> {
    allow(Operation::Create, path)?;
    fs::create_dir_all(path)
}

/// Removes a file, if it exists.
///
/// # Errors
/// If it exists and cannot be removed.
pub fn remove_file(path: &Path) -> io::Result<()> {
    allow(Operation::Remove, path)?;
    if_there(fs::remove_file(path))
}

/// Removes a directory with its content, if it exists.
///
/// # Errors
/// If it exists and cannot be removed.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    allow(Operation::Remove, path)?;
    if_there(fs::remove_dir_all(path))
}

fn if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A hidden name beside `path`.
pub fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    parent(path).join(format!(".{name}.{suffix}"))
}

/// The directory that holds `path`.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, with_fault};

    #[test]
    fn a_linked_file_has_the_content_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        link_or_copy(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert!(link_or_copy(&dir.path().join("missing"), &to).is_err());
    }

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
    fn a_replacement_that_fails_anywhere_keeps_the_old_content_or_has_the_new() {
        let replaced = |fault: Fault| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("latest");
            fs::write(&path, "old").unwrap();
            let (result, seen) = with_fault(fault, || replace(&path, b"new"));
            (result, fs::read_to_string(&path).unwrap(), list(dir.path()).unwrap(), seen.len())
        };
        let (result, content, names, n) = replaced(Fault::none());
        assert!(result.is_ok() && content == "new" && names == ["latest"]);
        for at in 0..n {
            let (result, content, names, _) = replaced(Fault::once(at, 28));
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
            assert_eq!(names, ["latest"]);
            let (result, killed, ..) = replaced(Fault::killed_at(at));
            assert!(result.is_err());
            // After the renaming only waiting for the disk can fail.
            let expected = if at + 1 == n { "new" } else { "old" };
            assert_eq!((content.as_str(), killed.as_str()), (expected, expected), "operation {at}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn files_are_as_readable_as_those_of_any_program() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let [ours, theirs] = ["ours", "theirs"].map(|name| dir.path().join(name));
        replace(&ours, b"x").unwrap();
        fs::write(&theirs, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&theirs));
    }
}
