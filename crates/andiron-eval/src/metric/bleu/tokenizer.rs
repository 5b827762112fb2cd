//! The tokenizers of sacreBLEU that need no dictionary.
//!
//! Categories of characters are those of Unicode 16. To `intl`, one that was added to Unicode later is a letter, where a newer
//! `regex` package of Python knows better.

use std::fmt;
use std::str::FromStr;

use super::super::text::{NUMBERS, PUNCTUATION, SYMBOLS, is_space};

/// How a text is cut into words before its n-grams are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BleuTokenizer {
    /// `13a`, as in NIST's mteval-v13a: ASCII punctuation apart, and points and commas that are not between digits.
    #[default]
    V13a,
    /// `intl`, as in mteval-v14: the same by Unicode's categories of punctuation, symbols and numbers.
    Intl,
    /// `char`: every character is a word.
    Char,
    /// `zh`: every Chinese character is a word, the rest as in `13a`.
    Zh,
    /// `none`: the text is tokenized already, with spaces between its words.
    None,
}

impl BleuTokenizer {
    /// All tokenizers.
    pub const ALL: [Self; 5] = [Self::V13a, Self::Intl, Self::Char, Self::Zh, Self::None];

    /// The name in sacreBLEU.
    pub fn name(self) -> &'static str {
        match self {
            Self::V13a => "13a",
            Self::Intl => "intl",
            Self::Char => "char",
            Self::Zh => "zh",
            Self::None => "none",
        }
    }

    /// The text with white space between its words.
    ///
    /// # Example
    /// ```
    /// use andiron_eval::metric::bleu::BleuTokenizer;
    /// let text = BleuTokenizer::V13a.tokenize("It's 3,000 (or more).");
    /// assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["It's", "3,000", "(", "or", "more", ")", "."]);
    /// ```
    pub fn tokenize(self, text: &str) -> String {
        match self {
            Self::V13a => v13a(text),
            Self::Intl => intl(text),
            Self::Char => text.chars().flat_map(|c| [c, ' ']).collect(),
            Self::Zh => {
                let mut apart = String::with_capacity(2 * text.len());
                for c in text.trim_matches(is_space).chars() {
                    if is_chinese(c) {
                        apart.extend([' ', c, ' ']);
                    } else {
                        apart.push(c);
                    }
                }
                western(&apart)
            }
            Self::None => text.to_owned(),
        }
    }
}

impl fmt::Display for BleuTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a name gives no tokenizer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenizerNameError {
    /// A tokenizer of sacreBLEU that needs a dictionary or a model.
    #[error(
        "tokenizer {name}: it needs {needs}, which Andiron does not have; use char or intl, or run sacrebleu"
    )]
    NeedsData {
        /// The name.
        name: String,
        /// What the tokenizer reads.
        needs: &'static str,
    },
    /// Not a tokenizer of sacreBLEU.
    #[error("tokenizer {name:?}: choose from 13a, intl, char, zh and none")]
    Unknown {
        /// The name.
        name: String,
    },
}

impl FromStr for BleuTokenizer {
    type Err = TokenizerNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if let Some(tokenizer) = Self::ALL.into_iter().find(|tokenizer| tokenizer.name() == name) {
            return Ok(tokenizer);
        }
        let needs = match name {
            "ko-mecab" => "MeCab's Korean dictionary",
            "ja-mecab" => "MeCab's Japanese dictionary",
            "spm" | "flores101" | "flores200" | "spBLEU-1K" => "a SentencePiece model",
            _ => return Err(TokenizerNameError::Unknown { name: name.to_owned() }),
        };
        Err(TokenizerNameError::NeedsData { name: name.to_owned(), needs })
    }
}

fn v13a(text: &str) -> String {
    let mut text = format!(" {text} ");
    for (from, to) in [("<skipped>", ""), ("-\n", ""), ("\n", " ")] {
        if text.contains(from) {
            text = text.replace(from, to);
        }
    }
    if text.contains('&') {
        for (from, to) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
            text = text.replace(from, to);
        }
    }
    western(&text)
}

