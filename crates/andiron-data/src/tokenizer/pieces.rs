//! Splitting of long texts into pieces that can be encoded independently.

/// Pieces of about `size` bytes, cut only at a newline between two characters that are not white space. A text without such
/// a newline stays whole.
pub(super) fn pieces_at_lines(text: &str, size: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = rest.as_bytes().iter().enumerate().skip(size).find_map(|(at, &byte)| {
            let is_cut = byte == b'\n'
                && rest[..at].chars().next_back().is_some_and(|c| !c.is_whitespace())
                && rest[at + 1..].chars().next().is_some_and(|c| !c.is_whitespace());
            is_cut.then_some(at + 1)
        });
        let (piece, after) = rest.split_at(cut.unwrap_or(rest.len()));
        rest = after;
        Some(piece)
    })
}
