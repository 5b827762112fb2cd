//! The report of a prepared corpus, from the files of its directory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use crate::dedup::ParagraphCounts;
use crate::prepare::ParagraphReport;
use andiron_data::Document;
use andiron_data::document::Metadata;
use andiron_data::shard::{Dataset, DatasetError};
use andiron_data::source::InputFile;
use andiron_files::{list, open, read_bounded};
use andiron_page::text::shortened;
use rayon::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::sample::MAX_TEXT;
use super::{
    ClusterExample, CorpusReport, DuplicateExample, DuplicateReport, Example, GatheredFilters, GatheredKept,
    SourceShare, Step, VocabularyReport,
};
use crate::dedup::DuplicateSummary;

/// The largest file that is read as a whole, and the longest line, in bytes.
const LIMIT: u64 = 1 << 30;

/// Clusters, and documents of each, that are shown.
const MAX_CLUSTERS: usize = 6;
const MAX_OTHERS: usize = 3;

/// Ids that are read at a time.
const IDS: usize = 1 << 16;

/// The name of the summary of near-duplicates in the directory.
pub(crate) const NEAR_DUPLICATES: &str = "near-duplicates.json";

impl CorpusReport {
    /// The report of what [`prepare`](crate::prepare::prepare) wrote into `directory`: one pass over the documents and the tokens, by
    /// all threads of the pool.
    ///
    /// # Errors
    /// If a file is missing, cannot be read, or is not what was written.
    pub fn collect(directory: &Path) -> Result<Self, CollectError> {
        let prepared: Prepared = whole(&directory.join("prepare.json"))?;
        let mut report = Self { steps: prepared.steps, ..Self::default() };
        let removed = directory.join("removed.jsonl");
        let mut filters = GatheredFilters::default();
        let mut clusters: HashMap<u32, (u32, String)> = HashMap::new();
        for_each_line(&removed, |line: Removed| {
            if let (Some(cluster), Some(first)) = (line.cluster, &line.duplicate_of) {
                clusters.entry(cluster).or_insert_with(|| (1, first.clone())).0 += 1;
            }
            filters.remove(line.into_example());
        })?;
        let near_duplicates = directory.join(NEAR_DUPLICATES);
        if andiron_files::is_there(&near_duplicates).map_err(|source| read(&near_duplicates, source))? {
            let summary: DuplicateSummary = whole(&near_duplicates)?;
            report.duplicates = Some(DuplicateReport { summary, examples: examples(clusters, &removed)? });
        }

        let documents = directory.join("documents");
        let names = list(&documents).map_err(|source| read(&documents, source))?;
        let names: Vec<_> = names.into_iter().filter(|name| name.ends_with(".jsonl")).collect();
        let firsts: BTreeSet<&str> = report
            .duplicates
            .iter()
            .flat_map(|duplicates| duplicates.examples.iter().map(|example| example.id.as_str()))
            .collect();
        let parts = names.par_iter().map(|name| Part::read(&documents.join(name), &firsts));
        let mut all = Part::default();
        for part in parts.collect::<Result<Vec<_>, _>>()? {
            all.merge(part);
        }
        for example in report.duplicates.iter_mut().flat_map(|duplicates| &mut duplicates.examples) {
            if let Some(text) = all.texts.remove(&example.id) {
                example.text = text;
            }
        }

        filters.merge(all.filters);
        filters.finish(&mut report);
        let total_bytes = all.kept.total_bytes();
        let mut counts = vec![0; prepared.vocab_size];
        let mut tokens = 0;
        for split in ["train", "valid"] {
            let path = directory.join(split);
            if andiron_files::is_there(&path).map_err(|source| read(&path, source))? {
                let dataset = Dataset::open(&path)?;
                count(&dataset, &mut counts, &mut all.kept);
                tokens += dataset.tokens();
                let documents = dataset.stats().documents;
                let held = format!("{documents} documents, {} tokens", dataset.tokens());
                report.facts.push((split.to_owned(), held));
            }
        }
        all.kept.finish(&mut report);
        report.vocabulary = (tokens > 0)
            .then(|| VocabularyReport { bytes: total_bytes, ..VocabularyReport::of_counts(&counts, 0) });
        report.sources = prepared
            .sources
            .into_iter()
            .map(|source| {
                let (documents, bytes) = all.by_source.get(&source.name).copied().unwrap_or_default();
                let Source { name, wanted, taken, epochs } = source;
                SourceShare { name, documents, bytes, tokens: taken, weight: wanted, repeats: Some(epochs) }
            })
            .collect();
        let names: Vec<&str> = report.sources.iter().map(|source| source.name.as_str()).collect();
        report.name = if names.is_empty() { "corpus".to_owned() } else { names.join(", ") };
        let bytes: u64 = prepared.inputs.iter().map(|input| input.bytes).sum();
        report.facts.push(("inputs".to_owned(), format!("{} files, {bytes} bytes", prepared.inputs.len())));
        if let Some(ParagraphReport { counts, false_positive_rate }) = prepared.paragraphs {
            let ParagraphCounts { paragraphs, removed, removed_bytes } = counts;
            let told = format!(
                "{removed} of {paragraphs} removed as repeated ({removed_bytes} bytes); a new one is taken for a repeated one with \
                 probability {false_positive_rate:.1e} at the end"
            );
            report.facts.push(("paragraphs".to_owned(), told));
        }
        report.facts.push(("settings".to_owned(), format!("BLAKE3 {}", prepared.settings_blake3)));
        report.facts.push(("tokenizer".to_owned(), format!("BLAKE3 {}", prepared.tokenizer_blake3)));
        let settings = directory.join("pipeline.toml");
        if andiron_files::is_there(&settings).map_err(|source| read(&settings, source))? {
            let toml = read_bounded(&settings, LIMIT).map_err(|source| read(&settings, source))?;
            report.settings = String::from_utf8_lossy(&toml).into_owned();
        }
        Ok(report)
    }
}

