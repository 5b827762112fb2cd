//! The ids of short words.

/// The longest word that is kept, in bytes: with its length it is 16 bytes.
const LONGEST: usize = 15;
/// The most ids of a word that is kept.
const MOST_IDS: usize = 7;
const SLOTS: usize = 1 << 16;

/// Ids by word, of a fixed size: a word takes the place of another one with the same hash.
pub(super) struct Cache {
    slots: Box<[Slot]>,
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

pub(super) enum Found<'a> {
    /// The ids of the word.
    Ids(&'a [u32]),
    /// Where its ids could be kept.
    Room(usize),
    /// It is not kept.
    TooLong,
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
        Self { slots: vec![empty; SLOTS].into() }
    }

    #[inline]
    pub(super) fn find(&self, word: &Word<'_>) -> Found<'_> {
        let Some(key) = word.key() else { return Found::TooLong };
        let at = place(key);
        let slot = &self.slots[at];
        if slot.key == key { Found::Ids(&slot.ids[..slot.count as usize]) } else { Found::Room(at) }
    }

    pub(super) fn keep(&mut self, at: usize, word: &Word<'_>, ids: &[u32]) {
        if let (Some(key), true) = (word.key(), ids.len() <= MOST_IDS) {
            let slot = &mut self.slots[at];
            (slot.key, slot.count) = (key, ids.len() as u32);
            slot.ids[..ids.len()].copy_from_slice(ids);
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
