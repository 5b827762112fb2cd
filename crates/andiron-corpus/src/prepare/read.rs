//! Documents read and cleaned; second stage: how many there are.

use std::path::Path;

use serde_json::json;

use super::chain::Chain;
use super::inputs::Inputs;
use super::progress::Tracker;
use super::report::{DocumentCounts, StepCounts};
use super::{Duplicates, PrepareConfig, PrepareError, Stage};
use crate::dedup::ExactDuplicates;
use andiron_data::Document;
use andiron_data::source::{self, OnError, Source, SourceError};

/// A document that is kept, or the reason why one is dropped.
pub(super) enum Outcome {
    Kept(Document),
    /// A line of `removed.jsonl`.
    Dropped(serde_json::Value),
}

/// Reads and cleans all documents in order.
pub(super) struct Reader<'a> {
    config: &'a PrepareConfig,
    waiting: std::slice::Iter<'a, (usize, std::path::PathBuf)>,
    current: Option<Box<dyn Source>>,
    bytes_before: u64,
    chain: Chain,
    seen: Option<ExactDuplicates>,
    read: StepCounts,
    filtered: Vec<StepCounts>,
    unique: StepCounts,
}

impl<'a> Reader<'a> {
    pub(super) fn new(config: &'a PrepareConfig, inputs: &'a Inputs) -> Result<Self, PrepareError> {
        let seen = (config.dedup.exact == Duplicates::Remove).then(ExactDuplicates::new);
        let chain = Chain::new(&config.filters)?;
        Ok(Self {
            config,
            waiting: inputs.files.iter(),
            current: None,
            bytes_before: 0,
            filtered: chain.counts(),
            chain,
            seen,
            read: StepCounts::new("read"),
            unique: StepCounts::new("exact-duplicates"),
        })
    }

    pub(super) fn bytes_done(&self) -> u64 {
        self.bytes_before + self.current.as_ref().map_or(0, |source| source.bytes_read())
    }

    /// Records read so far.
    pub(super) fn n_read(&self) -> u64 {
        self.read.documents
    }

    /// Documents kept so far.
    pub(super) fn n_kept(&self) -> u64 {
        self.unique.kept
    }

    /// The counts of each step so far, in order.
    pub(super) fn steps(&self) -> Vec<StepCounts> {
        let unique = self.seen.is_some().then_some(&self.unique);
        std::iter::once(&self.read).chain(&self.filtered).chain(unique).cloned().collect()
    }

    fn next_record(&mut self) -> Option<Result<Document, SourceError>> {
        loop {
            if let Some(source) = &mut self.current {
                if let Some(item) = source.next() {
                    return Some(item);
                }
                self.bytes_before += source.bytes_read();
                self.current = None;
            }
            let (source, path) = self.waiting.next()?;
            let path: &Path = path;
            match source::open(path, &self.config.sources[*source].read) {
                Ok(source) => self.current = Some(source),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn clean(&mut self, mut document: Document) -> Outcome {
        if let Err(removed) = self.chain.apply(&mut document) {
            self.filtered[..removed.step].iter_mut().for_each(StepCounts::keep);
            self.filtered[removed.step].remove(removed.reason);
            return Outcome::Dropped(removed.record);
        }
        self.filtered.iter_mut().for_each(StepCounts::keep);
        let id = &document.id;
        if let Some(first) = self.seen.as_mut().and_then(|seen| seen.check(id, &document.text)) {
            let filter = &self.unique.step;
            let record = json!({ "id": id, "filter": filter, "reason": "duplicate", "duplicate_of": first });
            self.unique.remove("duplicate");
            return Outcome::Dropped(record);
        }
        self.unique.keep();
        Outcome::Kept(document)
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Outcome, PrepareError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_record()? {
            Ok(document) => {
                self.read.keep();
                Some(Ok(self.clean(document)))
            }
            Err(SourceError::Record(error)) if self.config.on_error == OnError::Skip => {
                let (reason, file) = (error.fault.reason(), error.file_name());
                let detail = error.fault.to_string();
                self.read.remove(reason);
                Some(Ok(Outcome::Dropped(json!({
                    "file": file, "line": error.line, "filter": "read", "reason": reason, "detail": detail,
                }))))
            }
            Err(error) => Some(Err(error.into())),
        }
    }
}

pub(super) fn survey(
    config: &PrepareConfig,
    inputs: &Inputs,
    tracker: &mut Tracker<'_>,
) -> Result<Vec<StepCounts>, PrepareError> {
    tracker.begin(Stage::Survey);
    let mut reader = Reader::new(config, inputs)?;
    while let Some(read) = reader.next() {
        read?;
        tracker.at(reader.bytes_done(), reader.n_read());
    }
    let steps = reader.steps();
    let counts = DocumentCounts::of(&steps);
    if counts.kept == 0 {
        return Err(PrepareError::NoText { read: counts.read, dropped: counts.dropped_total() });
    }
    Ok(steps)
}
