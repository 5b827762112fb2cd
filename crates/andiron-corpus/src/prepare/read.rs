//! Documents read and cleaned; second stage: how many there are.

use std::borrow::Cow;
use std::path::PathBuf;

use serde_json::json;

use super::progress::Tracker;
use super::report::DocumentCounts;
use super::{Duplicates, PrepareError, PrepareOptions, Stage};
use crate::dedup::ExactDuplicates;
use andiron_data::Document;
use andiron_data::source::{self, OnError, Source, SourceError};

/// A document that is kept, or the reason why one is dropped.
pub(super) enum Outcome {
    Kept(Document),
    Dropped(Dropped),
}

pub(super) struct Dropped {
    reason: &'static str,
    /// A line of `removed.jsonl`.
    pub(super) record: serde_json::Value,
}

/// Reads and cleans all documents in order.
pub(super) struct Reader<'a> {
    options: &'a PrepareOptions,
    waiting: std::slice::Iter<'a, PathBuf>,
    current: Option<Box<dyn Source>>,
    bytes_before: u64,
    seen: Option<ExactDuplicates>,
    pub(super) counts: DocumentCounts,
}

impl<'a> Reader<'a> {
    pub(super) fn new(options: &'a PrepareOptions, files: &'a [PathBuf]) -> Self {
        let seen = (options.duplicates == Duplicates::Remove).then(ExactDuplicates::new);
        let counts = DocumentCounts::default();
        Self { options, waiting: files.iter(), current: None, bytes_before: 0, seen, counts }
    }

    pub(super) fn bytes_done(&self) -> u64 {
        self.bytes_before + self.current.as_ref().map_or(0, |source| source.bytes_read())
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
            match source::open(self.waiting.next()?, &self.options.sources) {
                Ok(source) => self.current = Some(source),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn clean(&mut self, mut document: Document) -> Outcome {
        if let Cow::Owned(text) = self.options.line_endings.apply(&document.text) {
            document.text = text;
        }
        let id = &document.id;
        if document.text.is_empty() {
            return Outcome::Dropped(Dropped {
                reason: "empty",
                record: json!({ "id": id, "reason": "empty" }),
            });
        }
        if let Some(first) = self.seen.as_mut().and_then(|seen| seen.check(id, &document.text)) {
            let record = json!({ "id": id, "reason": "duplicate", "duplicate_of": first });
            return Outcome::Dropped(Dropped { reason: "duplicate", record });
        }
        Outcome::Kept(document)
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Outcome, PrepareError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = match self.next_record()? {
            Ok(document) => self.clean(document),
            Err(SourceError::Record(error)) if self.options.on_error == OnError::Skip => {
                let (reason, file) = (error.fault.reason(), error.file_name());
                let detail = error.fault.to_string();
                let record = json!({ "file": file, "line": error.line, "reason": reason, "detail": detail });
                Outcome::Dropped(Dropped { reason, record })
            }
            Err(error) => return Some(Err(error.into())),
        };
        self.counts.read += 1;
        match &read {
            Outcome::Kept(_) => self.counts.kept += 1,
            Outcome::Dropped(dropped) => *self.counts.dropped.entry(dropped.reason.into()).or_default() += 1,
        }
        Some(Ok(read))
    }
}

pub(super) fn survey(
    options: &PrepareOptions,
    files: &[PathBuf],
    tracker: &mut Tracker<'_>,
) -> Result<DocumentCounts, PrepareError> {
    tracker.begin(Stage::Survey);
    let mut reader = Reader::new(options, files);
    while let Some(read) = reader.next() {
        read?;
        tracker.at(reader.bytes_done(), reader.counts.read);
    }
    let counts = reader.counts;
    if counts.kept == 0 {
        return Err(PrepareError::NoText { read: counts.read, dropped: counts.dropped_total() });
    }
    Ok(counts)
}
