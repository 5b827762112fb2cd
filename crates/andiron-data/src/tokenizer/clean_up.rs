//! English as WordPiece and its like leave it, with the spaces before punctuation taken out.

/// What becomes what, one after the other: `clean_up_tokenization` of `transformers`.
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

/// No step looks at more characters behind a space.
const BEHIND: usize = 3;

/// The text without those spaces.
pub(super) fn clean_up(text: &str) -> String {
    STEPS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The same of a text that comes in parts: together they are [`clean_up`] of the whole.
#[derive(Debug, Default)]
pub(super) struct CleanUp {
    /// What later characters may still change.
    pending: String,
}

impl CleanUp {
    /// Takes the next part; returns what is certain.
    pub(super) fn push(&mut self, part: &str) -> String {
        self.pending.push_str(part);
        let rest = self.pending.split_off(certain(&self.pending));
        clean_up(&std::mem::replace(&mut self.pending, rest))
    }

    /// Takes the last part; returns all that is left.
    pub(super) fn finish(mut self, part: &str) -> String {
        self.pending.push_str(part);
        clean_up(&self.pending)
    }
}

/// The length of the longest beginning that can be cleaned up by itself: what a step replaces begins with a space and ends
/// within [`BEHIND`] characters, and holds another space only behind an apostrophe.
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
