//! Translation edit rate (TER): the edits that turn a prediction into a reference, by the number of words of the reference, as
//! sacreBLEU computes it.
//!
//! Values and signatures are those of sacreBLEU 2.6.0. Besides insertions, deletions and substitutions of a word, a shift of
//! several words to another place is one edit. Which shifts are made is decided greedily, by the rules of the program Tercom.

mod distance;
mod normal;
mod shift;

use std::collections::HashMap;
use std::iter::Sum;

use super::bleu::{ReferenceCount, SACREBLEU};
use super::text::words;

/// TER with its settings; the default is that of sacreBLEU.
///
/// Source: Snover et al. 2006, "A Study of Translation Edit Rate with Targeted Human Annotation",
/// <https://aclanthology.org/2006.amta-papers.25>.
///
/// # Example
/// ```
/// use andiron_eval::metric::ter::Ter;
/// let ter = Ter::default();
/// let stats = ter.stats("the cat sat down on the mat", &["down on the mat sat the cat"]);
/// assert_eq!(stats.edits, 2);
/// assert!((ter.score(&stats) - 28.57).abs() < 0.01);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ter {
    /// Whether upper and lower case differ.
    pub case_sensitive: bool,
    /// Whether texts are cut into words by Tercom's rules. Otherwise white space alone does.
    pub normalized: bool,
    /// Whether punctuation is left out.
    pub no_punctuation: bool,
    /// Whether `normalized` makes each Chinese character a word, and `no_punctuation` leaves out East Asian punctuation.
    pub asian_support: bool,
}

/// Counts of a row or of a corpus.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TerStats {
    /// Edits, for the reference that needs the fewest.
    pub edits: u64,
    /// Words of a reference: the mean over the references of each row.
    pub reference_words: f64,
}

impl Sum for TerStats {
    fn sum<I: Iterator<Item = Self>>(rows: I) -> Self {
        rows.fold(Self::default(), |sum, row| Self {
            edits: sum.edits + row.edits,
            reference_words: sum.reference_words + row.reference_words,
        })
    }
}

impl Ter {
    /// Counts of one row.
    ///
    /// # Panics
    /// If there is no reference.
    pub fn stats<S: AsRef<str>>(&self, prediction: &str, references: &[S]) -> TerStats {
        assert!(!references.is_empty(), "TER compares with a reference");
        let prediction = self.normal(prediction);
        // sacreBLEU cuts references twice: "it's," is "it's" after the first time, which the second cuts into "it" and "'s".
        let twice = |text: &S| self.normal(&words(&self.normal(text.as_ref())).collect::<Vec<_>>().join(" "));
        let references: Vec<String> = references.iter().map(twice).collect();
        let mut numbers = HashMap::new();
        let mut numbered = |text| -> Vec<u32> {
            words(text)
                .map(|word| {
                    let next = numbers.len() as u32;
                    *numbers.entry(word).or_insert(next)
                })
                .collect()
        };
        let prediction = numbered(&prediction);
        let references: Vec<Vec<u32>> = references.iter().map(|text| numbered(text)).collect();
        let edits = references.iter().map(|reference| shift::edits(&prediction, reference)).min();
        let total: usize = references.iter().map(Vec::len).sum();
        TerStats { edits: edits.unwrap_or(0), reference_words: total as f64 / references.len() as f64 }
    }

    /// The score of counts: from 0, which is best, and above 100 if there are more edits than words.
    pub fn score(&self, stats: &TerStats) -> f64 {
        if stats.reference_words > 0.0 {
            return 100.0 * (stats.edits as f64 / stats.reference_words);
        }
        if stats.edits > 0 { 100.0 } else { 0.0 }
    }

    /// sacreBLEU's signature.
    pub fn signature(&self, references: ReferenceCount) -> String {
        let yes = |fact| if fact { "yes" } else { "no" };
        format!(
            "{}|case:{}|tok:tercom|norm:{}|punct:{}|asian:{}|version:{SACREBLEU}",
            references.signature(),
            if self.case_sensitive { "mixed" } else { "lc" },
            yes(self.normalized),
            yes(!self.no_punctuation),
            yes(self.asian_support)
        )
    }

