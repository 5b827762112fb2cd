//! The work itself, in four stages that each read the inputs once.

use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::report::{DocumentCounts, InputFile, PrepareReport, SplitReport};
use super::{
    Duplicates, Existing, PrepareError, PrepareOptions, PrepareProgress, Separator, SplitBy, Stage,
    TokenizerChoice,
};
use crate::dedup::ExactDuplicates;
use crate::document::Document;
use crate::files::{self, PartialDirectory, read_bounded, write_synced};
use crate::seed::{SPLIT, Seed};
use crate::shard::{Dataset, DatasetWriter, Manifest, WriterOptions};
use crate::source::{self, OnError, Source, SourceError};
use crate::tokenizer::{Tokenizer, TokenizerError, train_bpe, train_chars};

const VERSION: u32 = 1;
const REPORT: &str = "prepare.json";
const REPORT_LIMIT: u64 = 64 << 20;
/// Texts are encoded together up to this many bytes, by all threads.
const ROUND_BYTES: usize = 8 << 20;

/// Makes the output directory, unless it is there already and made from the same inputs and settings.
///
/// `progress` is called after each document.
///
/// # Errors
/// If an input cannot be read, the settings make no sense, or writing fails; then the output directory is as it
/// was before.
pub fn prepare(
    options: &PrepareOptions,
    progress: &mut (dyn FnMut(PrepareProgress) + Send),
) -> Result<PrepareReport, PrepareError> {
    let fraction = options.split.fraction;
    if !(0.0..1.0).contains(&fraction) {
        return Err(PrepareError::Fraction { fraction });
    }
    let source::Expanded { files, passed_over } = source::expand(&options.inputs, options.on_error)?;
    let passed_over: Vec<(PathBuf, String)> =
        passed_over.into_iter().map(|one| (one.path, one.why.to_string())).collect();
    let loaded = match &options.tokenizer {
        TokenizerChoice::Load(path) => Some(Tokenizer::load(path)?),
        TokenizerChoice::Bpe(_) | TokenizerChoice::Characters(_) => None,
    };
    let mut tracker = Tracker::new(&files, progress)?;
    let inputs = hash_inputs(&files, &mut tracker)?;
    let settings = settings(options, loaded.as_ref());
    let settings_blake3 = blake3::hash(settings.to_string().as_bytes()).to_hex().to_string();
    if let Some(report) = reuse(options, &settings_blake3, &inputs)? {
        return Ok(PrepareReport { passed_over, ..report });
    }

    let directory = PartialDirectory::begin(&options.output).map_err(failed_to_write(&options.output))?;
    let documents = survey(options, &files, &mut tracker)?;
    let plan = plan(options, &documents)?;
    let tokenizer = match loaded {
        Some(tokenizer) => tokenizer,
        None => make_tokenizer(options, &files, &plan, &mut tracker)?,
    };
    tokenizer.save(&directory.path().join("tokenizer"))?;
    let encoded = encode(options, &files, &plan, &tokenizer, (directory.path(), &mut tracker))?;
    if encoded.counts != documents {
        return Err(PrepareError::InputChanged);
    }
    let report = PrepareReport {
        version: VERSION,
        settings_blake3,
        settings,
        inputs,
        documents,
        tokenizer_blake3: tokenizer.fingerprint().to_owned(),
        vocab_size: tokenizer.vocab_size(),
        train: encoded.train,
        valid: encoded.valid,
        reused: false,
        passed_over,
    };
    let path = directory.path().join(REPORT);
    write_synced(&path, format!("{:#}\n", json!(report)).as_bytes()).map_err(failed_to_write(&path))?;
    directory.publish().map_err(failed_to_write(&options.output))?;
    Ok(report)
}

/// Counts and tells how far the work is.
struct Tracker<'a> {
    progress: &'a mut (dyn FnMut(PrepareProgress) + Send),
    now: PrepareProgress,
}

