//! First stage: the files of a part are read, and its documents pass the filters and are written down.
//!
//! Each part has three files: the documents, a line for each record that was left out with its place among all records, and the
//! signatures by which exact duplicates are found.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::chain::{Chain, Removed};
use super::config::{DedupConfig, Duplicates};
use super::crew::Crew;
use super::documents::EXACT;
use super::inputs::Inputs;
use super::parts::{Part, name};
use super::pipeline::failed_to_read;
use super::progress::Tracker;
use super::report::StepCounts;
use super::reuse::hash_lists;
use super::stored;
use super::work::{StageFile, Work, file_of, key};
use super::{PrepareConfig, PrepareConfigError, PrepareError, Stage, VERSION};
use crate::dedup::{Signature, SignatureWriter, Signer, SignerScratch};
use andiron_data::Document;
use andiron_data::source::{
    self, InputFile, JsonlBlock, JsonlBlocks, OnError, RecordError, Source, SourceError, SourceOptions,
};

pub(super) const STAGE: &str = "filtered";

/// Documents are filtered together up to this many bytes, by all threads.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_DOCUMENTS: usize = 4096;

/// Texts of a part that are remembered while it is read, of documents whose ids have fewer bytes than that: 16 MiB at most.
const SEEN: usize = 1 << 16;
const SEEN_ID: usize = 128;

/// Bytes of a signature, and of the entry of a document: its signature, and where its line begins.
pub(super) const SIGNATURE: usize = 16;
pub(super) const ENTRY: usize = SIGNATURE + 8;

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filtered {
    /// Reading and each filter.
    pub(super) steps: Vec<StepCounts>,
    /// Documents that are left.
    pub(super) documents: u64,
    /// Documents that equal an earlier one of the part, as far as they were noticed: they are among those left out, with their
    /// lines, but are counted where all duplicates are.
    pub(super) repeated: u64,
    /// The file that holds them.
    pub(super) file: StageFile,
}

/// What all parts are filtered with.
pub(super) struct Filtering<'a> {
    pub(super) config: &'a PrepareConfig,
    pub(super) found: &'a Inputs,
    pub(super) inputs: &'a [InputFile],
    pub(super) chain: Chain,
    /// The hashes of the files that filters read.
    pub(super) lists: Vec<String>,
    /// Signs documents, if near-duplicates are removed.
    pub(super) signer: Option<Signer>,
    pub(super) crew: &'a Crew,
    pub(super) work: &'a Work,
}

/// What was read.
enum Record {
    Document {
        document: Document,
        file: usize,
    },
    Unreadable(Outcome),
    /// Lines of JSON, which are parsed where they are filtered.
    Lines {
        block: JsonlBlock,
        file: usize,
    },
}

