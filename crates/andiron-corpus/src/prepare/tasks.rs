//! A pipeline split over tasks, which may run one after the other, at once, or on several machines that share a file system.
//!
//! The parts that [`prepare`](super::prepare()) works on follow from the files alone. A task reads and filters each `of`-th part and
//! leaves the results in `.OUT.stages`. When all are done, [`merge`] removes duplicates, trains the tokenizer, encodes and
//! publishes; its output has the same bytes as that of one run.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::crew::Crew;
use super::documents;
use super::filter::{self, Filtering};
use super::inputs::Inputs;
use super::parts::{Part, parts};
use super::pipeline::{Who, failed_to_write, run};
use super::progress::Tracker;
use super::report::{DocumentCounts, PrepareReport, StepCounts};
use super::reuse::{REPORT, SETTINGS, hash_inputs};
use super::work::{Sharing, Work};
use super::{PrepareConfig, PrepareError, PrepareOptions, PrepareProgress, encode, train};
use andiron_files::replace;

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

    fn marker(self) -> String {
        format!("tasks/task-{:05}-of-{:05}", self.number, self.of)
    }
}

/// What a task did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskReport {
    /// The task.
    pub task: Task,
    /// Parts of this task.
    pub parts: usize,
    /// Parts of all tasks.
    pub of_parts: usize,
    /// How many documents were kept and left out; duplicates are not known yet.
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
    /// Tasks that are complete.
    pub tasks: Vec<Task>,
    /// Whether duplicates are removed and the documents in place.
    pub documents: bool,
    /// Whether the tokenizer is there.
    pub tokenizer: bool,
    /// Parts that are encoded.
    pub encoded: usize,
}

/// Reads and filters the parts of a task, unless that was done before.
///
/// # Errors
/// If the task is not one of `1..=of`, and as [`prepare`](super::prepare()).
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
    // Every task writes the same.
    replace(&settings, config.to_toml().as_bytes()).map_err(failed_to_write(&settings))?;
    let filtering = Filtering::new(config, (&found, &inputs), &crew, &work)?;
    let filtered = filter::filter(&filtering, &own, &tracker)?;
    let mut steps: Vec<StepCounts> = Vec::new();
    filtered.iter().for_each(|part| StepCounts::add_all(&mut steps, &part.steps));
    work.directory("tasks")?;
    work.finish(&task.marker(), "", Vec::new(), task)?;
    Ok(TaskReport { task, parts: own.len(), of_parts: all.len(), documents: DocumentCounts::of(&steps) })
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
    run(&begun(output)?, options, Who::Tasks, progress)
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
    let task = |name: &String| {
        let (number, of) = name.strip_prefix("task-")?.split_once("-of-")?;
        Some(Task { number: number.parse().ok()?, of: of.parse().ok()? })
    };
    status.tasks = marked("tasks").iter().filter_map(task).collect();
    let done: Vec<String> = marked("");
    status.documents = done.iter().any(|name| name == documents::STAGE);
    status.tokenizer = done.iter().any(|name| name == train::STAGE);
    status.encoded = marked(encode::STAGE).len();
    // The filtered parts are removed when the documents are in place.
    status.filtered = if status.documents { status.parts } else { marked(filter::STAGE).len() };
    Ok(status)
}
