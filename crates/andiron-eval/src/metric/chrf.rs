//! chrF and chrF++: F-scores of character n-grams, as sacreBLEU computes them.
//!
//! Values and signatures are those of sacreBLEU 2.6.0. White space does not count, unless asked for.

use std::iter::Sum;
use std::ops::AddAssign;

use super::bleu::{ReferenceCount, SACREBLEU};
use super::ngrams::{CHAR_BITS, Ngrams, Numbering, WORD_BITS};
use super::text::{is_space, words};

/// The longest character n-grams that [`Chrf`] can count.
pub const MAX_CHAR_ORDER: usize = 6;
/// The longest word n-grams that [`Chrf`] can count.
pub const MAX_WORD_ORDER: usize = 4;

/// chrF with its settings; the default is that of sacreBLEU, chrF2.
///
/// Source: Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation", <https://aclanthology.org/W15-3049>;
/// Popović 2017, "chrF++: words helping character n-grams", <https://aclanthology.org/W17-4770>.
///
/// # Example
/// ```
/// use andiron_eval::metric::chrf::Chrf;
/// let chrf = Chrf::plus_plus();
/// let stats = chrf.stats("the cat sat", &["the cat sat down"]);
/// assert!((chrf.score(&stats) - 68.36).abs() < 0.01);
/// assert_eq!(chrf.name(), "chrF2++");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chrf {
    /// Length of the longest character n-grams, from 1 to [`MAX_CHAR_ORDER`].
    pub char_order: usize,
    /// Length of the longest word n-grams, up to [`MAX_WORD_ORDER`]; 0 for chrF, 2 for chrF++.
    pub word_order: usize,
    /// How much more recall weighs than precision.
    pub beta: u32,
    /// Whether upper and lower case are equal.
    pub lowercase: bool,
    /// Whether white space counts as characters.
    pub whitespace: bool,
    /// Whether the F-scores of all orders are averaged, as in Moses and NLTK. Otherwise precisions and recalls are averaged
    /// over the orders that both texts have.
    pub eps_smoothing: bool,
}

impl Default for Chrf {
    fn default() -> Self {
        Self {
            char_order: 6,
            word_order: 0,
            beta: 2,
            lowercase: false,
            whitespace: false,
            eps_smoothing: false,
        }
    }
}

/// n-grams of one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderCounts {
    /// Those of the prediction; 0 if the reference has none of this order.
    pub prediction: u64,
    /// Those of the reference.
    pub reference: u64,
    /// Those of the prediction that are in the reference.
    pub matches: u64,
}

/// Counts of a row or of a corpus: those of characters from order 1, then those of words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChrfStats {
    orders: [OrderCounts; MAX_CHAR_ORDER + MAX_WORD_ORDER],
}

impl AddAssign for ChrfStats {
    fn add_assign(&mut self, other: Self) {
        for (sum, order) in self.orders.iter_mut().zip(other.orders) {
            sum.prediction += order.prediction;
            sum.reference += order.reference;
            sum.matches += order.matches;
        }
    }
}

impl Sum for ChrfStats {
    fn sum<I: Iterator<Item = Self>>(rows: I) -> Self {
        let mut sum = Self::default();
        rows.for_each(|row| sum += row);
        sum
    }
}

impl Chrf {
    /// chrF++: words and pairs of words count too.
    pub fn plus_plus() -> Self {
        Self { word_order: 2, ..Self::default() }
    }

    /// sacreBLEU's name of the metric with these settings.
    pub fn name(&self) -> String {
        format!("chrF{}{}", self.beta, "+".repeat(self.word_order))
    }

    /// Counts of one row, for the reference with the best score.
    ///
    /// # Panics
    /// If there is no reference, or an order is out of range.
    pub fn stats<S: AsRef<str>>(&self, prediction: &str, references: &[S]) -> ChrfStats {
        assert!(!references.is_empty(), "chrF compares with a reference");
        assert!((1..=MAX_CHAR_ORDER).contains(&self.char_order), "character n-grams of 1 to 6");
        assert!(self.word_order <= MAX_WORD_ORDER, "word n-grams of 0 to 4");
        let prediction = self.cased(prediction);
        let references: Vec<_> = references.iter().map(|text| self.cased(text.as_ref())).collect();
        let mut numbering = Numbering::default();
        let mut grams = |text| self.grams(text, &mut numbering);
        let prediction = grams(&prediction);
        let mut best = (ChrfStats::default(), -1.0);
        for text in &references {
            let stats = self.compare(&prediction, &grams(text));
            let score = self.score(&stats);
            if score > best.1 {
                best = (stats, score);
            }
        }
        best.0
    }

