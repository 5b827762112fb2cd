//! Before the stages: hashes of inputs and settings, which tell whether an earlier output is still valid.

use std::path::Path;

use serde_json::json;

use super::crew::Crew;
use super::inputs::Inputs;
use super::pipeline::failed_to_read;
use super::progress::Tracker;
use super::report::{PrepareReport, SplitReport};
use super::{Existing, PrepareConfig, PrepareError, Stage, VERSION};
use crate::clean::FilterSettings;
use andiron_data::shard::Dataset;
use andiron_data::source::{FilePiece, InputFile};
use andiron_data::tokenizer::Tokenizer;
use andiron_files::read_bounded;

pub(super) const REPORT: &str = "prepare.json";
pub(super) const PAGE: &str = "report.html";
/// The keys of stages whose results lie in the output.
pub(super) const STAGES: &str = "stages.json";
pub(super) const SETTINGS: &str = "pipeline.toml";
const REPORT_LIMIT: u64 = 64 << 20;

/// The hashes of all files, or, for a task, of those of its parts: then the others have an empty one.
pub(super) fn hash_inputs(
    found: &Inputs,
    is_wanted: impl Fn(usize) -> bool + Sync,
    (crew, tracker): (&Crew, &Tracker<'_>),
) -> Result<Vec<InputFile>, PrepareError> {
    tracker.begin(Stage::Hash);
    // Large files are read by several threads.
    let pieces: Vec<(usize, u64, u64)> = (0..found.files.len())
        .filter(|&index| is_wanted(index))
        .flat_map(|index| {
            let of = InputFile::n_pieces(found.bytes[index]);
            (0..of).map(move |number| (index, number, of))
        })
        .collect();
    let hashed = crew.each(pieces.len(), |at| {
        let (index, number, of) = pieces[at];
        let (_, path) = &found.files[index];
        let progress = &mut |bytes| tracker.add(bytes, 0, 0);
        FilePiece::read(path, (number, of), progress).map_err(failed_to_read(path))
    })?;
    let nothing = InputFile { name: String::new(), bytes: 0, blake3: String::new() };
    let mut inputs = vec![nothing; found.files.len()];
    let mut done = 0;
    for file in pieces.chunk_by(|a, b| a.0 == b.0) {
        let index = file[0].0;
        let of_file = InputFile::of_pieces(&found.files[index].1, &hashed[done..done + file.len()]);
        inputs[index] = InputFile { name: found.names[index].clone(), ..of_file };
        done += file.len();
    }
    Ok(inputs)
}

/// The hashes of the files that filters read, such as lists of words.
pub(super) fn hash_lists(config: &PrepareConfig) -> Result<Vec<String>, PrepareError> {
    let files = config.filters.iter().flat_map(FilterSettings::files);
    let hash = |path: &Path| InputFile::of(path, &mut |_| ()).map_err(failed_to_read(path));
    files.map(|path| Ok(hash(path)?.blake3)).collect()
}

/// Everything besides the inputs that the output depends on.
pub(super) fn settings(
    config: &PrepareConfig,
    lists: &[String],
    loaded: Option<&Tokenizer>,
) -> serde_json::Value {
    let sources: Vec<_> = config
        .sources
        .iter()
        .map(|source| json!({ "name": source.name, "weight": source.weight, "read": source.read }))
        .collect();
    let mut settings = json!(config);
    settings["source"] = json!(sources);
    if let Some(loaded) = loaded {
        settings["tokenizer"] = json!({ "kind": "load", "blake3": loaded.fingerprint() });
    }
    if !lists.is_empty() {
        settings["filter_files"] = json!(lists);
    }
    if let Some(settings) = settings.as_object_mut() {
        settings.remove("output");
    }
    settings
}

/// The report of the existing output, if that is up to date.
pub(super) fn reuse(
    (output, existing): (&Path, Existing),
    settings_blake3: &str,
    inputs: &[InputFile],
) -> Result<Option<PrepareReport>, PrepareError> {
    let empty = |dir: &Path| std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    if !output.exists() || empty(output) {
        return Ok(None);
    }
    let exists = |differs| Err(PrepareError::Exists { path: output.to_owned(), differs });
    let report = read_bounded(&output.join(REPORT), REPORT_LIMIT).ok();
    let Some(report) = report.and_then(|json| serde_json::from_slice::<PrepareReport>(&json).ok()) else {
        // Never replaced, even with `Existing::Replace`: it may be anything.
        return exists("it has no prepare.json that this program wrote");
    };
    let differs = if report.version != VERSION {
        "another version made it"
    } else if report.settings_blake3 != settings_blake3 {
        "settings differ"
    } else if report.inputs != inputs {
        "input files differ"
    } else if !is_intact(output, &report) {
        "it is damaged"
    } else {
        return Ok(Some(PrepareReport { reused: true, ..report }));
    };
    match existing {
        Existing::Replace => Ok(None),
        Existing::Refuse => exists(differs),
    }
}

fn is_intact(output: &Path, report: &PrepareReport) -> bool {
    let same = |name: &str, part: &SplitReport| {
        Dataset::open(&output.join(name)).is_ok_and(|dataset| dataset.fingerprint() == part.fingerprint)
    };
    Tokenizer::load(&output.join("tokenizer")).is_ok_and(|t| t.fingerprint() == report.tokenizer_blake3)
        && same("train", &report.train)
        && report.valid.as_ref().is_none_or(|valid| same("valid", valid))
}
