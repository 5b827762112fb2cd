//! Files seen as memory.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

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

    /// Gives back the memory in which the system holds these bytes, where it is able to. Looked at again, they are read
    /// again.
    ///
    /// # Panics
    /// If the range leaves the file.
    pub fn release(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} lies in the file");
        #[cfg(unix)]
        if let Some(map) = &self.map {
            // SAFETY: nobody else holds a reference into the mapping while this one is exclusive, and its pages are those
            // of a file that stays as it is, so that they come back the same.
            let advised =
                unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
            // A system that does not want to may keep them.
            drop(advised);
        }
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_released_is_read_again() {
        let path = std::env::temp_dir().join(format!("andiron-mapped-{}", std::process::id()));
        let bytes: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).expect("a temporary file");
        let mut file = MappedFile::open(&path).expect("it was written");
        for range in [0..100_000, 1..99_999, 4096..8192, 7..8, 5..5] {
            assert_eq!(file[range.clone()], bytes[range.clone()]);
            file.release(range);
            assert_eq!(*file, *bytes);
        }
        std::fs::remove_file(&path).expect("it is ours");
    }
}
