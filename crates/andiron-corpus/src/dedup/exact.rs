//! Exact duplicates: documents with the same text, byte for byte.

use std::collections::HashMap;

/// The texts seen so far, as 128 bits of their BLAKE3 hash, and the id of the first document with each text.
#[derive(Default)]
pub struct ExactDuplicates {
    first: HashMap<[u8; 16], Box<str>>,
}

impl ExactDuplicates {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of the earlier document with the same text; if there is none, this one is remembered.
    pub fn check(&mut self, id: &str, text: &str) -> Option<&str> {
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
        match self.first.entry(key) {
            std::collections::hash_map::Entry::Occupied(entry) => Some(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(id.into());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_of_two_equal_texts_names_the_first() {
        let mut seen = ExactDuplicates::new();
        assert_eq!(seen.check("a", "x"), None);
        assert_eq!(seen.check("b", "x "), None);
        assert_eq!(seen.check("c", "x"), Some("a"));
    }
}
