//! Paragraphs that stood in an earlier document, or earlier in the same one, found by a Bloom filter.
//!
//! A paragraph is a line. It is compared without the white space around it, byte for byte: numbers count, so that the lines of a table
//! stay. Memory is fixed by the settings. What a Bloom filter says of a new paragraph is wrong with the probability that the settings
//! name, at most; of a repeated one it is always right.
//!
//! Source: Bloom 1970, "Space/time trade-offs in hash coding with allowable errors", <https://doi.org/10.1145/362686.362692>; Soldaini
//! et al. 2024, "Dolma", <https://arxiv.org/abs/2402.00159>, which removes paragraphs in this way. In dolma
//! 1.2.1 a minimum of words turns the removal off for paragraphs that have them, too; here it does not.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::words::for_each_word;

/// How repeated paragraphs are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParagraphConfig {
    /// Paragraphs that are expected in the whole corpus. With more, more are removed wrongly.
    pub expected_paragraphs: u64,
    /// The share of new paragraphs that are taken for repeated ones when as many as expected have been seen.
    pub false_positive_rate: f64,
    /// Paragraphs of fewer words are neither removed nor remembered.
    pub min_words: usize,
    /// The most memory that the settings may ask for, in bytes.
    pub max_memory_bytes: u64,
}

impl Default for ParagraphConfig {
    /// A hundred million paragraphs with a false-positive rate of a ten-thousandth, which are 240 MB; of at least eight words.
    fn default() -> Self {
        Self {
            expected_paragraphs: 100_000_000,
            false_positive_rate: 1e-4,
            min_words: 8,
            max_memory_bytes: 1 << 30,
        }
    }
}

impl ParagraphConfig {
    /// Bytes of the filter.
    pub fn memory_bytes(&self) -> u64 {
        let ln_2 = std::f64::consts::LN_2;
        let bits = -(self.expected_paragraphs as f64) * self.false_positive_rate.ln() / (ln_2 * ln_2);
        // The conversion saturates.
        8u64.saturating_mul((bits / 64.0).ceil().max(1.0) as u64)
    }

    /// Bits that a paragraph sets.
    fn n_hashes(&self) -> u32 {
        (-self.false_positive_rate.log2()).round().clamp(1.0, 64.0) as u32
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// If a setting is out of its range, or asks for more memory than is allowed.
    pub fn validate(&self) -> Result<(), ParagraphError> {
        let rate = self.false_positive_rate;
        if !(1e-15..=0.5).contains(&rate) {
            return Err(ParagraphError::Rate { rate });
        }
        if self.expected_paragraphs == 0 {
            return Err(ParagraphError::Nothing);
        }
        let (needed, allowed) = (self.memory_bytes(), self.max_memory_bytes);
        if needed > allowed {
            return Err(ParagraphError::Memory { needed, allowed });
        }
        Ok(())
    }

    /// The paragraphs of a text that are long enough. A function of the text alone, for any number of threads.
    pub fn paragraphs(&self, text: &str) -> Vec<Paragraph> {
        let mut paragraphs = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let content = line.trim();
            if self.is_long_enough(content) {
                let hash = blake3::hash(content.as_bytes());
                let half = |at: usize| {
                    hash.as_bytes()[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
                };
                paragraphs.push(Paragraph { place: start..start + line.len(), hash: [half(0), half(8)] });
            }
            start += line.len();
        }
        paragraphs
    }

    fn is_long_enough(&self, line: &str) -> bool {
        // A word has a byte at least, and there is one between two.
        if line.is_empty() || line.len() + 1 < 2 * self.min_words && line.is_ascii() {
            return false;
        }
        let mut n_words = 0;
        for_each_word(line, |_| n_words += 1);
        n_words >= self.min_words
    }
}

/// A setting of [`ParagraphConfig`] that is out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParagraphError {
    /// The false-positive rate cannot be had.
    #[error("false_positive_rate is {rate}; it must be at least 1e-15 and at most 0.5")]
    Rate {
        /// The rate.
        rate: f64,
    },
    /// No paragraphs are expected.
    #[error("expected_paragraphs is 0; it must be at least 1")]
    Nothing,
    /// The filter would be too large.
    #[error(
        "the filter of paragraphs needs {needed} bytes, and max_memory_bytes is {allowed}; expect fewer paragraphs, or allow a higher false_positive_rate or more memory"
    )]
    Memory {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        allowed: u64,
    },
}

/// A paragraph of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paragraph {
    /// Where it is, with the end of its line, in bytes.
    place: Range<usize>,
    hash: [u64; 2],
}

/// The paragraphs seen so far.
pub struct RepeatedParagraphs {
    config: ParagraphConfig,
    bits: Vec<u64>,
    counts: ParagraphCounts,
}

/// How many paragraphs were seen and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParagraphCounts {
    /// Paragraphs that were long enough.
    pub paragraphs: u64,
    /// Those removed.
    pub removed: u64,
    /// Bytes of those removed.
    pub removed_bytes: u64,
}

impl RepeatedParagraphs {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// If a setting is out of its range.
    pub fn new(config: &ParagraphConfig) -> Result<Self, ParagraphError> {
        config.validate()?;
        let words = (config.memory_bytes() / 8) as usize;
        Ok(Self { config: config.clone(), bits: vec![0; words], counts: ParagraphCounts::default() })
    }

