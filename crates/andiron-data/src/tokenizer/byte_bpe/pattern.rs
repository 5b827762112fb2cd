//! The usual patterns that split a text into words, matched by hand.
//!
//! Each function below is a regular expression, whose alternatives it tries in their order at a place of the text.

use serde_json::Value;

use super::cache::Word;
use super::classes::{CLASSES, Classes, LETTER, MARK, NUMBER, OTHER, SPACE};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN3_5: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a text is split into words.
pub(super) struct Words {
    pattern: Pattern,
    /// Whether each digit is a word, before the pattern is applied to what is between them.
    single_digits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// That of GPT-2.
    Gpt2,
    /// That of Llama 3 and Qwen.
    Llama {
        /// The most digits of a word.
        digits: usize,
        /// Whether marks are letters.
        marks: bool,
    },
}

/// A text with the classes of its characters.
struct Text<'a> {
    text: &'a str,
    classes: &'static Classes,
    latin: &'static [u8; 256],
}

impl Pattern {
    /// The pattern with this spelling.
    fn named(regex: &str) -> Option<Self> {
        match regex {
            GPT2 => Some(Self::Gpt2),
            LLAMA3 => Some(Self::Llama { digits: 3, marks: false }),
            QWEN2 => Some(Self::Llama { digits: 1, marks: false }),
            QWEN3_5 => Some(Self::Llama { digits: 1, marks: true }),
            _ => None,
        }
    }
}

impl Words {
    /// By the pattern of GPT-2.
    pub(super) fn gpt2() -> Self {
        Self { pattern: Pattern::Gpt2, single_digits: false }
    }

    /// How a `pre_tokenizer` splits a text, if that is one of the ways known here.
    pub(super) fn new(pre_tokenizer: &Value) -> Option<Self> {
        let is = |part: &Value, name: &str| part.get("type").and_then(Value::as_str) == Some(name);
        let flag = |part: &Value, name: &str| part.get(name).and_then(Value::as_bool);
        let steps = if is(pre_tokenizer, "Sequence") {
            pre_tokenizer.get("pretokenizers")?.as_array()?.as_slice()
        } else {
            std::slice::from_ref(pre_tokenizer)
        };
        let (last, before) = steps.split_last()?;
        if !is(last, "ByteLevel") || flag(last, "add_prefix_space") != Some(false) {
            return None;
        }
        let mut words = Self::gpt2();
        // Without `use_regex` in the file it is true.
        match (before, flag(last, "use_regex") != Some(false)) {
            ([], true) => {}
            ([digits], true) if is(digits, "Digits") && flag(digits, "individual_digits") == Some(true) => {
                words.single_digits = true;
            }
            ([split], false) if is(split, "Split") => {
                let is_isolated = split.get("behavior").and_then(Value::as_str) == Some("Isolated");
                if !is_isolated || flag(split, "invert") != Some(false) {
                    return None;
                }
                words.pattern = Pattern::named(split.get("pattern")?.get("Regex")?.as_str()?)?;
            }
            _ => return None,
        }
        Some(words)
    }

    /// Calls `each` with the words of a text, in their order.
    pub(super) fn of<'a>(&self, text: &'a str, mut each: impl FnMut(Word<'a>)) {
        if !self.single_digits {
            return self.between(text, 0, text.len(), &mut each);
        }
        let mut start = 0;
        for (at, c) in text.char_indices().filter(|(_, c)| c.is_numeric()) {
            self.between(text, start, at, &mut each);
            start = at + c.len_utf8();
            each(Word::new(text, at, start));
        }
        self.between(text, start, text.len(), &mut each);
    }

    /// The words of a part of a text, to which the pattern is applied as if nothing were around it.
    #[inline]
    fn between<'a>(&self, text: &'a str, start: usize, end: usize, each: &mut impl FnMut(Word<'a>)) {
        let classes = &*CLASSES;
        let part = Text { text: &text[start..end], classes, latin: classes.latin() };
        let mut at = 0;
        match self.pattern {
            Pattern::Gpt2 => {
                while let Some(to) = part.gpt2(at) {
                    each(Word::new(text, start + at, start + to));
                    at = to;
                }
            }
            Pattern::Llama { digits, marks } => {
                while let Some(to) = part.llama(at, digits, marks) {
                    each(Word::new(text, start + at, start + to));
                    at = to;
                }
            }
        }
    }
}