/// What a report needs of `prepare.json`.
#[derive(Deserialize)]
struct Prepared {
    inputs: Vec<InputFile>,
    steps: Vec<Step>,
    #[serde(default)]
    paragraphs: Option<ParagraphReport>,
    #[serde(default)]
    sources: Vec<Source>,
    settings_blake3: String,
    tokenizer_blake3: String,
    vocab_size: usize,
}

#[derive(Deserialize)]
struct Source {
    name: String,
    wanted: Option<f64>,
    taken: u64,
    epochs: f64,
}

/// A line of `removed.jsonl`.
#[derive(Deserialize)]
struct Removed {
    id: Option<String>,
    file: Option<String>,
    line: Option<u64>,
    filter: String,
    reason: String,
    score: Option<f64>,
    detail: Option<String>,
    duplicate_of: Option<String>,
    cluster: Option<u32>,
    #[serde(default)]
    text: String,
}

impl Removed {
    fn into_example(self) -> Example {
        let place = |file: String| match self.line {
            Some(line) => format!("{file}:{line}"),
            None => file,
        };
        let id = self.id.or_else(|| self.file.map(place)).unwrap_or_default();
        let note = self.duplicate_of.map(|first| format!("duplicate of {first}")).or(self.detail);
        Example { step: self.filter, reason: self.reason, id, score: self.score, note, text: self.text }
    }
}

/// The largest clusters, with some of their documents.
fn examples(
    clusters: HashMap<u32, (u32, String)>,
    removed: &Path,
) -> Result<Vec<ClusterExample>, CollectError> {
    let mut largest: Vec<_> = clusters.into_iter().collect();
    largest.sort_unstable_by(|a, b| b.1.0.cmp(&a.1.0).then(a.0.cmp(&b.0)));
    largest.truncate(MAX_CLUSTERS);
    let example = |(cluster, (size, id))| ClusterExample { cluster, size, id, ..ClusterExample::default() };
    let mut examples: Vec<ClusterExample> = largest.into_iter().map(example).collect();
    if examples.is_empty() {
        return Ok(examples);
    }
    for_each_line(removed, |line: Removed| {
        let example = examples.iter_mut().find(|example| Some(example.cluster) == line.cluster);
        if let Some(example) = example.filter(|example| example.others.len() < MAX_OTHERS) {
            let id = line.id.unwrap_or_default();
            example.others.push(DuplicateExample { id, similarity: line.score, text: line.text });
        }
    })?;
    Ok(examples)
}

