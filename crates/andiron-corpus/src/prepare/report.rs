//! The report of a run of `prepare`: the content of `prepare.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use andiron_data::shard::Stats;
use andiron_data::source::InputFile;

/// The inputs, settings and results of a run of [`prepare`](super::prepare). Repeating the run gives the same report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareReport {
    /// The version of the pipeline, 1: the same inputs and settings give the same bytes within a version.
    pub version: u32,
    /// The BLAKE3 hash of the settings.
    pub settings_blake3: String,
    /// The settings, for people.
    pub settings: serde_json::Value,
    /// The files read, in order.
    pub inputs: Vec<InputFile>,
    /// How many documents were kept and left out.
    pub documents: DocumentCounts,
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
    /// How many were left out.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }
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
