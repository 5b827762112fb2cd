//! English words as spaCy's rules split them.
//!
//! A text is split at white space; from each span, prefixes and suffixes (punctuation, quotes, currencies, units after a
//! number) are split in turns; what is left is a known exception (`don't`, `Mr.`, `:-)`), an address, or is split at infixes
//! (hyphens between letters, `...`). The time is linear in the text.
//!
//! Source: spaCy 3.8 (MIT), `spacy/tokenizer.pyx` and `spacy/lang/{en,punctuation.py}`, the word splitter of datatrove for
//! English. One difference: spaCy looks for exceptions in the finished sequence of words too, where a longer sequence with
//! spaces between may hide a shorter one; here only those without spaces count.

mod address;
mod exceptions;

use super::characters::{CHARACTERS, Characters, Classes, is_space};
use address::is_address;
use exceptions::{EXCEPTIONS, Exceptions};

/// A word or, where sentences are counted, white space that is more than one space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'t> {
    /// A word, number, or punctuation mark.
    Word(&'t str),
    /// White space that spaCy has as a token: everything but a single space between two words.
    Space,
}

/// Calls `each` with the words of a text, in order.
pub(super) fn for_each_word<'t>(text: &'t str, mut each: impl FnMut(&'t str)) {
    for_each_token(text, |token| {
        if let Token::Word(word) = token {
            each(word);
        }
    });
}

/// Calls `each` with the words of a text and with the white space that spaCy has as a token.
pub(super) fn for_each_token<'t>(text: &'t str, mut each: impl FnMut(Token<'t>)) {
    let splitter = Splitter { characters: &CHARACTERS, exceptions: &EXCEPTIONS };
    let mut buffer = Buffer::default();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let kind = span_end(text, &mut at);
        if kind == Kind::Space {
            if start == 0 || &bytes[start..at] != b" " {
                each(Token::Space);
            }
            continue;
        }
        let span = &text[start..at];
        let one_word = kind == Kind::Letters && !splitter.exceptions.may_contain(span);
        if one_word {
            each(Token::Word(span));
        } else {
            splitter.split(span, &mut buffer);
            let mut from = 0;
            for &end in &buffer.ends {
                each(Token::Word(&span[from..end]));
                from = end;
            }
        }
    }
}

/// Calls `each` with the sentences that spaCy's sentencizer finds, with the white space before them: one more begins at the first word
/// after a final mark that is no punctuation. There is one at least.
pub(super) fn for_each_sentence<'t>(text: &'t str, mut each: impl FnMut(&'t str)) {
    let characters: &Characters = &CHARACTERS;
    // Where the sentence began, and where the last word ended.
    let (mut start, mut end) = (0, 0);
    let mut ended = false;
    for_each_token(text, |token| {
        let is_end = match token {
            Token::Word(word) => {
                let mut letters = word.chars();
                letters.next().is_some_and(|c| characters.is(c, Classes::SENTENCE_END))
                    && letters.next().is_none()
            }
            Token::Space => false,
        };
        if is_end {
            ended = true;
        } else if ended {
            let punctuation = match token {
                Token::Word(word) => word.chars().all(|c| characters.is(c, Classes::PUNCTUATION)),
                Token::Space => false,
            };
            if !punctuation {
                each(&text[start..end]);
                (start, ended) = (end, false);
            }
        }
        if let Token::Word(word) = token {
            // A word is a part of the text.
            end = word.as_ptr() as usize - text.as_ptr() as usize + word.len();
        }
    });
    each(&text[start..]);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Space,
    /// ASCII letters only.
    Letters,
    Mixed,
}

/// Moves `at` to the end of the span of white space or of other characters that begins there.
fn span_end(text: &str, at: &mut usize) -> Kind {
    let bytes = text.as_bytes();
    let mut kind = None;
    while let Some(&byte) = bytes.get(*at) {
        let (found, length) = if byte < 0x80 {
            let found = match byte {
                b'a'..=b'z' | b'A'..=b'Z' => Kind::Letters,
                b' ' | b'\t'..=b'\r' | 0x1c..=0x1f => Kind::Space,
                _ => Kind::Mixed,
            };
            (found, 1)
        } else {
            let character = text[*at..].chars().next().expect("the place is inside of the text");
            (if is_space(character) { Kind::Space } else { Kind::Mixed }, character.len_utf8())
        };
        kind = match (kind, found) {
            (None, found) => Some(found),
            (Some(Kind::Space), Kind::Space) => kind,
            (Some(Kind::Space), _) | (Some(_), Kind::Space) => break,
            (Some(Kind::Letters), Kind::Letters) => kind,
            _ => Some(Kind::Mixed),
        };
        *at += length;
    }
    kind.unwrap_or(Kind::Mixed)
}

