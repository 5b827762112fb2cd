//! Words as they are compared: normalized, and as hashes of 64 bits.
//!
//! Texts that a reader calls the same differ in case, punctuation, numbers, accents and line breaks, so these do not count. In this order:
//! letters become lowercase; a number, with at most one decimal separator, becomes `0`; punctuation and control characters separate words, as
//! white space does; characters are decomposed (NFD) and their nonspacing marks are dropped.
//!
//! Source: `simplify_text` of datatrove 0.10.1, with these differences. Where it knows a list of punctuation, here all of Unicode's
//! counts (`‘ • · ¿` too). Format characters, such as a soft hyphen, are dropped. `ς` is `σ`. The marks of kana stay (`が` is not
//! `か`). Words are split at white space, and where a script has none, each character is a word: Han, Hiragana, Katakana, Thai, Lao, Khmer,
//! Burmese and Tibetan. Datatrove splits words by a tokenizer of the language, which must then be known.

use std::hash::Hasher;
use std::sync::LazyLock;

use regex_syntax::hir::{Class as HirClass, HirKind};
use unicode_normalization::char::decompose_canonical;

/// A word: its hash, and where it stands in the text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) hash: u64,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Replaces `hashes` by those of the words of `text`.
pub(crate) fn word_hashes(text: &str, hashes: &mut Vec<u64>) {
    hashes.clear();
    walk(text, WordHasher { state: START, each: |word: Word| hashes.push(word.hash) });
}

/// Calls `each` for the words of `text`, in order.
pub(crate) fn for_each_word(text: &str, each: impl FnMut(Word)) {
    walk(text, WordHasher { state: START, each });
}

/// The hashes of all runs of `n` words, of which there are none if there are fewer words.
///
/// # Panics
/// If `n` is 0.
pub(crate) fn ngram_hashes(words: &[u64], n: usize) -> impl Iterator<Item = u64> {
    assert!(n > 0, "n-grams of 0 words");
    let power = (0..n).fold(1u64, |power, _| power.wrapping_mul(NGRAM));
    let mut rolling = 0u64;
    let mut leaving = words.iter();
    words.iter().enumerate().filter_map(move |(index, &word)| {
        rolling = rolling.wrapping_mul(NGRAM).wrapping_add(word);
        if index >= n {
            let gone = leaving.next().copied().unwrap_or_default();
            rolling = rolling.wrapping_sub(gone.wrapping_mul(power));
        }
        (index + 1 >= n).then(|| mixed(rolling))
    })
}

/// Every bit of the result depends on every bit of `x`; a bijection.
///
/// Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", <https://doi.org/10.1145/2660193.2660195>.
#[inline]
pub(crate) fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// For keys that are hashes already.
#[derive(Default)]
pub(crate) struct NoHasher(u64);

impl Hasher for NoHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key.rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

const START: u64 = 0x243f_6a88_85a3_08d3;
/// Odd factors without a pattern: digits of the golden ratio and of e.
const LETTER: u64 = 0x9e37_79b9_7f4a_7c15;
const NGRAM: u64 = 0xadf8_5458_a2bb_4a9b;

/// What becomes of normalized words.
trait Sink {
    /// The next character of a word.
    fn letter(&mut self, c: char);
    /// The word is complete.
    fn end(&mut self, start: usize, end: usize);
}

struct WordHasher<F> {
    state: u64,
    each: F,
}

impl<F: FnMut(Word)> Sink for WordHasher<F> {
    #[inline]
    fn letter(&mut self, c: char) {
        self.state = (self.state ^ u64::from(c)).wrapping_mul(LETTER);
    }

    #[inline]
    fn end(&mut self, start: usize, end: usize) {
        let hash = mixed(std::mem::replace(&mut self.state, START));
        (self.each)(Word { hash, start, end });
    }
}

/// How a character is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Class {
    /// Part of a word as it is.
    Letter,
    /// Between words.
    Separator,
    /// A decimal digit of any script.
    Digit,
    /// Left out.
    Dropped,
    /// A word alone.
    Single,
    /// The mark of a kana, which stays.
    KanaMark,
    /// It has a lowercase form or a decomposition, whose characters have a class each.
    Folded,
    /// A syllable of Hangul, which is decomposed by arithmetic.
    Hangul,
}

/// The classes of all characters below this are in a table; above are few but variation selectors and private use.
const IN_TABLE: u32 = 0x3_3480;
const VARIATION_SELECTORS: std::ops::RangeInclusive<u32> = 0xe_0000..=0xe_01ef;

static CLASSES: LazyLock<Box<[Class]>> = LazyLock::new(classes);

