//! Second stage, at its end: paragraphs that stood in an earlier document, or earlier in the same one, are removed.
//!
//! The order is that of the inputs: sources as in the settings, their files by name, the records of a file as they stand there. Only
//! documents that stay so far take part, so that duplicates do not count. Paragraphs are found by all threads, and the Bloom filter
//! is asked by one, in that order; so the result does not depend on the number of threads or tasks.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chain::EXCERPT;
use super::crew::Crew;
use super::stored::{fields_of, line_of, parse};
use super::work::StageWriter;
use super::{PrepareConfigError, PrepareError};
use crate::dedup::{Paragraph, ParagraphConfig, ParagraphCounts, RepeatedParagraphs};
use andiron_page::text::shortened;

/// The name of the step.
pub(super) const PARAGRAPHS: &str = "repeated-paragraphs";
/// Why it removes a document.
pub(super) const NOTHING_LEFT: &str = "nothing-left";

/// Lines are worked on together up to this many bytes.
const BATCH_BYTES: usize = 4 << 20;

/// What became of the paragraphs of a corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParagraphReport {
    /// How many were seen and removed.
    pub counts: ParagraphCounts,
    /// The probability that a new paragraph would be taken for a repeated one after the last document. It is over that of the settings
    /// if there were more paragraphs than expected.
    pub false_positive_rate: f64,
}

/// What is known of a record before its paragraphs are looked at.
pub(super) enum Settled<'a> {
    /// The line of a document that stays.
    Kept(Cow<'a, [u8]>),
    /// The line about a record that does not.
    Gone(String),
}

/// Removes repeated paragraphs.
pub(super) struct Paragraphs<'a> {
    config: &'a ParagraphConfig,
    seen: RepeatedParagraphs,
    crew: &'a Crew,
    waiting: Vec<Waiting>,
    bytes: usize,
    /// Documents of the current part of which nothing was left.
    emptied: u64,
}

impl<'a> Paragraphs<'a> {
    pub(super) fn new(config: &'a ParagraphConfig, crew: &'a Crew) -> Result<Self, PrepareError> {
        let seen = RepeatedParagraphs::new(config).map_err(|error| PrepareConfigError::Value {
            key: "dedup.paragraphs".to_owned(),
            problem: error.to_string(),
        })?;
        Ok(Self { config, seen, crew, waiting: Vec::new(), bytes: 0, emptied: 0 })
    }

    /// Takes the next record. What stays is written to the first file sooner or later, and what does not to the second.
    pub(super) fn push(
        &mut self,
        settled: Settled<'_>,
        files: (&mut StageWriter, &mut StageWriter),
    ) -> Result<(), PrepareError> {
        let (bytes, waiting) = match settled {
            Settled::Kept(line) => (line.len(), Waiting::Kept(line.into_owned())),
            Settled::Gone(line) => (line.len(), Waiting::Gone(line)),
        };
        self.bytes += bytes;
        self.waiting.push(waiting);
        if self.bytes >= BATCH_BYTES { self.flush(files) } else { Ok(()) }
    }

    /// The part is done. Says of how many documents nothing was left.
    pub(super) fn finish(
        &mut self,
        files: (&mut StageWriter, &mut StageWriter),
    ) -> Result<u64, PrepareError> {
        self.flush(files)?;
        Ok(std::mem::take(&mut self.emptied))
    }

    /// What became of all paragraphs.
    pub(super) fn report(&self) -> ParagraphReport {
        let counts = self.seen.counts().clone();
        ParagraphReport { counts, false_positive_rate: self.seen.false_positive_rate() }
    }

    fn flush(
        &mut self,
        (documents, removed): (&mut StageWriter, &mut StageWriter),
    ) -> Result<(), PrepareError> {
        self.bytes = 0;
        let config = self.config;
        let found = self.crew.map(std::mem::take(&mut self.waiting), |waiting| match waiting {
            Waiting::Gone(line) => Ok(Found::Gone(line)),
            Waiting::Kept(line) => {
                let text = parse(&line, documents.path())?.text;
                Ok::<_, PrepareError>(Found::Kept { paragraphs: config.paragraphs(&text), text, line })
            }
        });
        for found in found {
            match found? {
                Found::Gone(line) => removed.write(line.as_bytes())?,
                Found::Kept { line, text, paragraphs } => {
                    let repeated = self.seen.repeated(&paragraphs);
                    if repeated.is_empty() {
                        documents.write(&line)?;
                        continue;
                    }
                    let mut rest = text.clone();
                    crate::dedup::cut(&mut rest, &repeated);
                    let mut fields = fields_of(&line, documents.path())?;
                    if rest.trim().is_empty() {
                        let id = fields.get("id").cloned().unwrap_or_default();
                        let gone = json!({
                            "id": id, "filter": PARAGRAPHS, "reason": NOTHING_LEFT, "text": shortened(&text, EXCERPT),
                        });
                        removed.write(format!("{gone}\n").as_bytes())?;
                        self.emptied += 1;
                        continue;
                    }
                    fields.insert("text".to_owned(), rest.into());
                    fields.insert("repeated_paragraphs".to_owned(), Value::from(repeated.len()));
                    documents.write(&line_of(&fields))?;
                }
            }
        }
        Ok(())
    }
}

enum Waiting {
    Kept(Vec<u8>),
    Gone(String),
}

enum Found {
    Kept { line: Vec<u8>, text: String, paragraphs: Vec<Paragraph> },
    Gone(String),
}
