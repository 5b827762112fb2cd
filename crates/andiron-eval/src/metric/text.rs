//! Character classes of Python, which the reference programs split and clean text by.

use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};

/// Whether Python's `str.isspace` holds: Unicode white space, and the four ASCII information separators.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// The words of a text: Python's `str.split()`.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// A set of characters, as sorted ranges and a table for ASCII.
pub(crate) struct CharSet {
    ascii: [bool; 128],
    ranges: Vec<(char, char)>,
}

impl CharSet {
    /// The set of a character class in the syntax of `regex`, such as `\p{P}`.
    ///
    /// # Panics
    /// If `class` is no class.
    fn new(class: &str) -> Self {
        let hir = regex_syntax::parse(class).expect("the class is written in this file");
        let HirKind::Class(Class::Unicode(class)) = hir.kind() else {
            unreachable!("{class} is a class of characters")
        };
        let ranges: Vec<_> = class.ranges().iter().map(|range| (range.start(), range.end())).collect();
        let within = |c: char| ranges.iter().any(|&(start, end)| (start..=end).contains(&c));
        let ascii = std::array::from_fn(|code| within(code as u8 as char));
        Self { ascii, ranges }
    }

    pub(crate) fn contains(&self, c: char) -> bool {
        if c.is_ascii() {
            return self.ascii[c as usize];
        }
        let after = self.ranges.partition_point(|&(start, _)| start <= c);
        after > 0 && c <= self.ranges[after - 1].1
    }
}

/// Numbers: decimal digits, letters such as Ⅷ, and others.
pub(super) static NUMBERS: LazyLock<CharSet> = LazyLock::new(|| CharSet::new(r"\p{N}"));
/// Punctuation.
pub(crate) static PUNCTUATION: LazyLock<CharSet> = LazyLock::new(|| CharSet::new(r"\p{P}"));
/// Symbols: of currencies, mathematics and others.
pub(super) static SYMBOLS: LazyLock<CharSet> = LazyLock::new(|| CharSet::new(r"\p{S}"));
/// What `\w` means in Python: letters, numbers and the underscore, but no combining marks.
pub(super) static WORD_CHARS: LazyLock<CharSet> = LazyLock::new(|| CharSet::new(r"[\p{L}\p{N}_]"));

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(set: &CharSet, members: &str, others: &str) {
        assert!(members.chars().all(|c| set.contains(c)), "{members}");
        assert!(others.chars().all(|c| !set.contains(c)), "{others}");
    }

    /// Python 3.11's answers.
    #[test]
    fn sets_are_those_of_python() {
        check(&NUMBERS, "09²Ⅷ٣", "a一.");
        check(&PUNCTUATION, "!_-,。「—", "$+ a9");
        check(&SYMBOLS, "$+<=>^`|~€♥😀", "!_a9。");
        check(&WORD_CHARS, "az09_é한一²", " -'\u{301}\u{93e}");
    }

    #[test]
    fn information_separators_are_white_space() {
        let text = "a\x1cb\u{a0}c\u{3000}\u{2028}d\u{200b}e";
        assert_eq!(words(text).collect::<Vec<_>>(), ["a", "b", "c", "d\u{200b}e"]);
    }
}
