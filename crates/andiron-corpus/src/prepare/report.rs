//! The report of a run of `prepare`: the content of `prepare.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::paragraphs::ParagraphReport;
use andiron_data::shard::Stats;
use andiron_data::source::InputFile;

/// The inputs, settings and results of a run of [`prepare`](super::prepare). Repeating the run gives the same report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareReport {
    /// The version of the pipeline, 2: the same inputs and settings give the same bytes within a version.
    pub version: u32,
    /// The BLAKE3 hash of the settings.
    pub settings_blake3: String,
    /// The settings, for people.
    pub settings: serde_json::Value,
    /// The files read, in order.
    pub inputs: Vec<InputFile>,
    /// How many documents were kept and left out.
    pub documents: DocumentCounts,
    /// The same for each step, in order: reading, each filter, and deduplication.
    pub steps: Vec<StepCounts>,
    /// What became of paragraphs, if repeated ones are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paragraphs: Option<ParagraphReport>,
    /// What of each source is in the training data.
    pub sources: Vec<SourceReport>,
    /// The hash of the tokenizer.
    pub tokenizer_blake3: String,
    /// Ids are below this.
    pub vocab_size: usize,
    /// The training split.
    pub train: SplitReport,
    /// The validation split, if there is one.
    pub valid: Option<SplitReport>,
    /// Whether the output was up to date already; not in the file.
    #[serde(skip)]
    pub reused: bool,
    /// Entries of input directories that were not read, with the reason; not in the file.
    #[serde(skip)]
    pub passed_over: Vec<(PathBuf, String)>,
}

/// Counts of documents: `read` is `kept` plus all of `dropped`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentCounts {
    /// Records in the inputs.
    pub read: u64,
    /// Those that were encoded.
    pub kept: u64,
    /// Those left out, by reason.
    pub dropped: BTreeMap<String, u64>,
}

impl DocumentCounts {
    /// The sum over steps.
    pub(super) fn of(steps: &[StepCounts]) -> Self {
        let mut dropped = BTreeMap::new();
        for (reason, count) in steps.iter().flat_map(|step| &step.removed) {
            *dropped.entry(reason.clone()).or_default() += count;
        }
        let ends = (steps.first().map_or(0, |step| step.documents), steps.last().map_or(0, |step| step.kept));
        Self { read: ends.0, kept: ends.1, dropped }
    }

    /// How many were left out.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// Counts of documents at one step: `documents` is `kept` plus all of `removed`, and the next step has as many documents as
/// this one kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepCounts {
    /// The name of the step: `read`, the `kind` of a filter, `empty`, `exact-duplicates`, `near-duplicates`, or
    /// `repeated-paragraphs`.
    pub step: String,
    /// Documents that came to it.
    pub documents: u64,
    /// Those that went on.
    pub kept: u64,
    /// Those removed, by reason.
    pub removed: BTreeMap<String, u64>,
}

/// A source in the training data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceReport {
    /// Its name.
    pub name: String,
    /// The share that its weight asks for, in `0..=1`; `None` without weights.
    pub wanted: Option<f64>,
    /// The share that it has.
    pub share: f64,
    /// Tokens that it has for training, each counted once.
    pub tokens: u64,
    /// Tokens of it in the training data.
    pub taken: u64,
    /// How often it was taken: `taken` over `tokens`.
    pub epochs: f64,
}

/// One of the two datasets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitReport {
    /// How much text it holds.
    pub stats: Stats,
    /// The dataset's fingerprint.
    pub fingerprint: String,
}
