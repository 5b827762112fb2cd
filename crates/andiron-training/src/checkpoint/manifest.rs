//! What a checkpoint holds, with a checksum of every byte of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError, failed};

/// Name of the manifest in a checkpoint.
pub(super) const MANIFEST: &str = "manifest.json";

/// Version of the layout written here; only older ones and this one are read.
const FORMAT: u32 = 1;

const MAX_MANIFEST: u64 = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    step: u64,
    files: BTreeMap<String, Entry>,
    /// BLAKE3 of everything above, so that the manifest vouches for itself.
    blake3: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    blake3: String,
}

/// Only the format: enough to recognise a manifest of a later version, whatever else it holds.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Manifest {
    /// Checksums every file below `root`.
    pub(super) fn of(root: &Path, step: u64) -> Result<Self, FileError> {
        let mut entries = BTreeMap::new();
        for name in files::list_files(root)? {
            let path = root.join(&name);
            let entry = Entry::of(&path).map_err(failed("read", &path))?;
            entries.insert(name, entry);
        }
        let mut manifest = Self { format: FORMAT, step, files: entries, blake3: String::new() };
        manifest.blake3 = manifest.own_checksum();
        Ok(manifest)
    }

    pub(super) fn to_json(&self) -> String {
        // No line break at the end: every byte counts, so that a file cut short by one is noticed.
        serde_json::to_string_pretty(self).expect("a manifest is plain data")
    }

    /// Reads the manifest of the checkpoint `root` and compares every file with it.
    pub(super) fn verify(root: &Path, step: u64) -> Result<(), Damage> {
        let path = root.join(MANIFEST);
        let text = files::read_bounded(&path, MAX_MANIFEST).map_err(Damage::Unreadable)?;
        let manifest: Self = match serde_json::from_slice(&text) {
            Ok(manifest) => manifest,
            Err(source) => {
                return Err(match serde_json::from_slice::<Version>(&text) {
                    Ok(version) if version.format > FORMAT => Damage::TooNew { format: version.format },
                    _ => Damage::Malformed { source },
                });
            }
        };
        if manifest.own_checksum() != manifest.blake3 {
            return Err(Damage::Changed { file: MANIFEST.to_owned() });
        }
        if manifest.format > FORMAT {
            return Err(Damage::TooNew { format: manifest.format });
        }
        if manifest.step != step {
            return Err(Damage::OtherStep { step: manifest.step });
        }
        for (name, entry) in &manifest.files {
            let path = root.join(name);
            match Entry::of(&path) {
                Ok(found) if found == *entry => {}
                Ok(_) => return Err(Damage::Changed { file: name.clone() }),
                Err(source) => return Err(Damage::Unreadable(failed("read", &path)(source))),
            }
        }
        Ok(())
    }

    fn own_checksum(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("andiron checkpoint {} {}\n", self.format, self.step).as_bytes());
        for (name, Entry { bytes, blake3 }) in &self.files {
            hasher.update(format!("{bytes} {blake3} {name}\n").as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

impl Entry {
    fn of(path: &Path) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(path)?)?;
        Ok(Self { bytes: hasher.count(), blake3: hasher.finalize().to_hex().to_string() })
    }
}

/// What is wrong with a checkpoint on the disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// A file is missing or unreadable.
    #[error(transparent)]
    Unreadable(FileError),
    /// The manifest is not what was written.
    #[error("manifest.json is malformed: {source}")]
    Malformed {
        /// The cause.
        source: serde_json::Error,
    },
    /// A file's bytes are not those that were written.
    #[error("{file} does not match its checksum")]
    Changed {
        /// The file, relative to the checkpoint.
        file: String,
    },
    /// The directory's name and its content disagree.
    #[error("it holds step {step}, which its name does not say")]
    OtherStep {
        /// The step in the manifest.
        step: u64,
    },
    /// A later version wrote it.
    #[error("it has format {format}, this version reads at most {FORMAT}: use the version that wrote it")]
    TooNew {
        /// The format in the manifest.
        format: u32,
    },
    /// The files are whole but do not make a state.
    #[error("its content cannot be loaded: {reason}")]
    Content {
        /// Why.
        reason: String,
    },
}
