//! Last stage: the documents of each part become token ids, in datasets of their own, which are then put together.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::crew::Crew;
use super::documents::{Documents, DocumentsPart};
use super::mixture::{self, Mixture, Take};
use super::parts::name;
use super::pipeline::failed_to_write;
use super::progress::{Share, Tracker};
use super::report::{SourceReport, SplitReport};
use super::split::{self, Parts, Plan};
use super::stored::{Stored, StoredLines};
use super::work::{Work, key};
use super::{PrepareConfig, PrepareError, Separator, Stage, VERSION};
use andiron_data::shard::{Dataset, DatasetError, DatasetWriter, WriterOptions};
use andiron_data::tokenizer::{Tokenizer, TokenizerError};

pub(super) const STAGE: &str = "shards";

/// Texts are encoded together up to this many bytes, by all threads.
const BATCH_BYTES: usize = 8 << 20;

/// What all parts are encoded with.
pub(super) struct Encoding<'a> {
    pub(super) config: &'a PrepareConfig,
    pub(super) documents: &'a Documents,
    pub(super) plan: &'a Plan,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) crew: &'a Crew,
    pub(super) work: &'a Work,
}

/// The datasets of a part, by their fingerprints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Encoded {
    train: String,
    valid: Option<String>,
}

/// A part of a document, encoded.
struct Piece {
    held_out: bool,
    name: String,
    text: String,
    ids: Result<Vec<u32>, TokenizerError>,
}

