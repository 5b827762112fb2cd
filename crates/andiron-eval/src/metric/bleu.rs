//! BLEU, as sacreBLEU computes it.
//!
//! Values, tokenizers, smoothing and signatures are those of sacreBLEU 2.6.0. A row becomes counts, counts of rows add up to
//! those of the corpus, and the score is a function of them.

mod tokenizer;

use std::iter::Sum;
use std::ops::AddAssign;

pub use tokenizer::{BleuTokenizer, TokenizerNameError};

use super::ngrams::{Ngrams, Numbering, WORD_BITS};
use super::text::{is_space, words};

/// The longest n-grams that BLEU counts.
pub const BLEU_ORDER: usize = 4;

/// The version of sacreBLEU whose results these are, for signatures.
pub(super) const SACREBLEU: &str = "2.6.0";

/// BLEU with its settings; the default is that of sacreBLEU.
///
/// Source: Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation",
/// <https://aclanthology.org/P02-1040>; Post 2018, "A Call for Clarity in Reporting BLEU Scores",
/// <https://aclanthology.org/W18-6319>.
///
/// # Example
/// ```
/// use andiron_eval::metric::bleu::{Bleu, ReferenceCount};
/// let bleu = Bleu::default();
/// let rows = [("The dog bit the man.", ["The dog bit the man."]), ("It was a cat!", ["It was not a cat."])];
/// let corpus = rows.iter().map(|(prediction, references)| bleu.stats(prediction, references)).sum();
/// assert!((bleu.score(&corpus).score - 64.07).abs() < 0.01);
/// assert_eq!(
///     bleu.signature(ReferenceCount::Each(1)),
///     "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
/// );
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bleu {
    /// How texts are cut into words.
    pub tokenizer: BleuTokenizer,
    /// Whether upper and lower case are equal.
    pub lowercase: bool,
    /// What takes the place of a precision of 0.
    pub smoothing: Smoothing,
    /// Whether orders without any n-gram in the prediction are left out. For scores of single sentences.
    pub effective_order: bool,
}

/// What takes the place of an n-gram precision of 0, which would make the score 0.
///
/// Source: Chen and Cherry 2014, "A Systematic Comparison of Smoothing Techniques for Sentence-Level BLEU",
/// <https://aclanthology.org/W14-3346>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Smoothing {
    /// Nothing.
    None,
    /// A count of matches above 0, usually 0.1.
    Floor(f64),
    /// This is added to the counts of every order but the first; usually 1.
    AddK(f64),
    /// A half, a fourth, an eighth and so on of a match, for the first such order, the second and so on.
    #[default]
    Exp,
}

/// Counts of a row or of a corpus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BleuStats {
    /// Words in the prediction.
    pub prediction_words: u64,
    /// Words in the reference whose length is closest.
    pub reference_words: u64,
    /// n-grams of the prediction that are in a reference, for n from 1.
    pub matches: [u64; BLEU_ORDER],
    /// n-grams of the prediction, for n from 1.
    pub totals: [u64; BLEU_ORDER],
}

impl AddAssign for BleuStats {
    fn add_assign(&mut self, other: Self) {
        self.prediction_words += other.prediction_words;
        self.reference_words += other.reference_words;
        for n in 0..BLEU_ORDER {
            self.matches[n] += other.matches[n];
            self.totals[n] += other.totals[n];
        }
    }
}

impl Sum for BleuStats {
    fn sum<I: Iterator<Item = Self>>(rows: I) -> Self {
        let mut sum = Self::default();
        rows.for_each(|row| sum += row);
        sum
    }
}

/// A score and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BleuScore {
    /// BLEU, from 0 to 100.
    pub score: f64,
    /// Smoothed precisions of the orders from 1, from 0 to 100.
    pub precisions: [f64; BLEU_ORDER],
    /// Factor that lowers the score of predictions shorter than their references.
    pub brevity_penalty: f64,
}

/// How many references the rows of a corpus have, for signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceCount {
    /// As many for each.
    Each(usize),
    /// Not as many for each.
    Varied,
}

impl ReferenceCount {
    /// Joins the counts of rows.
    pub fn of(counts: impl IntoIterator<Item = usize>) -> Self {
        let mut counts = counts.into_iter();
        let first = counts.next().unwrap_or(0);
        match counts.all(|count| count == first) {
            true => Self::Each(first),
            false => Self::Varied,
        }
    }

    /// `nrefs` of a signature.
    pub(super) fn signature(self) -> String {
        match self {
            Self::Each(count) => format!("nrefs:{count}"),
            Self::Varied => "nrefs:var".to_owned(),
        }
    }
}

