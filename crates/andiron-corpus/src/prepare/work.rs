//! The directory of work in progress: what each stage made, so that a run that was killed goes on where it was.
//!
//! It lies beside the output, `.OUT.stages`, and is removed when that is complete. Each result of a stage has a marker, which is
//! written last: a key that follows from inputs and settings, and the files with their hashes. A result is used again if its
//! key is the same and its files have these hashes; so nothing here must be synced to disk.

use std::fs::{File, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::PrepareError;
use super::pipeline::{failed_to_read, failed_to_write};
use andiron_files::WriteFile;

const LOCK: &str = ".lock";
const MARKER_LIMIT: u64 = 256 << 20;

/// The directory, locked while it is in use.
pub(super) struct Work {
    path: PathBuf,
    /// Whether something in it is worth keeping.
    is_of_use: AtomicBool,
    _lock: File,
}

/// Who else may work in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Nobody.
    Alone,
    /// Other tasks, on other parts.
    Tasks,
}

/// A file that a stage made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StageFile {
    /// Its path in the directory.
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) blake3: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker<T> {
    key: String,
    files: Vec<StageFile>,
    result: T,
}

impl Work {
    /// The directory of an output.
    pub(super) fn of(output: &Path) -> PathBuf {
        andiron_files::sibling(output, "stages")
    }

    /// Opens or creates the directory of an output.
    pub(super) fn open(output: &Path, sharing: Sharing) -> Result<Self, PrepareError> {
        let path = Self::of(output);
        // What cannot be created beside the output is the output's place, by the name that the user gave it.
        andiron_files::make_directory(&path).map_err(failed_to_write(output))?;
        let lock_path = path.join(LOCK);
        let locking = || failed_to_write(&lock_path);
        andiron_files::allow(andiron_files::Operation::Create, &lock_path).map_err(locking())?;
        let lock =
            File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(locking())?;
        let locked = match sharing {
            Sharing::Alone => lock.try_lock(),
            Sharing::Tasks => lock.try_lock_shared(),
        };
        match locked {
            Ok(()) => Ok(Self { path, is_of_use: AtomicBool::new(false), _lock: lock }),
            Err(TryLockError::Error(error)) => Err(locking()(error)),
            Err(TryLockError::WouldBlock) => {
                let busy = io::Error::new(io::ErrorKind::ResourceBusy, "another process is writing it");
                Err(failed_to_write(output)(busy))
            }
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Creates a directory in it.
    pub(super) fn directory(&self, name: &str) -> Result<(), PrepareError> {
        let path = self.path(name);
        andiron_files::make_directory(&path).map_err(failed_to_write(&path))
    }

    /// Creates a file in it.
    pub(super) fn create(&self, name: String) -> Result<StageWriter, PrepareError> {
        StageWriter::create(self.path(&name), name)
    }

    fn marked<T: DeserializeOwned>(&self, name: &str) -> Option<Marker<T>> {
        let bytes = andiron_files::read_bounded(&self.path(&marker(name)), MARKER_LIMIT).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The result of a stage, whatever it was made from.
    pub(super) fn peek<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        Some(self.marked(name)?.result)
    }

    /// The result of a stage, if it is there and was made from what `key` says.
    pub(super) fn done<T: DeserializeOwned>(&self, name: &str, key: &str) -> Option<T> {
        self.done_in_part((name, key), |_| true)
    }

    /// The same, if only the files of these names are read.
    pub(super) fn done_in_part<T: DeserializeOwned>(
        &self,
        (name, key): (&str, &str),
        is_read: impl Fn(&str) -> bool,
    ) -> Option<T> {
        let found: Marker<T> = self.marked(name)?;
        let intact = |file: &StageFile| !is_read(&file.name) || is_intact(&self.path(&file.name), file);
        let is_done = found.key == key && found.files.iter().all(intact);
        self.is_of_use.fetch_or(is_done, Ordering::Relaxed);
        is_done.then_some(found.result)
    }

    /// Notes that a stage is complete.
    pub(super) fn finish<T: Serialize>(
        &self,
        name: &str,
        key: &str,
        files: Vec<StageFile>,
        result: T,
    ) -> Result<T, PrepareError> {
        let marker_path = self.path(&marker(name));
        let found = Marker { key: key.to_owned(), files, result };
        let json = serde_json::to_vec(&found).expect("a marker is plain data");
        let written = andiron_files::create(&marker_path).and_then(|mut file| file.write_all(&json));
        written.map_err(failed_to_write(&marker_path))?;
        self.is_of_use.store(true, Ordering::Relaxed);
        Ok(found.result)
    }

    /// The markers of some stages, for the output, from which [`adopt`](Self::adopt) takes them.
    pub(super) fn markers(&self, names: &[&str]) -> Result<serde_json::Value, PrepareError> {
        let mut all = serde_json::Map::new();
        for name in names {
            let path = self.path(&marker(name));
            let bytes = andiron_files::read(&path).map_err(failed_to_read(&path))?;
            let value = serde_json::from_slice(&bytes)
                .map_err(|source| PrepareError::Damaged { path: path.clone(), source })?;
            all.insert((*name).to_owned(), value);
        }
        Ok(all.into())
    }

    /// Takes the result of a stage from an earlier output, if it is there and was made from what `key` says.
    pub(super) fn adopt<T: DeserializeOwned + Serialize>(
        &self,
        (output, stages): (&Path, &str),
        name: &str,
        key: &str,
    ) -> Result<Option<T>, PrepareError> {
        let read = || -> Option<Marker<T>> {
            let bytes = andiron_files::read_bounded(&output.join(stages), MARKER_LIMIT).ok()?;
            let mut all: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes).ok()?;
            serde_json::from_value(all.remove(name)?).ok()
        };
        let intact = |file: &StageFile| is_intact(&output.join(&file.name), file);
        let Some(found) = read().filter(|found| found.key == key && found.files.iter().all(intact)) else {
            return Ok(None);
        };
        self.directory(name)?;
        for file in &found.files {
            let to = self.path(&file.name);
            andiron_files::link_or_copy(&output.join(&file.name), &to).map_err(failed_to_write(&to))?;
        }
        self.finish(name, key, found.files, found.result).map(Some)
    }

    /// Removes a directory in it, which is no longer needed.
    pub(super) fn clear(&self, name: &str) -> Result<(), PrepareError> {
        let path = self.path(name);
        andiron_files::remove_directory(&path).map_err(failed_to_write(&path))
    }

    /// Removes the directory.
    pub(super) fn remove(self) -> Result<(), PrepareError> {
        andiron_files::remove_directory(&self.path).map_err(failed_to_write(&self.path))
    }

    /// Removes what was left beside an output that is complete: by a process that was killed right after it.
    pub(super) fn sweep(output: &Path) {
        if Self::of(output).exists()
            && let Ok(work) = Self::open(output, Sharing::Alone)
        {
            // Best effort: it is in nobody's way.
            let _ = work.remove();
        }
    }

    /// Removes the directory if no stage is complete.
    pub(super) fn give_up(self) {
        if !self.is_of_use.load(Ordering::Relaxed) {
            // Best effort: there is an error to report already.
            let _ = self.remove();
        }
    }
}

fn marker(name: &str) -> String {
    format!("{name}.done")
}

/// Whether a file has the length and hash that it had.
pub(super) fn is_intact(path: &Path, file: &StageFile) -> bool {
    let hash = || -> io::Result<(u64, String)> {
        let mut content = andiron_files::open(path)?;
        if content.metadata()?.len() != file.bytes {
            return Ok((0, String::new()));
        }
        let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 1 << 18]);
        loop {
            match content.read(&mut buffer)? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            };
        }
        Ok((hasher.count(), hasher.finalize().to_hex().to_string()))
    };
    hash().is_ok_and(|(bytes, blake3)| (bytes, blake3.as_str()) == (file.bytes, &file.blake3))
}

