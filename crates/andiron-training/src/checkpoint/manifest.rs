//! The manifest of a checkpoint: its files with their checksums.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError, failed};

/// Name of the manifest in a checkpoint.
pub(super) const MANIFEST: &str = "manifest.json";

/// Version of the layout that is written; this one and older ones are read.
const FORMAT: u32 = 1;

const MAX_MANIFEST: u64 = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    step: u64,
    files: BTreeMap<String, Entry>,
    /// BLAKE3 of all fields above, so that damage of the manifest itself is detected.
    blake3: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    blake3: String,
}

/// Only the format: enough to recognise a manifest of a later version.
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
    pub(super) fn verify(root: &Path, step: u64) -> Result<(), Unverified> {
        let path = root.join(MANIFEST);
        let text = match files::read_bounded(&path, MAX_MANIFEST) {
            Ok(text) => text,
            Err(error) => return Err(Unverified::of(error, MANIFEST)),
        };
        let manifest = Self::parse(&text)?;
        if manifest.own_checksum() != manifest.blake3 {
            return Err(Damage::Changed { file: MANIFEST.to_owned() }.into());
        }
        if manifest.step != step {
            return Err(Damage::OtherStep { step: manifest.step }.into());
        }
        for (name, entry) in &manifest.files {
            let path = root.join(name);
            match Entry::of(&path) {
                Ok(found) if found == *entry => {}
                Ok(_) => return Err(Damage::Changed { file: name.clone() }.into()),
                Err(source) => return Err(Unverified::of(failed("read", &path)(source), name)),
            }
        }
        Ok(())
    }

    /// Checks the format first, because the other fields of a later one are unknown.
    fn parse(text: &[u8]) -> Result<Self, Damage> {
        let parsed = serde_json::from_slice::<Self>(text);
        if let Ok(Version { format }) = serde_json::from_slice(text)
            && format > FORMAT
        {
            return Err(match parsed {
                // All the rest is of this format: a bit of the number itself was changed.
                Ok(manifest)
                    if Self { format: FORMAT, ..manifest.clone() }.own_checksum() == manifest.blake3 =>
                {
                    Damage::Changed { file: MANIFEST.to_owned() }
                }
                _ => Damage::TooNew { format },
            });
        }
        parsed.map_err(|source| Damage::Malformed { source })
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
        hasher.update_reader(andiron_files::open(path)?)?;
        Ok(Self { bytes: hasher.count(), blake3: hasher.finalize().to_hex().to_string() })
    }
}

/// Why the check of a checkpoint did not succeed.
pub(super) enum Unverified {
    Damaged(Damage),
    /// A file could not be read, so the checkpoint may be intact.
    Unreadable(FileError),
}

impl Unverified {
    /// Only a missing file is damage; an unreadable one may be intact.
    fn of(error: FileError, file: &str) -> Self {
        match error.source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Self::Damaged(Damage::Missing { file: file.to_owned() })
            }
            _ => Self::Unreadable(error),
        }
    }
}

impl From<Damage> for Unverified {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

/// How a checkpoint on disk is damaged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// A file is missing.
    #[error("{file} is missing")]
    Missing {
        /// The file, relative to the checkpoint.
        file: String,
    },
    /// The manifest differs from what was written.
    #[error("manifest.json is malformed: {source}")]
    Malformed {
        /// The cause.
        source: serde_json::Error,
    },
    /// A file differs from what was written.
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
}