    /// The score of counts, from 0 to 100.
    pub fn score(&self, stats: &ChrfStats) -> f64 {
        const EPS: f64 = 1e-16;
        let factor = f64::from(self.beta).powi(2);
        let (mut sum, mut precision_sum, mut recall_sum, mut both) = (0.0, 0.0, 0.0, 0u32);
        let orders = self.char_order + self.word_order;
        for order in &stats.orders[..orders] {
            let part = |of: u64| if of > 0 { order.matches as f64 / of as f64 } else { EPS };
            let (precision, recall) = (part(order.prediction), part(order.reference));
            let below = factor * precision + recall;
            sum += if below > 0.0 { (1.0 + factor) * precision * recall / below } else { EPS };
            if order.prediction > 0 && order.reference > 0 {
                precision_sum += precision;
                recall_sum += recall;
                both += 1;
            }
        }
        if self.eps_smoothing {
            return 100.0 * sum / orders as f64;
        }
        if both == 0 || precision_sum + recall_sum == 0.0 {
            return 0.0;
        }
        let (precision, recall) = (precision_sum / f64::from(both), recall_sum / f64::from(both));
        100.0 * ((1.0 + factor) * precision * recall / (factor * precision + recall))
    }

    /// sacreBLEU's signature.
    pub fn signature(&self, references: ReferenceCount) -> String {
        let yes = |fact| if fact { "yes" } else { "no" };
        format!(
            "{}|case:{}|eff:{}|nc:{}|nw:{}|space:{}|version:{SACREBLEU}",
            references.signature(),
            if self.lowercase { "lc" } else { "mixed" },
            yes(!self.eps_smoothing),
            self.char_order,
            self.word_order,
            yes(self.whitespace)
        )
    }

    fn cased(&self, text: &str) -> String {
        if self.lowercase { text.to_lowercase() } else { text.to_owned() }
    }

    fn grams<'a>(&self, text: &'a str, numbering: &mut Numbering<'a>) -> Grams {
        let counted = text.chars().filter(|&c| self.whitespace || !is_space(c));
        let chars: Vec<u32> = counted.map(|c| c as u32 + 1).collect();
        Grams {
            chars: Ngrams::new(&chars, CHAR_BITS, self.char_order),
            words: (self.word_order > 0)
                .then(|| Ngrams::new(&numbering.number(split_marks(text)), WORD_BITS, self.word_order)),
        }
    }

    fn compare(&self, prediction: &Grams, reference: &Grams) -> ChrfStats {
        let mut stats = ChrfStats::default();
        let orders = |grams: &Ngrams, other: &Ngrams, out: &mut [OrderCounts]| {
            for (n, out) in (1..).zip(out) {
                let reference = other.count(n);
                let prediction = if reference > 0 { grams.count(n) } else { 0 };
                *out = OrderCounts { prediction, reference, matches: grams.matches(&[other], n) };
            }
        };
        let (chars, words) = stats.orders.split_at_mut(self.char_order);
        orders(&prediction.chars, &reference.chars, chars);
        if let (Some(grams), Some(other)) = (&prediction.words, &reference.words) {
            orders(grams, other, &mut words[..self.word_order]);
        }
        stats
    }
}

/// The n-grams of one text.
struct Grams {
    chars: Ngrams,
    words: Option<Ngrams>,
}

/// Words, with an ASCII punctuation mark at their end, else at their beginning, as a word of its own.
fn split_marks(text: &str) -> impl Iterator<Item = &str> {
    words(text).flat_map(|word| {
        let mark = |c: Option<char>| c.is_some_and(|c| c.is_ascii_punctuation());
        let (first, second) = match word.chars().nth(1) {
            None => (word, ""),
            Some(_) if mark(word.chars().next_back()) => word.split_at(word.len() - 1),
            Some(_) if mark(word.chars().next()) => word.split_at(1),
            Some(_) => (word, ""),
        };
        [first, second].into_iter().filter(|part| !part.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_gives_one_mark_away() {
        let parts = |text| split_marks(text).collect::<Vec<_>>();
        assert_eq!(parts("(hi) -- ! \"a 한국어."), ["(hi", ")", "-", "-", "!", "\"", "a", "한국어", "."]);
    }

    #[test]
    fn the_best_reference_counts() {
        let chrf = Chrf::default();
        let stats = chrf.stats("abc", &["xyz", "abc", "abcd"]);
        assert_eq!(chrf.score(&stats), 100.0);
    }

    #[test]
    #[should_panic(expected = "character n-grams of 1 to 6")]
    fn an_order_that_has_no_room_is_the_callers_mistake() {
        Chrf { char_order: 7, ..Chrf::default() }.stats("a", &["a"]);
    }
}
