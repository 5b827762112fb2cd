//! ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum, as Google's rouge_score computes them.
//!
//! Values are those of rouge_score 0.1.2. Its tokenizer knows the letters a to z and the digits 0 to 9 only, so that **every
//! score of a text in Korean, Chinese or Japanese is 0**, and "naïve" is "na ve". A text's sentences are its lines.

mod lcs;
mod porter;

use std::ops::Range;

use super::ngrams::{Ngrams, Numbering, WORD_BITS};

/// ROUGE with its settings.
///
/// Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", <https://aclanthology.org/W04-1013>.
///
/// # Example
/// ```
/// use andiron_eval::metric::rouge::Rouge;
/// let scores = Rouge { stemmer: true }.score("a cat was sitting on the mat", &["the cats sat on the mat"]);
/// assert!((scores.rouge1.f_measure - 8.0 / 13.0).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rouge {
    /// Whether words of more than three characters are compared by their stems: Porter's, with NLTK's extensions.
    pub stemmer: bool,
}

/// Precision, recall and their harmonic mean, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RougeScore {
    /// Part of the prediction that is in the reference.
    pub precision: f64,
    /// Part of the reference that is in the prediction.
    pub recall: f64,
    /// Harmonic mean of the two; 0 where both are.
    pub f_measure: f64,
}

impl RougeScore {
    fn new(matches: u64, prediction: u64, reference: u64) -> Self {
        let part = |of: u64| matches as f64 / of.max(1) as f64;
        let (precision, recall) = (part(prediction), part(reference));
        let sum = precision + recall;
        let f_measure = if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 };
        Self { precision, recall, f_measure }
    }
}

/// The four scores of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RougeScores {
    /// By single words.
    pub rouge1: RougeScore,
    /// By pairs of words.
    pub rouge2: RougeScore,
    /// By the longest common subsequence.
    pub rouge_l: RougeScore,
    /// By the longest common subsequences of each sentence of the reference with all of the prediction. Sentences are lines.
    pub rouge_lsum: RougeScore,
}

impl RougeScores {
    /// Keeps, for each kind, the score with the higher F-measure; the older one where they are equal.
    fn keep_best(&mut self, other: &Self) {
        let better = |mine: &mut RougeScore, other: &RougeScore| {
            if other.f_measure > mine.f_measure {
                *mine = *other;
            }
        };
        better(&mut self.rouge1, &other.rouge1);
        better(&mut self.rouge2, &other.rouge2);
        better(&mut self.rouge_l, &other.rouge_l);
        better(&mut self.rouge_lsum, &other.rouge_lsum);
    }
}

impl Rouge {
    /// The scores of one row. Of several references, each kind of ROUGE takes the one with the highest F-measure.
    ///
    /// # Panics
    /// If there is no reference.
    pub fn score<S: AsRef<str>>(&self, prediction: &str, references: &[S]) -> RougeScores {
        let prediction = Words::new(prediction, self.stemmer);
        let references = references.iter().map(|text| Words::new(text.as_ref(), self.stemmer));
        let scores = references.map(|reference| compare(&prediction, &reference));
        let best = scores.reduce(|mut best, other| {
            best.keep_best(&other);
            best
        });
        best.expect("ROUGE compares with a reference")
    }
}

/// The words of a text, one after the other in one string.
struct Words {
    text: String,
    words: Vec<Range<usize>>,
    /// The words of each line that is not empty.
    lines: Vec<Range<usize>>,
}

impl Words {
    fn new(text: &str, stemmer: bool) -> Self {
        // Only here can a letter outside ASCII become one inside: the Kelvin sign becomes k.
        let lowered = if text.is_ascii() { text.to_ascii_lowercase() } else { text.to_lowercase() };
        let mut made =
            Self { text: String::with_capacity(lowered.len()), words: Vec::new(), lines: Vec::new() };
        let mut stem = Vec::new();
        for line in lowered.split('\n').filter(|line| !line.is_empty()) {
            let first = made.words.len();
            let words = line.split(|c: char| !matches!(c, 'a'..='z' | '0'..='9'));
            for word in words.filter(|word| !word.is_empty()) {
                let start = made.text.len();
                if stemmer && word.len() > 3 {
                    made.text.push_str(porter::stem(word, &mut stem));
                } else {
                    made.text.push_str(word);
                }
                made.words.push(start..made.text.len());
            }
            made.lines.push(first..made.words.len());
        }
        made
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(|word| &self.text[word.clone()])
    }
}

fn compare(prediction: &Words, reference: &Words) -> RougeScores {
    let mut numbering = Numbering::default();
    let words = numbering.number(prediction.iter());
    let expected = numbering.number(reference.iter());
    let (grams, others) = (Ngrams::new(&words, WORD_BITS, 2), Ngrams::new(&expected, WORD_BITS, 2));
    let by_grams = |n| RougeScore::new(grams.matches(&[&others], n), grams.count(n), others.count(n));
    let (n, m) = (words.len() as u64, expected.len() as u64);
    let rouge_l = RougeScore::new(lcs::length(&expected, &words), n, m);
    let one_line = |words: &Words| words.lines.iter().filter(|line| !line.is_empty()).count() <= 1;
    let rouge_lsum = match one_line(prediction) && one_line(reference) {
        true => rouge_l,
        false => RougeScore::new(union_hits(prediction, &words, reference, &expected), n, m),
    };
    RougeScores { rouge1: by_grams(1), rouge2: by_grams(2), rouge_l, rouge_lsum }
}

/// For each line of the reference, the words that are in its longest common subsequence with some line of the prediction; over
/// all lines, a word counts at most as often as it is in either text.
fn union_hits(prediction: &Words, words: &[u32], reference: &Words, expected: &[u32]) -> u64 {
    let largest = words.iter().chain(expected).max().map_or(0, |&word| word as usize);
    let count = |words: &[u32]| {
        let mut counts = vec![0u32; largest + 1];
        words.iter().for_each(|&word| counts[word as usize] += 1);
        counts
    };
    let (mut left, mut left_expected) = (count(words), count(expected));
    let mut hits = 0;
    for line in &reference.lines {
        let expected = &expected[line.clone()];
        let mut common = vec![false; expected.len()];
        for line in &prediction.lines {
            lcs::mark(expected, &words[line.clone()], &mut common);
        }
        for (&word, _) in expected.iter().zip(&common).filter(|&(_, &common)| common) {
            let (here, there) = (&mut left[word as usize], &mut left_expected[word as usize]);
            if *here > 0 && *there > 0 {
                hits += 1;
                *here -= 1;
                *there -= 1;
            }
        }
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_scripts_have_no_words() {
        let scores = Rouge::default().score("한국어 문장", &["한국어 문장"]);
        assert_eq!(scores, RougeScores::default());
        let scores = Rouge::default().score("naïve 7\u{212a}", &["na ve, 7k"]);
        assert_eq!(scores.rouge2.f_measure, 1.0);
    }

    #[test]
    fn each_kind_takes_its_own_best_reference() {
        let scores = Rouge::default().score("a b c d", &["d c b a", "a b"]);
        assert_eq!(scores.rouge1.f_measure, 1.0);
        assert_eq!(scores.rouge2.recall, 1.0);
    }

    #[test]
    #[should_panic(expected = "ROUGE compares with a reference")]
    fn a_row_without_a_reference_is_the_callers_mistake() {
        Rouge::default().score("a", &[] as &[&str]);
    }
}
