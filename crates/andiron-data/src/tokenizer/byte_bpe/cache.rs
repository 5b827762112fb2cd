//! The ids of words.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// The longest word in a slot, in bytes: with its length it is 16 bytes.
const LONGEST: usize = 15;
/// The most ids of a word in a slot.
const MOST_IDS: usize = 11;
/// Pairs of slots: 4 MB.
const PAIRS: usize = 1 << 15;
/// The longest word that is kept at all, in bytes.
const LONGEST_OTHER: usize = 64;
/// The most words besides those in slots, of each kind: about 20 MB.
const MOST_OTHERS: usize = 1 << 16;

/// Ids by word. Frequent words are mostly in slots, of which a word takes that of another one with the same hash. All others
/// are in maps, each of which is emptied when it is full.
pub(super) struct Cache {
    pairs: Box<[[Slot; 2]]>,
    /// Short words by their keys.
    short: HashMap<u128, Box<[u32]>, Seeded>,
    long: HashMap<Box<[u8]>, Box<[u32]>, Seeded>,
}

/// What a word needs, in one line of a processor's cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Slot {
    key: u128,
    count: u32,
    ids: [u32; MOST_IDS],
}

/// A word within its text.
pub(super) struct Word<'a> {
    text: &'a str,
    start: usize,
    end: usize,
}

impl<'a> Word<'a> {
    #[inline]
    pub(super) fn new(text: &'a str, start: usize, end: usize) -> Self {
        Self { text, start, end }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.start..self.end]
    }

    #[inline]
    pub(super) fn text(&self) -> &'a str {
        &self.text[self.start..self.end]
    }

    /// The bytes of a short word and its length.
    #[inline]
    fn key(&self) -> Option<u128> {
        let length = self.end - self.start;
        if length > LONGEST {
            return None;
        }
        let bytes = match self.text.as_bytes().get(self.start..self.start + 16) {
            Some(bytes) => u128::from_le_bytes(bytes.try_into().ok()?),
            None => {
                let mut bytes = [0; 16];
                bytes[..length].copy_from_slice(self.bytes());
                u128::from_le_bytes(bytes)
            }
        };
        Some(bytes & ((1 << (8 * length)) - 1) | (length as u128) << 120)
    }
}

impl Cache {
    pub(super) fn new() -> Self {
        // No word has this key, whose length is 0.
        let empty = Slot { key: 0, count: 0, ids: [0; MOST_IDS] };
        let seeded = Seeded::new();
        Self {
            pairs: vec![[empty; 2]; PAIRS].into(),
            short: HashMap::with_hasher(seeded),
            long: HashMap::with_hasher(seeded),
        }
    }

    /// Appends the ids of a word, which `merge` appends if they are not known.
    #[inline]
    pub(super) fn ids(
        &mut self,
        word: &Word<'_>,
        ids: &mut Vec<u32>,
        merge: impl FnOnce(&[u8], &mut Vec<u32>),
    ) {
        let Some(key) = word.key() else { return self.long_ids(word.bytes(), ids, merge) };
        for slot in &self.pairs[place(key)] {
            if slot.key == key {
                // Most words are one token.
                match slot.count {
                    1 => ids.push(slot.ids[0]),
                    2 => ids.extend([slot.ids[0], slot.ids[1]]),
                    count => ids.extend_from_slice(&slot.ids[..count as usize]),
                }
                return;
            }
        }
        self.short_ids(key, word.bytes(), ids, merge);
    }

    #[inline(never)]
    fn short_ids(
        &mut self,
        key: u128,
        word: &[u8],
        ids: &mut Vec<u32>,
        merge: impl FnOnce(&[u8], &mut Vec<u32>),
    ) {
        let before = ids.len();
        if let Some(known) = self.short.get(&key) {
            ids.extend_from_slice(known);
        } else {
            merge(word, ids);
            if self.short.len() >= MOST_OTHERS {
                self.short.clear();
            }
            self.short.insert(key, ids[before..].into());
        }
        let found = &ids[before..];
        if found.len() <= MOST_IDS {
            // The one that was there longer goes.
            let [first, second] = &mut self.pairs[place(key)];
            *second = *first;
            (first.key, first.count) = (key, found.len() as u32);
            first.ids[..found.len()].copy_from_slice(found);
        }
    }

    #[inline(never)]
    fn long_ids(&mut self, word: &[u8], ids: &mut Vec<u32>, merge: impl FnOnce(&[u8], &mut Vec<u32>)) {
        let before = ids.len();
        if let Some(known) = self.long.get(word) {
            ids.extend_from_slice(known);
            return;
        }
        merge(word, ids);
        if word.len() <= LONGEST_OTHER {
            if self.long.len() >= MOST_OTHERS {
                self.long.clear();
            }
            self.long.insert(word.into(), ids[before..].into());
        }
    }
}

/// A hash of a few multiplications, with a seed of its own for each process: the default one takes longer than most words.
#[derive(Clone, Copy)]
struct Seeded(u64, u64);

impl Seeded {
    fn new() -> Self {
        let random = RandomState::new();
        Self(random.hash_one(0), random.hash_one(1) | 1)
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded { state: self.0, seed: self.1 }
    }
}

struct Folded {
    state: u64,
    seed: u64,
}

impl Folded {
    #[inline]
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.seed);
        self.state = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.fold(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.fold(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    #[inline]
    fn write_usize(&mut self, _: usize) {
        // The length of a slice, which `write` adds.
    }

    #[inline]
    fn write_u128(&mut self, key: u128) {
        self.fold(key as u64);
        self.fold((key >> 64) as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        let product = u128::from(self.state) * u128::from(self.seed);
        product as u64 ^ (product >> 64) as u64
    }
}

#[inline]
fn place(key: u128) -> usize {
    let low = (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let high = ((key >> 64) as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    let mixed = (low ^ high.rotate_left(32)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed >> (64 - PAIRS.trailing_zeros())) as usize
}
