//! Mojibake: UTF-8 that was read as another encoding, such as `schÃ¶n` for `schön`.

mod encodings;
mod signs;

use std::borrow::Cow;

use andiron_data::Document;
use serde::{Deserialize, Serialize};

use super::{Filter, Verdict};
use encodings::{ENCODINGS, Encoding};
use signs::is_bad;

/// Repairs text whose UTF-8 was decoded as Latin-1, Windows-1252, Windows-1251 or Windows-1250, once or several times, line by
/// line.
///
/// A line is looked at if it has pairs of characters that hardly occur but by such a mistake. If it can be encoded in one of the
/// encodings and decoded as UTF-8, it is; else its parts that look like UTF-8 are. What is left of C1 control characters becomes
/// what Windows-1252 has in their place. Text without such signs is not changed, but for control characters.
///
/// Source: Speer 2019, "ftfy", <https://doi.org/10.5281/zenodo.2591652>, and ftfy 6.3.1, of whose rules these are the larger
/// part. Not here: the encodings Windows-1253, 1254, 1257, ISO 8859-2, MacRoman and code page 437; CESU-8; and HTML entities,
/// which the HTML filter decodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MojibakeRepair {
    /// Whether ASCII control characters but for white space, escape sequences of terminals, byte order marks and other characters
    /// without a meaning in text are removed.
    pub remove_controls: bool,
}

impl Default for MojibakeRepair {
    fn default() -> Self {
        Self { remove_controls: true }
    }
}

impl Filter for MojibakeRepair {
    fn apply(&self, document: &mut Document) -> Verdict {
        let needs_control =
            self.remove_controls && document.text.chars().any(|c| c == '\u{1b}' || is_control(c));
        if document.text.is_ascii() && !needs_control {
            return Verdict::Keep;
        }
        let mut text = String::new();
        let mut changed = false;
        for line in segments(&document.text) {
            let fixed = fix_segment(line, self.remove_controls);
            changed |= matches!(fixed, Cow::Owned(_));
            text.push_str(&fixed);
        }
        if changed {
            document.text = text;
        }
        Verdict::Keep
    }
}

/// Bytes of a segment, at most: a longer line is cut.
const SEGMENT: usize = 1 << 20;
/// How often a text is repaired again: each time it gets shorter.
const ROUNDS: usize = 16;

/// Lines with their ends.
fn segments(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').flat_map(|line| {
        let mut rest = line;
        std::iter::from_fn(move || {
            let (first, others) = rest.split_at(rest.floor_char_boundary(SEGMENT.min(rest.len())));
            rest = others;
            (!first.is_empty()).then_some(first)
        })
    })
}

fn fix_segment(text: &str, remove_controls: bool) -> Cow<'_, str> {
    let mut fixed = Cow::Borrowed(text);
    for _ in 0..ROUNDS {
        let mut changed = false;
        if let Some(better) = fix_encoding(&fixed, 0) {
            fixed = Cow::Owned(better);
            changed = true;
        }
        if fixed.contains(is_c1) {
            fixed = Cow::Owned(fixed.chars().map(without_c1).collect());
            changed = true;
        }
        if remove_controls && fixed.contains(is_control) {
            let without = remove_escapes(&fixed).chars().filter(|&c| !is_control(c)).collect();
            fixed = Cow::Owned(without);
            changed = true;
        }
        if !changed {
            break;
        }
    }
    fixed
}

/// The text with its encoding repaired as often as it helps; `None` if nothing is to be done.
fn fix_encoding(text: &str, depth: usize) -> Option<String> {
    let mut fixed: Option<String> = None;
    for _ in 0..ROUNDS {
        match fix_once(fixed.as_deref().unwrap_or(text), depth) {
            Some(better) => fixed = Some(better),
            None => break,
        }
    }
    fixed
}

