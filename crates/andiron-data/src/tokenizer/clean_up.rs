//! Clean-up of decoded English: removes the spaces before punctuation and contractions that WordPiece leaves.

/// Replacements, applied in order: `clean_up_tokenization` of `transformers`.
const STEPS: [(&str, &str); 10] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

/// No replacement looks at more characters after a space.
const BEHIND: usize = 3;

/// The cleaned-up text.
pub(super) fn clean_up(text: &str) -> String {
    STEPS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// [`clean_up`] of a text that arrives in parts.
#[derive(Debug, Default)]
pub(super) struct CleanUp {
    /// Text that later characters may still change.
    pending: String,
}

impl CleanUp {
    /// Takes the next part; returns the text that is final.
    pub(super) fn push(&mut self, part: &str) -> String {
        self.pending.push_str(part);
        let rest = self.pending.split_off(certain(&self.pending));
        clean_up(&std::mem::replace(&mut self.pending, rest))
    }

    /// Takes the last part; returns the rest.
    pub(super) fn finish(mut self, part: &str) -> String {
        self.pending.push_str(part);
        clean_up(&self.pending)
    }
}

/// The length of the longest prefix that can be cleaned up by itself. A replaced string begins with a space, ends within
/// [`BEHIND`] characters, and contains another space only after an apostrophe.
fn certain(text: &str) -> usize {
    let mut without_space = 0;
    let mut last = None;
    let mut end = 0;
    for (at, character) in text.char_indices().chain([(text.len(), ' ')]) {
        let is_last = at == text.len();
        let is_word_end = !is_last && character == ' ' && last.is_some_and(|c| c != '\'' && c != ' ');
        if without_space >= BEHIND || is_word_end {
            end = at;
        }
        without_space = if character == ' ' { 0 } else { without_space + 1 };
        last = Some(character);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spaces_before_punctuation_go() {
        // As `transformers` 5.24.0 has it.
        assert_eq!(clean_up(" va ? do n't . it 's  ! I 've 'm"), " va? don't. it's ! I've'm");
        assert_eq!(clean_up("a ' b ' 's ,"), "a'b''s,");
    }

    #[test]
    fn what_is_certain_is_shown_at_once() {
        let mut clean_up = CleanUp::default();
        assert_eq!(["the", " cat", " ", "?"].map(|part| clean_up.push(part)), ["the", " cat", "", ""]);
        assert_eq!(clean_up.finish(""), "?");
    }

    proptest! {
        #[test]
        fn parts_give_the_text_of_the_whole(parts in prop::collection::vec("[ a.?'nst reé]{0,4}", 0..12)) {
            let mut stream = CleanUp::default();
            let mut text: String = parts.iter().map(|part| stream.push(part)).collect();
            text += &stream.finish("");
            prop_assert_eq!(text, clean_up(&parts.concat()));
        }
    }
}