/// A cleaned document.
#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(default)]
    source: String,
    text: String,
    #[serde(default)]
    metadata: Metadata,
}

/// What is gathered of a file of documents.
#[derive(Default)]
struct Part {
    filters: GatheredFilters,
    kept: GatheredKept,
    by_source: BTreeMap<String, (u64, u64)>,
    /// The beginnings of some texts, by id.
    texts: BTreeMap<String, String>,
}

impl Part {
    fn read(path: &Path, wanted: &BTreeSet<&str>) -> Result<Self, CollectError> {
        let mut part = Self::default();
        for_each_line(path, |Stored { id, source, text, metadata }| {
            let (documents, bytes) = part.by_source.entry(source).or_default();
            *documents += 1;
            *bytes += text.len() as u64;
            if wanted.contains(id.as_str()) {
                part.texts.entry(id.clone()).or_insert_with(|| shortened(&text, MAX_TEXT));
            }
            part.kept.add(&text);
            part.filters.keep(&Document { id, text: String::new(), metadata });
        })?;
        Ok(part)
    }

    fn merge(&mut self, other: Self) {
        self.filters.merge(other.filters);
        self.kept.merge(&other.kept);
        for (source, (documents, bytes)) in other.by_source {
            let sum = self.by_source.entry(source).or_default();
            *sum = (sum.0 + documents, sum.1 + bytes);
        }
        for (id, text) in other.texts {
            self.texts.entry(id).or_insert(text);
        }
    }
}

/// Counts the tokens of a dataset.
fn count(dataset: &Dataset, counts: &mut [u64], kept: &mut GatheredKept) {
    for document in dataset.documents() {
        kept.add_tokens(document.tokens.end - document.tokens.start);
    }
    let (mut ids, mut at) = (vec![0; IDS], 0);
    while at < dataset.tokens() {
        let n = (dataset.tokens() - at).min(IDS as u64) as usize;
        dataset.read(at, &mut ids[..n]);
        for id in &ids[..n] {
            // Ids beyond the vocabulary would be a damaged file, which opening does not tell.
            if let Some(count) = counts.get_mut(*id as usize) {
                *count += 1;
            }
        }
        at += n as u64;
    }
}

fn read(path: &Path, source: std::io::Error) -> CollectError {
    CollectError::Read { path: path.to_owned(), source }
}

fn whole<T: DeserializeOwned>(path: &Path) -> Result<T, CollectError> {
    let json = read_bounded(path, LIMIT).map_err(|source| read(path, source))?;
    serde_json::from_slice(&json).map_err(|source| CollectError::Json {
        path: path.to_owned(),
        line: 0,
        source,
    })
}

fn for_each_line<T: DeserializeOwned>(path: &Path, mut each: impl FnMut(T)) -> Result<(), CollectError> {
    let mut lines = BufReader::new(open(path).map_err(|source| read(path, source))?);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let n =
            (&mut lines).take(LIMIT).read_until(b'\n', &mut bytes).map_err(|source| read(path, source))?;
        if n == 0 {
            break;
        }
        let parsed = serde_json::from_slice(&bytes);
        each(parsed.map_err(|source| CollectError::Json { path: path.to_owned(), line, source })?);
    }
    Ok(())
}

