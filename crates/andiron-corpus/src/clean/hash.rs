//! Hashes and tables that the filters count with.
//!
//! Texts are compared by hashes of 61 to 64 bits: two of a million different texts of a document collide with a chance below
//! one in a million.

const PRIME: u64 = (1 << 61) - 1;
const BASE: u64 = 0x0d6e_8feb_8665_9fd9 % PRIME;

/// A hash of bytes, eight at a time.
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let mut hash = bytes.len() as u64 ^ 0x9e37_79b9_7f4a_7c15;
    for chunk in chunks {
        hash = mix(hash, u64::from_le_bytes(*chunk));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash, u64::from_le_bytes(last))
}

/// One hash of two, in this order.
pub(super) fn mix(first: u64, second: u64) -> u64 {
    let product = u128::from(first ^ 0xa076_1d64_78bd_642f) * u128::from(second ^ 0xe703_7ed1_a0b4_28db);
    (product as u64) ^ ((product >> 64) as u64)
}

/// A polynomial hash of bytes: the one of a concatenation follows from those of its parts, so that words may be joined
/// without being copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Polynomial(u64);

impl Polynomial {
    /// The hash of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut hash = 0;
        for &byte in bytes {
            hash = add(multiply(hash, BASE), u64::from(byte) + 1);
        }
        Self(hash)
    }

    /// The hash of what this one is of, then `next`, whose length gives `shift`.
    pub(super) fn then(self, next: Self, shift: u64) -> Self {
        Self(add(multiply(self.0, shift), next.0))
    }

    /// The hash of what is left of this one if it begins with `prefix`; `shift` belongs to the length of the rest.
    pub(super) fn without_prefix(self, prefix: Self, shift: u64) -> u64 {
        add(self.0, PRIME - multiply(prefix.0, shift))
    }
}

/// Powers of the base of [`Polynomial`], by lengths in bytes.
#[derive(Clone, Debug)]
pub(super) struct Shifts(Vec<u64>);

impl Shifts {
    /// A table of the short lengths.
    pub(super) fn new() -> Self {
        let mut powers = vec![1; 256];
        for length in 1..powers.len() {
            powers[length] = multiply(powers[length - 1], BASE);
        }
        Self(powers)
    }

    /// The power of a length.
    pub(super) fn of(&self, length: usize) -> u64 {
        self.0.get(length).copied().unwrap_or_else(|| self.long(length))
    }

    #[cold]
    fn long(&self, mut length: usize) -> u64 {
        let (mut result, mut square) = (1, BASE);
        while length > 0 {
            if length & 1 == 1 {
                result = multiply(result, square);
            }
            square = multiply(square, square);
            length >>= 1;
        }
        result
    }
}

fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    add(product as u64 & PRIME, (product >> 61) as u64)
}

fn add(a: u64, b: u64) -> u64 {
    let sum = a + b;
    if sum >= PRIME { sum - PRIME } else { sum }
}

/// How often each hash was seen, and where first.
#[derive(Debug, Default)]
pub(super) struct Counter {
    /// Power of two; a free slot has the count zero.
    slots: Vec<Slot>,
    mask: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u64,
    count: u32,
    first: u32,
}

impl Counter {
    /// Forgets everything; there is room for `capacity` different hashes.
    pub(super) fn reset(&mut self, capacity: usize) {
        // At most four fifths are used.
        let wanted = (capacity + capacity / 4 + 1).next_power_of_two().max(16);
        if self.slots.len() < wanted {
            self.slots = vec![Slot::default(); wanted];
        } else {
            self.slots[..wanted].fill(Slot::default());
        }
        self.mask = wanted - 1;
    }

    /// Counts a hash that is seen at `index`: how often it was seen with this time, and where first.
    pub(super) fn count(&mut self, hash: u64, index: u32) -> (u32, u32) {
        let mut at = (hash ^ (hash >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> 20 & self.mask;
        loop {
            let slot = &mut self.slots[at];
            if slot.count == 0 {
                *slot = Slot { hash, count: 1, first: index };
                return (1, index);
            }
            if slot.hash == hash {
                slot.count = slot.count.saturating_add(1);
                return (slot.count, slot.first);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Whether a hash is seen for the first time.
    pub(super) fn is_new(&mut self, hash: u64) -> bool {
        self.count(hash, 0).0 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joined_text_has_the_hash_of_its_parts() {
        let shifts = Shifts::new();
        for (first, second) in [("ab", "c"), ("", "abc"), ("a", &"x".repeat(1000)), ("한", "국어")] {
            let joined = Polynomial::of(format!("{first}{second}").as_bytes());
            let (a, b) = (Polynomial::of(first.as_bytes()), Polynomial::of(second.as_bytes()));
            let shift = shifts.of(second.len());
            assert_eq!(a.then(b, shift), joined);
            assert_eq!(Polynomial(joined.without_prefix(a, shift)), b);
        }
    }

    #[test]
    fn hashes_are_counted() {
        let mut counter = Counter::default();
        counter.reset(3);
        assert_eq!(counter.count(7, 0), (1, 0));
        assert_eq!(counter.count(8, 1), (1, 1));
        assert_eq!(counter.count(7, 2), (2, 0));
        counter.reset(1);
        assert!(counter.is_new(7) && !counter.is_new(7));
    }
}
