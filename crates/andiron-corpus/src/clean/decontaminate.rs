//! Removal of evaluation sets: documents, or parts of them, that share runs of words with the rows of an evaluation.
//!
//! Words are compared as in near-deduplication: without case, punctuation, accents and the values of numbers.
//!
//! | | run of words | what goes |
//! |---|---|---|
//! | here, by default | 13; whole rows of 8 to 12 | the document |
//! | datatrove 0.10.1 | 12 of answers, and across question and answer | the document |
//! | GPT-3 | by length of the rows, 8 to 13 | 200 characters around; pieces below 200; the document after ten |
//! | lm-eval 0.4.13 | 13 | the same |
//!
//! With `remove = "part"` the rule is GPT-3's. It also spares runs that are frequent in the whole corpus, which one document does not
//! tell. A part that is cut leaves a blank line, where GPT-3 makes two documents.
//!
//! Source: Brown et al. 2020, "Language models are few-shot learners", appendix C, <https://arxiv.org/abs/2005.14165>.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::PathBuf;

use andiron_data::Document;
use andiron_data::rows::{Row, RowOptions, RowReader};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Filter, FilterError, Removal, Verdict};
use crate::dedup::words::{NoHasher, Word, for_each_word, ngram_hashes, word_hashes};

const NAME: &str = "decontaminate";

/// The most runs of words in memory, about 2 GB.
const MAX_RUNS: usize = 1 << 26;

/// Which documents are in an evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decontaminate {
    /// Files of evaluation rows, in the formats of training rows.
    pub files: Vec<PathBuf>,
    /// The fields whose texts are joined, in this order. With none, each text of a row is taken alone, also those in lists and objects.
    #[serde(default)]
    pub fields: Vec<String>,
    /// Words of a run that a document must not share with a row.
    #[serde(default = "thirteen")]
    pub n_grams: usize,
    /// Rows of fewer words than a run count as a whole if they have at least this many; shorter ones are not looked for.
    #[serde(default = "eight")]
    pub min_words: usize,
    /// What goes.
    #[serde(default)]
    pub remove: RemoveContaminated,
    /// Characters that go on both sides of what is shared, with `part`.
    #[serde(default = "two_hundred")]
    pub window: usize,
    /// Pieces between that have no more characters go too, with `part`.
    #[serde(default = "two_hundred")]
    pub min_piece: usize,
    /// Documents from which more than this many parts would be cut go as a whole, with `part`.
    #[serde(default = "ten")]
    pub max_parts: usize,
}

fn thirteen() -> usize {
    13
}

fn eight() -> usize {
    8
}

fn two_hundred() -> usize {
    200
}

fn ten() -> usize {
    10
}

impl Default for Decontaminate {
    /// No files; runs of 13 words, or whole rows of at least 8.
    fn default() -> Self {
        Self {
            files: Vec::new(),
            fields: Vec::new(),
            n_grams: thirteen(),
            min_words: eight(),
            remove: RemoveContaminated::default(),
            window: two_hundred(),
            min_piece: two_hundred(),
            max_parts: ten(),
        }
    }
}

/// What of a contaminated document goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoveContaminated {
    /// The document.
    #[default]
    Document,
    /// What it shares, and what is around it.
    Part,
}

impl Decontaminate {
    /// Reads the evaluation rows.
    pub(super) fn build(&self) -> Result<DecontaminateFilter, FilterError> {
        let wrong = |problem: String| FilterError { filter: NAME, problem };
        if self.files.is_empty() {
            return Err(wrong("it has no `files` of evaluation rows".to_owned()));
        }
        if !(1..=1000).contains(&self.n_grams) || !(1..=self.n_grams).contains(&self.min_words) {
            return Err(wrong(format!(
                "n_grams is {} and min_words is {}; they must be at least 1, min_words at most n_grams, and n_grams at most 1000",
                self.n_grams, self.min_words
            )));
        }
        let mut runs = Runs::default();
        for (file, path) in self.files.iter().enumerate() {
            let before = runs.n;
            let rows =
                RowReader::open(path, &RowOptions::default()).map_err(|error| wrong(with_causes(&error)))?;
            for row in rows {
                let row = row.map_err(|error| wrong(with_causes(&error)))?;
                self.add_row(&row, file, &mut runs).map_err(|error| wrong(with_causes(&error)))?;
                if runs.n > MAX_RUNS {
                    return Err(wrong(format!("{}: more than {MAX_RUNS} runs of words", path.display())));
                }
            }
            if runs.n == before && !runs.known {
                return Err(wrong(format!(
                    "{}: no row has a text of {} words or more",
                    path.display(),
                    self.min_words
                )));
            }
            runs.known = false;
        }
        Ok(DecontaminateFilter { settings: self.clone(), runs })
    }