    /// A text with the words that are compared between white space.
    fn normal(&self, text: &str) -> String {
        let mut text = if self.case_sensitive { text.to_owned() } else { text.to_lowercase() };
        if self.normalized {
            text = normal::cut(text.trim_end_matches(super::text::is_space), self.asian_support);
        }
        if self.no_punctuation {
            text.retain(|c| !normal::is_punctuation(c, self.asian_support));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Predictions, with references.
    const ROWS: [(&str, &[&str]); 8] = [
        ("the cat sat down on the mat", &["down on the mat sat the cat"]),
        ("a b c", &["c a b", "a b"]),
        ("", &["a b"]),
        ("a b", &[""]),
        ("", &[""]),
        ("The Cat's hat, 1,000 kg-x (ok)", &["the cat 's hat , 1,000 kg - x ok"]),
        ("x y z a b c d e f g h i j k l", &["a b c d e f g h i j k l x y z"]),
        ("東京、 です", &["東京 です"]),
    ];

    #[track_caller]
    fn check(ter: Ter, expected: [(u64, f64); 8]) {
        for ((prediction, references), (edits, reference_words)) in ROWS.into_iter().zip(expected) {
            let stats = ter.stats(prediction, references);
            assert_eq!(stats, TerStats { edits, reference_words }, "{ter:?}, {prediction:?}");
        }
    }

    /// sacreBLEU 2.6.0's counts.
    #[test]
    fn edits_and_words_are_those_of_sacrebleu() {
        let first = [(2, 7.0), (1, 2.5), (2, 2.0), (2, 0.0), (0, 0.0)];
        let with =
            |last: [(u64, f64); 3]| -> [(u64, f64); 8] { [&first[..], &last].concat().try_into().unwrap() };
        let ter = Ter::default();
        check(ter, with([(8, 10.0), (1, 15.0), (1, 2.0)]));
        check(Ter { normalized: true, ..ter }, with([(4, 10.0), (1, 15.0), (1, 2.0)]));
        check(Ter { no_punctuation: true, ..ter }, with([(5, 9.0), (1, 15.0), (1, 2.0)]));
        let asian = Ter { normalized: true, asian_support: true, ..ter };
        check(asian, with([(4, 10.0), (1, 15.0), (1, 3.0)]));
        let all = Ter { no_punctuation: true, case_sensitive: true, ..asian };
        check(all, with([(5, 9.0), (1, 15.0), (0, 3.0)]));
    }

    /// sacreBLEU 2.6.0, which finds edits to make in a text that is compared with itself.
    #[test]
    fn references_are_cut_twice() {
        let ter = Ter { normalized: true, no_punctuation: true, ..Ter::default() };
        let stats = ter.stats("the courtier's, the king", &["the courtier's, the king"]);
        assert_eq!(stats, TerStats { edits: 2, reference_words: 5.0 });
    }

    /// sacreBLEU 2.6.0's score of the rows with one reference.
    #[test]
    fn the_score_of_a_corpus_is_that_of_its_counts() {
        let ter = Ter::default();
        let one = ROWS.into_iter().filter(|(_, references)| references.len() == 1);
        let sum: TerStats = one.map(|(prediction, references)| ter.stats(prediction, references)).sum();
        assert_eq!((ter.score(&sum), sum.edits, sum.reference_words), (44.44444444444444, 16, 36.0));
        assert_eq!(ter.score(&ter.stats("a", &[""])), 100.0);
        let signature = "nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no|version:2.6.0";
        assert_eq!(ter.signature(ReferenceCount::of([1].into_iter())), signature);
    }

    #[test]
    fn texts_of_very_different_lengths_are_compared() {
        let long = "a b c d e f g ".repeat(300);
        let ter = Ter::default();
        assert_eq!(ter.stats("g", &[&long]).edits, 2099);
        assert_eq!(ter.stats(&long, &["g"]).edits, 2099);
    }
}
