//! Which file was read.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
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

/// Bytes of a [`FilePiece`], of which each but the last has so many: a subtree of BLAKE3's tree.
const PIECE: u64 = 16 << 20;

/// A piece of a file that was hashed, perhaps on another thread than the other pieces.
#[derive(Clone, Debug)]
pub struct FilePiece {
    bytes: u64,
    hash: PieceHash,
}

#[derive(Clone, Debug)]
enum PieceHash {
    /// Of the only piece.
    Whole(blake3::Hash),
    /// Of one of several.
    Subtree(ChainingValue),
}

impl InputFile {
    /// Reads a file and hashes it. `progress` is told how many bytes were read each time.
    ///
    /// # Errors
    /// If it cannot be opened or read.
    pub fn of(path: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<Self> {
        let bytes = files::open(path)?.metadata()?.len();
        let pieces = Self::n_pieces(bytes);
        let pieces = (0..pieces).map(|number| FilePiece::read(path, (number, pieces), progress));
        Ok(Self::of_pieces(path, &pieces.collect::<io::Result<Vec<_>>>()?))
    }

    /// How many pieces a file of so many bytes has, at least one.
    pub fn n_pieces(bytes: u64) -> u64 {
        bytes.div_ceil(PIECE).max(1)
    }

    /// The file whose pieces these are, all of them in order. The hash is that of the whole file.
    pub fn of_pieces(path: &Path, pieces: &[FilePiece]) -> Self {
        let bytes = pieces.iter().map(|piece| piece.bytes).sum();
        Self { name: file_name(path), bytes, blake3: root(pieces).to_hex().to_string() }
    }
}

impl FilePiece {
    /// Reads a piece of a file of which there are several, from 0, and hashes it. `progress` is told how many bytes were read each
    /// time.
    ///
    /// # Errors
    /// If the file cannot be opened or read.
    pub fn read(path: &Path, (number, of): (u64, u64), progress: &mut dyn FnMut(u64)) -> io::Result<Self> {
        let mut file = files::open(path)?;
        let at = number * PIECE;
        let mut hasher = Hasher::new();
        if number > 0 {
            file.seek(SeekFrom::Start(at))?;
            hasher.set_input_offset(at);
        }
        let mut piece = file.take(if of > 1 { PIECE } else { u64::MAX });
        let mut buffer = vec![0; 1 << 18];
        let mut bytes = 0;
        loop {
            let n = piece.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            bytes += n as u64;
            progress(n as u64);
        }
        let hash = match of {
            1 => PieceHash::Whole(hasher.finalize()),
            // The file became shorter meanwhile; there is no hash of nothing within a tree.
            _ if bytes == 0 => PieceHash::Subtree(ChainingValue::default()),
            _ => PieceHash::Subtree(hasher.finalize_non_root()),
        };
        Ok(Self { bytes, hash })
    }
}

/// The hash of a file.
fn root(pieces: &[FilePiece]) -> blake3::Hash {
    match pieces {
        [] => blake3::hash(&[]),
        [FilePiece { hash: PieceHash::Whole(hash), .. }] => *hash,
        pieces => {
            let (left, right) = pieces.split_at(left_of(pieces.len()));
            merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

fn subtree(pieces: &[FilePiece]) -> ChainingValue {
    match pieces {
        [] => ChainingValue::default(),
        [FilePiece { hash: PieceHash::Subtree(value), .. }] => *value,
        [FilePiece { hash: PieceHash::Whole(hash), .. }] => *hash.as_bytes(),
        pieces => {
            let (left, right) = pieces.split_at(left_of(pieces.len()));
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// Of several pieces, how many are in the left half of the tree: the largest power of two below their number.
fn left_of(pieces: usize) -> usize {
    (left_subtree_len(pieces as u64 * PIECE) / PIECE) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_whole_file_however_many_pieces_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let content: Vec<u8> = (0..5 * PIECE + 77).map(|n| (n % 251) as u8).collect();
        let piece = PIECE as usize;
        for length in [0, 1, piece, piece + 1, 2 * piece, 3 * piece - 1, content.len()] {
            std::fs::write(&path, &content[..length]).unwrap();
            let mut told = 0;
            let found = InputFile::of(&path, &mut |n| told += n).unwrap();
            let blake3 = blake3::hash(&content[..length]).to_hex().to_string();
            assert_eq!(found, InputFile { name: "f".into(), bytes: length as u64, blake3 });
            assert_eq!(told, length as u64);
        }
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_is_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, vec![7; PIECE as usize + 9]).unwrap();
        let pieces: Vec<_> =
            (0..4).map(|number| FilePiece::read(&path, (number, 4), &mut |_| ()).unwrap()).collect();
        assert_eq!(InputFile::of_pieces(&path, &pieces).bytes, PIECE + 9);
    }
}