/// Punctuation and symbols of ASCII apart, points and commas by the digits beside them, dashes after a digit.
///
/// A pass looks at two neighbours at a time and goes on after both, as a regular expression does. The second one may thus be
/// passed over as a first one.
fn western(text: &str) -> String {
    let apart =
        |byte: u8| matches!(byte, b' '..=b'&' | b'('..=b'+' | b'/' | b':'..=b'@' | b'['..=b'`' | b'{'..=b'~');
    let mut out = Vec::with_capacity(2 * text.len());
    for &byte in text.as_bytes() {
        if apart(byte) {
            out.extend([b' ', byte, b' ']);
        } else {
            out.push(byte);
        }
    }
    let is_point = |byte: u8| matches!(byte, b'.' | b',');
    let digit = |byte: u8| byte.is_ascii_digit();
    // What is inserted is ASCII and stands beside ASCII, so that no character is torn.
    let out = pairs(&out, |a, b| !digit(a) && is_point(b), |a, b| [a, b' ', b, b' ']);
    let out = pairs(&out, |a, b| is_point(a) && !digit(b), |a, b| [b' ', a, b' ', b]);
    let out = pairs(&out, |a, b| digit(a) && b == b'-', |a, b| [a, b' ', b, b' ']);
    String::from_utf8(out).expect("only spaces were added, and none within a character")
}

/// Replaces each pair of neighbours for which `found` holds, from left to right.
fn pairs<T: Copy>(text: &[T], found: impl Fn(T, T) -> bool, replaced: impl Fn(T, T) -> [T; 4]) -> Vec<T> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 4);
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match tail {
            [second, after @ ..] if found(*first, *second) => {
                out.extend(replaced(*first, *second));
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

fn intl(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let number = |c: char| NUMBERS.contains(c);
    let mark = |c: char| PUNCTUATION.contains(c);
    let chars = pairs(&chars, |a, b| mark(b) && !number(a), |a, b| [a, ' ', b, ' ']);
    let chars = pairs(&chars, |a, b| mark(a) && !number(b), |a, b| [' ', a, ' ', b]);
    let mut out = String::with_capacity(text.len() + text.len() / 2);
    for c in chars {
        if SYMBOLS.contains(c) {
            out.extend([' ', c, ' ']);
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether sacreBLEU's `zh` takes `c` for a Chinese character.
///
/// Its table means to have the supplementary ideographs U+20000 to U+2A6D6 and U+2F800 to U+2FA1D, but writes them with four
/// digits, which makes other ranges: U+2001 to U+2A6D, with general punctuation, arrows and mathematical signs, and U+2F81 to
/// U+2FA1.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{2001}'..='\u{2a6d}'
        | '\u{2e80}'..='\u{2eff}'
        | '\u{2f00}'..='\u{2fdf}'
        | '\u{2ff0}'..='\u{303f}'
        | '\u{3100}'..='\u{312f}'
        | '\u{31a0}'..='\u{31bf}'
        | '\u{31c0}'..='\u{31ef}'
        | '\u{3200}'..='\u{33ff}'
        | '\u{3400}'..='\u{4db5}'
        | '\u{4e00}'..='\u{9fbb}'
        | '\u{f900}'..='\u{fa2d}'
        | '\u{fa30}'..='\u{fa6a}'
        | '\u{fa70}'..='\u{fad9}'
        | '\u{fe10}'..='\u{fe1f}'
        | '\u{fe30}'..='\u{fe4f}'
        | '\u{ff00}'..='\u{ffef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_sacrebleu() {
        for tokenizer in BleuTokenizer::ALL {
            assert_eq!(tokenizer.name().parse(), Ok(tokenizer));
        }
        for (name, part) in [("ko-mecab", "Korean"), ("ja-mecab", "Japanese"), ("flores200", "SentencePiece")]
        {
            let error = name.parse::<BleuTokenizer>().unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(part), "{error}");
        }
        assert!("13b".parse::<BleuTokenizer>().unwrap_err().to_string().contains("13a, intl"));
    }

    /// sacreBLEU 2.6.0's answers.
    #[test]
    fn pairs_overlap_as_in_a_regular_expression() {
        let words =
            |text| super::super::super::text::words(&v13a(text)).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words("a..b"), ["a", ".", ".", "b"]);
        assert_eq!(words("1.,2"), ["1", ".", ",", "2"]);
        assert_eq!(words("3-4 a-b 5--6"), ["3", "-", "4", "a-b", "5", "-", "-6"]);
        assert_eq!(words("한국어.1 &lt;b&amp;gt;"), ["한국어", ".", "1", "<", "b", ">"]);
    }
}