impl<'a> Tracker<'a> {
    fn new(
        files: &[PathBuf],
        progress: &'a mut (dyn FnMut(PrepareProgress) + Send),
    ) -> Result<Self, PrepareError> {
        let mut bytes_total = 0;
        for path in files {
            let found = std::fs::metadata(path).map_err(failed_to_read(path))?;
            if !found.is_file() {
                return Err(SourceError::NotAFile { path: path.clone() }.into());
            }
            bytes_total += found.len();
        }
        let now = PrepareProgress { stage: Stage::Hash, bytes_done: 0, bytes_total, documents: 0, tokens: 0 };
        Ok(Self { progress, now })
    }

    fn begin(&mut self, stage: Stage) {
        self.now = PrepareProgress { stage, bytes_done: 0, documents: 0, tokens: 0, ..self.now };
        (self.progress)(self.now);
    }

    fn at(&mut self, bytes_done: u64, documents: u64) {
        (self.now.bytes_done, self.now.documents) = (bytes_done, documents);
        (self.progress)(self.now);
    }
}

fn hash_inputs(files: &[PathBuf], tracker: &mut Tracker<'_>) -> Result<Vec<InputFile>, PrepareError> {
    tracker.begin(Stage::Hash);
    let mut inputs = Vec::new();
    let mut buffer = vec![0; 1 << 18];
    let mut done = 0;
    for path in files {
        let mut file = files::open(path).map_err(failed_to_read(path))?;
        let mut hasher = blake3::Hasher::new();
        loop {
            let n = file.read(&mut buffer).map_err(failed_to_read(path))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            done += n as u64;
            tracker.at(done, 0);
        }
        inputs.push(InputFile {
            name: source::file_name(path),
            bytes: hasher.count(),
            blake3: hasher.finalize().to_hex().to_string(),
        });
    }
    Ok(inputs)
}

/// All that the output depends on, besides the inputs.
fn settings(options: &PrepareOptions, loaded: Option<&Tokenizer>) -> serde_json::Value {
    let tokenizer = match &options.tokenizer {
        TokenizerChoice::Load(_) => json!({ "load": loaded.map(Tokenizer::fingerprint) }),
        TokenizerChoice::Bpe(bpe) => json!({ "bpe": bpe }),
        TokenizerChoice::Characters(special) => json!({ "characters": special }),
    };
    json!({
        "sources": options.sources,
        "on_error": options.on_error,
        "line_endings": options.line_endings,
        "duplicates": options.duplicates,
        "tokenizer": tokenizer,
        "split": options.split,
        "separator": options.separator,
        "seed": options.seed,
        "tokens_per_shard": options.tokens_per_shard,
    })
}

