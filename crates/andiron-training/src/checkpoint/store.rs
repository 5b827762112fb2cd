//! The checkpoints of one run.

use std::path::{Path, PathBuf};

use super::manifest::{Damage, MANIFEST, Manifest, Unverified};
use crate::files::{self, FileError};

const PREFIX: &str = "step-";
const CORRUPT: &str = ".corrupt";
const LATEST: &str = "latest";
/// Ending of the hidden name that [`files::replace_directory`] gives to what it replaces.
const REPLACED: &str = ".old";

/// The directory of a run's checkpoints.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    root: PathBuf,
    keep_last: usize,
}

/// A checkpoint that could not be used and was renamed.
#[derive(Debug)]
pub struct SetAside {
    /// Its step.
    pub step: u64,
    /// Its new path.
    pub path: PathBuf,
    /// How it is damaged.
    pub damage: Damage,
}

impl Checkpoints {
    /// The checkpoints in `root`, of which the newest `keep_last` are kept. Removes the leftovers of a crash.
    ///
    /// # Errors
    /// If the directory cannot be read.
    ///
    /// # Panics
    /// If `keep_last` is less than 2, since a crash while the newest is written would leave none.
    pub fn open(root: &Path, keep_last: usize) -> Result<Self, CheckpointError> {
        assert!(keep_last >= 2, "at least two checkpoints are kept");
        for name in files::list(root)? {
            let Some(hidden) = name.strip_prefix('.').filter(|hidden| hidden.starts_with(PREFIX)) else {
                continue;
            };
            let path = root.join(&name);
            match hidden.strip_suffix(REPLACED) {
                Some(name) if is_the_only_one(&path, &root.join(name), name)? => {
                    files::rename(&path, &root.join(name))?;
                }
                _ => files::remove_directory(&path)?,
            }
        }
        Ok(Self { root: root.to_owned(), keep_last })
    }

    /// The checkpoints in `root`, which another process writes: nothing is removed.
    pub(crate) fn of_another_process(root: &Path, keep_last: usize) -> Self {
        Self { root: root.to_owned(), keep_last }
    }

    /// Saves step `step`: `write` fills a directory, which then becomes the newest checkpoint.
    ///
    /// # Errors
    /// If anything cannot be written. The older checkpoints are then unchanged, and the incomplete one is removed.
    pub fn save<E>(&self, step: u64, write: impl FnOnce(&Path) -> Result<(), E>) -> Result<PathBuf, E>
    where
        E: From<CheckpointError>,
    {
        self.save_beside(None, step, write)
    }

