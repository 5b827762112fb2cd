//! Words that are given one by one, each with a label: which tokens belong to which word.

use super::{Framed, Tokenizer, TokenizerError};

/// Words framed as one text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FramedWords {
    /// The tokens. Places are byte ranges of the words joined by spaces.
    pub framed: Framed,
    /// The index of the word that each token is part of; `None` for special tokens.
    pub words: Vec<Option<usize>>,
}

/// Which tokens of a word are labelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelledTokens {
    /// The first of each word.
    #[default]
    First,
    /// All.
    All,
}

impl Tokenizer {
    /// Encodes words as one text, joined by spaces, like [`frame`](Self::frame).
    ///
    /// A word that the tokenizer drops, such as one of control characters only, has no token.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub fn frame_words<S: AsRef<str>>(
        &self,
        words: &[S],
        limit: usize,
    ) -> Result<FramedWords, TokenizerError> {
        let mut text = String::new();
        let mut ends = Vec::with_capacity(words.len());
        for word in words {
            if !ends.is_empty() {
                text.push(' ');
            }
            text.push_str(word.as_ref());
            ends.push(text.len());
        }
        let framed = self.frame(&text, None, limit)?;
        // A token may begin with the space before its word, or consist of it, so that its end tells the word.
        let word_at =
            |end: usize| Some(ends.partition_point(|&word| word < end)).filter(|&word| word < ends.len());
        let words = framed.places.iter().map(|place| word_at(place.as_ref()?.bytes.end)).collect();
        Ok(FramedWords { framed, words })
    }
}

impl FramedWords {
    /// A label and a weight for each token, from the labels of the words. Tokens that are not labelled have label 0 and
    /// weight 0.
    ///
    /// # Panics
    /// If a word has no label.
    pub fn labels(&self, of_words: &[u32], tokens: LabelledTokens) -> (Vec<u32>, Vec<f32>) {
        let mut before = None;
        let of_token = |&word: &Option<usize>| {
            let is_first = word != before;
            before = word;
            match word {
                Some(word) if is_first || tokens == LabelledTokens::All => (of_words[word], 1.0),
                _ => (0, 0.0),
            }
        };
        self.words.iter().map(of_token).unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::frame::tests::bert;
    use crate::tokenizer::{BpeOptions, train_bpe};

    // `word_ids` and labels as `is_split_into_words` of transformers 5.24.0 and its `run_ner` example give them for this
    // vocabulary.
    #[test]
    fn the_first_token_of_a_word_is_labelled() {
        let words = ["The", "cats", "sat[", "cat"];
        let framed = bert().frame_words(&words, 99).unwrap();
        assert_eq!(framed.framed.ids, [2, 5, 6, 7, 8, 10, 6, 3]);
        assert_eq!(framed.words, [None, Some(0), Some(1), Some(1), Some(2), Some(2), Some(3), None]);
        let labels = [1, 2, 3, 4];
        let (classes, weights) = framed.labels(&labels, LabelledTokens::First);
        assert_eq!(classes, [0, 1, 2, 0, 3, 0, 4, 0]);
        assert_eq!(weights, [0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
        let (classes, weights) = framed.labels(&labels, LabelledTokens::All);
        assert_eq!(classes, [0, 1, 2, 2, 3, 3, 4, 0]);
        assert_eq!(weights, [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
        let cut = bert().frame_words(&words, 5).unwrap();
        assert_eq!((cut.framed.truncated, cut.words), (true, vec![None, Some(0), Some(1), Some(1), None]));
    }

    #[test]
    fn a_space_belongs_to_the_word_after_it() {
        let tokenizer = train_bpe(["aa bb"], &BpeOptions::new(257)).unwrap();
        let words = tokenizer.frame_words(&["ab", "", "né"], 99).unwrap().words;
        let expected = [0, 0, 1, 2, 2, 2, 2].map(Some);
        assert_eq!(words, expected);
        assert_eq!(tokenizer.frame_words::<&str>(&[], 99).unwrap(), FramedWords::default());
    }
}
