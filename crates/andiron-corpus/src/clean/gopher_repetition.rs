//! Gopher's rules of repetition.

use andiron_data::Document;
use serde::{Deserialize, Serialize};

use super::characters::{count_characters, strip};
use super::hash::{Counter, Polynomial, Shifts, hash_bytes, mix};
use super::words::WordSplit;
use super::{Filter, FilterError, Removal, Verdict};

/// Removes documents that repeat themselves: lines, paragraphs, and n-grams of words. A rule of 0 is off.
///
/// Character fractions are of the characters of the text, in order of the fields. The most frequent n-gram counts even if it
/// occurs once, as in datatrove: a document of ten words falls.
///
/// Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", table A1,
/// <https://arxiv.org/abs/2112.11446>; decisions as in datatrove 0.10.1, `filters/gopher_repetition_filter.py`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GopherRepetition {
    /// Fraction of paragraphs that equal an earlier one, at most; reason `duplicate-paragraphs`.
    pub max_duplicate_paragraphs: f64,
    /// Fraction of characters in such paragraphs, at most; reason `duplicate-paragraph-characters`.
    pub max_duplicate_paragraph_characters: f64,
    /// Fraction of lines that equal an earlier one, at most; reason `duplicate-lines`.
    pub max_duplicate_lines: f64,
    /// Fraction of characters in such lines, at most; reason `duplicate-line-characters`.
    pub max_duplicate_line_characters: f64,
    /// For each `n`, the fraction of characters in the most frequent n-gram, at most; reasons `top-2-gram` and so on.
    pub top_n_grams: Vec<NGramLimit>,
    /// For each `n`, the fraction of characters in n-grams that occurred before, at most; reasons `duplicate-5-grams` and so on.
    pub duplicate_n_grams: Vec<NGramLimit>,
    /// How words are split.
    pub words: WordSplit,
}

/// A limit for n-grams of one length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NGramLimit {
    /// Words of the n-gram, 1–16.
    pub n: usize,
    /// Fraction of characters, at most.
    pub max: f64,
}

/// The largest `n`.
const MAX_N: usize = 16;

impl Default for GopherRepetition {
    fn default() -> Self {
        let limits = |limits: &[(usize, f64)]| limits.iter().map(|&(n, max)| NGramLimit { n, max }).collect();
        Self {
            max_duplicate_paragraphs: 0.3,
            max_duplicate_paragraph_characters: 0.2,
            max_duplicate_lines: 0.3,
            max_duplicate_line_characters: 0.2,
            top_n_grams: limits(&[(2, 0.2), (3, 0.18), (4, 0.16)]),
            duplicate_n_grams: limits(&[(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1)]),
            words: WordSplit::English,
        }
    }
}

impl Filter for GopherRepetition {
    fn apply(&self, document: &mut Document) -> Verdict {
        self.judge(&document.text).map_or(Verdict::Keep, Verdict::Remove)
    }
}

impl GopherRepetition {
    /// The filter, if its settings are in range.
    ///
    /// # Errors
    /// If an `n` is not in 1–16.
    pub fn validate(&self) -> Result<(), FilterError> {
        match self
            .top_n_grams
            .iter()
            .chain(&self.duplicate_n_grams)
            .find(|limit| !(1..=MAX_N).contains(&limit.n))
        {
            None => Ok(()),
            Some(limit) => Err(FilterError {
                filter: "gopher-repetition",
                problem: format!("n-grams of {} words: n must be 1 to {MAX_N}", limit.n),
            }),
        }
    }

    fn judge(&self, text: &str) -> Option<Removal> {
        if text.is_empty() {
            return Some(Removal { reason: "empty", score: None });
        }
        let characters = count_characters(text.as_bytes()) as f64;
        let too_high = |reason, score: f64, bound: f64| {
            (bound > 0.0 && score > bound).then_some(Removal { reason, score: Some(score) })
        };
        let mut counter = Counter::default();
        let paragraphs = Repeated::of(runs_of_lines(strip(text), 2), &mut counter);
        let lines = |counter: &mut Counter| Repeated::of(runs_of_lines(text, 1), counter);
        too_high("duplicate-paragraphs", paragraphs.fraction(), self.max_duplicate_paragraphs)
            .or_else(|| {
                let fraction = paragraphs.characters as f64 / characters;
                too_high("duplicate-paragraph-characters", fraction, self.max_duplicate_paragraph_characters)
            })
            .or_else(|| {
                let lines = lines(&mut counter);
                too_high("duplicate-lines", lines.fraction(), self.max_duplicate_lines).or_else(|| {
                    let fraction = lines.characters as f64 / characters;
                    too_high("duplicate-line-characters", fraction, self.max_duplicate_line_characters)
                })
            })
            .or_else(|| {
                let words = Words::of(text, self.words);
                let top = self.top_n_grams.iter().find_map(|limit| {
                    let fraction = words.top(limit.n, &mut counter) as f64 / characters;
                    too_high(TOP[limit.n.min(MAX_N)], fraction, limit.max)
                });
                top.or_else(|| {
                    self.duplicate_n_grams.iter().find_map(|limit| {
                        let fraction = words.repeated(limit.n, &mut counter) as f64 / characters;
                        too_high(DUPLICATE[limit.n.min(MAX_N)], fraction, limit.max)
                    })
                })
            })
    }
}