impl Text<'_> {
    /// The class of the character at a place and the place after it; `None` at the end.
    #[inline]
    fn at(&self, at: usize) -> Option<(u8, usize)> {
        let byte = *self.text.as_bytes().get(at)?;
        if byte < 0x80 {
            return Some((self.latin[usize::from(byte)], at + 1));
        }
        let c = self.text[at..].chars().next()?;
        Some((self.classes.of(c), at + c.len_utf8()))
    }

    #[inline]
    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    /// The end of the characters whose class `is` one of those wanted, from a place on.
    #[inline]
    fn run(&self, mut at: usize, is: impl Fn(u8) -> bool) -> usize {
        while let Some((class, next)) = self.at(at)
            && is(class)
        {
            at = next;
        }
        at
    }

    /// The end of the word of GPT-2's pattern that begins at a place.
    #[inline]
    fn gpt2(&self, start: usize) -> Option<usize> {
        let (first, mut after) = self.at(start)?;
        let byte = self.byte(start);
        if byte == Some(b'\'')
            && let Some(end) = self.contraction(start, false)
        {
            return Some(end);
        }
        let mut class = first;
        if byte == Some(b' ')
            && let Some((next, end)) = self.at(after)
            && next != SPACE
        {
            (class, after) = (next, end);
        }
        Some(match class {
            LETTER => self.run(after, |class| class == LETTER),
            NUMBER => self.run(after, |class| class == NUMBER),
            SPACE => self.spaces(start),
            _ => self.run(after, |class| matches!(class, OTHER | MARK)),
        })
    }

    /// The end of the word of Llama 3's or Qwen's pattern that begins at a place.
    #[inline]
    fn llama(&self, start: usize, digits: usize, marks: bool) -> Option<usize> {
        let is_letter = |class| class == LETTER || (marks && class == MARK);
        let is_other = |class| class == OTHER || (!marks && class == MARK);
        let (first, after) = self.at(start)?;
        if is_letter(first) {
            return Some(self.run(after, is_letter));
        }
        if first == NUMBER {
            let mut end = after;
            for _ in 1..digits {
                match self.at(end) {
                    Some((NUMBER, next)) => end = next,
                    _ => break,
                }
            }
            return Some(end);
        }
        let byte = self.byte(start);
        if byte == Some(b'\'')
            && let Some(end) = self.contraction(start, true)
        {
            return Some(end);
        }
        let second = self.at(after);
        if let Some((class, end)) = second
            && is_letter(class)
            && !matches!(byte, Some(b'\r' | b'\n'))
        {
            return Some(self.run(end, is_letter));
        }
        let others = match second {
            _ if is_other(first) => Some(after),
            Some((class, end)) if byte == Some(b' ') && is_other(class) => Some(end),
            _ => None,
        };
        if let Some(from) = others {
            let mut end = self.run(from, is_other);
            while matches!(self.byte(end), Some(b'\r' | b'\n')) {
                end += 1;
            }
            return Some(end);
        }
        let end = self.run(after, |class| class == SPACE);
        match self.text.as_bytes()[start..end].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
            Some(last) => Some(start + last + 1),
            None => Some(self.spaces(start)),
        }
    }

    /// `\s+(?!\S)|\s+`: white space without the last character if something follows it.
    #[inline]
    fn spaces(&self, start: usize) -> usize {
        let (mut end, mut last) = (start, start);
        while let Some((SPACE, next)) = self.at(end) {
            (last, end) = (end, next);
        }
        if end == self.text.len() || last == start { end } else { last }
    }

    /// `'s|'t|'re|'ve|'m|'ll|'d`.
    fn contraction(&self, start: usize, any_case: bool) -> Option<usize> {
        let mut chars = self.text[start + 1..].chars();
        let mut next = || {
            let c = chars.next()?;
            Some(match c {
                // The long s is a small form of S.
                'ſ' if any_case => ('s', c.len_utf8()),
                _ if any_case => (c.to_ascii_lowercase(), c.len_utf8()),
                _ => (c, c.len_utf8()),
            })
        };
        let (first, length) = next()?;
        let after = start + 1 + length;
        match first {
            's' | 't' | 'm' | 'd' => Some(after),
            'r' | 'v' => next().filter(|&(c, _)| c == 'e').map(|_| after + 1),
            'l' => next().filter(|&(c, _)| c == 'l').map(|_| after + 1),
            _ => None,
        }
    }
}
