//! Gopher's rules of quality.

use andiron_data::Document;
use serde::{Deserialize, Serialize};

use super::characters::{CHARACTERS, Classes, count_characters, is_space};
use super::lines::split_lines;
use super::words::WordSplit;
use super::{Filter, Removal, Verdict};

/// Removes documents that do not look like prose, by counts of words, lines and symbols. A rule of 0 is off.
///
/// The defaults are the published ones, for English. The rules are checked in the order of the fields.
///
/// Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", section A1.1,
/// <https://arxiv.org/abs/2112.11446>; decisions as in datatrove 0.10.1, `filters/gopher_quality_filter.py`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GopherQuality {
    /// Words that are more than punctuation, at least; reason `too-few-words`.
    pub min_words: usize,
    /// Words that are more than punctuation, at most; reason `too-many-words`.
    pub max_words: usize,
    /// Mean length of those words in characters, at least; reason `words-too-short`.
    pub min_mean_word_length: f64,
    /// Mean length of those words in characters, at most; reason `words-too-long`.
    pub max_mean_word_length: f64,
    /// `#` per word, at most, and ellipses (`...`, `…`) per word, at most; reasons `too-many-hashes`, `too-many-ellipses`.
    pub max_symbols_per_word: f64,
    /// Fraction of lines that begin with `•` or `-`, at most; reason `too-many-bullet-lines`.
    pub max_bullet_lines: f64,
    /// Fraction of lines that end in an ellipsis, at most; reason `too-many-ellipsis-lines`.
    pub max_ellipsis_lines: f64,
    /// Fraction of words with a letter, at least; reason `too-few-alphabetic-words`.
    pub min_alphabetic_words: f64,
    /// Different words of `stop_words` that occur, at least; reason `too-few-stop-words`.
    pub min_stop_words: usize,
    /// Frequent words of the language; upper and lower case are different.
    pub stop_words: Vec<String>,
    /// How words are split.
    pub words: WordSplit,
}

impl Default for GopherQuality {
    fn default() -> Self {
        Self {
            min_words: 50,
            max_words: 100_000,
            min_mean_word_length: 3.0,
            max_mean_word_length: 10.0,
            max_symbols_per_word: 0.1,
            max_bullet_lines: 0.9,
            max_ellipsis_lines: 0.3,
            min_alphabetic_words: 0.8,
            min_stop_words: 2,
            stop_words: ["the", "be", "to", "of", "and", "that", "have", "with"].map(String::from).into(),
            words: WordSplit::English,
        }
    }
}

impl Filter for GopherQuality {
    fn apply(&self, document: &mut Document) -> Verdict {
        self.judge(&document.text).map_or(Verdict::Keep, Verdict::Remove)
    }
}

impl GopherQuality {
    fn judge(&self, text: &str) -> Option<Removal> {
        let counts = self.count_words(text);
        let words = counts.words as f64;
        let proper = counts.proper_words as f64;
        let too_low =
            |reason, score: f64, bound: f64| (bound > 0.0 && score < bound).then_some((reason, score));
        let too_high =
            |reason, score: f64, bound: f64| (bound > 0.0 && score > bound).then_some((reason, score));
        let mean_length = counts.characters as f64 / proper;
        let removal = too_low("too-few-words", proper, self.min_words as f64)
            .or_else(|| too_high("too-many-words", proper, self.max_words as f64))
            .or_else(|| too_low("words-too-short", mean_length, self.min_mean_word_length))
            .or_else(|| too_high("words-too-long", mean_length, self.max_mean_word_length))
            .or_else(|| {
                let hashes = memchr::memchr_iter(b'#', text.as_bytes()).count();
                too_high("too-many-hashes", hashes as f64 / words, self.max_symbols_per_word)
            })
            .or_else(|| {
                too_high("too-many-ellipses", count_ellipses(text) as f64 / words, self.max_symbols_per_word)
            })
            .or_else(|| {
                let lines = LineCounts::of(text);
                let all = lines.all as f64;
                too_high("too-many-bullet-lines", lines.bullets as f64 / all, self.max_bullet_lines).or_else(
                    || {
                        too_high(
                            "too-many-ellipsis-lines",
                            lines.ellipses as f64 / all,
                            self.max_ellipsis_lines,
                        )
                    },
                )
            })
            .or_else(|| {
                too_low(
                    "too-few-alphabetic-words",
                    counts.alphabetic_words as f64 / words,
                    self.min_alphabetic_words,
                )
            })
            .or_else(|| too_low("too-few-stop-words", counts.stop_words as f64, self.min_stop_words as f64));
        removal.map(|(reason, score)| Removal { reason, score: Some(score) })
    }