macro_rules! reasons {
    ($before:literal, $after:literal) => {
        [
            concat!($before, "0", $after),
            concat!($before, "1", $after),
            concat!($before, "2", $after),
            concat!($before, "3", $after),
            concat!($before, "4", $after),
            concat!($before, "5", $after),
            concat!($before, "6", $after),
            concat!($before, "7", $after),
            concat!($before, "8", $after),
            concat!($before, "9", $after),
            concat!($before, "10", $after),
            concat!($before, "11", $after),
            concat!($before, "12", $after),
            concat!($before, "13", $after),
            concat!($before, "14", $after),
            concat!($before, "15", $after),
            concat!($before, "16", $after),
        ]
    };
}

const TOP: [&str; MAX_N + 1] = reasons!("top-", "-gram");
const DUPLICATE: [&str; MAX_N + 1] = reasons!("duplicate-", "-grams");

/// Parts that are separated by `breaks` line feeds or more, empty ones included.
fn runs_of_lines(text: &str, breaks: usize) -> impl Iterator<Item = &str> + Clone {
    let bytes = text.as_bytes();
    let mut start = Some(0);
    std::iter::from_fn(move || {
        let from = start?;
        let mut at = from;
        while let Some(found) = memchr::memchr(b'\n', &bytes[at..]) {
            let first = at + found;
            let run = bytes[first..].iter().take_while(|&&byte| byte == b'\n').count();
            at = first + run;
            if run >= breaks {
                start = Some(at);
                return Some(&text[from..first]);
            }
        }
        start = None;
        Some(&text[from..])
    })
}

/// Parts of a text that equal an earlier one.
pub(super) struct Repeated {
    all: usize,
    repeated: usize,
    /// Characters of the repeated ones.
    pub(super) characters: usize,
}

impl Repeated {
    pub(super) fn of<'t>(parts: impl Iterator<Item = &'t str> + Clone, counter: &mut Counter) -> Self {
        let mut found = Self { all: parts.clone().count(), repeated: 0, characters: 0 };
        counter.reset(found.all);
        for part in parts {
            if !counter.is_new(hash_bytes(part.as_bytes())) {
                found.repeated += 1;
                found.characters += count_characters(part.as_bytes());
            }
        }
        found
    }

    fn fraction(&self) -> f64 {
        self.repeated as f64 / self.all as f64
    }
}

/// The words of a text, as far as n-grams need them: sums before each word, and one more at the end.
struct Words {
    /// Bytes, characters and hash of all words before this one, joined.
    before: Vec<Before>,
    /// The hash of each word.
    hashes: Vec<u64>,
    shifts: Shifts,
}

#[derive(Clone, Copy, Default)]
struct Before {
    // Modulo 2³²: only differences over a few words are used.
    bytes: u32,
    characters: u32,
    hash: Polynomial,
}

impl Words {
    fn of(text: &str, split: WordSplit) -> Self {
        let mut words = Self { before: vec![Before::default()], hashes: Vec::new(), shifts: Shifts::new() };
        let mut sum = Before::default();
        split.for_each(text, |word| {
            sum.bytes = sum.bytes.wrapping_add(word.len() as u32);
            sum.characters = sum.characters.wrapping_add(count_characters(word.as_bytes()) as u32);
            let hash = Polynomial::of(word.as_bytes());
            sum.hash = sum.hash.then(hash, words.shifts.of(word.len()));
            words.before.push(sum);
            words.hashes.push(hash_bytes(word.as_bytes()));
        });
        words
    }

    /// Characters of the words from `first` on, `n` of them.
    fn characters(&self, first: usize, n: usize) -> usize {
        self.before[first + n].characters.wrapping_sub(self.before[first].characters) as usize
    }