/// A file that another part of the program made.
pub(super) fn file_of(path: &Path, name: String) -> Result<StageFile, PrepareError> {
    let bytes = andiron_files::read(path).map_err(failed_to_read(path))?;
    Ok(StageFile { name, bytes: bytes.len() as u64, blake3: blake3::hash(&bytes).to_hex().to_string() })
}

/// The hash of settings and inputs.
pub(super) fn key(of: &serde_json::Value) -> String {
    blake3::hash(of.to_string().as_bytes()).to_hex().to_string()
}

/// A file that is hashed while it is written.
pub(super) struct StageWriter {
    file: BufWriter<WriteFile>,
    hasher: blake3::Hasher,
    path: PathBuf,
    name: String,
}

impl StageWriter {
    pub(super) fn create(path: PathBuf, name: String) -> Result<Self, PrepareError> {
        let file = andiron_files::create(&path).map_err(failed_to_write(&path))?;
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(Self { file, hasher: blake3::Hasher::new(), path, name })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), PrepareError> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(failed_to_write(&self.path))
    }

    /// Where it is written.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.hasher.count()
    }

    pub(super) fn finish(mut self) -> Result<StageFile, PrepareError> {
        self.file.flush().map_err(failed_to_write(&self.path))?;
        let blake3 = self.hasher.finalize().to_hex().to_string();
        Ok(StageFile { name: self.name, bytes: self.hasher.count(), blake3 })
    }
}

/// Opens a file that a stage made.
pub(super) fn open(path: &Path) -> Result<io::BufReader<andiron_files::ReadFile>, PrepareError> {
    let file = andiron_files::open(path).map_err(failed_to_read(path))?;
    Ok(io::BufReader::with_capacity(1 << 18, file))
}