/// A record after the filters.
enum Outcome {
    Kept { id: String, line: Vec<u8>, signature: [u8; SIGNATURE], near: Option<Signature> },
    Repeated { id: String, signature: [u8; SIGNATURE] },
    Removed { step: usize, reason: &'static str, line: String },
    Unreadable { reason: &'static str, line: String },
}

impl<'a> Filtering<'a> {
    /// Makes the filters.
    pub(super) fn new(
        config: &'a PrepareConfig,
        (found, inputs): (&'a Inputs, &'a [InputFile]),
        crew: &'a Crew,
        work: &'a Work,
    ) -> Result<Self, PrepareError> {
        let signer = config.dedup.minhash.as_ref().map(Signer::new).transpose();
        let signer = signer.map_err(|error| PrepareConfigError::Value {
            key: "dedup.minhash".to_owned(),
            problem: error.to_string(),
        })?;
        let (chain, lists) = (Chain::new(&config.filters)?, hash_lists(config)?);
        Ok(Self { config, found, inputs, chain, lists, signer, crew, work })
    }

    /// What a part is made from.
    pub(super) fn key(&self, part: &Part) -> String {
        let source = &self.config.sources[part.source];
        // Paragraphs are looked at later.
        let dedup = DedupConfig { paragraphs: None, ..self.config.dedup.clone() };
        key(&json!({
            "version": VERSION, "source": source.name, "read": source.read, "on_error": self.config.on_error,
            "filters": self.config.filters, "lists": self.lists, "dedup": dedup, "inputs": self.inputs[part.files.clone()],
        }))
    }

    /// Whether a part is filtered.
    pub(super) fn is_done(&self, number: usize, part: &Part) -> bool {
        self.work.done::<Filtered>(&name(STAGE, number), &self.key(part)).is_some()
    }

    /// Filters a part, unless that was done before.
    pub(super) fn part(
        &self,
        number: usize,
        part: &Part,
        tracker: &Tracker<'_>,
    ) -> Result<Filtered, PrepareError> {
        let (name, key) = (name(STAGE, number), self.key(part));
        if let Some(filtered) = self.work.done::<Filtered>(&name, &key) {
            tracker.add(part.bytes, filtered.steps[0].documents, 0);
            return Ok(filtered);
        }
        let mut documents = self.work.create(format!("{name}.jsonl"))?;
        let mut removed = self.work.create(format!("{name}.removed"))?;
        let mut signatures = self.work.create(format!("{name}.signatures"))?;
        let is_exact = self.config.dedup.exact == Duplicates::Remove;
        let mut read = StepCounts::new("read");
        let mut steps = self.chain.counts();
        let near_path = self.work.path(&near_file(number));
        let signing = |signer: &Signer| SignatureWriter::begin(&near_path, signer.config());
        let mut near_signatures = self.signer.as_ref().map(signing).transpose()?;
        let (mut records, mut repeated) = (0u64, 0);
        let mut seen = Seen::default();

        let mut reader =
            Reader { filtering: self, part, next: part.files.start, current: None, tracker, told: 0 };
        let mut batch = reader.batch()?;
        while !batch.is_empty() {
            let before = records;
            let (outcomes, next) =
                self.crew.map_while(batch, |record| self.filter(part, record, &seen), || reader.batch());
            for outcome in outcomes.into_iter().flatten() {
                match outcome? {
                    Outcome::Kept { id, line, signature, near } => {
                        read.keep();
                        steps.iter_mut().for_each(StepCounts::keep);
                        if let Some(first) = is_exact.then(|| seen.check(signature, &id)).flatten() {
                            removed.write(repetition(records, &id, first).as_bytes())?;
                            repeated += 1;
                            records += 1;
                            continue;
                        }
                        if let Some(signatures) = &mut near_signatures {
                            signatures.push(&id, near.as_ref())?;
                        }
                        signatures.write(&signature)?;
                        signatures.write(&documents.bytes().to_le_bytes())?;
                        documents.write(&line)?;
                    }
                    Outcome::Repeated { id, signature } => {
                        read.keep();
                        steps.iter_mut().for_each(StepCounts::keep);
                        let first = seen.first(&signature).unwrap_or_default();
                        removed.write(repetition(records, &id, first).as_bytes())?;
                        repeated += 1;
                    }
                    Outcome::Removed { step, reason, line } => {
                        read.keep();
                        steps[..step].iter_mut().for_each(StepCounts::keep);
                        steps[step].remove(reason);
                        removed.write(format!("{records}\t{line}\n").as_bytes())?;
                    }
                    Outcome::Unreadable { reason, line } => {
                        read.remove(reason);
                        removed.write(format!("{records}\t{line}\n").as_bytes())?;
                    }
                }
                records += 1;
            }
            tracker.add(0, records - before, 0);
            batch = next?;
        }
        let left = steps.last().map_or(0, |step| step.kept) - repeated;
        steps.insert(0, read);
        let file = documents.finish()?;
        let mut files = vec![file.clone(), removed.finish()?, signatures.finish()?];
        if let Some(signatures) = near_signatures {
            signatures.finish()?;
            let directory = self.work.path(STAGE);
            let names = andiron_files::list(&directory).map_err(failed_to_read(&directory))?;
            let own = format!("part-{number:05}.minhash");
            for name in names.into_iter().filter(|name| name.starts_with(&own)) {
                files.push(file_of(&directory.join(&name), format!("{STAGE}/{name}"))?);
            }
        }
        self.work.finish(&name, &key, files, Filtered { steps, documents: left, repeated, file })
    }

    /// What becomes of each document, up to one that cannot be read and must be.
    fn filter(&self, part: &Part, record: Record, seen: &Seen) -> Vec<Result<Outcome, SourceError>> {
        let mut scratch = SignerScratch::default();
        match record {
            Record::Unreadable(outcome) => vec![Ok(outcome)],
            Record::Document { document, file } => {
                vec![Ok(self.filter_one((part, file), document, seen, &mut scratch))]
            }
            Record::Lines { block, file } => {
                let documents = block.into_documents();
                let outcomes = documents.map(|document| match document {
                    Ok(document) => Ok(self.filter_one((part, file), document, seen, &mut scratch)),
                    Err(error) => self.unreadable(error),
                });
                outcomes.collect()
            }
        }
    }

    fn filter_one(
        &self,
        (part, file): (&Part, usize),
        mut document: Document,
        seen: &Seen,
        scratch: &mut SignerScratch,
    ) -> Outcome {
        if let Err(removed) = self.chain.apply(&mut document) {
            let Removed { step, reason, record } = removed;
            return Outcome::Removed { step, reason, line: record.to_string() };
        }
        let mut signature = [0; SIGNATURE];
        if self.config.dedup.exact == Duplicates::Remove {
            let hash = blake3::hash(document.text.as_bytes());
            signature.copy_from_slice(&hash.as_bytes()[..SIGNATURE]);
            if seen.first(&signature).is_some() {
                return Outcome::Repeated { id: document.id, signature };
            }
        }
        let source = &self.config.sources[part.source].name;
        let line = stored::line(&document, source, &self.inputs[file].name);
        let near = self.signer.as_ref().and_then(|signer| signer.sign(&document.text, scratch));
        Outcome::Kept { id: document.id, line, signature, near }
    }

    /// A record that cannot be read: an error, or something to count.
    fn unreadable(&self, error: RecordError) -> Result<Outcome, SourceError> {
        if self.config.on_error == OnError::Fail {
            return Err(error.into());
        }
        let reason = error.fault.reason();
        let line = json!({
            "file": error.file_name(), "line": error.line, "filter": "read", "reason": reason,
            "detail": error.fault.to_string(),
        });
        Ok(Outcome::Unreadable { reason, line: line.to_string() })
    }
}

/// Some texts of a part, and the ids of the first documents with them. What repeats one of these is not written; what repeats
/// another is found among all signatures.
#[derive(Default)]
struct Seen {
    first: HashMap<[u8; SIGNATURE], Box<str>>,
}

impl Seen {
    fn first(&self, signature: &[u8; SIGNATURE]) -> Option<&str> {
        self.first.get(signature).map(|id| &**id)
    }

    /// The id of the first document with a text; if it is this one, it is noted while there is room.
    fn check(&mut self, signature: [u8; SIGNATURE], id: &str) -> Option<&str> {
        let has_room = self.first.len() < SEEN;
        match self.first.entry(signature) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => {
                if has_room && id.len() < SEEN_ID {
                    entry.insert(id.into());
                }
                None
            }
        }
    }
}

/// The line about a document that repeats an earlier one, after its place.
fn repetition(record: u64, id: &str, first: &str) -> String {
    let line = json!({ "id": id, "filter": EXACT, "reason": "duplicate", "duplicate_of": first });
    format!("{record}\t{line}\n")
}

/// A file that is read.
enum Opened {
    Lines(JsonlBlocks),
    Documents(Box<dyn Source>),
}

impl Opened {
    fn bytes_read(&self) -> u64 {
        match self {
            Self::Lines(blocks) => blocks.bytes_read(),
            Self::Documents(source) => source.bytes_read(),
        }
    }