fn classes() -> Box<[Class]> {
    let mut classes = vec![Class::Letter; IN_TABLE as usize].into_boxed_slice();
    let mut set = |pattern: &str, class: Class| {
        let hir = regex_syntax::parse(pattern).expect("the patterns are constants");
        let HirKind::Class(HirClass::Unicode(set)) = hir.kind() else { return };
        for range in set.ranges() {
            let end = (range.end() as u32 + 1).min(IN_TABLE);
            for code in range.start() as u32..end {
                classes[code as usize] = class;
            }
        }
    };
    const NO_SPACES: &str = r"[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}\p{Script=Tibetan}]";
    set(NO_SPACES, Class::Single);
    // The symbols are those that datatrove counts as punctuation.
    set(r"[\p{P}\p{White_Space}\p{Cc}$+<=>^`|~´∶━►～]", Class::Separator);
    set(r"[\p{Mn}\p{Cf}]", Class::Dropped);
    set(r"[\x{3099}\x{309a}]", Class::KanaMark);
    set(r"\p{Nd}", Class::Digit);
    for code in 0..IN_TABLE {
        let class = &mut classes[code as usize];
        let Some(c) = char::from_u32(code).filter(|_| matches!(class, Class::Letter | Class::Single)) else {
            continue;
        };
        let mut same = true;
        folded(c, |part| same &= part == c);
        if !same {
            *class = if is_hangul(code) { Class::Hangul } else { Class::Folded };
        }
    }
    classes
}

/// The characters of the decomposed lowercase form.
fn folded(c: char, mut each: impl FnMut(char)) {
    // At the end of words Greek has another lowercase sigma.
    for lower in c.to_lowercase().map(|c| if c == 'ς' { 'σ' } else { c }) {
        decompose_canonical(lower, &mut each);
    }
}

fn is_hangul(code: u32) -> bool {
    (0xac00..=0xd7a3).contains(&code)
}

fn class(c: char) -> Class {
    match CLASSES.get(c as usize) {
        Some(class) => *class,
        None if VARIATION_SELECTORS.contains(&(c as u32)) => Class::Dropped,
        None => Class::Letter,
    }
}

/// Whether it may stand between the digits of one number.
fn is_decimal_separator(c: char) -> bool {
    matches!(c, '.' | ',' | '،' | '٫' | '⎖' | '⎗' | '⎘')
}

/// The word that is being read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    Word,
    /// A character that is a word alone.
    Single,
}

struct Walk<S> {
    sink: S,
    open: Open,
    start: usize,
}

impl<S: Sink> Walk<S> {
    #[inline]
    fn letter(&mut self, c: char, at: usize) {
        if self.open != Open::Word {
            self.end(at);
            (self.open, self.start) = (Open::Word, at);
        }
        self.sink.letter(c);
    }

    fn single(&mut self, c: char, at: usize) {
        self.end(at);
        (self.open, self.start) = (Open::Single, at);
        self.sink.letter(c);
    }

    #[inline]
    fn end(&mut self, at: usize) {
        if self.open != Open::Nothing {
            self.sink.end(self.start, at);
            self.open = Open::Nothing;
        }
    }

    /// One character that is no digit.
    fn character(&mut self, c: char, class: Class, at: usize) {
        match class {
            Class::Letter | Class::Digit => self.letter(c, at),
            Class::Separator => self.end(at),
            Class::Dropped => {}
            Class::Single => self.single(c, at),
            Class::KanaMark if self.open == Open::Nothing => {}
            Class::KanaMark => self.sink.letter(c),
            Class::Hangul => {
                let index = c as u32 - 0xac00;
                let jamo = [0x1100 + index / 588, 0x1161 + index % 588 / 28, 0x11a7 + index % 28];
                for code in jamo.into_iter().filter(|code| *code != 0x11a7) {
                    self.letter(char::from_u32(code).unwrap_or(c), at);
                }
            }
            Class::Folded => folded(c, |part| match self::class(part) {
                Class::Folded | Class::Hangul => self.letter(part, at),
                // Of `;`, which the Greek question mark is, and the like nothing is a separator of its own.
                class => self.character(part, class, at),
            }),
        }
    }
}

fn walk<S: Sink>(text: &str, sink: S) {
    let classes = &**CLASSES;
    let mut walk = Walk { sink, open: Open::Nothing, start: 0 };
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte.is_ascii_alphabetic() {
            walk.letter(char::from(byte.to_ascii_lowercase()), at);
            at += 1;
            continue;
        }
        let Some(c) = text[at..].chars().next() else { break };
        match if byte < 0x80 { classes[usize::from(byte)] } else { class(c) } {
            Class::Separator => {
                walk.end(at);
                at += c.len_utf8();
            }
            Class::Digit => {
                walk.letter('0', at);
                at = end_of_number(text, at);
            }
            class => {
                walk.character(c, class, at);
                at += c.len_utf8();
            }
        }
    }
    walk.end(text.len());
}

