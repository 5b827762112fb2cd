//! The stages in order, into a directory that appears when all are done.

use std::path::Path;

use serde_json::json;

use super::crew::Crew;
use super::documents::{self, Documents};
use super::encode::{Encoding, Published};
use super::filter::{self, Filtering};
use super::inputs::Inputs;
use super::parts::{Part, parts};
use super::progress::Tracker;
use super::report::{DocumentCounts, PrepareReport};
use super::reuse::{PAGE, REPORT, SETTINGS, STAGES, hash_inputs, hash_lists, reuse, settings};
use super::split::{Plan, plan};
use super::train::{self, make_tokenizer};
use super::work::{Sharing, Work};
use super::{PrepareConfig, PrepareError, PrepareOptions, PrepareProgress, TokenizerChoice, VERSION};
use crate::report::{CorpusReport, render};
use andiron_data::source::{InputFile, SourceError};
use andiron_data::tokenizer::Tokenizer;
use andiron_files::{PartialDirectory, write_synced};

/// Writes the output directory, unless it exists and was made from the same inputs and settings.
///
/// `progress` is called while files are read and after some documents, from any thread.
///
/// # Errors
/// If an input cannot be read, a setting is invalid, or writing fails. The output directory is then unchanged.
pub fn prepare(
    config: &PrepareConfig,
    options: &PrepareOptions,
    progress: &mut (dyn FnMut(PrepareProgress) + Send),
) -> Result<PrepareReport, PrepareError> {
    match run(config, options, (Who::Here, Until::Complete), progress)? {
        Reached::Complete(report) => Ok(*report),
        Reached::Tokenizer => unreachable!("it was to be complete"),
    }
}

/// Who filters the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// This run.
    Here,
    /// Tasks have done it.
    Tasks,
}

/// Where to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// When the documents and the tokenizer are there, from which the shards are made.
    Tokenizer,
    /// At the end.
    Complete,
}

/// How far it came.
pub(super) enum Reached {
    /// The documents and the tokenizer are there.
    Tokenizer,
    /// The output is complete.
    Complete(Box<PrepareReport>),
}

/// Does all stages, or those that tasks have left.
pub(super) fn run(
    config: &PrepareConfig,
    options: &PrepareOptions,
    (who, until): (Who, Until),
    progress: &mut (dyn FnMut(PrepareProgress) + Send),
) -> Result<Reached, PrepareError> {
    config.validate()?;
    let output = config.output.as_deref().ok_or(PrepareError::NoOutput)?;
    let found = Inputs::find(config)?;
    let loaded = match &config.tokenizer {
        TokenizerChoice::Load { path } => Some(Tokenizer::load(path)?),
        TokenizerChoice::Bpe(_) | TokenizerChoice::Characters(_) => None,
    };
    let tracker = Tracker::new(found.bytes.iter().sum(), progress);
    let crew = Crew::new(options.threads.get());
    let inputs = hash_inputs(&found, |_| true, (&crew, &tracker))?;
    let lists = hash_lists(config)?;
    let settings = settings(config, &lists, loaded.as_ref());
    let settings_blake3 = blake3::hash(settings.to_string().as_bytes()).to_hex().to_string();
    if let Some(report) = reuse((output, options.existing), &settings_blake3, &inputs)? {
        Work::sweep(output);
        return Ok(Reached::Complete(Box::new(PrepareReport { passed_over: found.passed_over, ..report })));
    }

    let work = Work::open(output, Sharing::Alone)?;
    let run = Run { config, output, found: &found, inputs: &inputs, who, crew: &crew, work: &work };
    let done = run.tokenizer(loaded, &tracker).and_then(|made| match until {
        Until::Tokenizer => Ok(None),
        Until::Complete => run.shards((settings_blake3, settings), made, &tracker).map(Some),
    });
    match done {
        Ok(None) => Ok(Reached::Tokenizer),
        Ok(Some(report)) => {
            work.remove()?;
            Ok(Reached::Complete(Box::new(PrepareReport { passed_over: found.passed_over, ..report })))
        }
        Err(error) => {
            work.give_up();
            Err(error)
        }
    }
}

/// What every stage has at hand.
struct Run<'a> {
    config: &'a PrepareConfig,
    output: &'a Path,
    found: &'a Inputs,
    inputs: &'a [InputFile],
    who: Who,
    crew: &'a Crew,
    work: &'a Work,
}

/// What the shards are made from.
struct Made {
    documents: Documents,
    plan: Plan,
    tokenizer: Tokenizer,
}

