//! The reference's log-probabilities that were computed so far, on disk: what an interruption does not lose.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use andiron_data::records::{Record, columns};

use crate::files::FileError;
use crate::observe::AppendFile;

/// Bytes of an entry: a key, two numbers, and a check of both.
const ENTRY: usize = KEY + 8 + CHECK;
const KEY: usize = 16;
const CHECK: usize = 8;

/// What is stored in place of the answers of a record: a hash of the reference, their ids and their weights.
type Key = [u8; KEY];

/// Log-probabilities by record. Each entry is added as soon as it is known; one that was cut short is removed.
#[derive(Debug)]
pub(super) struct Journal {
    file: AppendFile,
    known: HashMap<Key, [f32; 2]>,
    /// Hash of the reference.
    reference: String,
}

impl Journal {
    /// Opens or creates the file. Entries of another reference stay, and are not found.
    pub(super) fn open(path: &Path, reference: &str) -> Result<Self, FileError> {
        let mut known = HashMap::new();
        let file = AppendFile::open(path, |file| read(file, &mut known))?;
        Ok(Self { file, known, reference: reference.to_owned() })
    }

    /// The log-probabilities of a record's two answers: those that are stored, or those that `compute` gives.
    pub(super) fn find_or<E: From<FileError>>(
        &mut self,
        record: &Record<'_>,
        compute: impl FnOnce() -> Result<[f32; 2], E>,
    ) -> Result<[f32; 2], E> {
        let key = self.key(record);
        if let Some(&known) = self.known.get(&key) {
            return Ok(known);
        }
        let values = compute()?;
        self.file.append(&entry(key, values))?;
        Ok(values)
    }

    fn key(&self, record: &Record<'_>) -> Key {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.reference.as_bytes());
        for ids in [columns::LENGTHS, columns::IDS] {
            record.ids(ids).iter().for_each(|id| _ = hasher.update(&id.to_le_bytes()));
        }
        let weights = record.numbers(columns::WEIGHTS);
        weights.iter().for_each(|weight| _ = hasher.update(&weight.to_le_bytes()));
        first(hasher.finalize().as_bytes())
    }
}

fn entry(key: Key, values: [f32; 2]) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..KEY].copy_from_slice(&key);
    for (place, value) in entry[KEY..KEY + 8].chunks_mut(4).zip(values) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    let check: [u8; CHECK] = first(blake3::hash(&entry[..KEY + 8]).as_bytes());
    entry[KEY + 8..].copy_from_slice(&check);
    entry
}

fn first<const N: usize>(bytes: &[u8; 32]) -> [u8; N] {
    let mut first = [0; N];
    first.copy_from_slice(&bytes[..N]);
    first
}

/// Reads the entries up to the first that is incomplete or damaged, and returns their length.
fn read(file: &mut File, known: &mut HashMap<Key, [f32; 2]>) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut found, mut length) = ([0; ENTRY], 0);
    loop {
        match reader.read_exact(&mut found) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(length),
            other => other?,
        }
        let mut key = [0; KEY];
        key.copy_from_slice(&found[..KEY]);
        let value = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&found[KEY + at..KEY + at + 4]);
            f32::from_le_bytes(bytes)
        };
        let values = [value(0), value(4)];
        if entry(key, values) != found {
            return Ok(length);
        }
        known.insert(key, values);
        length += ENTRY as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record(id: u32) -> Record<'static> {
        Record::default()
            .with_ids(columns::IDS, vec![id, 2, 3])
            .with_ids(columns::LENGTHS, vec![1, 2])
            .with_numbers(columns::WEIGHTS, vec![1.0, 0.0, 1.0])
    }

    /// What is found for a record; `None` if it is computed.
    fn find(journal: &mut Journal, id: u32, value: f32) -> Option<[f32; 2]> {
        let mut computed = false;
        let compute = || -> Result<_, FileError> {
            computed = true;
            Ok([value, -value])
        };
        let found = journal.find_or(&record(id), compute).unwrap();
        (!computed).then_some(found)
    }

    #[test]
    fn what_was_computed_is_found_again_and_damage_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path, "a model").unwrap();
        for id in 0..3 {
            assert_eq!(find(&mut journal, id, 0.1 + id as f32), None);
        }
        drop(journal);
        let mut bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 3 * ENTRY);
        // Killed within the fourth entry.
        fs::write(&path, [&bytes[..], &[7; 5]].concat()).unwrap();
        let mut journal = Journal::open(&path, "a model").unwrap();
        assert_eq!(find(&mut journal, 2, 9.0), Some([2.1, -2.1]));
        assert_eq!(find(&mut journal, 0, 9.0), Some([0.1, -0.1]));
        assert_eq!(find(&mut journal, 3, 9.0), None);
        drop(journal);
        assert_eq!(fs::metadata(&path).unwrap().len(), 4 * ENTRY as u64);
        // Of another model nothing is known.
        let mut journal = Journal::open(&path, "another").unwrap();
        assert_eq!(find(&mut journal, 1, 9.0), None);
        drop(journal);
        // Bytes that the disk lost.
        bytes[ENTRY + KEY] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let mut journal = Journal::open(&path, "a model").unwrap();
        assert!(find(&mut journal, 0, 9.0).is_some());
        assert_eq!([1, 2].map(|id| find(&mut journal, id, 9.0)), [None, None]);
    }
}
