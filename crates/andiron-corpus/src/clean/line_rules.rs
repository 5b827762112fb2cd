//! Rules for single lines.

use std::collections::HashMap;

use aho_corasick::AhoCorasick;
use andiron_data::Document;
use serde::{Deserialize, Serialize};

use super::characters::{CHARACTERS, Classes, count_characters, is_space};
use super::hash::hash_bytes;
use super::{Filter, FilterError, Removal, Verdict};

/// Removes lines by their length, what they begin with or contain, and what they are made of; every rule is off by default. A
/// document without a line left goes with the reason `empty`. Lines are separated by `\n`; a blank one passes all rules but
/// `max_blank_lines`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LineRules {
    /// Whether white space at the end of lines goes.
    pub trim_ends: bool,
    /// Characters of a line, at least.
    pub min_characters: usize,
    /// Characters of a line, at most; 0: any number.
    pub max_characters: usize,
    /// Words between white space, at least.
    pub min_words: usize,
    /// Fraction of the characters that are letters, at least; white space does not count.
    pub min_letters: f64,
    /// Lines that contain one of these go; ASCII letters match in upper and lower case.
    pub containing: Vec<String>,
    /// Lines that begin with one of these, after white space, go.
    pub beginning: Vec<String>,
    /// How often a line may occur in the document; 0: any number.
    pub max_occurrences: usize,
    /// Blank lines in a row, at most; none: any number.
    pub max_blank_lines: Option<usize>,
}

impl Default for LineRules {
    fn default() -> Self {
        Self {
            trim_ends: false,
            min_characters: 0,
            max_characters: 0,
            min_words: 0,
            min_letters: 0.0,
            containing: Vec::new(),
            beginning: Vec::new(),
            max_occurrences: 0,
            max_blank_lines: None,
        }
    }
}

/// [`LineRules`] that are ready to run.
pub(super) struct LineRulesFilter {
    settings: LineRules,
    containing: Option<AhoCorasick>,
}

impl LineRulesFilter {
    pub(super) fn new(settings: LineRules) -> Result<Self, FilterError> {
        let error = |problem| FilterError { filter: "line-rules", problem };
        if !(0.0..=1.0).contains(&settings.min_letters) {
            return Err(error(format!("min_letters is {}; it is a fraction, 0 to 1", settings.min_letters)));
        }
        if settings.containing.iter().chain(&settings.beginning).any(String::is_empty) {
            return Err(error(
                "an empty text would match every line; remove it from `containing` and `beginning`".into(),
            ));
        }
        let automaton = AhoCorasick::builder().ascii_case_insensitive(true).build(&settings.containing);
        let containing = automaton.map_err(|cause| error(cause.to_string()))?;
        Ok(Self { containing: (!settings.containing.is_empty()).then_some(containing), settings })
    }

    fn passes(&self, line: &str) -> bool {
        let settings = &self.settings;
        let characters = count_characters(line.as_bytes());
        characters >= settings.min_characters
            && (settings.max_characters == 0 || characters <= settings.max_characters)
            && (settings.min_words == 0 || count_words(line) >= settings.min_words)
            && (settings.min_letters == 0.0 || letters(line) >= settings.min_letters)
            && !self.containing.as_ref().is_some_and(|phrases| phrases.is_match(line))
            && !settings.beginning.iter().any(|text| line.trim_start_matches(is_space).starts_with(text))
    }
}

impl Filter for LineRulesFilter {
    fn apply(&self, document: &mut Document) -> Verdict {
        let mut kept = String::with_capacity(document.text.len());
        let mut seen: HashMap<u64, usize> = HashMap::new();
        let (mut blank_lines, mut first, mut empty) = (0, true, true);
        for line in document.text.split('\n') {
            let line = if self.settings.trim_ends { line.trim_end_matches(is_space) } else { line };
            if line.chars().all(is_space) {
                blank_lines += 1;
                if self.settings.max_blank_lines.is_some_and(|most| blank_lines > most) {
                    continue;
                }
            } else {
                if !self.passes(line) {
                    continue;
                }
                if self.settings.max_occurrences > 0 {
                    let count = seen.entry(hash_bytes(line.as_bytes())).or_default();
                    *count += 1;
                    if *count > self.settings.max_occurrences {
                        continue;
                    }
                }
                blank_lines = 0;
                empty = false;
            }
            if !first {
                kept.push('\n');
            }
            first = false;
            kept.push_str(line);
        }
        if empty {
            return Verdict::Remove(Removal { reason: "empty", score: None });
        }
        document.text = kept;
        Verdict::Keep
    }
}

fn count_words(line: &str) -> usize {
    line.split(is_space).filter(|word| !word.is_empty()).count()
}

/// The fraction of letters among the characters that are no white space.
fn letters(line: &str) -> f64 {
    let (mut letters, mut all) = (0_usize, 0_usize);
    for character in line.chars().filter(|&c| !is_space(c)) {
        all += 1;
        letters += usize::from(CHARACTERS.is(character, Classes::ALPHABETIC));
    }
    if all == 0 { 0.0 } else { letters as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(settings: LineRules, text: &str, expected: Option<&str>) {
        let mut document = Document::new("a", text);
        let verdict = LineRulesFilter::new(settings).unwrap().apply(&mut document);
        assert_eq!((verdict == Verdict::Keep).then_some(document.text.as_str()), expected);
    }

    #[test]
    fn each_rule_removes_lines() {
        let text =
            "Home | About\n\n\nA line of prose.  \n12 + 34 = 46\nA line of prose.\n> quoted\nCookie settings";
        let rules = LineRules::default;
        check(rules(), text, Some(text));
        check(
            LineRules { min_characters: 13, ..rules() },
            "short\nlong enough a line",
            Some("long enough a line"),
        );
        check(LineRules { max_characters: 5, ..rules() }, "short\nlong enough a line", Some("short"));
        check(LineRules { min_words: 3, ..rules() }, "two words\nand three words", Some("and three words"));
        check(
            LineRules { min_letters: 0.5, ..rules() },
            "12 + 34 = 46\nthe sum is 46",
            Some("the sum is 46"),
        );
        check(LineRules { containing: vec!["cookie".into()], ..rules() }, "a\nCookie settings", Some("a"));
        check(LineRules { beginning: vec![">".into()], ..rules() }, "a\n  > quoted", Some("a"));
        check(LineRules { max_occurrences: 1, trim_ends: true, ..rules() }, "a\nb\na ", Some("a\nb"));
        check(LineRules { max_blank_lines: Some(1), ..rules() }, "a\n\n\n\nb", Some("a\n\nb"));
        check(LineRules { min_characters: 100, ..rules() }, text, None);
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        assert!(LineRulesFilter::new(LineRules { min_letters: 80.0, ..LineRules::default() }).is_err());
        assert!(
            LineRulesFilter::new(LineRules { containing: vec![String::new()], ..LineRules::default() })
                .is_err()
        );
    }
}