impl Run<'_> {
    /// The stages up to the tokenizer.
    fn tokenizer(&self, loaded: Option<Tokenizer>, tracker: &Tracker<'_>) -> Result<Made, PrepareError> {
        let &Self { config, output, work, .. } = self;
        let documents = self.documents(tracker)?;
        let counts = DocumentCounts::of(&documents.steps);
        if counts.kept == 0 {
            return Err(PrepareError::NoText { read: counts.read, dropped: counts.dropped_total() });
        }
        let plan = plan(config, counts.kept)?;
        let tokenizer_key = train::stage_key(config, &documents);
        if loaded.is_none() && work.done::<String>(train::STAGE, &tokenizer_key).is_none() {
            work.adopt::<String>((output, STAGES), train::STAGE, &tokenizer_key)?;
        }
        let tokenizer = make_tokenizer(config, (&documents, &plan), loaded, (work, tracker))?;
        Ok(Made { documents, plan, tokenizer })
    }

    /// The last stage, and the output.
    fn shards(
        &self,
        (settings_blake3, settings): (String, serde_json::Value),
        Made { documents, plan, tokenizer }: Made,
        tracker: &Tracker<'_>,
    ) -> Result<PrepareReport, PrepareError> {
        let &Self { config, output, crew, work, .. } = self;
        let encoding =
            Encoding { config, documents: &documents, plan: &plan, tokenizer: &tokenizer, crew, work };
        let all: Vec<usize> = (0..documents.parts.len()).collect();
        encoding.run(&all, tracker)?;

        let directory = PartialDirectory::begin(output).map_err(failed_to_write(output))?;
        documents::publish(&documents, work, directory.path())?;
        tokenizer.save(&directory.path().join(train::STAGE))?;
        let Published { train, valid, sources } = encoding.publish(directory.path())?;
        let report = PrepareReport {
            version: VERSION,
            settings_blake3,
            settings,
            inputs: self.inputs.to_vec(),
            documents: DocumentCounts::of(&documents.steps),
            steps: documents.steps.clone(),
            paragraphs: documents.paragraphs.clone(),
            sources,
            tokenizer_blake3: tokenizer.fingerprint().to_owned(),
            vocab_size: tokenizer.vocab_size(),
            train,
            valid,
            reused: false,
            passed_over: Vec::new(),
        };
        let write = |name: &str, content: String| {
            let path = directory.path().join(name);
            write_synced(&path, content.as_bytes()).map_err(failed_to_write(&path))
        };
        // Without the output: the directory may be moved, and is the same wherever it was made.
        write(SETTINGS, PrepareConfig { output: None, ..config.clone() }.to_toml())?;
        write(STAGES, work.markers(&[documents::STAGE, train::STAGE])?.to_string())?;
        write(REPORT, format!("{:#}\n", json!(report)))?;
        let page = crew.install(|| CorpusReport::collect(directory.path()))?;
        write(PAGE, render(&page))?;
        directory.publish().map_err(failed_to_write(output))?;
        Ok(report)
    }

    /// The cleaned documents: as they are, as an earlier output has them, or made.
    fn documents(&self, tracker: &Tracker<'_>) -> Result<Documents, PrepareError> {
        let &Self { config, output, found, inputs, who, crew, work } = self;
        let filtering = Filtering::new(config, (found, inputs), crew, work)?;
        let parts = parts(found);
        let keys: Vec<String> = parts.iter().map(|part| filtering.key(part)).collect();
        let key = documents::stage_key(config, &keys);
        if let Some(documents) = work.done(documents::STAGE, &key) {
            return Ok(documents);
        }
        if let Some(documents) = work.adopt((output, STAGES), documents::STAGE, &key)? {
            return Ok(documents);
        }
        if who == Who::Tasks {
            let is_done = |number: &usize| filtering.is_done(*number, &parts[*number]);
            let missing = (0..parts.len()).filter(|number| !is_done(number)).count();
            if missing > 0 {
                return Err(PrepareError::Unfinished { missing, parts: parts.len() });
            }
        }
        let numbered: Vec<(usize, &Part)> = parts.iter().enumerate().collect();
        let filtered = filter::filter(&filtering, &numbered, tracker)?;
        documents::settle((config, &keys), (&parts, &filtered), (work, crew))
    }
}

pub(super) fn failed_to_read(path: &Path) -> impl FnOnce(std::io::Error) -> PrepareError + use<> {
    let path = path.to_owned();
    move |source| PrepareError::Source(SourceError::Read { path, source })
}

pub(super) fn failed_to_write(path: &Path) -> impl FnOnce(std::io::Error) -> PrepareError + use<> {
    let path = path.to_owned();
    move |source| PrepareError::Write { path, source }
}