    /// Where the repeated ones of a text's [paragraphs](ParagraphConfig::paragraphs) are, in order, with the ends of their lines; the
    /// others are remembered. The result depends on the order of texts: give them in that of the input.
    pub fn repeated(&mut self, paragraphs: &[Paragraph]) -> Vec<Range<usize>> {
        let mut repeated = Vec::new();
        for Paragraph { place, hash } in paragraphs {
            self.counts.paragraphs += 1;
            if self.check(*hash) {
                self.counts.removed += 1;
                self.counts.removed_bytes += place.len() as u64;
                repeated.push(place.clone());
            }
        }
        repeated
    }

    /// Removes the repeated paragraphs of a text; returns how many there were.
    ///
    /// # Example
    /// ```
    /// use andiron_corpus::dedup::{ParagraphConfig, RepeatedParagraphs};
    /// let config = ParagraphConfig { expected_paragraphs: 1000, min_words: 3, ..ParagraphConfig::default() };
    /// let mut seen = RepeatedParagraphs::new(&config)?;
    /// let mut text = "All rights are reserved.\nThe first article.\n".to_owned();
    /// assert_eq!(seen.remove(&mut text), 0);
    /// let mut text = "All rights are reserved.\nAnother article, the second.\n".to_owned();
    /// assert_eq!(seen.remove(&mut text), 1);
    /// assert_eq!(text, "Another article, the second.\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove(&mut self, text: &mut String) -> usize {
        let repeated = self.repeated(&self.config.paragraphs(text));
        cut(text, &repeated);
        repeated.len()
    }

    /// The counts so far.
    pub fn counts(&self) -> &ParagraphCounts {
        &self.counts
    }

    /// The probability that a new paragraph would be taken for a repeated one now.
    pub fn false_positive_rate(&self) -> f64 {
        let set: u64 = self.bits.iter().map(|word| u64::from(word.count_ones())).sum();
        (set as f64 / (64 * self.bits.len()) as f64).powi(self.config.n_hashes() as i32)
    }

    /// Whether all bits of a hash were set; they are now.
    ///
    /// Source: Kirsch and Mitzenmacher 2006, "Less hashing, same performance", <https://doi.org/10.1007/11841036_42>.
    fn check(&mut self, [first, step]: [u64; 2]) -> bool {
        let n_bits = 64 * self.bits.len() as u128;
        let mut known = true;
        let mut hash = first;
        for _ in 0..self.config.n_hashes() {
            let bit = ((u128::from(hash) * n_bits) >> 64) as usize;
            let (word, mask) = (&mut self.bits[bit / 64], 1 << (bit % 64));
            known &= *word & mask != 0;
            *word |= mask;
            hash = hash.wrapping_add(step | 1);
        }
        known
    }
}

/// Removes parts of a text, given in order.
pub(crate) fn cut(text: &mut String, parts: &[Range<usize>]) {
    if parts.is_empty() {
        return;
    }
    let mut rest = String::with_capacity(text.len());
    let mut at = 0;
    for part in parts {
        rest.push_str(&text[at..part.start]);
        at = part.end;
    }
    rest.push_str(&text[at..]);
    *text = rest;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(expected_paragraphs: u64, false_positive_rate: f64) -> ParagraphConfig {
        ParagraphConfig {
            expected_paragraphs,
            false_positive_rate,
            min_words: 1,
            ..ParagraphConfig::default()
        }
    }

    #[test]
    fn memory_follows_from_what_is_expected() {
        assert_eq!(ParagraphConfig::default().memory_bytes(), 239_626_464);
        let error = config(u64::MAX, 1e-9).validate().unwrap_err();
        assert!(matches!(error, ParagraphError::Memory { .. }), "{error}");
        for (expected, rate) in [(0, 0.1), (1, 0.0), (1, 1.0), (1, f64::NAN)] {
            assert!(config(expected, rate).validate().is_err());
        }
    }

    #[test]
    fn wrong_removals_are_as_rare_as_asked() {
        let mut seen = RepeatedParagraphs::new(&config(20_000, 0.01)).unwrap();
        let n_wrong: usize = (0..20_000).map(|n| seen.remove(&mut format!("paragraph {n}"))).sum();
        // On average over the filling the rate is lower than at its end.
        assert!((5..200).contains(&n_wrong), "{n_wrong}");
        assert!((0.005..0.02).contains(&seen.false_positive_rate()), "{}", seen.false_positive_rate());
        let again: usize = (0..20_000).map(|n| seen.remove(&mut format!("paragraph {n}"))).sum();
        assert_eq!(again, 20_000);
        let counts =
            ParagraphCounts { paragraphs: 40_000, removed: 20_000 + n_wrong as u64, ..*seen.counts() };
        assert_eq!(*seen.counts(), counts);
    }

    #[test]
    fn short_paragraphs_stay_and_white_space_does_not_count() {
        let mut seen =
            RepeatedParagraphs::new(&ParagraphConfig { min_words: 4, ..config(1000, 1e-6) }).unwrap();
        let mut text =
            "one two three\none two three four\r\n\none two three\n  one two three four\nlast".to_owned();
        assert_eq!(seen.remove(&mut text), 1);
        assert_eq!(text, "one two three\none two three four\r\n\none two three\nlast");
        let mut text = "漢字漢字".to_owned();
        assert_eq!((seen.remove(&mut text.clone()), seen.remove(&mut text)), (0, 1));
        assert_eq!(text, "");
    }

    #[test]
    fn numbers_count() {
        let mut seen = RepeatedParagraphs::new(&config(1000, 1e-6)).unwrap();
        assert_eq!(seen.remove(&mut "total 1\ntotal 2\ntotal 3".to_owned()), 0);
    }
}