    fn add_row(&self, row: &Row, file: usize, runs: &mut Runs) -> Result<(), andiron_data::rows::RowError> {
        if self.fields.is_empty() {
            for value in row.names().filter_map(|name| row.find(name)) {
                for_each_text(value, &mut |text| self.add(text, file, runs));
            }
            return Ok(());
        }
        let mut joined = String::new();
        for field in &self.fields {
            for_each_text(row.get(field)?, &mut |text| {
                joined.push_str(text);
                joined.push('\n');
            });
        }
        self.add(&joined, file, runs);
        Ok(())
    }

    fn add(&self, text: &str, file: usize, runs: &mut Runs) {
        let mut words = Vec::new();
        word_hashes(text, &mut words);
        if words.len() < self.min_words {
            return;
        }
        runs.known = true;
        let length = words.len().min(self.n_grams);
        let of_length = runs.by_length.entry(length).or_default();
        for hash in ngram_hashes(&words, length) {
            if of_length.insert(hash, file as u32).is_none() {
                runs.n += 1;
            }
        }
    }
}

/// Calls `each` with a text, or with the texts in a list or an object.
fn for_each_text(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter().for_each(|item| for_each_text(item, each)),
        Value::Object(fields) => fields.values().for_each(|field| for_each_text(field, each)),
        _ => {}
    }
}

/// An error with its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Hashes of the runs of words of all rows, by their length, each with the last file that has it.
#[derive(Default)]
struct Runs {
    by_length: BTreeMap<usize, HashMap<u64, u32, std::hash::BuildHasherDefault<NoHasher>>>,
    n: usize,
    /// Whether a text of the present file was long enough.
    known: bool,
}

/// [`Decontaminate`] with its index of runs.
pub(super) struct DecontaminateFilter {
    settings: Decontaminate,
    runs: Runs,
}

impl DecontaminateFilter {
    /// What of the text stands in a row, in order and without overlaps, and the file with the first of it; and how many runs are shared.
    fn shared(&self, text: &str) -> (Vec<Range<usize>>, Option<u32>, usize) {
        let (mut words, mut hashes) = (Vec::<Word>::new(), Vec::new());
        for_each_word(text, |word| {
            words.push(word);
            hashes.push(word.hash);
        });
        let mut found = Vec::new();
        for (&length, runs) in &self.runs.by_length {
            for (first, hash) in ngram_hashes(&hashes, length).enumerate() {
                if let Some(file) = runs.get(&hash) {
                    found.push((words[first].start, words[first + length - 1].end, *file));
                }
            }
        }
        found.sort_unstable();
        let mut parts: Vec<Range<usize>> = Vec::new();
        for &(start, end, _) in &found {
            match parts.last_mut().filter(|part| start <= part.end) {
                Some(part) => part.end = part.end.max(end),
                None => parts.push(start..end),
            }
        }
        (parts, found.first().map(|(_, _, file)| *file), found.len())
    }

    /// What stays of the text; `None` if too much would be cut.
    fn without(&self, text: &str, parts: &[Range<usize>]) -> Option<String> {
        let Decontaminate { window, min_piece, max_parts, .. } = self.settings;
        if parts.len() > max_parts {
            return None;
        }
        let mut pieces = Vec::new();
        let mut start = 0;
        for part in parts {
            let before = text[..part.start].char_indices().rev().nth(window.saturating_sub(1));
            let end = if window == 0 { part.start } else { before.map_or(0, |(at, _)| at) };
            pieces.push(start..end.max(start));
            let after = text[part.end..].char_indices().nth(window);
            start = after.map_or(text.len(), |(at, _)| part.end + at);
        }
        pieces.push(start..text.len());
        let pieces = pieces.into_iter().map(|piece| text[piece].trim());
        let long: Vec<_> = pieces.filter(|piece| piece.chars().nth(min_piece).is_some()).collect();
        (!long.is_empty()).then(|| long.join("\n\n"))
    }
}