/// The report of the output that is there, if it is what would be made.
fn reuse(
    options: &PrepareOptions,
    settings_blake3: &str,
    inputs: &[InputFile],
) -> Result<Option<PrepareReport>, PrepareError> {
    let output = &options.output;
    let empty = |dir: &Path| std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    if !output.exists() || empty(output) {
        return Ok(None);
    }
    let exists = |differs| Err(PrepareError::Exists { path: output.clone(), differs });
    let report = read_bounded(&output.join(REPORT), REPORT_LIMIT).ok();
    let Some(report) = report.and_then(|json| serde_json::from_slice::<PrepareReport>(&json).ok()) else {
        // Never replaced, whatever was asked for: it may be anything.
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
    match options.existing {
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

/// A document that stays, or the reason why one does not.
enum Outcome {
    Kept(Document),
    Dropped(Dropped),
}

struct Dropped {
    reason: &'static str,
    /// A line of `removed.jsonl`.
    record: serde_json::Value,
}

/// Reads and cleans all documents in order.
struct Reader<'a> {
    options: &'a PrepareOptions,
    waiting: std::slice::Iter<'a, PathBuf>,
    current: Option<Box<dyn Source>>,
    bytes_before: u64,
    seen: Option<ExactDuplicates>,
    counts: DocumentCounts,
}

impl<'a> Reader<'a> {
    fn new(options: &'a PrepareOptions, files: &'a [PathBuf]) -> Self {
        let seen = (options.duplicates == Duplicates::Remove).then(ExactDuplicates::new);
        let counts = DocumentCounts::default();
        Self { options, waiting: files.iter(), current: None, bytes_before: 0, seen, counts }
    }

    fn bytes_done(&self) -> u64 {
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
        if let std::borrow::Cow::Owned(text) = self.options.line_endings.apply(&document.text) {
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
                let (reason, file) = (error.fault.reason(), source::file_name(&error.path));
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

fn survey(
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

/// Which part of which document is held out.
enum Plan {
    Nothing,
    Documents { order: Seed, of: u64, held_out: u64 },
    Characters { kept: f64 },
}

/// The two parts of a text; either may be empty.
struct Parts<'a> {
    train: &'a str,
    valid: &'a str,
    /// Whether the document was cut in two, and after how many characters.
    cut: Option<usize>,
}

fn plan(options: &PrepareOptions, documents: &DocumentCounts) -> Result<Plan, PrepareError> {
    let (fraction, of) = (options.split.fraction, documents.kept);
    if fraction == 0.0 {
        return Ok(Plan::Nothing);
    }
    let by_documents = match options.split.by {
        SplitBy::Auto => of > 1,
        SplitBy::Documents => true,
        SplitBy::Characters => false,
    };
    if !by_documents {
        return Ok(Plan::Characters { kept: 1.0 - fraction });
    }
    let held_out = ((of as f64 * fraction).round() as u64).max(1);
    if held_out >= of {
        return Err(PrepareError::EmptyPart { part: "training", documents: of });
    }
    Ok(Plan::Documents { order: Seed::new(options.seed).derive(SPLIT), of, held_out })
}

impl Plan {
    fn parts<'t>(&self, index: u64, text: &'t str) -> Parts<'t> {
        match *self {
            Self::Nothing => Parts { train: text, valid: "", cut: None },
            // More documents than were counted: the inputs changed, which is found out in the end.
            Self::Documents { order, of, held_out } if index < of && order.permute(index, of) < held_out => {
                Parts { train: "", valid: text, cut: None }
            }
            Self::Documents { .. } => Parts { train: text, valid: "", cut: None },
            Self::Characters { kept } => {
                let cut = (text.chars().count() as f64 * kept) as usize;
                let at = text.char_indices().nth(cut).map_or(text.len(), |(at, _)| at);
                Parts { train: &text[..at], valid: &text[at..], cut: Some(cut) }
            }
        }
    }
}

fn make_tokenizer(
    options: &PrepareOptions,
    files: &[PathBuf],
    plan: &Plan,
    tracker: &mut Tracker<'_>,
) -> Result<Tokenizer, PrepareError> {
    tracker.begin(Stage::Train);
    let mut reader = Reader::new(options, files);
    let mut failure = None;
    let whole = matches!(options.tokenizer, TokenizerChoice::Characters(_));
    let texts = std::iter::from_fn(|| {
        loop {
            let index = reader.counts.kept;
            let read = match reader.next()? {
                Ok(read) => read,
                Err(error) => {
                    failure = Some(error);
                    return None;
                }
            };
            tracker.at(reader.bytes_done(), reader.counts.read);
            match read {
                Outcome::Kept(document) if whole => return Some(document.text),
                Outcome::Kept(document) => {
                    let train = plan.parts(index, &document.text).train.to_owned();
                    if !train.is_empty() {
                        return Some(train);
                    }
                }
                Outcome::Dropped(_) => {}
            }
        }
    });
    let made = match &options.tokenizer {
        TokenizerChoice::Bpe(bpe) => train_bpe(texts, bpe).map_err(PrepareError::from),
        TokenizerChoice::Characters(special) => train_chars(texts, special).map_err(PrepareError::from),
        TokenizerChoice::Load(path) => Ok(Tokenizer::load(path)?),
    };
    // A text that could not be read is why there was too little to train on.
    failure.map_or(made, Err)
}

/// A text on its way into a dataset.
struct Job {
    held_out: bool,
    name: String,
    text: String,
    /// Whether the document ends with it.
    ends: bool,
}

struct Encoded {
    counts: DocumentCounts,
    train: SplitReport,
    valid: Option<SplitReport>,
}

fn encode(
    options: &PrepareOptions,
    files: &[PathBuf],
    plan: &Plan,
    tokenizer: &Tokenizer,
    (dir, tracker): (&Path, &mut Tracker<'_>),
) -> Result<Encoded, PrepareError> {
    tracker.begin(Stage::Encode);
    let create = |name: &str| {
        // Ids are below 2^31.
        let vocab_size = tokenizer.vocab_size() as u32;
        let tokens_per_shard = options.tokens_per_shard;
        let writer =
            WriterOptions { tokens_per_shard, ..WriterOptions::new(vocab_size, tokenizer.fingerprint()) };
        DatasetWriter::create(&dir.join(name), writer)
    };
    let separator = tokenizer.eos_id().filter(|_| options.separator == Separator::EndOfText);
    let mut sink = Sink {
        tokenizer,
        separator,
        threads: options.threads.get(),
        train: create("train")?,
        valid: if matches!(plan, Plan::Nothing) { None } else { Some(create("valid")?) },
        jobs: Vec::new(),
        bytes: 0,
    };
    let removed_path = dir.join("removed.jsonl");
    let removed = files::create(&removed_path).map_err(failed_to_write(&removed_path))?;
    let mut removed = BufWriter::new(removed);

    let mut reader = Reader::new(options, files);
    loop {
        let index = reader.counts.kept;
        let Some(read) = reader.next() else { break };
        match read? {
            Outcome::Kept(document) => {
                sink.push(&document, plan.parts(index, &document.text))?;
                tracker.now.tokens = sink.tokens();
            }
            Outcome::Dropped(dropped) => {
                writeln!(removed, "{}", dropped.record).map_err(failed_to_write(&removed_path))?;
            }
        }
        tracker.at(reader.bytes_done(), reader.counts.read);
    }
    sink.flush()?;
    tracker.now.tokens = sink.tokens();
    tracker.at(reader.bytes_done(), reader.counts.read);
    removed
        .into_inner()
        .map_err(|error| error.into_error())
        .and_then(|file| file.sync())
        .map_err(failed_to_write(&removed_path))?;
    let train = finish(sink.train, "training", reader.counts.kept)?;
    let valid = sink.valid.map(|writer| finish(writer, "validation", reader.counts.kept)).transpose()?;
    Ok(Encoded { counts: reader.counts, train, valid })
}

fn finish(writer: DatasetWriter, part: &'static str, documents: u64) -> Result<SplitReport, PrepareError> {
    let stats = writer.stats().clone();
    if stats.tokens == 0 {
        return Err(PrepareError::EmptyPart { part, documents });
    }
    let manifest: Manifest = writer.finish()?;
    Ok(SplitReport { stats, fingerprint: manifest.fingerprint() })
}

/// Encodes texts in rounds and writes them in order.
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

/// Encodes on `threads` threads; the results are in the order of the jobs.
fn encode_all(tokenizer: &Tokenizer, jobs: &[Job], threads: usize) -> Vec<Ids> {
    let mut results: Vec<Option<Ids>> = jobs.iter().map(|_| None).collect();
    let share = jobs.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for (jobs, results) in jobs.chunks(share).zip(results.chunks_mut(share)) {
            let run = move || {
                for (job, result) in jobs.iter().zip(results) {
                    *result = Some(tokenizer.encode(&job.text));
                }
            };
            if threads > 1 {
                scope.spawn(run);
            } else {
                run();
            }
        }
    });
    results.into_iter().flatten().collect()
}

fn failed_to_read(path: &Path) -> impl FnOnce(std::io::Error) -> PrepareError + use<> {
    let path = path.to_owned();
    move |source| PrepareError::Source(SourceError::Read { path, source })
}

fn failed_to_write(path: &Path) -> impl FnOnce(std::io::Error) -> PrepareError + use<> {
    let path = path.to_owned();
    move |source| PrepareError::Write { path, source }
}
