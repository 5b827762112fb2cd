//! Pairs of a key and a number, divided by key into cells of bounded size, on disk where memory does not hold them.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use andiron_files::{ReadFile, WriteFile, create, open, remove_file};

/// Bytes of a pair.
const PAIR: usize = 8 + 4;

/// Pairs in cells. Within a cell, pairs come back in the order in which they went in.
pub(super) struct Spill {
    cells: Vec<Cell>,
    block_bytes: usize,
    /// Bytes of full blocks in memory, and how many there may be.
    held: usize,
    hold: usize,
    file: Option<WriteFile>,
    written: u64,
    path: PathBuf,
}

#[derive(Default)]
struct Cell {
    /// The block that is being filled.
    filling: Vec<u8>,
    full: Vec<Block>,
}

enum Block {
    Held(Vec<u8>),
    Written { at: u64, length: usize },
}

impl Spill {
    /// Empty cells that keep at most about `memory` bytes in memory, the rest in a file at `path`, which goes with them.
    pub(super) fn new(n_cells: usize, memory: usize, path: PathBuf) -> Self {
        // Half for the blocks that are being filled.
        let pairs = (memory / 2 / n_cells.max(1) / PAIR).clamp(64, 4096);
        let cells = (0..n_cells).map(|_| Cell::default()).collect();
        Self { cells, block_bytes: pairs * PAIR, held: 0, hold: memory / 2, file: None, written: 0, path }
    }

    pub(super) fn push(&mut self, cell: usize, key: u64, number: u32) -> io::Result<()> {
        let Cell { filling, full } = &mut self.cells[cell];
        if filling.capacity() == 0 {
            filling.reserve_exact(self.block_bytes);
        }
        filling.extend_from_slice(&key.to_le_bytes());
        filling.extend_from_slice(&number.to_le_bytes());
        if filling.len() < self.block_bytes {
            return Ok(());
        }
        if self.held + self.block_bytes <= self.hold {
            self.held += self.block_bytes;
            full.push(Block::Held(std::mem::take(filling)));
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(create(&self.path)?),
        };
        file.write_all(filling)?;
        full.push(Block::Written { at: self.written, length: filling.len() });
        self.written += filling.len() as u64;
        filling.clear();
        Ok(())
    }

    pub(super) fn n_cells(&self) -> usize {
        self.cells.len()
    }

    /// How many bytes are on disk.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Calls `each` with the pairs of a cell.
    pub(super) fn for_each(&self, cell: usize, mut each: impl FnMut(u64, u32)) -> io::Result<()> {
        let mut all = |bytes: &[u8]| {
            let (pairs, _) = bytes.as_chunks::<PAIR>();
            for [k0, k1, k2, k3, k4, k5, k6, k7, number @ ..] in pairs {
                let key = [*k0, *k1, *k2, *k3, *k4, *k5, *k6, *k7];
                each(u64::from_le_bytes(key), u32::from_le_bytes(*number));
            }
        };
        let (mut file, mut buffer) = (None::<ReadFile>, Vec::new());
        for block in &self.cells[cell].full {
            match block {
                Block::Held(bytes) => all(bytes),
                Block::Written { at, length } => {
                    let file = match &mut file {
                        Some(file) => file,
                        None => file.insert(open(&self.path)?),
                    };
                    file.seek(SeekFrom::Start(*at))?;
                    buffer.resize(*length, 0);
                    file.read_exact(&mut buffer)?;
                    all(&buffer);
                }
            }
        }
        all(&self.cells[cell].filling);
        Ok(())
    }

    /// Where the rest is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Best effort: the next spill at this path overwrites what stays.
            let _ = remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_in_order_from_memory_and_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spill");
        let mut spill = Spill::new(3, 3 * 2 * 64 * PAIR, path.clone());
        for number in 0..3000 {
            spill.push(number as usize % 3, u64::from(number) << 40, number).unwrap();
        }
        assert!(spill.written() > 0 && path.exists());
        for cell in 0..3 {
            let mut found = Vec::new();
            spill.for_each(cell, |key, number| found.push((key, number))).unwrap();
            let expected: Vec<_> =
                (0..3000).filter(|n| *n as usize % 3 == cell).map(|n| (u64::from(n) << 40, n)).collect();
            assert_eq!(found, expected);
        }
        drop(spill);
        assert!(!path.exists());
    }
}
