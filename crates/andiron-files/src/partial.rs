//! Files and directories under construction: hidden beside their target and renamed to it when complete.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::operation::{Operation, allow};
use crate::read::{is_directory, is_there, list};
use crate::write::{
    WriteFile, create, make_directory, parent, remove_directory, remove_file, rename, sibling, sync,
    sync_tree,
};

const LOCK: &str = ".lock";

/// A directory under construction, hidden beside its target and renamed to it when complete.
///
/// A process that dies leaves the unfinished directory behind; the next build of the same target removes it and starts over.
/// Two processes cannot build the same target at once.
#[derive(Debug)]
pub struct PartialDirectory {
    partial: PathBuf,
    target: PathBuf,
    published: bool,
    // Held open, and thereby locked, until the directory is in its place.
    _lock: File,
}

impl PartialDirectory {
    /// Begins to build `target`. If that is a link, its destination is built.
    ///
    /// # Errors
    /// If the hidden directory cannot be created; of kind `ResourceBusy` if another process is building it.
    pub fn begin(target: &Path) -> io::Result<Self> {
        let target = resolve(target)?;
        let partial = sibling(&target, "partial");
        make_directory(&partial)?;
        let lock = lock(&partial.join(LOCK))?;
        let building = Self { partial, target, published: false, _lock: lock };
        building.clear()?;
        Ok(building)
    }

    /// Removes the leftovers of a process that died.
    fn clear(&self) -> io::Result<()> {
        let Self { partial, target, .. } = self;
        for name in list(partial)? {
            let path = partial.join(&name);
            if is_link(&path)? || !is_directory(&path)? {
                if name != LOCK {
                    remove_file(&path)?;
                }
            } else {
                remove_directory(&path)?;
            }
        }
        let old = sibling(target, "old");
        // A process that died between two renamings: what it was about to replace is still the result.
        if is_there(&old)? && !is_there(target)? {
            rename(&old, target)?;
        }
        remove_directory(&old)
    }

    /// The hidden directory, into which the files are written.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Syncs the directory to disk and renames it to the target, replacing what is there.
    ///
    /// # Errors
    /// If syncing or renaming fails.
    pub fn publish(mut self) -> io::Result<()> {
        sync_tree(&self.partial).map_err(|(_, error)| error)?;
        let old = sibling(&self.target, "old");
        remove_directory(&old)?;
        let replaces = is_there(&self.target)?;
        if replaces {
            rename_only(&self.target, &old)?;
        }
        if let Err(error) = rename_only(&self.partial, &self.target) {
            if replaces {
                // Best effort: the next one to begin does it otherwise.
                let _ = rename_only(&old, &self.target);
            }
            return Err(error);
        }
        self.published = true;
        sync(parent(&self.target))?;
        remove_file(&self.target.join(LOCK))?;
        remove_directory(&old)
    }

    /// Syncs the files to disk and moves them into the target directory one at a time. Each replaces the file of its name;
    /// other files there are kept. If the target does not exist, this is [`publish`](Self::publish).
    ///
    /// # Errors
    /// If syncing or renaming fails.
    pub fn publish_into(self) -> io::Result<()> {
        if !is_there(&self.target)? {
            return self.publish();
        }
        sync_tree(&self.partial).map_err(|(_, error)| error)?;
        for name in list(&self.partial)?.iter().filter(|name| *name != LOCK) {
            rename_only(&self.partial.join(name), &self.target.join(name))?;
        }
        sync(&self.target)
        // What is left of the partial directory goes with `self`.
    }
}

impl Drop for PartialDirectory {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: whoever builds the target next clears what stays.
            let _ = remove_directory(&self.partial);
        }
    }
}

/// A file under construction, hidden beside its target and renamed to it when complete.
///
/// A target that is not an ordinary file, such as a pipe, `/dev/null` or `/dev/stdout`, is written to directly.
#[derive(Debug)]
pub struct PartialFile {
    file: WriteFile,
    /// The hidden file and its target; `None` if the target is written to directly.
    renamed: Option<(PathBuf, PathBuf)>,
    published: bool,
    kept: bool,
    _lock: Option<File>,
}

impl PartialFile {
    /// Begins to write `target`. If that is a link, its destination is written.
    ///
    /// # Errors
    /// If the hidden file cannot be created; of kind `ResourceBusy` if another process is writing it.
    pub fn begin(target: &Path) -> io::Result<Self> {
        allow(Operation::Look, target)?;
        // What a process has open, as `/dev/stdout`, may be a file, but is no place beside which another could be.
        let is_open = ["/dev/std", "/dev/fd/", "/proc/"]
            .iter()
            .any(|start| target.to_string_lossy().starts_with(start));
        let is_special =
            is_open || fs::metadata(target).is_ok_and(|found| !found.is_file() && !found.is_dir());
        if is_special {
            let file = create(target)?;
            return Ok(Self { file, renamed: None, published: false, kept: false, _lock: None });
        }
        let target = resolve(target)?;
        if is_directory(&target)? {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let partial = sibling(&target, "partial");
        let lock = lock(&partial)?;
        let file = match create(&partial) {
            Ok(file) => file,
            Err(error) => {
                // Best effort, as when the whole is given up.
                let _ = remove_file(&partial);
                return Err(error);
            }
        };
        Ok(Self { file, renamed: Some((partial, target)), published: false, kept: false, _lock: Some(lock) })
    }

    /// Keeps the hidden file `.NAME.partial`, with its content so far, if writing is abandoned.
    pub fn kept(mut self) -> Self {
        self.kept = true;
        self
    }

    /// Syncs the file to disk and renames it to the target.
    ///
    /// # Errors
    /// If syncing or renaming fails; then the old content of the target is unchanged.
    pub fn publish(mut self) -> io::Result<()> {
        self.file.flush()?;
        let Some((partial, target)) = &self.renamed else {
            self.published = true;
            return Ok(());
        };
        self.file.sync()?;
        if let Ok(metadata) = fs::metadata(target) {
            // Best effort: who may read the old file may read the new one.
            let _ = fs::set_permissions(partial, metadata.permissions());
        }
        rename_only(partial, target)?;
        self.published = true;
        sync(parent(target))
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if let (false, Some((partial, _))) = (self.published || self.kept, &self.renamed) {
            // Best effort: whoever writes the target next overwrites what stays.
            let _ = remove_file(partial);
        }
    }
}

/// The path of a target, with links of its last component resolved.
fn resolve(target: &Path) -> io::Result<PathBuf> {
    if target.file_name().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a name"));
    }
    if is_link(target)? { fs::canonicalize(target) } else { Ok(target.to_owned()) }
}

fn is_link(path: &Path) -> io::Result<bool> {
    allow(Operation::Look, path)?;
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.is_symlink()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn rename_only(from: &Path, to: &Path) -> io::Result<()> {
    allow(Operation::Rename, from)?;
    fs::rename(from, to)
}

/// An exclusive lock on a file, which is created if necessary.
fn lock(path: &Path) -> io::Result<File> {
    allow(Operation::Create, path)?;
    let file = File::options().create(true).write(true).truncate(false).open(path)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => {
            io::Error::new(io::ErrorKind::ResourceBusy, "another process is writing it")
        }
        TryLockError::Error(error) => error,
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests;
