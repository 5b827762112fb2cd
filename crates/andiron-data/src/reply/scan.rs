//! Finding marks in a text that grows.

/// Where the first of `marks` begins, and which it is.
pub(super) fn find_first<'m>(text: &str, marks: &[&'m str]) -> Option<(usize, &'m str)> {
    let found = marks.iter().filter_map(|mark| text.find(mark).map(|at| (at, *mark)));
    found.min_by_key(|(at, _)| *at)
}

/// How much of `text` certainly precedes any of `marks`, however it goes on: its end may be the beginning of one.
pub(super) fn certain(text: &str, marks: &[&str]) -> usize {
    let longest = marks.iter().map(|mark| mark.len()).max().unwrap_or(0);
    let from = text.len().saturating_sub(longest.saturating_sub(1));
    let starts = (from..text.len()).filter(|&at| text.is_char_boundary(at));
    let mut begins = starts.filter(|&at| marks.iter().any(|mark| mark.starts_with(&text[at..])));
    begins.next().unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_mark_is_uncertain() {
        assert_eq!(certain("abc", &["<t>"]), 3);
        assert_eq!(certain("ab<", &["<t>"]), 2);
        assert_eq!(certain("ab<t", &["<t>", "bb"]), 2);
        assert_eq!(certain("aé", &["é<"]), 1);
        assert_eq!(certain("", &["<t>"]), 0);
        assert_eq!(find_first("a<t>b[", &["[", "<t>"]), Some((1, "<t>")));
    }
}