impl Filter for DecontaminateFilter {
    fn apply(&self, document: &mut Document) -> Verdict {
        let (parts, file, n_runs) = self.shared(&document.text);
        let Some(first) = parts.first() else { return Verdict::Keep };
        if self.settings.remove == RemoveContaminated::Part
            && let Some(rest) = self.without(&document.text, &parts)
        {
            document.text = rest;
            return Verdict::Keep;
        }
        let file = file.and_then(|file| self.settings.files.get(file as usize));
        let name = file.and_then(|file| file.file_name()).map(|name| name.to_string_lossy().into_owned());
        let shared = document.text[first.clone()].to_owned();
        document.metadata.insert("contaminated_by".to_owned(), name.into());
        document.metadata.insert("contaminated_text".to_owned(), shared.into());
        Verdict::Remove(Removal { reason: "contaminated", score: Some(n_runs as f64) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &str =
        "Which of the two ships, the larger or the faster one, reached the harbour of Lisbon before noon?";

    fn filter(
        content: &str,
        change: impl FnOnce(&mut Decontaminate),
    ) -> Result<DecontaminateFilter, FilterError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.jsonl");
        std::fs::write(&path, content).unwrap();
        let mut settings = Decontaminate { files: vec![path], ..Decontaminate::default() };
        change(&mut settings);
        settings.build()
    }

    fn row(question: &str, answer: &str) -> String {
        serde_json::json!({ "id": 7, "question": question, "answers": { "text": [answer] } }).to_string()
    }

    fn apply(filter: &DecontaminateFilter, text: &str) -> (Verdict, Document) {
        let mut document = Document::new("a", text);
        (filter.apply(&mut document), document)
    }

    #[test]
    fn a_document_with_a_run_of_thirteen_words_goes() {
        let filter = filter(&row(QUESTION, "The larger one."), |_| {}).unwrap();
        let thirteen = "he asked WHICH of the 2 two";
        assert_eq!(apply(&filter, thirteen).0, Verdict::Keep);
        let text = "– «Larger, or the FASTER one:\nreached the harbour of Lisbon, before noon»; so he said";
        // "larger or the faster one reached the harbour of lisbon before noon" are 12 words.
        assert_eq!(apply(&filter, text).0, Verdict::Keep);
        let (verdict, document) = apply(&filter, &format!("And the {}", text.trim_start_matches("– «")));
        assert_eq!(verdict, Verdict::Remove(Removal { reason: "contaminated", score: Some(1.0) }));
        assert_eq!(document.metadata["contaminated_by"], "test.jsonl");
        let shared = document.metadata["contaminated_text"].as_str().unwrap();
        assert!(shared.starts_with("the Larger") && shared.ends_with("before noon"), "{shared}");
    }

    #[test]
    fn short_rows_count_as_a_whole_and_shorter_ones_not_at_all() {
        let rows = [row("one two three four five six seven eight nine", "x"), row("a b c d", "y")].join("\n");
        let filter = filter(&rows, |_| {}).unwrap();
        assert_eq!(apply(&filter, "a b c d, one two three four five six seven eight").0, Verdict::Keep);
        assert_ne!(apply(&filter, "zero one two three four five six seven eight nine ten").0, Verdict::Keep);
    }

    #[test]
    fn named_fields_are_joined() {
        let rows = row("who was the first to reach", "the south pole in the year of 1911 it was");
        let fields = |settings: &mut Decontaminate| {
            settings.fields = vec!["question".to_owned(), "answers.text".to_owned()];
        };
        let text = "the first to reach the south pole in the year of 1911 it";
        assert_eq!(apply(&filter(&rows, |_| {}).unwrap(), text).0, Verdict::Keep);
        assert_ne!(apply(&filter(&rows, fields).unwrap(), text).0, Verdict::Keep);
        let error = filter(&rows, |settings| settings.fields = vec!["prompt".to_owned()]).err().unwrap();
        assert!(error.to_string().contains("test.jsonl:1: "), "{error}");
        assert!(error.to_string().contains("prompt"), "{error}");
    }

    #[test]
    fn parts_are_cut_with_their_surroundings() {
        let part = |settings: &mut Decontaminate| settings.remove = RemoveContaminated::Part;
        let filter = filter(&row(QUESTION, "x"), part).unwrap();
        let (before, after) = ("Ä. ".repeat(200), "ö, ".repeat(200));
        let (verdict, document) = apply(&filter, &format!("{before}{QUESTION}{after}"));
        assert_eq!(verdict, Verdict::Keep);
        let pieces: Vec<_> = document.text.split("\n\n").collect();
        assert_eq!(pieces.len(), 2);
        // Of 600 characters 200 beside the question went; the question mark after it is one of them.
        assert_eq!(pieces[0].chars().count(), 400);
        assert_eq!(pieces[1].chars().count(), 400);
        // Nothing but the surroundings.
        assert_ne!(apply(&filter, &format!("Short. {QUESTION}")).0, Verdict::Keep);
        let often = format!("{before}{QUESTION}").repeat(11);
        assert_ne!(apply(&filter, &often).0, Verdict::Keep);
    }

    #[test]
    fn a_file_without_anything_to_look_for_is_an_error() {
        let error = filter(&row("too short", "y"), |_| {}).err().unwrap().to_string();
        assert!(error.ends_with("test.jsonl: no row has a text of 8 words or more"), "{error}");
        let none = Decontaminate::default().build().err().unwrap().to_string();
        assert_eq!(none, "filter decontaminate: it has no `files` of evaluation rows");
        let missing = Decontaminate { files: vec!["missing.jsonl".into()], ..Decontaminate::default() };
        assert!(
            missing
                .build()
                .err()
                .unwrap()
                .to_string()
                .starts_with("filter decontaminate: cannot read missing.jsonl: ")
        );
    }
}