impl Bleu {
    /// Counts of one row. With several references an n-gram counts as often as in the reference that has it most often.
    ///
    /// # Panics
    /// If there is no reference.
    pub fn stats<S: AsRef<str>>(&self, prediction: &str, references: &[S]) -> BleuStats {
        assert!(!references.is_empty(), "BLEU compares with a reference");
        let prediction = self.tokenize(prediction);
        let references: Vec<String> = references.iter().map(|text| self.tokenize(text.as_ref())).collect();
        let mut numbering = Numbering::default();
        let mut grams = |text| Ngrams::new(&numbering.number(words(text)), WORD_BITS, BLEU_ORDER);
        let prediction = grams(&prediction);
        let references: Vec<Ngrams> = references.iter().map(|text| grams(text)).collect();
        let references: Vec<&Ngrams> = references.iter().collect();
        let prediction_words = prediction.count(1);
        let lengths = references.iter().map(|reference| reference.count(1));
        // The shorter one of two that are equally close.
        let closest = lengths.min_by_key(|&length| (length.abs_diff(prediction_words), length));
        BleuStats {
            prediction_words,
            reference_words: closest.unwrap_or(0),
            matches: std::array::from_fn(|n| prediction.matches(&references, n + 1)),
            totals: std::array::from_fn(|n| prediction.count(n + 1)),
        }
    }

    /// The score of counts.
    pub fn score(&self, stats: &BleuStats) -> BleuScore {
        let (length, reference) = (stats.prediction_words as f64, stats.reference_words as f64);
        let brevity_penalty = match stats.prediction_words {
            0 if stats.reference_words > 0 => 0.0,
            _ if length < reference => (1.0 - reference / length).exp(),
            _ => 1.0,
        };
        let mut precisions = [0.0; BLEU_ORDER];
        if stats.matches == [0; BLEU_ORDER] {
            return BleuScore { score: 0.0, precisions, brevity_penalty };
        }
        let mut halved = 1.0;
        let mut order = BLEU_ORDER;
        for (n, precision) in precisions.iter_mut().enumerate() {
            let (mut matches, mut total) = (stats.matches[n] as f64, stats.totals[n] as f64);
            if let Smoothing::AddK(k) = self.smoothing
                && n > 0
            {
                matches += k;
                total += k;
            }
            if total == 0.0 {
                break;
            }
            if self.effective_order {
                order = n + 1;
            }
            *precision = match self.smoothing {
                _ if matches != 0.0 => 100.0 * matches / total,
                Smoothing::Exp => {
                    halved *= 2.0;
                    100.0 / (halved * total)
                }
                Smoothing::Floor(floor) => 100.0 * floor / total,
                Smoothing::None | Smoothing::AddK(_) => 0.0,
            };
        }
        // The finite number that sacreBLEU takes for the logarithm of 0; the score comes out as 0.
        let log = |precision: f64| if precision == 0.0 { -9_999_999_999.0 } else { precision.ln() };
        let logs: f64 = precisions[..order].iter().map(|&precision| log(precision)).sum();
        BleuScore { score: brevity_penalty * (logs / order as f64).exp(), precisions, brevity_penalty }
    }

    /// sacreBLEU's signature: every setting that changes the score, so that others can compute the same.
    pub fn signature(&self, references: ReferenceCount) -> String {
        let smooth = match self.smoothing {
            Smoothing::None => "none".to_owned(),
            Smoothing::Floor(value) => format!("floor[{value:.2}]"),
            Smoothing::AddK(value) => format!("add-k[{value:.2}]"),
            Smoothing::Exp => "exp".to_owned(),
        };
        let case = if self.lowercase { "lc" } else { "mixed" };
        let effective = if self.effective_order { "yes" } else { "no" };
        let (nrefs, tokenizer) = (references.signature(), self.tokenizer);
        format!("{nrefs}|case:{case}|eff:{effective}|tok:{tokenizer}|smooth:{smooth}|version:{SACREBLEU}")
    }

    fn tokenize(&self, text: &str) -> String {
        let lowered;
        let text = match self.lowercase {
            true => {
                lowered = text.to_lowercase();
                &lowered
            }
            false => text,
        };
        self.tokenizer.tokenize(text.trim_end_matches(is_space))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_of_two_equally_close_references_sets_the_length() {
        let stats = Bleu::default().stats("a b c", &["a b c d", "a b"]);
        assert_eq!((stats.prediction_words, stats.reference_words), (3, 2));
    }

    #[test]
    fn references_are_counted_for_the_signature() {
        assert_eq!(ReferenceCount::of([2, 2]), ReferenceCount::Each(2));
        assert_eq!(ReferenceCount::of([2, 1]).signature(), "nrefs:var");
        let settings = Bleu {
            smoothing: Smoothing::Floor(0.1),
            lowercase: true,
            effective_order: true,
            ..Bleu::default()
        };
        assert_eq!(
            settings.signature(ReferenceCount::Each(2)),
            "nrefs:2|case:lc|eff:yes|tok:13a|smooth:floor[0.10]|version:2.6.0"
        );
    }

    #[test]
    #[should_panic(expected = "BLEU compares with a reference")]
    fn a_row_without_a_reference_is_the_callers_mistake() {
        Bleu::default().stats("a", &[] as &[&str]);
    }
}
