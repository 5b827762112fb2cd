//! SentencePiece's normalization table: which strings are replaced before a text is segmented.
//!
//! A model file stores it as a double-array trie of the strings to replace, followed by their replacements. At each position
//! the longest match is replaced, regardless of grapheme boundaries. Source:
//! `normalizer.cc` of <https://github.com/google/sentencepiece>; Yata et al. 2007, "A compact static double-array keeping
//! character codes", as Darts-clone lays it out.

/// Longest replacement, in bytes; the longest of NFKC has 33.
const LONGEST: usize = 1024;

/// The normalization table of a model.
#[derive(Clone, Debug, Default)]
pub(super) struct Charsmap {
    units: Vec<Unit>,
    /// The replacements, each terminated by a NUL.
    strings: String,
}

/// An element of the double array.
#[derive(Clone, Copy, Debug)]
struct Unit(u32);

impl Unit {
    /// The byte of the edge to this unit; larger than a byte if there is none.
    fn label(self) -> u32 {
        self.0 & (1 << 31 | 0xff)
    }

    fn has_leaf(self) -> bool {
        self.0 >> 8 & 1 == 1
    }

    /// The value of a leaf.
    fn value(self) -> usize {
        (self.0 & !(1 << 31)) as usize
    }

    /// Offset of the child units, relative to this one.
    fn offset(self) -> usize {
        ((self.0 >> 10) << ((self.0 & 1 << 9) >> 6)) as usize
    }
}

impl Charsmap {
    /// Reads the compiled table; the error describes what is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let broken = || "its table of replacements is cut off".to_owned();
        let (size, rest) = bytes.split_first_chunk::<4>().ok_or_else(broken)?;
        let size = u32::from_le_bytes(*size) as usize;
        let (units, strings) = rest.split_at_checked(size).ok_or_else(broken)?;
        let (units, left_over) = units.as_chunks::<4>();
        if units.is_empty() || !left_over.is_empty() {
            return Err(broken());
        }
        let strings =
            std::str::from_utf8(strings).map_err(|_| "its replacements are not UTF-8".to_owned())?;
        if strings.split('\0').any(|string| string.len() > LONGEST) {
            return Err(format!("it replaces a string by one of more than {LONGEST} bytes"));
        }
        let units = units.iter().map(|unit| Unit(u32::from_le_bytes(*unit))).collect();
        Ok(Self { units, strings: strings.to_owned() })
    }

    /// The longest match at the beginning of `text`: its length in bytes and its replacement.
    pub(super) fn longest_match(&self, text: &str) -> Option<(usize, &str)> {
        let mut at = self.units.first()?.offset();
        let mut found = None;
        for (n, byte) in text.bytes().enumerate() {
            at ^= usize::from(byte);
            let Some(unit) = self.units.get(at).filter(|unit| unit.label() == u32::from(byte)) else { break };
            at ^= unit.offset();
            let leaf = if unit.has_leaf() { self.units.get(at) } else { None };
            if let Some(leaf) = leaf.filter(|_| text.is_char_boundary(n + 1)) {
                found = Some((n + 1, leaf.value()));
            }
        }
        let (length, start) = found?;
        let replacement = self.strings.get(start..)?.split('\0').next()?;
        Some((length, replacement))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_tables_are_refused_or_harmless() {
        assert!(Charsmap::read(&[]).unwrap().longest_match("a").is_none());
        for bytes in [&[1, 0][..], &[9, 0, 0, 0, 1], &[0, 0, 0, 0], &[3, 0, 0, 0, 1, 2, 3, 0]] {
            assert_eq!(Charsmap::read(bytes).unwrap_err(), "its table of replacements is cut off");
        }
        assert!(Charsmap::read(&[4, 0, 0, 0, 1, 2, 3, 0, 0xff]).unwrap_err().contains("UTF-8"));
        let long = [&[4, 0, 0, 0, 1, 2, 3, 0][..], &[b'a'; LONGEST + 1]].concat();
        assert!(Charsmap::read(&long).unwrap_err().contains("more than 1024 bytes"));
        // Offsets that lead out of the table, and a leaf whose string is not there.
        let far = [&8u32.to_le_bytes()[..], &0xffff_fe00u32.to_le_bytes(), &0x161u32.to_le_bytes()].concat();
        assert!(Charsmap::read(&far).unwrap().longest_match("aé").is_none());
    }
}
