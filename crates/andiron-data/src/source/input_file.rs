//! Which file was read.

use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::file_name;
use crate::files;

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// Its name without folders.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its BLAKE3 hash.
    pub blake3: String,
}

impl InputFile {
    /// Reads a file and hashes it. `progress` is told how many bytes were read each time.
    ///
    /// # Errors
    /// If it cannot be opened or read.
    pub fn of(path: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<Self> {
        let mut file = files::open(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            progress(n as u64);
        }
        Ok(Self {
            name: file_name(path),
            bytes: hasher.count(),
            blake3: hasher.finalize().to_hex().to_string(),
        })
    }
}
