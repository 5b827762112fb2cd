//! Files seen as memory.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

/// The content of a file that does not change any more, read by the system as it is looked at.
///
/// It is here because making a mapping is `unsafe`, and this is the crate for that. Values in it are as untrusted as
/// the file they come from.
#[derive(Debug)]
pub struct MappedFile {
    // An empty file cannot be mapped.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps a file that nobody writes to while it is mapped: one that was written under another name and renamed
    /// into place, say.
    ///
    /// # Errors
    /// If the file cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the mapping is read-only and private to this type. Like every memory mapping it relies on the file
        // staying as it is, which the documentation asks of the caller.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map: Some(map) })
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}
