//! Memory-mapped files.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

/// A read-only memory mapping of a file that no longer changes; pages are read on first access.
///
/// It is in this crate because mapping a file is `unsafe`. Its bytes are as untrusted as the file.
#[derive(Debug)]
pub struct MappedFile {
    // An empty file cannot be mapped.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps a file. No process may write to it while it is mapped: write such files under another name and rename them into
    /// place.
    ///
    /// # Errors
    /// If the file cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the mapping is read-only and private to this type. Like every memory mapping it relies on the file not
        // changing, which the documentation requires of the caller.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map: Some(map) })
    }

    /// Releases the pages of these bytes, on systems that can. The next access reads them from the file again.
    ///
    /// # Panics
    /// If the range is not inside the file.
    pub fn release(&mut self, range: Range<usize>) {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "{range:?} is not inside a file of {} bytes",
            self.len()
        );
        #[cfg(unix)]
        if let Some(map) = &self.map {
            // SAFETY: `&mut self` excludes other references into the mapping, and its file does not change, so that pages
            // are read again with the same content.
            let advised =
                unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
            // Advice only: the system may keep the pages.
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
