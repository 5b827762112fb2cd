//! FineWeb's rules of quality.

use andiron_data::Document;
use serde::{Deserialize, Serialize};

use super::characters::{CHARACTERS, Classes, count_characters, strip};
use super::gopher_repetition::Repeated;
use super::hash::Counter;
use super::words::WordSplit;
use super::{Filter, Removal, Verdict};

/// Removes lists and boilerplate by their lines. The rules are checked in the order of the fields; lines of white space do not
/// count; a document without any other goes with the reason `empty`.
///
/// Source: Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale", section 3.6,
/// <https://arxiv.org/abs/2406.17557>; decisions as in datatrove 0.10.1, `filters/fineweb_quality_filter.py`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FineWebQuality {
    /// Fraction of lines that end in a mark such as `.`, `!`, `?`, `。`, at least; reason `too-few-ended-lines`.
    pub min_ended_lines: f64,
    /// Whether a document without any such line passes that rule.
    pub allow_no_ended_lines: bool,
    /// Fraction of short lines, at most; reason `too-many-short-lines`.
    pub max_short_lines: f64,
    /// Characters of a short line, at most.
    pub short_line_length: usize,
    /// Fraction of characters in lines that equal an earlier one, at most; reason `duplicate-line-characters`.
    pub max_duplicate_line_characters: f64,
    /// Line feeds per word, at most; reason `too-many-lines`.
    pub max_lines_per_word: f64,
    /// How words are split.
    pub words: WordSplit,
}

impl Default for FineWebQuality {
    fn default() -> Self {
        Self {
            min_ended_lines: 0.12,
            allow_no_ended_lines: false,
            max_short_lines: 0.67,
            short_line_length: 30,
            max_duplicate_line_characters: 0.01,
            max_lines_per_word: 0.3,
            words: WordSplit::English,
        }
    }
}

impl Filter for FineWebQuality {
    fn apply(&self, document: &mut Document) -> Verdict {
        self.judge(&document.text).map_or(Verdict::Keep, Verdict::Remove)
    }
}

impl FineWebQuality {
    fn judge(&self, text: &str) -> Option<Removal> {
        let remove = |reason, score| Some(Removal { reason, score: Some(score) });
        let mut line_feeds = 0;
        let mut lines = Vec::new();
        for line in text.split('\n') {
            line_feeds += 1;
            if !strip(line).is_empty() {
                lines.push(line);
            }
        }
        line_feeds -= 1;
        if lines.is_empty() {
            return Some(Removal { reason: "empty", score: None });
        }
        let fraction = |count: usize| count as f64 / lines.len() as f64;
        let characters = &*CHARACTERS;
        let ends =
            |line: &&&str| line.chars().next_back().is_some_and(|c| characters.is(c, Classes::TERMINAL));
        let ended = fraction(lines.iter().filter(ends).count());
        if ended < self.min_ended_lines && !(ended == 0.0 && self.allow_no_ended_lines) {
            return remove("too-few-ended-lines", ended);
        }
        let short = fraction(lines.iter().filter(|line| is_short(line, self.short_line_length)).count());
        if short > self.max_short_lines {
            return remove("too-many-short-lines", short);
        }
        let repeated = Repeated::of(lines.iter().copied(), &mut Counter::default()).characters;
        let repeated = repeated as f64 / (count_characters(text.as_bytes()) - line_feeds) as f64;
        if repeated > self.max_duplicate_line_characters {
            return remove("duplicate-line-characters", repeated);
        }
        let mut words: usize = 0;
        self.words.for_each(text, |_| words += 1);
        let lines_per_word = line_feeds as f64 / words as f64;
        if lines_per_word > self.max_lines_per_word {
            return remove("too-many-lines", lines_per_word);
        }
        None
    }
}

/// Whether the line has at most `bound` characters.
fn is_short(line: &str, bound: usize) -> bool {
    // A character has at most four bytes.
    line.len() <= bound || line.len() <= bound.saturating_mul(4) && count_characters(line.as_bytes()) <= bound
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every verdict was seen in datatrove 0.10.1 with spaCy 3.8.18.
    #[test]
    fn each_rule_removes_what_datatrove_removes() {
        let check = |text: &str, expected: Option<&str>| {
            let found = FineWebQuality::default().judge(text).map(|removal| removal.reason);
            assert_eq!(found, expected, "{text:.80}");
        };
        let lines = |line: &str, end: &str| {
            (0..9).map(|at| format!("{line} {at}{end}")).collect::<Vec<_>>().join("\n")
        };
        let long = "A line that is longer than thirty characters, with its end";
        check(" \n ", Some("empty"));
        check(&lines(long, "."), None);
        check(&lines(long, ""), Some("too-few-ended-lines"));
        check(&lines("Short one", "."), Some("too-many-short-lines"));
        check(&format!("{0}\n{0}", lines(long, ".")), Some("duplicate-line-characters"));
        check(&lines(&"Longwords".repeat(5), "."), None);
        check(&lines(&"Longwords".repeat(5), ".\n"), Some("too-many-lines"));
    }
}
