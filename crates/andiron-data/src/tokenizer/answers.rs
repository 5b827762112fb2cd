//! Answers to questions: from characters of a text to tokens.

use std::ops::Range;

use super::{Framed, Tokenizer};

impl Framed {
    /// The first and last token that overlap the bytes `answer` of text number `text`, as in the `run_qa` example of
    /// `transformers`. `None` if the answer is empty, only in spaces between tokens, or not wholly in this window of the text.
    pub fn answer_span(&self, text: usize, answer: Range<usize>) -> Option<[u32; 2]> {
        let tokens = || {
            let places = self.places.iter().enumerate();
            places.filter_map(|(at, place)| {
                Some((at as u32, &place.as_ref().filter(|place| place.text == text)?.bytes))
            })
        };
        let window = tokens().next()?.1.start..tokens().next_back()?.1.end;
        if answer.is_empty() || answer.start < window.start || answer.end > window.end {
            return None;
        }
        // Several tokens of one character have the same place.
        let (first, _) = tokens().find(|(_, bytes)| bytes.end > answer.start)?;
        let (last, _) = tokens().rev().find(|(_, bytes)| bytes.start < answer.end)?;
        (first <= last).then_some([first, last])
    }
}

impl Tokenizer {
    /// The token that stands for "no answer" in a framed text: the classification token, else the beginning-of-sequence
    /// token, else the first one.
    pub fn no_answer(&self, framed: &Framed) -> u32 {
        let special = self.special_tokens();
        let roles = [&special.cls, &special.bos];
        let at = |token: &Option<String>| {
            let id = self.token_to_id(token.as_deref()?)?;
            framed.ids.iter().position(|&other| other == id)
        };
        roles.into_iter().find_map(at).unwrap_or(0) as u32
    }
}

#[cfg(test)]
mod tests {
    use crate::tokenizer::frame::tests::bert;
    use crate::tokenizer::{BpeOptions, train_bpe};

    // The spans are those of the code of the `run_qa` example of transformers 5.24.0 for this vocabulary, but for one.
    const QUESTION: &str = "the cat";
    const TEXT: &str = "The né cats sat the cat";

    /// The text of the span that stands for the bytes of `answer`, in each window.
    #[track_caller]
    fn check(limit: usize, answer: &str, expected: &[Option<&str>]) {
        let windows = bert().frame_windows(QUESTION, TEXT, limit, 1).unwrap();
        let start = TEXT.find(answer).unwrap();
        let found: Vec<Option<String>> = windows
            .iter()
            .map(|window| {
                let [first, last] = window.answer_span(1, start..start + answer.len())?;
                let place = |at: u32| window.places[at as usize].as_ref().unwrap().bytes.clone();
                Some(TEXT[place(first).start..place(last).end].to_owned())
            })
            .collect();
        assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_answer_becomes_tokens() {
        check(99, "né cats", &[Some("né cats")]);
        check(99, "at", &[Some("cat")]);
        check(99, "s sat", &[Some("s sat")]);
        check(99, "The", &[Some("The")]);
        check(99, "cat", &[Some("cat")]);
        check(99, "the cat", &[Some("the cat")]);
    }

    #[test]
    fn an_answer_outside_of_a_window_is_none() {
        check(8, "The né", &[Some("The né"), None, None]);
        // In the second window the answer begins in the last token, from which `run_qa` goes on to `[SEP]`: its answer begins
        // after its end there.
        check(8, "sat", &[None, Some("sat"), Some("sat")]);
        check(8, "cats sat", &[None, Some("cats sat"), None]);
    }

    #[test]
    fn no_answer_is_the_classification_token() {
        let tokenizer = bert();
        let framed = tokenizer.frame(QUESTION, Some(TEXT), 99).unwrap();
        assert_eq!(tokenizer.no_answer(&framed), 0);
        assert_eq!(framed.answer_span(1, 3..3), None);
        // The space before "né" is in no token.
        assert_eq!(framed.answer_span(1, 3..4), None);
        assert_eq!(framed.answer_span(0, 4..7), Some([2, 2]));
    }

    #[test]
    fn an_answer_has_all_tokens_of_its_characters() {
        let tokenizer = train_bpe(["aa bb"], &BpeOptions::new(257)).unwrap();
        let framed = tokenizer.frame("a국b", None, 99).unwrap();
        assert_eq!(framed.ids.len(), 5);
        assert_eq!(framed.answer_span(0, 1..4), Some([1, 3]));
    }
}