    /// What comes next in the file with an index.
    fn next(&mut self, file: usize) -> Option<Result<Record, SourceError>> {
        Some(match self {
            Self::Lines(blocks) => blocks.next()?.map(|block| Record::Lines { block, file }),
            Self::Documents(source) => source.next()?.map(|document| Record::Document { document, file }),
        })
    }
}

/// Reads the records of a part in order.
struct Reader<'a, 't> {
    filtering: &'a Filtering<'a>,
    part: &'a Part,
    next: usize,
    current: Option<(usize, Opened)>,
    tracker: &'a Tracker<'t>,
    /// Bytes of the current file that the tracker knows.
    told: u64,
}

impl Reader<'_, '_> {
    /// The next records; none at the end.
    fn batch(&mut self) -> Result<Vec<Record>, PrepareError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES && batch.len() < BATCH_DOCUMENTS {
            let Some(record) = self.record()? else { break };
            bytes += match &record {
                Record::Document { document, .. } => document.text.len(),
                Record::Lines { block, .. } => block.bytes(),
                Record::Unreadable(_) => 0,
            };
            batch.push(record);
        }
        self.tell();
        Ok(batch)
    }

    fn record(&mut self) -> Result<Option<Record>, PrepareError> {
        loop {
            if let Some((file, opened)) = &mut self.current {
                match opened.next(*file) {
                    Some(Ok(record)) => return Ok(Some(record)),
                    Some(Err(SourceError::Record(error))) => {
                        return Ok(Some(Record::Unreadable(self.filtering.unreadable(error)?)));
                    }
                    Some(Err(error)) => return Err(error.into()),
                    None => {
                        if opened.bytes_read() != self.filtering.inputs[*file].bytes {
                            return Err(PrepareError::InputChanged);
                        }
                        self.tell();
                        (self.current, self.told) = (None, 0);
                    }
                }
            }
            if self.next == self.part.files.end {
                return Ok(None);
            }
            let (source, path): &(usize, PathBuf) = &self.filtering.found.files[self.next];
            let name = Some(self.filtering.found.names[self.next].clone());
            let options = SourceOptions { name, ..self.filtering.config.sources[*source].read.clone() };
            let opened = match JsonlBlocks::reads(path) {
                true => Opened::Lines(JsonlBlocks::open(path, &options)?),
                false => Opened::Documents(source::open(path, &options)?),
            };
            self.current = Some((self.next, opened));
            self.next += 1;
        }
    }

    fn tell(&mut self) {
        if let Some((_, opened)) = &self.current {
            let read = opened.bytes_read();
            self.tracker.add(read.saturating_sub(self.told), 0, 0);
            self.told = read;
        }
    }
}

/// The file with the signatures of a part by which near-duplicates are found.
pub(super) fn near_file(number: usize) -> String {
    format!("{}.minhash", name(STAGE, number))
}

/// Filters some parts.
pub(super) fn filter(
    filtering: &Filtering<'_>,
    parts: &[(usize, &Part)],
    tracker: &Tracker<'_>,
) -> Result<Vec<Filtered>, PrepareError> {
    tracker.begin(Stage::Clean);
    filtering.work.directory(STAGE)?;
    filtering.crew.each(parts.len(), |at| filtering.part(parts[at].0, parts[at].1, tracker))
}