    /// Characters in the most frequent n-gram, spaces between its words included, times its count; of equally frequent ones
    /// the first.
    fn top(&self, n: usize, counter: &mut Counter) -> usize {
        let n_grams = (self.hashes.len() + 1).saturating_sub(n);
        counter.reset(n_grams);
        let (mut most, mut first) = (0, 0);
        for (index, words) in self.hashes.windows(n).enumerate() {
            let hash = words[1..].iter().fold(words[0], |hash, &word| mix(hash, word));
            let (count, seen) = counter.count(hash, index as u32);
            if count > most || count == most && seen < first {
                (most, first) = (count, seen);
            }
        }
        if n_grams == 0 { 0 } else { (self.characters(first as usize, n) + n - 1) * most as usize }
    }

    /// Characters in n-grams that occurred before; after one, the next n words are skipped. Only the letters count: `ab c` is
    /// `a bc`.
    fn repeated(&self, n: usize, counter: &mut Counter) -> usize {
        let n_grams = (self.hashes.len() + 1).saturating_sub(n);
        counter.reset(n_grams);
        let (mut characters, mut index) = (0, 0);
        while index < n_grams {
            let (begin, end) = (self.before[index], self.before[index + n]);
            let hash = end
                .hash
                .without_prefix(begin.hash, self.shifts.of(end.bytes.wrapping_sub(begin.bytes) as usize));
            if counter.is_new(hash) {
                index += 1;
            } else {
                characters += end.characters.wrapping_sub(begin.characters) as usize;
                index += n;
            }
        }
        characters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&'static str>) {
        let found = GopherRepetition::default().judge(text).map(|removal| removal.reason);
        assert_eq!(found, expected, "{text:.80}");
    }

    /// Different words.
    fn words() -> Vec<String> {
        let letters = |letters: &'static str| letters.chars();
        letters("bcdf")
            .flat_map(|a| {
                letters("aeiou").flat_map(move |b| letters("lmnrst").map(move |c| format!("{a}{b}{c}word")))
            })
            .collect()
    }

    // Every verdict was seen in datatrove 0.10.1 with spaCy 3.8.18.
    #[test]
    fn each_rule_removes_what_datatrove_removes() {
        let words = words();
        let part = |from: usize, to: usize| words[from..to].join(" ");
        let parts = |from: usize, length: usize| {
            (from..60).step_by(length).map(|at| part(at, at + length)).collect::<Vec<_>>()
        };
        check("", Some("empty"));
        check(&part(0, 120), None);
        check("The quick brown fox jumps over the lazy dog near the river bank today.", Some("top-3-gram"));
        let short = || vec![words[0].clone(); 2];
        check(&[short(), parts(0, 20), short()].concat().join("\n\n"), Some("duplicate-paragraphs"));
        let long = || vec![part(0, 20); 2];
        check(&[long(), parts(20, 5)].concat().join("\n\n"), Some("duplicate-paragraph-characters"));
        check(&[long(), parts(20, 5)].concat().join("\n"), Some("duplicate-line-characters"));
        check(&[short(), short(), parts(0, 10)].concat().join("\n"), None);
        check(&[short(), short(), parts(0, 20)].concat().join("\n"), Some("duplicate-lines"));
        let with = |ending: &str, every: usize| {
            let words = words.iter().enumerate();
            words
                .map(|(at, word)| if at % every == 0 { format!("{word} {ending}") } else { word.clone() })
                .collect::<Vec<_>>()
                .join(" ")
        };
        check(&with("of the end", 2), Some("top-2-gram"));
        check(&with("to the end", 3), Some("top-3-gram"));
        check(&with("up to the end", 4), Some("top-3-gram"));
        let twice = |n: usize| {
            let phrase = |at: usize, round: usize| {
                format!("{} x{at}{round}y {}", part(at * n, at * n + n), words[60 + at * 2 + round * 20])
            };
            let rounds: Vec<String> = (0..2)
                .flat_map(|round| (0..2).map(move |at| (at, round)))
                .map(|(at, round)| phrase(at, round))
                .collect();
            format!("{} {}", rounds.join(" "), part(30, 60))
        };
        check(&twice(5), Some("duplicate-5-grams"));
        check(&twice(6), Some("duplicate-6-grams"));
        check(&twice(7), Some("duplicate-6-grams"));
        check(&twice(10), Some("duplicate-5-grams"));
    }

    #[test]
    fn runs_of_line_feeds_separate_once() {
        assert_eq!(runs_of_lines("a\n\n\nb\nc\n", 2).collect::<Vec<_>>(), ["a", "b\nc\n"]);
        assert_eq!(runs_of_lines("\na\n\nb\n", 1).collect::<Vec<_>>(), ["", "a", "b", ""]);
    }
}
