//! Counts of the words of a text, in bounded memory.

use std::collections::HashMap;

use rayon::prelude::*;

use super::TrainError;
use crate::tokenizer::{PIECE_BYTES, pieces_at_lines};

/// The most different words that are counted: about 400 MB.
const MAX_WORDS: usize = 4_000_000;
/// The text that is held at a time, in bytes.
const BATCH_BYTES: usize = 8 << 20;

/// How often each word occurs.
///
/// There are at most [`MAX_WORDS`] different words. When there are more, those that have occurred least are forgotten, until
/// half as many are left: a word that occurs once in gigabytes makes no token. Which ones does not depend on the number of
/// threads.
pub(super) struct WordCounts {
    counts: HashMap<Box<str>, u64>,
    most: usize,
    any_text: bool,
}

impl WordCounts {
    /// Counts the words of all texts. `split` calls its argument with each word of a piece of text, which ends where a line
    /// does if its text is long.
    pub(super) fn of<I, S>(texts: I, cuts: Cuts, split: impl Split) -> Result<Self, TrainError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        Self::of_at_most(MAX_WORDS, (texts, cuts), split)
    }

    fn of_at_most<I, S>(most: usize, (texts, cuts): (I, Cuts), split: impl Split) -> Result<Self, TrainError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut words = Self { counts: HashMap::new(), most, any_text: false };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for text in texts {
            let mut left = text.as_ref().len();
            words.any_text |= left > 0;
            for piece in pieces_at_lines(text.as_ref(), PIECE_BYTES) {
                left -= piece.len();
                let piece = match cuts {
                    Cuts::BetweenWords if left > 0 => piece.strip_suffix('\n').unwrap_or(piece),
                    _ => piece,
                };
                bytes += piece.len();
                batch.push(piece.to_owned());
                if bytes >= BATCH_BYTES {
                    words.count(&batch, &split)?;
                    batch.clear();
                    bytes = 0;
                }
            }
        }
        words.count(&batch, &split)?;
        Ok(words)
    }

    /// Whether there was any text.
    pub(super) fn any_text(&self) -> bool {
        self.any_text
    }

    /// The words and their counts, in the order of the words.
    pub(super) fn sorted(self) -> Vec<(Box<str>, u64)> {
        let mut words: Vec<_> = self.counts.into_iter().collect();
        words.par_sort_unstable();
        words
    }

    fn count(&mut self, batch: &[String], split: &impl Split) -> Result<(), TrainError> {
        let parts: Result<Vec<HashMap<Box<str>, u64>>, TrainError> = batch
            .par_iter()
            .fold(
                || Ok(HashMap::new()),
                |counts, piece| {
                    let mut counts = counts?;
                    split.words(piece, &mut |word| add(&mut counts, word, 1))?;
                    Ok(counts)
                },
            )
            .collect();
        for (word, count) in parts?.into_iter().flatten() {
            *self.counts.entry(word).or_default() += count;
        }
        if self.counts.len() > self.most {
            let mut rarest = 0;
            while self.counts.len() > self.most / 2 {
                rarest += 1;
                self.counts.retain(|_, count| *count > rarest);
            }
        }
        Ok(())
    }
}

/// What becomes of a line break at which a long text is cut.
#[derive(Clone, Copy)]
pub(super) enum Cuts {
    /// It is text.
    Text,
    /// It is between two words, as a space is.
    BetweenWords,
}

/// What splits a piece of text into words.
pub(super) trait Split: Sync {
    fn words(&self, piece: &str, each: &mut dyn FnMut(&str)) -> Result<(), TrainError>;
}

impl<F: Fn(&str, &mut dyn FnMut(&str)) -> Result<(), TrainError> + Sync> Split for F {
    fn words(&self, piece: &str, each: &mut dyn FnMut(&str)) -> Result<(), TrainError> {
        self(piece, each)
    }
}

fn add(counts: &mut HashMap<Box<str>, u64>, word: &str, n: u64) {
    match counts.get_mut(word) {
        Some(count) => *count += n,
        None => drop(counts.insert(word.into(), n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_space(piece: &str, each: &mut dyn FnMut(&str)) -> Result<(), TrainError> {
        piece.split_ascii_whitespace().for_each(each);
        Ok(())
    }

    #[test]
    fn words_are_counted() {
        let counts = WordCounts::of(["b a b", "", "c b"], Cuts::Text, by_space).unwrap();
        assert!(counts.any_text());
        assert_eq!(counts.sorted(), [("a".into(), 1), ("b".into(), 3), ("c".into(), 1)]);
        assert!(!WordCounts::of([""], Cuts::Text, by_space).unwrap().any_text());
    }

    #[test]
    fn a_line_break_is_part_of_a_piece_unless_the_text_goes_on_behind_it() {
        let whole = |piece: &str, each: &mut dyn FnMut(&str)| {
            each(&piece[piece.trim_end().len()..]);
            Ok(())
        };
        let text = "a".repeat(PIECE_BYTES) + "\nb\n";
        let ends = |cuts| WordCounts::of([&text], cuts, whole).unwrap().sorted();
        assert_eq!(ends(Cuts::Text), [("\n".into(), 2)]);
        assert_eq!(ends(Cuts::BetweenWords), [("".into(), 1), ("\n".into(), 1)]);
    }

    #[test]
    fn rare_words_are_forgotten() {
        let text = "a a a b b c d e";
        assert_eq!(WordCounts::of_at_most(5, ([text], Cuts::Text), by_space).unwrap().sorted().len(), 5);
        let kept = WordCounts::of_at_most(4, ([text], Cuts::Text), by_space).unwrap().sorted();
        assert_eq!(kept, [("a".into(), 3), ("b".into(), 2)]);
        let kept = WordCounts::of_at_most(2, ([text], Cuts::Text), by_space).unwrap().sorted();
        assert_eq!(kept, [("a".into(), 3)]);
    }
}