    /// The same, keeping the checkpoint of the step `best` as well, if there is one.
    ///
    /// # Errors
    /// As for [`save`](Self::save).
    pub fn save_beside<E>(
        &self,
        best: Option<u64>,
        step: u64,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E>
    where
        E: From<CheckpointError>,
    {
        let target = self.path(step);
        let partial = files::sibling(&target, "partial");
        let written = self.fill(step, &partial, write);
        if written.is_err() {
            // Best effort: the next `open` clears what stays.
            let _ = files::remove_directory(&partial);
        }
        written?;
        files::replace_directory(&partial, &target).map_err(CheckpointError::from)?;
        let latest = format!("{}\n", name_of(step));
        files::replace(&self.root.join(LATEST), latest.as_bytes()).map_err(CheckpointError::from)?;
        self.prune(best)?;
        Ok(target)
    }

    fn fill<E>(&self, step: u64, partial: &Path, write: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E>
    where
        E: From<CheckpointError>,
    {
        files::remove_directory(partial).map_err(CheckpointError::from)?;
        files::make_directory(partial).map_err(CheckpointError::from)?;
        write(partial)?;
        let seal = || {
            let manifest = Manifest::of(partial, step)?;
            files::write_synced(&partial.join(MANIFEST), manifest.to_json().as_bytes())?;
            files::sync_tree(partial)
        };
        seal().map_err(|error: FileError| CheckpointError::from(error).into())
    }

    /// Removes all but the newest checkpoints, and that of the step `best`.
    fn prune(&self, best: Option<u64>) -> Result<(), CheckpointError> {
        let steps = self.steps()?;
        for &step in steps.iter().rev().skip(self.keep_last).filter(|&&step| Some(step) != best) {
            // Under a hidden name first: a removal that is cut short leaves no half checkpoint.
            let hidden = files::sibling(&self.path(step), "removed");
            files::rename(&self.path(step), &hidden)?;
            files::remove_directory(&hidden)?;
        }
        Ok(())
    }

    /// The steps that have a checkpoint, in order; they are not checked for damage.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        steps_in(&self.root)
    }

    /// The path of the checkpoint of a step, whether it exists or not.
    pub fn path(&self, step: u64) -> PathBuf {
        self.root.join(name_of(step))
    }

    /// Loads the newest intact checkpoint with `read`; `None` if there are no checkpoints.
    ///
    /// A damaged one (changed bytes, a missing file) is renamed and passed to `report`, and the next older one is tried.
    ///
    /// # Errors
    /// If a file cannot be read, a checkpoint is of a later version, all are damaged, or `read` fails. Then that checkpoint is
    /// not renamed and no older one is tried; checkpoints found damaged before stay renamed.
    pub fn load_newest<T, E>(
        &self,
        read: impl FnOnce(&Path) -> Result<T, E>,
        report: &mut dyn FnMut(SetAside),
    ) -> Result<Option<T>, E>
    where
        E: From<CheckpointError>,
    {
        for step in self.steps()?.into_iter().rev() {
            let path = self.path(step);
            let damage = match Manifest::verify(&path, step) {
                Ok(()) => return read(&path).map(Some),
                Err(Unverified::Unreadable(source)) => {
                    return Err(CheckpointError::Unreadable { path, source }.into());
                }
                Err(Unverified::Damaged(damage @ Damage::TooNew { .. })) => {
                    return Err(CheckpointError::TooNew { path, source: damage }.into());
                }
                Err(Unverified::Damaged(damage)) => damage,
            };
            let aside = self.set_aside(step)?;
            report(SetAside { step, path: aside, damage });
        }
        let damaged = files::list(&self.root).map_err(CheckpointError::from)?;
        if damaged.iter().any(|name| name.starts_with(PREFIX) && name.contains(CORRUPT)) {
            return Err(CheckpointError::AllDamaged { root: self.root.clone() }.into());
        }
        Ok(None)
    }

    /// Loads the checkpoint of a step with `read`; `None` if there is none, or it is damaged.
    ///
    /// # Errors
    /// If a file cannot be read, or `read` fails.
    pub fn load_step<T, E>(&self, step: u64, read: impl FnOnce(&Path) -> Result<T, E>) -> Result<Option<T>, E>
    where
        E: From<CheckpointError>,
    {
        let path = self.path(step);
        if !files::is_there(&path).map_err(CheckpointError::from)? {
            return Ok(None);
        }
        match Manifest::verify(&path, step) {
            Ok(()) => read(&path).map(Some),
            Err(Unverified::Damaged(_)) => Ok(None),
            Err(Unverified::Unreadable(source)) => Err(CheckpointError::Unreadable { path, source }.into()),
        }
    }

    fn set_aside(&self, step: u64) -> Result<PathBuf, CheckpointError> {
        let aside = |number: u32| {
            let number = if number == 0 { String::new() } else { format!(".{number}") };
            self.root.join(format!("{}{CORRUPT}{number}", name_of(step)))
        };
        let mut number = 0;
        while files::is_there(&aside(number))? {
            number += 1;
        }
        files::rename(&self.path(step), &aside(number))?;
        Ok(aside(number))
    }
}

/// The steps that have a checkpoint in the directory `root`, in order; empty if there is no such directory. It changes
/// nothing there, so it may be called during a run.
///
/// # Errors
/// If the directory cannot be read.
pub fn steps_in(root: &Path) -> Result<Vec<u64>, CheckpointError> {
    if !files::is_there(root)? {
        return Ok(Vec::new());
    }
    let mut steps: Vec<u64> = files::list(root)?.iter().filter_map(|name| step_of(name)).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// Whether `replaced` is the intact checkpoint that was at `place` when a crash came between two renamings.
fn is_the_only_one(replaced: &Path, place: &Path, name: &str) -> Result<bool, CheckpointError> {
    let Some(step) = step_of(name) else { return Ok(false) };
    if files::is_there(place)? {
        return Ok(false);
    }
    match Manifest::verify(replaced, step) {
        Ok(()) => Ok(true),
        Err(Unverified::Damaged(_)) => Ok(false),
        Err(Unverified::Unreadable(source)) => {
            Err(CheckpointError::Unreadable { path: replaced.to_owned(), source })
        }
    }
}

fn name_of(step: u64) -> String {
    format!("{PREFIX}{step:06}")
}

/// The step of a directory's name, if it is written as [`name_of`] writes it.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix(PREFIX)?.parse().ok()?;
    (name_of(step) == name).then_some(step)
}

/// Why a checkpoint was not saved or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of a checkpoint cannot be read, so it is unknown whether the checkpoint is intact.
    #[error(
        "checkpoint {} cannot be read; nothing was changed: make it readable, or move it away to go on from an \
         older one",
        path.display()
    )]
    Unreadable {
        /// The checkpoint.
        path: PathBuf,
        /// The file, and the cause.
        source: FileError,
    },
    /// A later version wrote the newest checkpoint.
    #[error("checkpoint {} cannot be used", path.display())]
    TooNew {
        /// The checkpoint.
        path: PathBuf,
        /// The formats.
        source: Damage,
    },
    /// All checkpoints are damaged.
    #[error(
        "no checkpoint in {} is whole; they were renamed to step-*.corrupt: remove those to start over",
        root.display()
    )]
    AllDamaged {
        /// The run.
        root: PathBuf,
    },
}