fn fix_once(text: &str, depth: usize) -> Option<String> {
    if text.is_ascii() || !is_bad(text) {
        return None;
    }
    for encoding in &*ENCODINGS {
        let Some(bytes) = encoding.encode(text) else { continue };
        let bytes = restore_no_break_spaces(bytes);
        let bytes = if encoding.is_lossy() { replace_lost_bytes(bytes) } else { bytes };
        if let Ok(decoded) = String::from_utf8(bytes) {
            return (decoded != text).then_some(decoded);
        }
    }
    if depth < 2
        && let Some(better) = fix_parts(text, depth)
    {
        return Some(better);
    }
    text.contains(is_c1).then(|| text.chars().map(without_c1).collect())
}

/// Repairs the parts that look like UTF-8 sequences.
fn fix_parts(text: &str, depth: usize) -> Option<String> {
    let mut fixed = String::new();
    let mut from = 0;
    let mut at = 0;
    let mut after_continuation = false;
    while let Some(character) = text[at..].chars().next() {
        let length = if after_continuation { 0 } else { signs::sequences(&text[at..]) };
        if length == 0 {
            after_continuation =
                signs::is_continuation(character) && character != ' ' && !signs::is_common(character);
            at += character.len_utf8();
            continue;
        }
        let part = &text[at..at + length];
        if part.len() < text.len()
            && is_bad(part)
            && let Some(better) = fix_encoding(part, depth + 1)
        {
            fixed.push_str(&text[from..at]);
            fixed.push_str(&better);
            from = at + length;
        }
        at += length;
        after_continuation = true;
    }
    (from > 0).then(|| {
        fixed.push_str(&text[from..]);
        fixed
    })
}

fn is_c1(character: char) -> bool {
    ('\u{80}'..='\u{9f}').contains(&character)
}

/// What Windows-1252 has for a C1 control character.
fn without_c1(character: char) -> char {
    if is_c1(character) { Encoding::windows_1252(character) } else { character }
}

fn is_control(character: char) -> bool {
    matches!(character, '\0'..='\x08' | '\x0b' | '\x0e'..='\x1f' | '\x7f' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}

/// The text without `ESC [`, numbers, letter.
fn remove_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        let after = rest[at + 2..].trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        if after.starts_with(|c: char| c.is_ascii_alphabetic()) {
            kept.push_str(&rest[..at]);
            rest = &after[1..];
        } else {
            let end = rest.len() - after.len();
            kept.push_str(&rest[..end]);
            rest = after;
        }
    }
    kept + rest
}

/// Puts back `A0` bytes, no-break spaces, that became spaces within what would be UTF-8: `Ã ` was `à`.
fn restore_no_break_spaces(mut bytes: Vec<u8>) -> Vec<u8> {
    let follows = |byte: Option<&u8>| {
        byte.is_some_and(|&byte| (0x80..=0xbf).contains(&byte) && byte != 0x85 && byte != 0xa0)
    };
    let any = |byte: Option<&u8>| byte.is_some_and(|&byte| (0x80..=0xbf).contains(&byte));
    let space = |byte: Option<&u8>| byte == Some(&b' ');
    let mut at = 0;
    let mut inserted = Vec::new();
    while at < bytes.len() {
        let next = |offset: usize| bytes.get(at + offset);
        match bytes[at] {
            // `à` is mostly a word of its own, so that its space stays.
            0xc3 if space(next(1)) => {
                let word = &bytes[at + 2..];
                let portuguese =
                    [&b"quele"[..], b"quela", b"quilo", b"s "].iter().any(|end| word.starts_with(end));
                if !space(word.first()) && !portuguese {
                    inserted.push(at + 1);
                } else {
                    bytes[at + 1] = 0xa0;
                }
                at += 2;
            }
            0xc2 | 0xc5 | 0xce | 0xd0 | 0xd9 if space(next(1)) => {
                bytes[at + 1] = 0xa0;
                at += 2;
            }
            0xe2 | 0xe3 if space(next(1)) && follows(next(2)) => {
                bytes[at + 1] = 0xa0;
                at += 3;
            }
            0xe0..=0xe3 if follows(next(1)) && space(next(2)) => {
                bytes[at + 2] = 0xa0;
                at += 3;
            }
            0xf0 if space(next(1)) && any(next(2)) && any(next(3)) => {
                bytes[at + 1] = 0xa0;
                at += 4;
            }
            0xf0 if any(next(1)) && space(next(2)) && any(next(3)) => {
                bytes[at + 2] = 0xa0;
                at += 4;
            }
            0xf0 if any(next(1)) && any(next(2)) && space(next(3)) => {
                bytes[at + 3] = 0xa0;
                at += 4;
            }
            _ => at += 1,
        }
    }
    if inserted.is_empty() {
        return bytes;
    }
    let mut longer = Vec::with_capacity(bytes.len() + inserted.len());
    let mut from = 0;
    for at in inserted {
        longer.extend_from_slice(&bytes[from..at]);
        longer.push(0xa0);
        from = at;
    }
    longer.extend_from_slice(&bytes[from..]);
    longer
}

