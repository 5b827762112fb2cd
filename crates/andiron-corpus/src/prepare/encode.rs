//! Last stage: documents become token ids in the training and the validation dataset.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::inputs::Inputs;
use super::pipeline::failed_to_write;
use super::progress::Tracker;
use super::read::{Outcome, Reader};
use super::report::{SplitReport, StepCounts};
use super::split::{Parts, Plan};
use super::{PrepareConfig, PrepareError, Separator, Stage};
use andiron_data::Document;
use andiron_data::shard::{DatasetWriter, Manifest, WriterOptions};
use andiron_data::tokenizer::{Tokenizer, TokenizerError};

/// Texts are encoded together up to this many bytes, by all threads.
const ROUND_BYTES: usize = 8 << 20;

/// A text to encode and write.
struct Job {
    held_out: bool,
    name: String,
    text: String,
    /// Whether this is the end of its document.
    ends: bool,
}

pub(super) struct Encoded {
    pub(super) steps: Vec<StepCounts>,
    pub(super) train: SplitReport,
    pub(super) valid: Option<SplitReport>,
}

pub(super) fn encode(
    (config, threads): (&PrepareConfig, usize),
    inputs: &Inputs,
    plan: &Plan,
    tokenizer: &Tokenizer,
    (dir, tracker): (&Path, &mut Tracker<'_>),
) -> Result<Encoded, PrepareError> {
    tracker.begin(Stage::Encode);
    let create = |name: &str| {
        // Ids are below 2^31.
        let vocab_size = tokenizer.vocab_size() as u32;
        let tokens_per_shard = config.shards.tokens_per_shard;
        let writer =
            WriterOptions { tokens_per_shard, ..WriterOptions::new(vocab_size, tokenizer.fingerprint()) };
        DatasetWriter::create(&dir.join(name), writer)
    };
    let separator = tokenizer.eos_id().filter(|_| config.shards.separator == Separator::EndOfText);
    let mut sink = Sink {
        tokenizer,
        separator,
        threads,
        train: create("train")?,
        valid: if matches!(plan, Plan::Nothing) { None } else { Some(create("valid")?) },
        jobs: Vec::new(),
        bytes: 0,
    };
    let removed_path = dir.join("removed.jsonl");
    let removed = andiron_files::create(&removed_path).map_err(failed_to_write(&removed_path))?;
    let mut removed = BufWriter::new(removed);

    let mut reader = Reader::new(config, inputs)?;
    loop {
        let index = reader.n_kept();
        let Some(read) = reader.next() else { break };
        match read? {
            Outcome::Kept(document) => {
                sink.push(&document, plan.parts(index, &document.text))?;
                tracker.now.tokens = sink.tokens();
            }
            Outcome::Dropped(record) => {
                writeln!(removed, "{record}").map_err(failed_to_write(&removed_path))?;
            }
        }
        tracker.at(reader.bytes_done(), reader.n_read());
    }
    sink.flush()?;
    tracker.now.tokens = sink.tokens();
    tracker.at(reader.bytes_done(), reader.n_read());
    removed
        .into_inner()
        .map_err(|error| error.into_error())
        .and_then(|file| file.sync())
        .map_err(failed_to_write(&removed_path))?;
    let train = finish(sink.train, "training", reader.n_kept())?;
    let valid = sink.valid.map(|writer| finish(writer, "validation", reader.n_kept())).transpose()?;
    Ok(Encoded { steps: reader.steps(), train, valid })
}

fn finish(writer: DatasetWriter, part: &'static str, documents: u64) -> Result<SplitReport, PrepareError> {
    let stats = writer.stats().clone();
    if stats.tokens == 0 {
        return Err(PrepareError::EmptyPart { part, documents });
    }
    let manifest: Manifest = writer.finish()?;
    Ok(SplitReport { stats, fingerprint: manifest.fingerprint() })
}

/// Encodes texts in groups and writes them in order.
struct Sink<'a> {
    tokenizer: &'a Tokenizer,
    separator: Option<u32>,
    threads: usize,
    train: DatasetWriter,
    valid: Option<DatasetWriter>,
    jobs: Vec<Job>,
    bytes: usize,
}

impl Sink<'_> {
    fn push(&mut self, document: &Document, parts: Parts<'_>) -> Result<(), PrepareError> {
        let Parts { train, valid, cut } = parts;
        let name = |from: usize, to: usize| match cut {
            Some(_) => format!("{}#chars={from}-{to}", document.id),
            None => document.id.clone(),
        };
        let cut = cut.unwrap_or_default();
        for (held_out, text, name, ends) in [
            (false, train, name(0, cut), valid.is_empty()),
            (true, valid, name(cut, cut + valid.chars().count()), true),
        ] {
            if !text.is_empty() {
                self.bytes += text.len();
                self.jobs.push(Job { held_out, name, text: text.to_owned(), ends });
            }
        }
        if self.bytes >= ROUND_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), PrepareError> {
        let jobs = std::mem::take(&mut self.jobs);
        self.bytes = 0;
        for (job, ids) in jobs.iter().zip(encode_all(self.tokenizer, &jobs, self.threads)) {
            let mut ids = ids.map_err(|source| PrepareError::Encode { id: job.name.clone(), source })?;
            ids.extend(self.separator.filter(|_| job.ends));
            let writer = if job.held_out { self.valid.as_mut() } else { Some(&mut self.train) };
            if let Some(writer) = writer {
                writer.push(&job.name, &ids, &job.text)?;
            }
        }
        Ok(())
    }

    fn tokens(&self) -> u64 {
        self.train.stats().tokens + self.valid.as_ref().map_or(0, |valid| valid.stats().tokens)
    }
}

type Ids = Result<Vec<u32>, TokenizerError>;

/// Encodes on `threads` threads, or on as many as the system starts; the results are in the order of the jobs.
fn encode_all(tokenizer: &Tokenizer, jobs: &[Job], threads: usize) -> Vec<Ids> {
    let mut results: Vec<Option<Ids>> = jobs.iter().map(|_| None).collect();
    let rest = Mutex::new(jobs.iter().zip(&mut results));
    let next = || rest.lock().unwrap_or_else(PoisonError::into_inner).next();
    let encode = || {
        while let Some((job, result)) = next() {
            *result = Some(tokenizer.encode(&job.text));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if std::thread::Builder::new().spawn_scoped(scope, encode).is_err() {
                break;
            }
        }
        encode();
    });
    results.into_iter().flatten().collect()
}
