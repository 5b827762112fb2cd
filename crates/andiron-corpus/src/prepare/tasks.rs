//! A pipeline split over tasks, which may run one after the other, at once, or on several machines that share a file system.
//!
//! The parts that [`prepare`](super::prepare()) works on follow from the files alone. A task reads and filters each `of`-th part and
//! leaves the results in `.OUT.stages`. When all are done, [`merge`] removes duplicates, trains the tokenizer, encodes and
//! publishes; its output has the same bytes as that of one run.
//!
//! Encoding may be split as well: [`merge_documents`] stops before it, and then the same tasks, run again, encode the same parts.
//! What they leave [`merge`] does itself.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::crew::Crew;
use super::documents::{self, Documents};
use super::encode::{self, Encoding};
use super::filter::{self, Filtering};
use super::inputs::Inputs;
use super::parts::{Part, parts};
use super::pipeline::{Reached, Until, Who, failed_to_write, run};
use super::progress::Tracker;
use super::report::{DocumentCounts, PrepareReport, StepCounts};
use super::reuse::{REPORT, SETTINGS, hash_inputs};
use super::split::plan;
use super::work::{Sharing, Work};
use super::{PrepareConfig, PrepareError, PrepareOptions, PrepareProgress, train};
use andiron_files::{rename, write_synced};

/// One of several tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its number, from 1.
    pub number: u64,
    /// How many there are.
    pub of: u64,
}

impl Task {
    fn has(self, part: usize) -> bool {
        part as u64 % self.of == self.number - 1
    }

    fn marker(self, work: TaskWork) -> String {
        format!("{}/task-{:05}-of-{:05}", work.directory(), self.number, self.of)
    }

    /// The tasks that are complete, by the names of their markers.
    fn of_markers(names: &[String]) -> Vec<Self> {
        let task = |name: &String| {
            let (number, of) = name.strip_prefix("task-")?.split_once("-of-")?;
            Some(Self { number: number.parse().ok()?, of: of.parse().ok()? })
        };
        names.iter().filter_map(task).collect()
    }
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskWork {
    /// It reads and filters its parts.
    Filter,
    /// It encodes its parts: the documents and the tokenizer are there.
    Encode,
}

impl TaskWork {
    /// Where the tasks are noted that have done it.
    fn directory(self) -> &'static str {
        match self {
            Self::Filter => "tasks",
            Self::Encode => ENCODED,
        }
    }
}

/// Tasks that have encoded their parts.
pub(super) const ENCODED: &str = "tasks-encoded";

/// What a task did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskReport {
    /// The task.
    pub task: Task,
    /// What it did.
    pub work: TaskWork,
    /// Parts of this task.
    pub parts: usize,
    /// Parts of all tasks.
    pub of_parts: usize,
    /// How many documents were kept and left out; duplicates are not known yet. A task that encodes keeps all.
    pub documents: DocumentCounts,
}

/// How far a pipeline is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrepareStatus {
    /// The output directory.
    pub output: PathBuf,
    /// Whether it is complete. Then nothing else is of interest.
    pub complete: bool,
    /// Parts of the inputs.
    pub parts: usize,
    /// Parts that are read and filtered.
    pub filtered: usize,
    /// Tasks that have filtered their parts.
    pub tasks: Vec<Task>,
    /// Whether duplicates are removed and the documents in place.
    pub documents: bool,
    /// Whether the tokenizer is there.
    pub tokenizer: bool,
    /// Parts that are encoded.
    pub encoded: usize,
    /// Tasks that have encoded their parts.
    pub encoding_tasks: Vec<Task>,
}

/// Reads and filters the parts of a task; or encodes them, if [`merge_documents`] has made the documents and the tokenizer of the same
/// inputs and settings. What was done before is not done again.
///
/// # Errors
/// If the task is not one of `1..=of`, if there are documents without a tokenizer, and as [`prepare`](super::prepare()).
pub fn prepare_task(
    config: &PrepareConfig,
    options: &PrepareOptions,
    task: Task,
    progress: &mut (dyn FnMut(PrepareProgress) + Send),
) -> Result<TaskReport, PrepareError> {
    if !(1..=task.of).contains(&task.number) {
        return Err(PrepareError::Task { number: task.number, of: task.of });
    }
    config.validate()?;
    let output = config.output.as_deref().ok_or(PrepareError::NoOutput)?;
    let found = Inputs::find(config)?;
    let all = parts(&found);
    let own: Vec<(usize, &Part)> = all.iter().enumerate().filter(|(number, _)| task.has(*number)).collect();
    let tracker = Tracker::new(own.iter().map(|(_, part)| part.bytes).sum(), progress);
    let crew = Crew::new(options.threads.get());
    let is_own = |file: usize| own.iter().any(|(_, part)| part.files.contains(&file));
    let inputs = hash_inputs(&found, is_own, (&crew, &tracker))?;
    let work = Work::open(output, Sharing::Tasks)?;
    let settings = work.path(SETTINGS);
    // Every task writes the same. Tasks begin at once, so the file that each renames must be its own.
    let own_settings = work.path(&format!(".{SETTINGS}.{}-{}", task.number, task.of));
    write_synced(&own_settings, config.to_toml().as_bytes())
        .and_then(|()| rename(&own_settings, &settings))
        .map_err(failed_to_write(&settings))?;
    let filtering = Filtering::new(config, (&found, &inputs), &crew, &work)?;
    let (did, documents) = match settled(&filtering, &own, all.len()) {
        Some(documents) => {
            (TaskWork::Encode, encode_own((config, output), &documents, &own, (&crew, &work, &tracker))?)
        }
        None => {
            let filtered = filter::filter(&filtering, &own, &tracker)?;
            let mut steps: Vec<StepCounts> = Vec::new();
            filtered.iter().for_each(|part| StepCounts::add_all(&mut steps, &part.steps));
            (TaskWork::Filter, DocumentCounts::of(&steps))
        }
    };
    work.directory(did.directory())?;
    work.finish(&task.marker(did), "", Vec::new(), task)?;
    Ok(TaskReport { task, work: did, parts: own.len(), of_parts: all.len(), documents })
}