/// Where the words of a span end, and room to find that out.
#[derive(Default)]
struct Buffer {
    ends: Vec<usize>,
    suffixes: Vec<usize>,
    merged: Vec<usize>,
}

struct Splitter<'a> {
    characters: &'a Characters,
    exceptions: &'a Exceptions,
}

impl Splitter<'_> {
    /// Splits a span without white space.
    fn split(&self, span: &str, buffer: &mut Buffer) {
        self.split_affixes(span, Some(self.exceptions), buffer);
        if buffer.ends.len() > 1 {
            self.merge_exceptions(span, buffer);
        }
    }

    fn is_exception(&self, exceptions: Option<&Exceptions>, text: &str) -> bool {
        exceptions.is_some_and(|exceptions| exceptions.get(text).is_some())
    }

    fn split_affixes(&self, span: &str, exceptions: Option<&Exceptions>, buffer: &mut Buffer) {
        buffer.ends.clear();
        buffer.suffixes.clear();
        let (mut start, mut end) = (0, span.len());
        while start < end {
            let text = &span[start..end];
            if self.is_exception(exceptions, text) {
                break;
            }
            let prefix = self.prefix(text);
            if prefix > 0 && prefix < text.len() && self.is_exception(exceptions, &text[prefix..]) {
                start += prefix;
                buffer.ends.push(start);
                break;
            }
            let suffix = self.suffix(&text[prefix..]);
            if suffix > 0
                && suffix < text.len()
                && self.is_exception(exceptions, &text[..text.len() - suffix])
            {
                buffer.suffixes.push(end);
                end -= suffix;
                break;
            }
            if prefix == 0 && suffix == 0 {
                break;
            }
            if prefix > 0 {
                start += prefix;
                buffer.ends.push(start);
            }
            if suffix > 0 {
                buffer.suffixes.push(end);
                end -= suffix;
            }
        }
        if start < end {
            let text = &span[start..end];
            match exceptions.and_then(|exceptions| exceptions.get(text)) {
                Some(exception) => buffer.ends.extend(exception.ends().map(|at| start + at)),
                None if is_address(text, self.characters) => buffer.ends.push(end),
                None => self.split_infixes(text, start, &mut buffer.ends),
            }
        }
        buffer.ends.extend(buffer.suffixes.iter().rev());
    }

    /// The bytes of the prefix to split off; 0 if there is none.
    fn prefix(&self, text: &str) -> usize {
        let bytes = text.as_bytes();
        match bytes {
            [b'.', b'.', ..] => bytes.iter().take_while(|&&byte| byte == b'.').count(),
            [b'+', rest @ ..] => usize::from(!rest.first().is_some_and(u8::is_ascii_digit)),
            [b'U', b'S', b'$', ..] => 3,
            [b'C' | b'A', b'$', ..] => 2,
            _ => {
                let first = text.chars().next().filter(|&c| self.characters.is(c, Classes::PREFIX));
                first.map_or(0, char::len_utf8)
            }
        }
    }

    /// The bytes of the suffix to split off; 0 if there is none. The longest counts.
    fn suffix(&self, text: &str) -> usize {
        let Some(last) = text.chars().next_back() else { return 0 };
        let before = &text[..text.len() - last.len_utf8()];
        let previous = before.chars().next_back();
        let after_digit = |rest: &str| rest.as_bytes().last().is_some_and(u8::is_ascii_digit);
        match last {
            '.' => {
                let dots = text.bytes().rev().take_while(|&byte| byte == b'.').count();
                let degrees = || {
                    before.len() >= 3
                        && matches!(
                            before.as_bytes(),
                            [.., 0xc2, 0xb0, b'F' | b'f' | b'C' | b'c' | b'K' | b'k']
                        )
                };
                let capitals = || {
                    let mut letters = before.chars().rev();
                    let upper = |c: Option<char>| c.is_some_and(|c| self.characters.is(c, Classes::UPPER));
                    upper(letters.next()) && upper(letters.next())
                };
                if dots > 1 {
                    dots
                } else if previous
                    .is_some_and(|c| c.is_ascii_digit() || self.characters.is(c, Classes::BEFORE_PERIOD))
                    || degrees()
                    || capitals()
                {
                    1
                } else {
                    0
                }
            }
            '…' if previous == Some('…') => 2 * last.len_utf8(),
            's' | 'S' if previous == Some('\'') => 2,
            's' | 'S' if previous == Some('’') => 1 + '’'.len_utf8(),
            '+' => usize::from(after_digit(before)),
            '$' => [("US", 3), ("C", 2), ("A", 2), ("", 1)]
                .into_iter()
                .find(|(country, _)| before.strip_suffix(country).is_some_and(after_digit))
                .map_or(0, |(_, length)| length),
            _ if self.characters.is(last, Classes::SUFFIX) => last.len_utf8(),
            _ if exceptions::CURRENCIES.contains(&last) && after_digit(before) => last.len_utf8(),
            _ => exceptions::unit(text),
        }
    }

    /// Splits at hyphens between letters, ellipses and the like.
    fn split_infixes(&self, text: &str, offset: usize, ends: &mut Vec<usize>) {
        // Where the word that is being read began; an infix at the very beginning is not split off.
        let (mut start, mut at) = (0, 0);
        let mut previous: Option<char> = None;
        while let Some(character) = text[at..].chars().next() {
            let length = self.infix(previous, character, &text[at..]);
            if length == 0 {
                previous = Some(character);
                at += character.len_utf8();
                continue;
            }
            if at > 0 {
                if at > start {
                    ends.push(offset + at);
                }
                ends.push(offset + at + length);
                start = at + length;
            }
            at += length;
            previous = text[..at].chars().next_back();
        }
        if start < text.len() {
            ends.push(offset + text.len());
        }
    }

    /// The bytes of an infix that `rest` begins with; 0 if it does not.
    fn infix(&self, previous: Option<char>, character: char, rest: &str) -> usize {
        let classes = self.characters.of(character);
        if character.is_ascii_alphanumeric() || classes.any(Classes::LETTER) && !classes.any(Classes::SYMBOL)
        {
            return 0;
        }
        let after = &rest[character.len_utf8()..];
        let next = after.chars().next();
        let is = |c: Option<char>, of: Classes| c.is_some_and(|c| self.characters.is(c, of));
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let letter_before = is(previous, Classes::LETTER);
        let word_before = letter_before || digit(previous);
        if character == '.' && next == Some('.') {
            return rest.bytes().take_while(|&byte| byte == b'.').count();
        }
        let one = match character {
            '…' => true,
            _ if classes.any(Classes::SYMBOL) => true,
            '+' | '-' | '*' | '^' if digit(previous) && (digit(next) || next == Some('-')) => true,
            '.' => {
                is(previous, Classes::LOWER.or(Classes::QUOTE)) && is(next, Classes::UPPER.or(Classes::QUOTE))
            }
            ',' => letter_before && is(next, Classes::LETTER),
            ':' | '<' | '>' | '=' | '/' => word_before && is(next, Classes::LETTER),
            _ => false,
        };
        if one {
            return character.len_utf8();
        }
        if !word_before {
            return 0;
        }
        // A hyphen: `-` one to three times, a dash, two long dashes, or `~`, before a letter.
        let marks = rest.chars().take_while(|&c| c == character).take(4).count();
        let fits = match character {
            '-' => marks <= 3,
            '–' | '~' => marks == 1,
            '—' => marks <= 2,
            _ => false,
        };
        let length = marks * character.len_utf8();
        if fits && is(rest[length..].chars().next(), Classes::LETTER) { length } else { 0 }
    }

    /// Puts together neighbours that are the parts of an exception.
    fn merge_exceptions(&self, span: &str, buffer: &mut Buffer) {
        if !self.exceptions.may_merge(span) {
            return;
        }
        let ends = &buffer.ends;
        let begin = |word: usize| if word == 0 { 0 } else { ends[word - 1] };
        let mut found = Vec::new();
        for first in 0..ends.len() {
            for last in first..ends.len() {
                let text = &span[begin(first)..ends[last]];
                if text.len() > self.exceptions.longest() {
                    break;
                }
                if let Some(exception) = self.exceptions.get(text)
                    && let Some(parts) = exception.parts()
                    && parts.iter().map(|&end| begin(first) + end).eq(ends[first..=last].iter().copied())
                {
                    found.push((first, last, exception));
                }
            }
        }
        if found.is_empty() {
            return;
        }
        found.sort_by_key(|&(first, last, _)| (std::cmp::Reverse(last - first), first));
        let mut seen = vec![false; ends.len()];
        found.retain(|&(first, last, _)| {
            let free = !seen[first] && !seen[last];
            seen[first..=last].fill(true);
            free
        });
        found.sort_by_key(|&(first, ..)| first);
        buffer.merged.clear();
        let mut word = 0;
        for (first, last, exception) in found {
            buffer.merged.extend_from_slice(&ends[word..first]);
            buffer.merged.extend(exception.ends().map(|end| begin(first) + end));
            word = last + 1;
        }
        buffer.merged.extend_from_slice(&ends[word..]);
        std::mem::swap(&mut buffer.ends, &mut buffer.merged);
    }
}

#[cfg(test)]
mod tests;