    fn count_words(&self, text: &str) -> WordCounts {
        let characters = &*CHARACTERS;
        let mut counts = WordCounts::default();
        let mut missing: Vec<&str> = self.stop_words.iter().map(String::as_str).collect();
        missing.sort_unstable();
        missing.dedup();
        let stop_words = missing.len();
        let longest = missing.iter().map(|word| word.len()).max().unwrap_or(0);
        self.words.for_each(text, |word| {
            counts.words += 1;
            let (mut proper, mut alphabetic) = (false, false);
            let mut mark = |classes: Classes| {
                proper |= !classes.any(Classes::NO_WORD);
                alphabetic |= classes.any(Classes::ALPHABETIC);
                proper && alphabetic
            };
            // The first letter decides, nearly always.
            let _ = word.bytes().take_while(u8::is_ascii).any(|byte| mark(characters.of_ascii(byte)))
                || word.chars().any(|character| mark(characters.of(character)));
            counts.alphabetic_words += usize::from(alphabetic);
            if proper {
                counts.proper_words += 1;
                counts.characters += count_characters(word.as_bytes());
            }
            if word.len() <= longest
                && let Some(at) = missing.iter().position(|stop| *stop == word)
            {
                missing.swap_remove(at);
            }
        });
        counts.stop_words = stop_words - missing.len();
        counts
    }
}

#[derive(Default)]
struct WordCounts {
    words: usize,
    /// Words that are more than punctuation, and the characters of those.
    proper_words: usize,
    characters: usize,
    alphabetic_words: usize,
    /// Different stop words.
    stop_words: usize,
}

/// `...` without overlaps, and `…`.
fn count_ellipses(text: &str) -> usize {
    let (mut count, mut dots) = (0, 0);
    let mut last_dot = usize::MAX;
    for at in memchr::memchr2_iter(b'.', 0xe2, text.as_bytes()) {
        if text.as_bytes()[at] == b'.' {
            dots = if at.wrapping_sub(1) == last_dot { dots + 1 } else { 1 };
            last_dot = at;
            if dots == 3 {
                count += 1;
                dots = 0;
            }
        } else if text.as_bytes()[at..].starts_with("…".as_bytes()) {
            count += 1;
        }
    }
    count
}

#[derive(Default)]
struct LineCounts {
    all: usize,
    bullets: usize,
    ellipses: usize,
}

impl LineCounts {
    fn of(text: &str) -> Self {
        let mut counts = Self::default();
        for line in split_lines(text) {
            counts.all += 1;
            counts.bullets += usize::from(line.trim_start_matches(is_space).starts_with(['•', '-']));
            let line = line.trim_end_matches(is_space);
            counts.ellipses += usize::from(line.ends_with("...") || line.ends_with('…'));
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&'static str>) {
        let mut document = Document::new("a", text);
        let found = match GopherQuality::default().apply(&mut document) {
            Verdict::Keep => None,
            Verdict::Remove(removal) => Some(removal.reason),
        };
        assert_eq!(found, expected, "{text:.80}");
    }

    // Every verdict was seen in datatrove 0.10.1 with spaCy 3.8.18.
    #[test]
    fn each_rule_removes_what_datatrove_removes() {
        let prose = "The cat sat with the dog on the mat, and they were happy to be there. ";
        check(&prose.repeat(4), None);
        check(prose, Some("too-few-words"));
        check(&"a be to of ".repeat(15), Some("words-too-short"));
        check(&"internationalization characteristically of the ".repeat(15), Some("words-too-long"));
        check(&format!("{} {}", prose.repeat(4), "# ".repeat(12)), Some("too-many-hashes"));
        check(&prose.repeat(4).replace(',', " ... ... ..."), Some("too-many-ellipses"));
        check(&format!("- {}\n", prose.trim()).repeat(4), Some("too-many-bullet-lines"));
        check(
            &format!("{}...\n", prose.trim().trim_end_matches('.')).repeat(4),
            Some("too-many-ellipsis-lines"),
        );
        check(&format!("{} {}", prose.repeat(4), "12345 ".repeat(20)), Some("too-few-alphabetic-words"));
        check(
            &"Every cat likes some fish when it rains in May, or so people say. ".repeat(5),
            Some("too-few-stop-words"),
        );
    }

    #[test]
    fn ellipses_do_not_overlap() {
        assert_eq!(count_ellipses("a... b.... c...... d.. … …"), 6);
    }
}
