//! The ids of words.

use std::collections::HashMap;

/// The longest word in a slot, in bytes: with its length it is 16 bytes.
const LONGEST: usize = 15;
/// The most ids of a word in a slot.
const MOST_IDS: usize = 7;
const SLOTS: usize = 1 << 16;
/// The longest word that is kept at all, in bytes.
const LONGEST_OTHER: usize = 64;
/// The most words besides those in slots: about 20 MB.
const MOST_OTHERS: usize = 1 << 17;

/// Ids by word. Frequent words are mostly in slots, of which a word takes that of another one with the same hash. All others
/// are in a map, which is emptied when it is full.
pub(super) struct Cache {
    slots: Box<[Slot]>,
    others: HashMap<Box<[u8]>, Box<[u32]>>,
}

#[derive(Clone, Copy)]
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
        Self { slots: vec![empty; SLOTS].into(), others: HashMap::new() }
    }

    /// Appends the ids of a word, which `merge` appends if they are not known.
    #[inline]
    pub(super) fn ids(
        &mut self,
        word: &Word<'_>,
        ids: &mut Vec<u32>,
        merge: impl FnOnce(&[u8], &mut Vec<u32>),
    ) {
        let key = word.key();
        if let Some(key) = key {
            let slot = &self.slots[place(key)];
            if slot.key == key {
                ids.extend_from_slice(&slot.ids[..slot.count as usize]);
                return;
            }
        }
        self.other_ids(key, word.bytes(), ids, merge);
    }

    #[inline(never)]
    fn other_ids(
        &mut self,
        key: Option<u128>,
        word: &[u8],
        ids: &mut Vec<u32>,
        merge: impl FnOnce(&[u8], &mut Vec<u32>),
    ) {
        let before = ids.len();
        if let Some(known) = self.others.get(word) {
            ids.extend_from_slice(known);
        } else {
            merge(word, ids);
            if word.len() <= LONGEST_OTHER {
                if self.others.len() >= MOST_OTHERS {
                    self.others.clear();
                }
                self.others.insert(word.into(), ids[before..].into());
            }
        }
        let found = &ids[before..];
        if let (Some(key), true) = (key, found.len() <= MOST_IDS) {
            let slot = &mut self.slots[place(key)];
            (slot.key, slot.count) = (key, found.len() as u32);
            slot.ids[..found.len()].copy_from_slice(found);
        }
    }
}

#[inline]
fn place(key: u128) -> usize {
    let low = (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let high = ((key >> 64) as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    let mixed = (low ^ high.rotate_left(32)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed >> (64 - SLOTS.trailing_zeros())) as usize
}
