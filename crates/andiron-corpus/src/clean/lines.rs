//! Lines as Python's `splitlines` has them.

/// The lines of a text: separated by `\n`, `\r`, `\r\n`, vertical tab, form feed, the separators `\x1c`–`\x1e`, and Unicode's
/// next line, line and paragraph separators. There is none after the last separator.
pub(super) fn split_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, next) = match find_break(rest.as_bytes()) {
            Some((at, length)) => (&rest[..at], &rest[at + length..]),
            None => (rest, ""),
        };
        rest = next;
        Some(line)
    })
}

/// Where the first separator is, and how many bytes it has.
fn find_break(text: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\r' if text.get(at + 1) == Some(&b'\n') => return Some((at, 2)),
            b'\n'..=b'\r' | 0x1c..=0x1e => return Some((at, 1)),
            0xc2 if text.get(at + 1) == Some(&0x85) => return Some((at, 2)),
            0xe2 if text.get(at + 1) == Some(&0x80) && matches!(text.get(at + 2), Some(0xa8 | 0xa9)) => {
                return Some((at, 3));
            }
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_python() {
        let lines: Vec<&str> = split_lines("a\r\nb\rc\n\nd\u{2028}e\u{85}f\x0bg\x1ch\n").collect();
        assert_eq!(lines, ["a", "b", "c", "", "d", "e", "f", "g", "h"]);
        assert_eq!(split_lines("").count(), 0);
        assert_eq!(split_lines("\n").collect::<Vec<_>>(), [""]);
    }
}