/// The documents of all tasks, if they are in place and the files of this task are what they were made from.
fn settled(filtering: &Filtering<'_>, own: &[(usize, &Part)], n_parts: usize) -> Option<Documents> {
    let (config, work) = (filtering.config, filtering.work);
    let found = work.peek::<Documents>(documents::STAGE).filter(|found| found.parts.len() == n_parts)?;
    let mut keys: Vec<String> = found.parts.iter().map(|part| part.key.clone()).collect();
    own.iter().for_each(|(number, part)| keys[*number] = filtering.key(part));
    let is_own = |name: &str| own.iter().any(|(number, _)| found.parts[*number].file.name == name);
    work.done_in_part((documents::STAGE, &documents::stage_key(config, &keys)), is_own)
}

/// Encodes the parts of a task.
fn encode_own(
    (config, output): (&PrepareConfig, &Path),
    documents: &Documents,
    own: &[(usize, &Part)],
    (crew, work, tracker): (&Crew, &Work, &Tracker<'_>),
) -> Result<DocumentCounts, PrepareError> {
    let Some(tokenizer) = train::made(config, documents, work) else {
        return Err(PrepareError::NoTokenizer { path: output.to_owned() });
    };
    let plan = plan(config, documents.kept())?;
    let encoding = Encoding { config, documents, plan: &plan, tokenizer: &tokenizer, crew, work };
    let own: Vec<usize> = own.iter().map(|(number, _)| *number).collect();
    encoding.run(&own, tracker)?;
    let kept = own.iter().map(|&number| documents.parts[number].documents).sum();
    Ok(DocumentCounts { read: kept, kept, ..DocumentCounts::default() })
}

/// Completes an output whose parts were filtered by tasks.
///
/// # Errors
/// If no task has begun it, a part is not filtered, or its inputs or settings have changed since; and as
/// [`prepare`](super::prepare()).
pub fn merge(
    output: &Path,
    options: &PrepareOptions,
    progress: &mut (dyn FnMut(PrepareProgress) + Send),
) -> Result<PrepareReport, PrepareError> {
    match run(&begun(output)?, options, (Who::Tasks, Until::Complete), progress)? {
        Reached::Complete(report) => Ok(*report),
        Reached::Tokenizer => unreachable!("it was to be complete"),
    }
}

/// The same, but stops before encoding, which is left to the tasks: each is run again, and then [`merge`] completes the output.
///
/// # Errors
/// As [`merge`].
pub fn merge_documents(
    output: &Path,
    options: &PrepareOptions,
    progress: &mut (dyn FnMut(PrepareProgress) + Send),
) -> Result<PrepareStatus, PrepareError> {
    run(&begun(output)?, options, (Who::Tasks, Until::Tokenizer), progress)?;
    status(output)
}

/// The settings of a pipeline that tasks have begun.
fn begun(output: &Path) -> Result<PrepareConfig, PrepareError> {
    let settings = Work::of(output).join(SETTINGS);
    if !settings.exists() {
        return Err(PrepareError::NotBegun { path: output.to_owned() });
    }
    let config = PrepareConfig::load(&settings)?;
    // It may have been given by another name.
    Ok(PrepareConfig { output: Some(output.to_owned()), ..config })
}

/// How far a pipeline is.
///
/// # Errors
/// If there is neither an output nor work on one, or the inputs are gone.
pub fn status(output: &Path) -> Result<PrepareStatus, PrepareError> {
    let mut status = PrepareStatus {
        output: output.to_owned(),
        complete: output.join(REPORT).exists(),
        parts: 0,
        filtered: 0,
        tasks: Vec::new(),
        documents: false,
        tokenizer: false,
        encoded: 0,
        encoding_tasks: Vec::new(),
    };
    let work = Work::of(output);
    if !work.exists() {
        return if status.complete {
            Ok(status)
        } else {
            Err(PrepareError::NotBegun { path: output.to_owned() })
        };
    }
    status.complete = false;
    let marked = |stage: &str| -> Vec<String> {
        let names = std::fs::read_dir(work.join(stage)).into_iter().flatten().flatten();
        let mut names: Vec<String> = names
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".done")?.to_owned()))
            .collect();
        names.sort();
        names
    };
    if let Ok(config) = begun(output) {
        status.parts = parts(&Inputs::find(&config)?).len();
    }
    status.tasks = Task::of_markers(&marked(TaskWork::Filter.directory()));
    status.encoding_tasks = Task::of_markers(&marked(TaskWork::Encode.directory()));
    let done: Vec<String> = marked("");
    status.documents = done.iter().any(|name| name == documents::STAGE);
    status.tokenizer = done.iter().any(|name| name == train::STAGE);
    status.encoded = marked(encode::STAGE).len();
    // The filtered parts are removed when the documents are in place.
    status.filtered = if status.documents { status.parts } else { marked(filter::STAGE).len() };
    Ok(status)
}
