//! What a report needs of documents while they pass.

use std::collections::BTreeMap;

use andiron_data::Document;
use andiron_page::text::shortened;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sample::MAX_TEXT;
use super::{CorpusReport, Example, Histogram, NamedHistogram, Samples, Scale};

/// Examples of each reason.
const PER_REASON: usize = 5;

/// Reasons that have a histogram of scores.
const MAX_SCORES: usize = 100;

/// What became of documents at filters. That of several parts can be merged, in any order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatheredFilters {
    languages: BTreeMap<String, u64>,
    scores: BTreeMap<String, Histogram>,
    samples: Samples,
}

impl Default for GatheredFilters {
    /// Nothing gathered yet.
    fn default() -> Self {
        Self { languages: BTreeMap::new(), scores: BTreeMap::new(), samples: Samples::new(PER_REASON) }
    }
}

impl GatheredFilters {
    /// Gathers a document that stays: its language, if the metadata `language` is a code of two or three letters.
    pub fn keep(&mut self, document: &Document) {
        let Some(language) = document.metadata.get("language").and_then(Value::as_str) else { return };
        let is_code =
            matches!(language.len(), 2 | 3) && language.bytes().all(|byte| byte.is_ascii_lowercase());
        // So there is a bound, whatever the metadata of a file hold.
        let language = if is_code { language } else { "other" };
        *self.languages.entry(language.to_owned()).or_default() += 1;
    }

    /// Gathers a document that was removed.
    pub fn remove(&mut self, example: Example) {
        if let Some(score) = example.score {
            let name = format!("{}: {}", example.step, example.reason);
            self.score(&name, |histogram| histogram.add(score));
        }
        self.samples.add(example);
    }

    /// Adds what another part gathered.
    pub fn merge(&mut self, other: Self) {
        for (language, count) in other.languages {
            *self.languages.entry(language).or_default() += count;
        }
        for (name, scores) in other.scores {
            self.score(&name, |histogram| histogram.merge(&scores));
        }
        self.samples.merge(other.samples);
    }

    /// Puts what was gathered into a report.
    pub fn finish(self, report: &mut CorpusReport) {
        let scores = self.scores.into_iter().map(|(name, histogram)| NamedHistogram { name, histogram });
        report.scores = scores.collect();
        report.removed = self.samples.into_examples();
        report.languages = self.languages;
    }

    fn score(&mut self, name: &str, add: impl FnOnce(&mut Histogram)) {
        if let Some(histogram) = self.scores.get_mut(name) {
            add(histogram);
        } else if self.scores.len() < MAX_SCORES {
            add(self.scores.entry(name.to_owned()).or_insert_with(|| Histogram::new(Scale::Linear)));
        }
    }
}

/// What is known of the documents that stay. Those of several parts can be merged, in any order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatheredKept {
    bytes: Histogram,
    words: Histogram,
    tokens: Histogram,
    total_bytes: u64,
}

impl Default for GatheredKept {
    /// Nothing gathered yet.
    fn default() -> Self {
        let histogram = || Histogram::new(Scale::Logarithmic);
        Self { bytes: histogram(), words: histogram(), tokens: histogram(), total_bytes: 0 }
    }
}

impl GatheredKept {
    /// Gathers a text. Its words are what white space divides.
    pub fn add(&mut self, text: &str) {
        self.bytes.add(text.len() as f64);
        self.words.add(text.split_whitespace().count() as f64);
        self.total_bytes += text.len() as u64;
    }

    /// Gathers a document that became so many tokens.
    pub fn add_tokens(&mut self, tokens: u64) {
        self.tokens.add(tokens as f64);
    }

    /// Adds what another part gathered.
    pub fn merge(&mut self, other: &Self) {
        self.bytes.merge(&other.bytes);
        self.words.merge(&other.words);
        self.tokens.merge(&other.tokens);
        self.total_bytes += other.total_bytes;
    }

    /// Bytes of all texts.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Puts what was gathered into a report.
    pub fn finish(self, report: &mut CorpusReport) {
        let named = |name: &str, histogram| NamedHistogram { name: name.to_owned(), histogram };
        report.lengths =
            vec![named("Bytes", self.bytes), named("Words", self.words), named("Tokens", self.tokens)];
    }
}

impl Example {
    /// A document that was removed by a step.
    pub fn new(document: &Document, step: &str, reason: &str, score: Option<f64>) -> Self {
        Self {
            step: step.to_owned(),
            reason: reason.to_owned(),
            id: document.id.clone(),
            score,
            note: None,
            text: shortened(&document.text, MAX_TEXT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_gather_as_the_whole_does() {
        let document = |number: u32, language: &str| {
            let mut document = Document::new(number.to_string(), "two words ".repeat(number as usize));
            document.metadata.insert("language".into(), language.into());
            document
        };
        let gather = |numbers: std::ops::Range<u32>| {
            let (mut filters, mut kept) = (GatheredFilters::default(), GatheredKept::default());
            for number in numbers {
                let document = document(number, ["en", "ko", "<b>"][number as usize % 3]);
                if number.is_multiple_of(2) {
                    filters.keep(&document);
                    kept.add(&document.text);
                    kept.add_tokens(number.into());
                } else {
                    filters.remove(Example::new(&document, "length", "odd", Some(number.into())));
                }
            }
            (filters, kept)
        };
        let (whole, (mut filters, mut kept)) = (gather(0..100), gather(60..100));
        let (other_filters, other_kept) = gather(0..60);
        filters.merge(other_filters);
        kept.merge(&other_kept);
        assert_eq!((&filters, &kept), (&whole.0, &whole.1));
        let mut report = CorpusReport::default();
        filters.finish(&mut report);
        kept.finish(&mut report);
        assert_eq!(
            report.languages,
            BTreeMap::from([("en".into(), 17), ("ko".into(), 16), ("other".into(), 17)])
        );
        assert_eq!((report.scores[0].histogram.n(), report.removed.len()), (50, PER_REASON));
        assert_eq!(report.lengths[1].histogram.range(), Some((0.0, 196.0)));
    }
}
