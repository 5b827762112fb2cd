//! What each character is to the rules: letters, punctuation, spaces, as spaCy, datatrove and Python have them.
//!
//! The table `characters.txt` is written by `tests/make_characters.py` from spaCy 3.8.18, datatrove 0.10.1 and Python 3.11
//! (Unicode 14). It differs from Rust's own properties: spaCy knows letters of some scripts only, Python's `isalpha` leaves
//! marks and letter-like numbers out, and Python's `isspace` counts the four information separators.

use std::sync::LazyLock;

/// Classes of one character, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Classes(u16);

impl Classes {
    /// A letter to spaCy's rules, of either case.
    pub(super) const LETTER: Self = Self(1);
    /// A letter that may be lower case.
    pub(super) const LOWER: Self = Self(1 << 1);
    /// A letter that may be upper case.
    pub(super) const UPPER: Self = Self(1 << 2);
    /// A symbol such as an emoji, a word by itself.
    pub(super) const SYMBOL: Self = Self(1 << 3);
    /// A quotation mark or bracket.
    pub(super) const QUOTE: Self = Self(1 << 4);
    /// Split from the beginning of a word.
    pub(super) const PREFIX: Self = Self(1 << 5);
    /// Split from the end of a word.
    pub(super) const SUFFIX: Self = Self(1 << 6);
    /// A period after it is split from the end of a word.
    pub(super) const BEFORE_PERIOD: Self = Self(1 << 7);
    /// Unicode's general category P.
    pub(super) const PUNCTUATION: Self = Self(1 << 8);
    /// Ends a sentence, as a word by itself.
    pub(super) const SENTENCE_END: Self = Self(1 << 9);
    /// In datatrove's `PUNCTUATION_SET`: a word of nothing else is no word to Gopher's rules.
    pub(super) const NO_WORD: Self = Self(1 << 10);
    /// In datatrove's `TERMINAL_PUNCTUATION`: may end a line of prose.
    pub(super) const TERMINAL: Self = Self(1 << 11);
    /// Python's `isalpha`.
    pub(super) const ALPHABETIC: Self = Self(1 << 12);
    /// A decimal digit of any script.
    pub(super) const DIGIT: Self = Self(1 << 13);
    /// Python's `isspace`.
    pub(super) const SPACE: Self = Self(1 << 14);
    /// `\w` of Python's regular expressions.
    pub(super) const WORD: Self = Self(1 << 15);

    /// Whether the character has any of these classes.
    pub(super) const fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    /// The classes of either.
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn of_letter(letter: u8) -> Self {
        match letter {
            b'A' => Self::LETTER,
            b'L' => Self::LOWER,
            b'U' => Self::UPPER,
            b'I' => Self::SYMBOL,
            b'Q' => Self::QUOTE,
            b'P' => Self::PREFIX,
            b'S' => Self::SUFFIX,
            b'D' => Self::BEFORE_PERIOD,
            b'G' => Self::PUNCTUATION,
            b'T' => Self::SENTENCE_END,
            b'X' => Self::NO_WORD,
            b'Z' => Self::TERMINAL,
            b'l' => Self::ALPHABETIC,
            b'n' => Self::DIGIT,
            b's' => Self::SPACE,
            b'w' => Self::WORD,
            _ => unreachable!("characters.txt has sixteen letters"),
        }
    }
}

/// The classes of all characters: pages of 256, of which equal ones are kept once.
pub(super) struct Characters {
    page_of: Vec<u16>,
    pages: Vec<[Classes; 256]>,
}

/// The table, read once.
pub(super) static CHARACTERS: LazyLock<Characters> =
    LazyLock::new(|| Characters::parse(include_str!("characters.txt")));

impl Characters {
    fn parse(table: &str) -> Self {
        let mut flat = vec![Classes::default(); 0x11_0000];
        for line in table.lines() {
            let mut fields = line.split(' ');
            let mut field = || fields.next().expect("a line of characters.txt has three fields");
            let code = |text| usize::from_str_radix(text, 16).expect("code points are hexadecimal");
            let (first, last) = (code(field()), code(field()));
            let classes = field().bytes().map(Classes::of_letter).fold(Classes::default(), Classes::or);
            flat[first..=last].fill(classes);
        }
        let mut pages: Vec<[Classes; 256]> = Vec::new();
        let page_of = flat
            .chunks_exact(256)
            .map(|chunk| {
                let known = pages.iter().position(|page| page == chunk);
                let index = known.unwrap_or_else(|| {
                    pages.push(chunk.try_into().expect("a chunk has 256 characters"));
                    pages.len() - 1
                });
                u16::try_from(index).expect("there are 4,352 pages")
            })
            .collect();
        Self { page_of, pages }
    }

    /// The classes of a character.
    pub(super) fn of(&self, character: char) -> Classes {
        let code = character as usize;
        self.pages[usize::from(self.page_of[code >> 8])][code & 0xff]
    }

    /// The classes of an ASCII byte; those of Latin-1 for others.
    pub(super) fn of_ascii(&self, byte: u8) -> Classes {
        self.pages[usize::from(self.page_of[0])][usize::from(byte)]
    }

    /// Whether the character has any of these classes.
    pub(super) fn is(&self, character: char, of: Classes) -> bool {
        self.of(character).any(of)
    }
}

/// The text without Python's white space at its ends.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Python's `str.isspace` of one character.
pub(super) fn is_space(character: char) -> bool {
    match character {
        ' ' | '\t'..='\r' | '\u{1c}'..='\u{1f}' => true,
        '\0'..='\x7f' => false,
        _ => CHARACTERS.is(character, Classes::SPACE),
    }
}

/// The number of characters, from the bytes that begin one.
pub(super) fn count_characters(text: &[u8]) -> usize {
    text.iter().filter(|&&byte| byte as i8 >= -0x40).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_the_reference_programs() {
        let is = |character, of| CHARACTERS.is(character, of);
        assert!(is('한', Classes::LETTER) && is('한', Classes::LOWER) && is('한', Classes::UPPER));
        assert!(is('é', Classes::LOWER) && !is('é', Classes::UPPER));
        assert!(
            is('Ⅷ', Classes::WORD) && !is('Ⅷ', Classes::ALPHABETIC),
            "Rust calls it alphabetic, Python does not"
        );
        assert!(is('|', Classes::NO_WORD) && !is('|', Classes::PREFIX));
        assert!(is('。', Classes::SENTENCE_END) && is('。', Classes::TERMINAL));
        assert!(is('😀', Classes::SYMBOL));
        assert!(CHARACTERS.of_ascii(b'a').any(Classes::LETTER));
        assert!(is_space('\u{1f}') && is_space('\u{3000}') && !is_space('\u{200b}'));
        assert_eq!(count_characters("aé한😀".as_bytes()), 4);
    }
}