/// Why a report cannot be made of a directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is not what was written.
    #[error("{}{} is not what was written; prepare the corpus again", path.display(), if *line > 0 { format!(":{line}") } else { String::new() })]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1; 0 if the file is read as a whole.
        line: u64,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A dataset cannot be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::*;

    fn lines(values: &[Value]) -> String {
        values.iter().map(|value| format!("{value}\n")).collect()
    }

    /// A directory as `prepare` writes it, before it has datasets.
    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: String| fs::write(dir.path().join(name), content).unwrap();
        let step = |step: &str, documents: u64, kept: u64, removed: Value| json!({ "step": step, "documents": documents, "kept": kept, "removed": removed });
        let prepared = json!({
            "version": 2, "inputs": [], "settings_blake3": "s", "tokenizer_blake3": "t", "vocab_size": 10,
            "steps": [step("read", 6, 5, json!({ "invalid-json": 1 })), step("near-duplicates", 5, 2, json!({ "near-duplicate": 3 }))],
            "sources": [{ "name": "web", "wanted": 0.5, "share": 1.0, "tokens": 4, "taken": 8, "epochs": 2.0 }],
        });
        write("prepare.json", prepared.to_string());
        let near = |id: &str, of: &str, cluster: u32| json!({ "id": id, "filter": "near-duplicates", "reason": "near-duplicate", "duplicate_of": of, "cluster": cluster, "score": 0.9, "text": "Like it." });
        let unreadable = json!({ "file": "a.jsonl", "line": 3, "filter": "read", "reason": "invalid-json", "detail": "no" });
        write("removed.jsonl", lines(&[unreadable, near("c", "b", 1), near("d", "a", 0), near("e", "b", 1)]));
        fs::create_dir(dir.path().join("documents")).unwrap();
        let document = |id: &str, language: &str| json!({ "id": id, "source": "web", "file": "a.jsonl", "text": format!("The text of {id}."), "metadata": { "language": language } });
        write("documents/part-00000.jsonl", lines(&[document("a", "en")]));
        write("documents/part-00001.jsonl", lines(&[document("b", "ko")]));
        let summary =
            DuplicateSummary { documents: 5, duplicates: 3, clusters: 2, ..DuplicateSummary::default() };
        write(NEAR_DUPLICATES, serde_json::to_string(&summary).unwrap());
        dir
    }

    #[test]
    fn a_report_is_made_of_what_is_in_the_directory() {
        let dir = directory();
        let report = CorpusReport::collect(dir.path()).unwrap();
        assert_eq!((report.imbalance(), report.name.as_str()), (None, "web"));
        assert_eq!(report.languages, BTreeMap::from([("en".to_owned(), 1), ("ko".to_owned(), 1)]));
        let share = SourceShare {
            name: "web".to_owned(),
            documents: 2,
            bytes: 28,
            tokens: 8,
            weight: Some(0.5),
            repeats: Some(2.0),
        };
        assert_eq!(report.sources, [share]);
        let reasons: Vec<_> = report.removed.iter().map(|example| example.reason.as_str()).collect();
        assert_eq!(reasons, ["near-duplicate", "near-duplicate", "near-duplicate", "invalid-json"]);
        assert_eq!(
            (report.removed[3].id.as_str(), report.removed[3].note.as_deref()),
            ("a.jsonl:3", Some("no"))
        );
        let clusters = report.duplicates.unwrap().examples;
        let sizes: Vec<_> = clusters.iter().map(|cluster| (cluster.cluster, cluster.size)).collect();
        assert_eq!(sizes, [(1, 3), (0, 2)]);
        assert_eq!((clusters[0].text.as_str(), clusters[0].others[1].id.as_str()), ("The text of b.", "e"));
        assert_eq!(report.scores[0].histogram.n(), 3);
    }

    #[test]
    fn a_line_that_is_not_what_was_written_is_named() {
        let dir = directory();
        fs::write(dir.path().join("documents/part-00001.jsonl"), "{\"id\":1}\n").unwrap();
        let error = CorpusReport::collect(dir.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("part-00001.jsonl:1 is not what was written; prepare the corpus again"),
            "{error}"
        );
        fs::remove_file(dir.path().join("prepare.json")).unwrap();
        let error = CorpusReport::collect(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.ends_with("prepare.json"), "{error}");
    }
}