/// Where the number that begins at `at` ends: digits, perhaps a decimal separator and more digits.
fn end_of_number(text: &str, at: usize) -> usize {
    let after_digits = |from: usize| {
        let digits = text[from..].char_indices().find(|(_, c)| class(*c) != Class::Digit);
        digits.map_or(text.len(), |(length, _)| from + length)
    };
    let end = after_digits(at);
    match text[end..].chars().next() {
        Some(c) if is_decimal_separator(c) => {
            let fraction = end + c.len_utf8();
            let end_of_fraction = after_digits(fraction);
            if end_of_fraction > fraction { end_of_fraction } else { end }
        }
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Spelled {
        word: String,
        words: Vec<String>,
    }

    impl Sink for &mut Spelled {
        fn letter(&mut self, c: char) {
            self.word.push(c);
        }

        fn end(&mut self, start: usize, end: usize) {
            assert!(start < end);
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    fn words(text: &str) -> String {
        let mut spelled = Spelled::default();
        walk(text, &mut spelled);
        spelled.words.join(" ")
    }

    /// By `simplify_text` of datatrove 0.10.1.
    #[test]
    fn texts_are_simplified_as_datatrove_does() {
        let cases = [
            ("Hello, World! It's 3.14 o'clock", "hello world it s 0 o clock"),
            ("1,234,567 and 1|2|3 abc123def v1.2.3", "0 0 and 0 0 0 abc0def v0 0"),
            ("Crème brûlée — ﬁne “quotes”…", "creme brulee ﬁne quotes"),
            ("İstanbul STRASSE ß", "istanbul strasse ß"),
            ("x_y a\0b\u{85}c d\u{a0}e", "x y a b c d e"),
            ("٣٫١٤ cannot 8pm 5km", "0 cannot 0pm 0km"),
            ("a.b.c U.S.A. 10:30", "a b c u s a 0 0"),
            ("e\u{301} \u{301}x", "e x"),
            ("²½Ⅷ①", "²½ⅷ①"),
            ("ǅ Ǆ ŉ", "ǆ ǆ ŉ"),
            ("...5 5. 5.a ,5,5,5", "0 0 0 a 0 0"),
            ("", ""),
            (" \t\n", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn where_it_differs_from_datatrove() {
        let cases = [
            // datatrove: `¿que ¡no ·`
            ("¿Qué? ¡no! ·", "que no"),
            // datatrove: `co\u{ad}operate`
            ("co\u{ad}operate", "cooperate"),
            // datatrove: `οδος σ`
            ("ΟΔΟΣ οδός Σ", "οδοσ οδοσ σ"),
            // datatrove: `かき カタ 漢字`, and words by the tokenizer of the language
            ("がき カタ漢字abc", "か\u{3099} き カ タ 漢 字 abc"),
            ("ไทย", "ไ ท ย"),
        ];
        for (text, expected) in cases {
            assert_eq!(words(text), expected, "{text:?}");
        }
    }

    #[test]
    fn composed_and_decomposed_texts_are_the_same() {
        assert_eq!(
            words("한국 がぎ é"),
            words("\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8} か\u{3099}き\u{3099} e\u{301}")
        );
        assert_eq!(words("한."), "\u{1112}\u{1161}\u{11ab}");
    }

    #[test]
    fn words_know_their_places() {
        let text = "¡Ab, c1.5d 漢字!";
        let mut places = Vec::new();
        for_each_word(text, |word| places.push(&text[word.start..word.end]));
        assert_eq!(places, ["Ab", "c1.5d", "漢", "字"]);
    }

    #[test]
    fn ngrams_are_runs_of_words() {
        let hashes = |text: &str, n| {
            let mut words = Vec::new();
            word_hashes(text, &mut words);
            ngram_hashes(&words, n).collect::<Vec<_>>()
        };
        let three = hashes("a b c d", 3);
        assert_eq!(three.len(), 2);
        assert_eq!(three[1], hashes("B, c; D", 3)[0]);
        assert_ne!(hashes("a b c", 3), hashes("c b a", 3));
        assert_ne!(hashes("ab c", 2), hashes("a bc", 2));
        assert!(hashes("a b", 3).is_empty());
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "\\PC{0,40}|.{0,40}") {
            let mut last = 0;
            for_each_word(&text, |word| {
                assert!(word.start >= last && text.get(word.start..word.end).is_some());
                last = word.end;
            });
        }
    }
}