/// Makes one `�` of each sequence in which a byte was lost: replaced by `1A`, or `?` after some first bytes.
fn replace_lost_bytes(bytes: Vec<u8>) -> Vec<u8> {
    if !bytes.contains(&0x1a) && !bytes.contains(&b'?') {
        return bytes;
    }
    let mut kept = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let length = lost_sequence(&bytes[at..]);
        if length > 0 {
            kept.extend_from_slice("\u{fffd}".as_bytes());
            at += length;
        } else {
            kept.push(bytes[at]);
            at += 1;
        }
    }
    kept
}

fn lost_sequence(bytes: &[u8]) -> usize {
    let length = match bytes[0] {
        0x1a => return 1,
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return 0,
    };
    let Some(rest) = bytes.get(1..length) else { return 0 };
    let lost = |byte: &&u8| **byte == 0x1a;
    let question = rest.iter().filter(|byte| **byte == b'?').count();
    let valid = rest.iter().all(|&byte| byte == 0x1a || byte == b'?' || (0x80..=0xbf).contains(&byte));
    let some = rest.iter().any(|byte| lost(&byte)) || question == 1;
    let allowed = question == 0 || question == 1 && (length > 2 || bytes[0] <= 0xc3);
    if valid && some && allowed { length } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut document = Document::new("a", text);
        assert_eq!(MojibakeRepair::default().apply(&mut document), Verdict::Keep);
        assert_eq!(document.text, expected);
    }

    // Each seen in ftfy 6.3.1.
    #[test]
    fn mojibake_is_repaired() {
        check("schÃ¶n", "schön");
        check("â€œquotedâ€\u{9d} and itâ€™s", "“quoted” and it’s");
        check("voilÃ le travail", "voilà le travail");
        check("FranÃƒÂ§ois", "François");
        check("РїСЂРёРІРµС‚, РјРёСЂ", "привет, мир");
        check("í•œêµ\u{ad}ì–´ëŠ” ì–´ë\u{a0}µë‹¤", "한국어는 어렵다");
        check("already é and then schÃ¶n”", "already é and then schön”");
        check("caf\u{e9} \u{93}quoted\u{94}", "café “quoted”");
        check("\u{feff}a\x1b[31mred\x1b[0m\x07", "ared");
    }

    #[test]
    fn good_text_stays() {
        for text in [
            "Ein schöner Tag – „genau“ so.",
            "ÀÉÎ Ç’EST BON…",
            "한국어 © 2020",
            "МОСКВА… «ДА»",
            "5 × 3² = ½",
            "A ¡B! ¿C? £5",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn a_long_line_is_cut() {
        let text = "Ã¶".repeat(1 << 20);
        check(&text, &"ö".repeat(1 << 20));
    }
}