impl Encoding<'_> {
    fn key(&self, part: &DocumentsPart, first: u64) -> String {
        key(&json!({
            "version": VERSION, "documents": part.file.blake3, "tokenizer": self.tokenizer.fingerprint(),
            "plan": self.plan, "first": first, "shards": self.config.shards,
        }))
    }

    fn writer(&self, path: &Path) -> Result<DatasetWriter, PrepareError> {
        // Ids are below 2^31.
        let vocab_size = self.tokenizer.vocab_size() as u32;
        let options = WriterOptions {
            tokens_per_shard: self.config.shards.tokens_per_shard,
            ..WriterOptions::new(vocab_size, self.tokenizer.fingerprint())
        };
        Ok(DatasetWriter::create(path, options)?)
    }

    /// The datasets of a part, if they are there and what they were.
    fn done(&self, name: &str, key: &str) -> Option<Encoded> {
        let encoded: Encoded = self.work.done(name, key)?;
        let same = |part: &str, fingerprint: &str| {
            let open = || -> Result<bool, DatasetError> {
                let dataset = Dataset::open(&self.work.path(name).join(part))?;
                dataset.verify()?;
                Ok(dataset.fingerprint() == fingerprint)
            };
            open().unwrap_or(false)
        };
        let valid = encoded.valid.as_ref().is_none_or(|valid| same("valid", valid));
        (valid && same("train", &encoded.train)).then_some(encoded)
    }

    /// Encodes a part of which the first document has a number, unless that was done before.
    fn part(&self, number: usize, first: u64, tracker: &Tracker<'_>) -> Result<(), PrepareError> {
        let part = &self.documents.parts[number];
        let (name, key) = (name(STAGE, number), self.key(part, first));
        let mut share = Share::new(tracker, part.input_bytes, part.documents);
        if self.done(&name, &key).is_some() {
            share.add(part.documents, 0);
            share.finish();
            return Ok(());
        }
        let directory = self.work.path(&name);
        andiron_files::make_directory(&directory).map_err(failed_to_write(&directory))?;
        let mut train = self.writer(&directory.join("train"))?;
        let mut valid = match self.plan {
            Plan::Nothing => None,
            _ => Some(self.writer(&directory.join("valid"))?),
        };
        let mut lines = StoredLines::open(&self.work.path(&part.file.name))?;
        let mut index = first;
        let mut batch = || -> Result<Vec<(u64, Stored)>, PrepareError> {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while bytes < BATCH_BYTES {
                let Some(document) = lines.next_document()? else { break };
                bytes += document.text.len();
                batch.push((index, document));
                index += 1;
            }
            Ok(batch)
        };
        let mut waiting = batch()?;
        while !waiting.is_empty() {
            let n = waiting.len() as u64;
            let (encoded, next) =
                self.crew.map_while(waiting, |(index, text)| self.encode(index, text), &mut batch);
            let mut tokens = 0;
            for Piece { held_out, name, text, ids } in encoded.into_iter().flatten() {
                let ids = ids.map_err(|source| PrepareError::Encode { id: name.clone(), source })?;
                tokens += ids.len() as u64;
                if let Some(writer) = if held_out { valid.as_mut() } else { Some(&mut train) } {
                    writer.push(&name, &ids, &text)?;
                }
            }
            share.add(n, tokens);
            waiting = next?;
        }
        let train = train.finish()?.fingerprint();
        let valid = valid.map(|writer| Ok::<_, DatasetError>(writer.finish()?.fingerprint())).transpose()?;
        self.work.finish(&name, &key, Vec::new(), Encoded { train, valid })?;
        share.finish();
        Ok(())
    }

    fn encode(&self, index: u64, document: Stored) -> Vec<Piece> {
        let Stored { id, text } = document;
        let Parts { train, valid, cut } = self.plan.parts(index, &text);
        let name = |from: usize, to: usize| match cut {
            Some(_) => format!("{id}#chars={from}-{to}"),
            None => id.clone(),
        };
        let separator =
            self.tokenizer.eos_id().filter(|_| self.config.shards.separator == Separator::EndOfText);
        let at = cut.unwrap_or_default();
        let mut pieces = Vec::with_capacity(1);
        for (held_out, text, name, ends) in [
            (false, train, name(0, at), valid.is_empty()),
            (true, valid, name(at, at + valid.chars().count()), true),
        ] {
            if text.is_empty() {
                continue;
            }
            let mut ids = self.tokenizer.encode(text);
            if let (Ok(ids), true) = (&mut ids, ends) {
                ids.extend(separator);
            }
            pieces.push(Piece { held_out, name, text: text.to_owned(), ids });
        }
        pieces
    }

    /// The number of the first document of each part.
    fn firsts(&self) -> Vec<u64> {
        let mut next = 0;
        let first = |part: &DocumentsPart| {
            let first = next;
            next += part.documents;
            first
        };
        self.documents.parts.iter().map(first).collect()
    }

    /// Encodes some parts.
    pub(super) fn run(&self, parts: &[usize], tracker: &Tracker<'_>) -> Result<(), PrepareError> {
        tracker.begin(Stage::Encode);
        self.work.directory(STAGE)?;
        let firsts = self.firsts();
        self.crew.each(parts.len(), |at| self.part(parts[at], firsts[parts[at]], tracker))?;
        Ok(())
    }

    fn open(&self, number: usize, split: &str) -> Result<Dataset, PrepareError> {
        Ok(Dataset::open(&self.work.path(&name(STAGE, number)).join(split))?)
    }

    /// Puts the datasets of all parts together.
    pub(super) fn publish(&self, output: &Path) -> Result<Published, PrepareError> {
        let finish = |writer: DatasetWriter, part| -> Result<SplitReport, PrepareError> {
            let stats = writer.stats().clone();
            if stats.tokens == 0 {
                return Err(PrepareError::EmptyPart { part, documents: self.documents.kept() });
            }
            Ok(SplitReport { stats, fingerprint: writer.finish()?.fingerprint() })
        };
        let (writer, sources) = self.mix(self.writer(&output.join("train"))?)?;
        let train = finish(writer, "training")?;
        let valid = match self.plan {
            Plan::Nothing => None,
            _ => {
                let mut writer = self.writer(&output.join("valid"))?;
                for number in 0..self.documents.parts.len() {
                    writer.append(&self.open(number, "valid")?)?;
                }
                Some(finish(writer, "validation")?)
            }
        };
        Ok(Published { train, valid, sources })
    }

    /// Takes of each source as much as its weight asks for.
    fn mix(&self, mut writer: DatasetWriter) -> Result<(DatasetWriter, Vec<SourceReport>), PrepareError> {
        let sources = &self.config.sources;
        let (mut tokens, mut taken) = (vec![0; sources.len()], vec![0; sources.len()]);
        for (number, part) in self.documents.parts.iter().enumerate() {
            tokens[part.source] += self.open(number, "train")?.tokens();
        }
        let mixture = Mixture::new(self.config, &tokens);
        let firsts = self.firsts();
        for round in 0..mixture.rounds() {
            for (number, part) in self.documents.parts.iter().enumerate() {
                let before = writer.stats().tokens;
                match mixture.take(part.source, round) {
                    Take::Nothing => {}
                    Take::All => writer.append(&self.open(number, "train")?)?,
                    Take::Some(share) => {
                        let takes = |hash| mixture.takes(hash, share);
                        self.take_some(number, firsts[number], takes, &mut writer)?;
                    }
                }
                taken[part.source] += writer.stats().tokens - before;
            }
        }
        Ok((writer, mixture::report(sources, &tokens, &taken)))
    }

    /// Copies some documents of a part, by the hashes of their texts.
    fn take_some(
        &self,
        number: usize,
        first: u64,
        takes: impl Fn(u64) -> bool,
        writer: &mut DatasetWriter,
    ) -> Result<(), PrepareError> {
        let dataset = self.open(number, "train")?;
        let mut encoded = dataset.documents();
        let mut lines = StoredLines::open(&self.work.path(&self.documents.parts[number].file.name))?;
        let mut ids = Vec::new();
        for index in first.. {
            let Some(document) = lines.next_document()? else { break };
            let text = self.plan.parts(index, &document.text).train;
            if text.is_empty() {
                continue;
            }
            // They are in the same order.
            let Some(found) = encoded.next() else { break };
            if takes(split::hash(text)) {
                ids.resize((found.tokens.end - found.tokens.start) as usize, 0);
                dataset.read(found.tokens.start, &mut ids);
                writer.push(found.id, &ids, text)?;
            }
        }
        Ok(())
    }
}

/// The datasets of the output.
pub(super) struct Published {
    pub(super) train: SplitReport,
    pub(super) valid: Option<SplitReport>,
    pub(super) sources: Vec<SourceReport>,
}
