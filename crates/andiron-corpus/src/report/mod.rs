//! `report.html`: what became of a pile of text, on one page, without scripts and without other files.
//!
//! [`CorpusReport`] holds what is shown, in bounded memory whatever the size of the corpus; [`render`] turns it into the page.
//! [`GatheredFilters`] and [`GatheredKept`] are filled while documents pass. Their results do not depend on the order in which they are
//! filled, and those of several tasks can be merged, so that any number of threads and tasks gives the same page.

mod bars;
mod collect;
mod gather;
mod histogram;
mod page;
mod sample;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use collect::CollectError;
pub(crate) use collect::NEAR_DUPLICATES;
pub use gather::{GatheredFilters, GatheredKept};
pub use histogram::{Histogram, Scale};
pub use page::render;
pub use sample::{Example, Samples};

use crate::dedup::DuplicateSummary;

/// Everything that a report shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorpusReport {
    /// The name of the corpus.
    pub name: String,
    /// Counts at each step, in order.
    pub steps: Vec<Step>,
    /// The texts of which the corpus is mixed.
    pub sources: Vec<SourceShare>,
    /// Lengths of the documents that stayed, in some units.
    pub lengths: Vec<NamedHistogram>,
    /// Scores for which documents were removed, by step and reason.
    pub scores: Vec<NamedHistogram>,
    /// Languages of documents, with how many there are of each.
    pub languages: BTreeMap<String, u64>,
    /// What was removed, and why.
    pub removed: Vec<Example>,
    /// Near-duplicates.
    pub duplicates: Option<DuplicateReport>,
    /// How the tokenizer's vocabulary fits.
    pub vocabulary: Option<VocabularyReport>,
    /// What the corpus was made of and by, as names and values.
    pub facts: Vec<(String, String)>,
    /// The settings, as TOML.
    pub settings: String,
}

impl CorpusReport {
    /// The first place where documents got lost: a step whose documents are not those that stayed and those that were removed, or not
    /// those that the step before let through.
    pub fn imbalance(&self) -> Option<String> {
        let mut before: Option<&Step> = None;
        for step in &self.steps {
            let out = step.kept + step.removed.values().sum::<u64>();
            if out != step.documents {
                return Some(format!(
                    "{}: {} documents came and {out} are accounted for",
                    step.step, step.documents
                ));
            }
            if let Some(before) = before.filter(|before| before.kept != step.documents) {
                return Some(format!(
                    "{} let {} documents through and {} got {}",
                    before.step, before.kept, step.step, step.documents
                ));
            }
            before = Some(step);
        }
        None
    }

    /// Documents read.
    fn read(&self) -> u64 {
        self.steps.first().map_or(0, |step| step.documents)
    }

    /// Documents that stayed.
    fn kept(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.kept)
    }
}

/// Counts of documents at one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name, such as the `kind` of a filter.
    pub step: String,
    /// Documents that came to it.
    pub documents: u64,
    /// Those that went on.
    pub kept: u64,
    /// Those removed, by reason.
    pub removed: BTreeMap<String, u64>,
}

/// One of the texts of which a corpus is mixed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceShare {
    /// Its name.
    pub name: String,
    /// Its documents that stayed.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their tokens, each time that they are repeated.
    pub tokens: u64,
    /// The wanted share of the tokens, in `0..=1`, if one is set.
    pub weight: Option<f64>,
    /// How often it is repeated, on average.
    pub repeats: Option<f64>,
}

/// A histogram with its title.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedHistogram {
    /// What is counted, such as `Words`.
    pub name: String,
    /// The counts.
    pub histogram: Histogram,
}

/// Near-duplicates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuplicateReport {
    /// Counts of documents and clusters.
    pub summary: DuplicateSummary,
    /// Some clusters, the largest first.
    pub examples: Vec<ClusterExample>,
}

/// A cluster of near-duplicates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterExample {
    /// Its number.
    pub cluster: u32,
    /// Its documents.
    pub size: u32,
    /// The id of the document that stayed.
    pub id: String,
    /// The beginning of its text.
    pub text: String,
    /// Some of the others.
    pub others: Vec<DuplicateExample>,
}

/// A document that was removed because it is like another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuplicateExample {
    /// Its id.
    pub id: String,
    /// The estimated similarity to the document that stayed, in `0..=1`.
    pub similarity: Option<f64>,
    /// The beginning of its text.
    pub text: String,
}

/// How a vocabulary fits a corpus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VocabularyReport {
    /// Tokens of the vocabulary.
    pub vocab_size: u64,
    /// Those that occur.
    pub used: u64,
    /// Those that occur fewer than a hundred times, or not at all: too seldom to be learned well.
    pub rare: u64,
    /// Tokens of the corpus.
    pub tokens: u64,
    /// Bytes of the corpus.
    pub bytes: u64,
    /// Shares of the text with how many of the most frequent tokens make them up.
    pub coverage: Vec<(f64, u64)>,
}

impl VocabularyReport {
    /// The report of a corpus of `bytes` bytes in which the token `id` occurs `counts[id]` times.
    pub fn of_counts(counts: &[u64], bytes: u64) -> Self {
        let mut descending: Vec<u64> = counts.to_vec();
        descending.sort_unstable_by(|a, b| b.cmp(a));
        let tokens: u64 = descending.iter().sum();
        let mut coverage = Vec::new();
        for share in [0.5, 0.9, 0.99, 0.999] {
            let mut sum = 0;
            let needed = descending.iter().take_while(|count| {
                let more = (sum as f64) < share * tokens as f64;
                sum += **count;
                more
            });
            coverage.push((share, needed.count() as u64));
        }
        Self {
            vocab_size: counts.len() as u64,
            used: counts.iter().filter(|count| **count > 0).count() as u64,
            rare: counts.iter().filter(|count| **count < 100).count() as u64,
            tokens,
            bytes,
            coverage,
        }
    }
}

#[cfg(test)]
mod tests;
