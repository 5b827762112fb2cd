//! Second stage, first half: which documents have the same text as an earlier one.
//!
//! Only signatures are read, in passes that each look at some of their values, so that memory has a bound however many there are.

use std::io::Read as _;

use super::PrepareError;
use super::crew::Crew;
use super::filter::{ENTRY, Filtered, SIGNATURE, STAGE};
use super::parts::name;
use super::pipeline::failed_to_read;
use super::work::{Work, open};

/// Documents looked at together: 48 bytes each.
const TOGETHER: u64 = 4 << 20;

/// A document that is removed, and the first with the same text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Duplicate {
    /// Its number within its part.
    pub(super) number: u64,
    /// The part of the first one.
    pub(super) first_part: u32,
    /// Where the line of the first one begins in the documents of that part.
    pub(super) first_at: u64,
}

const BYTES: usize = 20;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    signature: u128,
    part: u32,
    number: u64,
    at: u64,
}

/// Finds the duplicates and writes them into files, for [`of_part`].
pub(super) fn find(parts: &[Filtered], (work, crew): (&Work, &Crew)) -> Result<u64, PrepareError> {
    let total: u64 = parts.iter().map(|part| part.documents).sum();
    let passes = passes(total, TOGETHER);
    find_in(passes, parts, (work, crew))?;
    Ok(passes)
}

fn passes(total: u64, together: u64) -> u64 {
    total.div_ceil(together).max(1)
}

fn find_in(passes: u64, parts: &[Filtered], (work, crew): (&Work, &Crew)) -> Result<(), PrepareError> {
    work.directory("duplicates")?;
    for pass in 0..passes {
        let mut entries = Vec::new();
        for part in 0..parts.len() {
            read(work, part, |entry| {
                // The hash's first bytes are as good as random.
                if (entry.signature >> 64) as u64 % passes == pass {
                    entries.push(entry);
                }
            })?;
        }
        crew.sort(&mut entries);
        let mut found: Vec<(u32, Duplicate)> = Vec::new();
        let mut first: Option<Entry> = None;
        for entry in entries {
            match first {
                Some(first) if first.signature == entry.signature => {
                    let (first_part, first_at) = (first.part, first.at);
                    found.push((entry.part, Duplicate { number: entry.number, first_part, first_at }));
                }
                _ => first = Some(entry),
            }
        }
        crew.sort(&mut found);
        for same in found.chunk_by(|a, b| a.0 == b.0) {
            let mut file = work.create(file(same[0].0 as usize, pass))?;
            for (_, Duplicate { number, first_part, first_at }) in same {
                file.write(&number.to_le_bytes())?;
                file.write(&first_part.to_le_bytes())?;
                file.write(&first_at.to_le_bytes())?;
            }
            file.finish()?;
        }
    }
    Ok(())
}

fn file(part: usize, pass: u64) -> String {
    format!("duplicates/part-{part:05}.{pass}")
}

/// The duplicates of a part, in order.
pub(super) fn of_part(part: usize, passes: u64, work: &Work) -> Result<Vec<Duplicate>, PrepareError> {
    let mut found = Vec::new();
    for pass in 0..passes {
        let path = work.path(&file(part, pass));
        if !andiron_files::is_there(&path).map_err(failed_to_read(&path))? {
            continue;
        }
        let bytes = andiron_files::read(&path).map_err(failed_to_read(&path))?;
        found.extend(bytes.as_chunks::<BYTES>().0.iter().map(|bytes| Duplicate {
            number: number(&bytes[..8]),
            first_part: number(&bytes[8..12]) as u32,
            first_at: number(&bytes[12..]),
        }));
    }
    found.sort_unstable();
    Ok(found)
}

/// Little-endian bytes, of which there are at most 8.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, &byte| (sum << 8) | u64::from(byte))
}

fn read(work: &Work, part: usize, mut see: impl FnMut(Entry)) -> Result<(), PrepareError> {
    let path = work.path(&format!("{}.signatures", name(STAGE, part)));
    let mut file = open(&path)?;
    let mut entry = [0; ENTRY];
    for n in 0.. {
        match file.read_exact(&mut entry) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            read => read.map_err(failed_to_read(&path))?,
        }
        let (low, high) = (number(&entry[8..SIGNATURE]), number(&entry[..8]));
        let signature = (u128::from(high) << 64) | u128::from(low);
        see(Entry { signature, part: part as u32, number: n, at: number(&entry[SIGNATURE..]) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::work::Sharing;

    #[test]
    fn any_number_of_passes_finds_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let work = Work::open(&dir.path().join("out"), Sharing::Alone).unwrap();
        work.directory(STAGE).unwrap();
        // Texts as numbers: 0 and 1 are in both parts, 2 twice in one of them.
        let texts: [&[u8]; 2] = [&[0, 1, 2, 2, 3], &[4, 1, 0, 0]];
        let mut parts = Vec::new();
        for (part, texts) in texts.into_iter().enumerate() {
            let mut file = work.create(format!("{}.signatures", name(STAGE, part))).unwrap();
            for (at, text) in texts.iter().enumerate() {
                file.write(&blake3::hash(&[*text]).as_bytes()[..SIGNATURE]).unwrap();
                file.write(&(10 * at as u64).to_le_bytes()).unwrap();
            }
            let file = file.finish().unwrap();
            parts.push(Filtered { steps: Vec::new(), documents: texts.len() as u64, repeated: 0, file });
        }
        let crew = Crew::new(2);
        let duplicate = |number, first_part, first_at| Duplicate { number, first_part, first_at };
        for passes in [1, 2, 7] {
            find_in(passes, &parts, (&work, &crew)).unwrap();
            assert_eq!(of_part(0, passes, &work).unwrap(), [duplicate(3, 0, 20)]);
            let second = [duplicate(1, 0, 10), duplicate(2, 0, 0), duplicate(3, 0, 0)];
            assert_eq!(of_part(1, passes, &work).unwrap(), second);
            andiron_files::remove_directory(&work.path("duplicates")).unwrap();
        }
        assert_eq!((passes(0, 4), passes(4, 4), passes(5, 4)), (1, 1, 2));
    }
}
