//! Whether stopping and resuming a run changes it: two short runs that must be the same to the last bit.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use andiron_kernels::mapped::MappedFile;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::checkpoint::steps_in;
use crate::config::{TrainConfig, first_difference};
use crate::files::{self, DirectoryLock, FileError};
use crate::trainer::TrainError;

/// The fields of `metrics.jsonl` that depend on the machine.
const MEASURED: [&str; 5] = ["tokens_per_s", "rows_per_s", "step_s", "data_wait_s", "elapsed_s"];

const MAX_METRICS: u64 = 1 << 30;
const MAX_STATE: u64 = 16 << 20;

/// A comparison of a run that trains some steps in one go with one that is stopped halfway and resumed.
///
/// Both have the configuration of a real run, its length and its schedule included, and stop at the same step. They are made in a
/// hidden directory beside the output of the real run, which is neither read nor written but for its records; the directory is
/// removed in the end. Whoever has this value trains the runs, best each in a process of its own:
///
/// 1. [`straight`](Self::straight), to step N;
/// 2. [`stopped`](Self::stopped), to a step before N;
/// 3. the same again, to step N;
///
/// each with [`Requests::stop_after`](crate::Requests::stop_after), and asks for the [`first difference`](Self::first_difference).
#[derive(Debug)]
pub struct ResumeCheck {
    config: TrainConfig,
    directory: PathBuf,
    /// Directories above it that were made for it, from the innermost on.
    made: Vec<PathBuf>,
    _lock: DirectoryLock,
}

impl ResumeCheck {
    /// Makes the directory. What an earlier check left there, if it was killed, is removed.
    ///
    /// # Errors
    /// If the directory cannot be made, or another check uses it.
    pub fn begin(config: &TrainConfig) -> Result<Self, TrainError> {
        let output = &config.run.output;
        let directory = files::sibling(output, "verify-resume");
        let missing = directory.ancestors().skip(1).take_while(|above| !above.as_os_str().is_empty());
        let made = missing.take_while(|above| !above.exists()).map(Path::to_owned).collect();
        files::make_directory(&directory)?;
        let lock =
            DirectoryLock::take(&directory)?.ok_or_else(|| TrainError::Busy { path: directory.clone() })?;
        let check = Self { config: config.clone(), directory, made, _lock: lock };
        for name in [STRAIGHT, STOPPED] {
            files::remove_directory(&check.directory.join(name))?;
        }
        // Rows that the real run has encoded need not be encoded again. Records are replaced, never changed.
        share(&output.join(RECORDS), &check.directory.join(STRAIGHT).join(RECORDS));
        Ok(check)
    }

    /// Where the runs are, and what else belongs to the check.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The run without a stop.
    pub fn straight(&self) -> TrainConfig {
        self.run(STRAIGHT)
    }

    /// The run that is stopped and resumed. It takes over the records of the straight one, which is not trained any further.
    pub fn stopped(&self) -> TrainConfig {
        let [from, to] = [STRAIGHT, STOPPED].map(|name| self.directory.join(name).join(RECORDS));
        share(&from, &to);
        self.run(STOPPED)
    }

    fn run(&self, name: &str) -> TrainConfig {
        let mut config = self.config.clone();
        config.run.output = self.directory.join(name);
        // Every step is compared; validation changes nothing, and the checkpoints are those of the stops.
        config.run.log_every = 1;
        config.data.valid = None;
        config.evaluate.every = 0;
        config.checkpoint.every = i64::MAX as u64;
        config.checkpoint.keep_last = 2;
        config
    }

    /// The step of the newest checkpoint of the straight run: the step that was asked for, or the length of a shorter run.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn reached(&self) -> Result<u64, TrainError> {
        Ok(steps_in(&self.directory.join(STRAIGHT))?.last().copied().unwrap_or(0))
    }

    /// The first difference between the two runs after step `step`: in losses, gradient norms and learning rates, step by step,
    /// then in the weights, the state of the optimizer, the average of the weights, and the progress.
    ///
    /// # Errors
    /// If a file is missing or cannot be read.
    pub fn first_difference(&self, step: u64) -> Result<Option<ResumeDifference>, TrainError> {
        let roots = [STRAIGHT, STOPPED].map(|name| self.directory.join(name));
        if let Some(found) = metrics(&roots)? {
            return Ok(Some(found));
        }
        Ok(checkpoints(&roots.map(|root| root.join(format!("step-{step:06}"))))?)
    }
}

impl Drop for ResumeCheck {
    fn drop(&mut self) {
        // Best effort: the next check removes what stays. The directories above go if nothing else is in them by now.
        let _ = files::remove_directory(&self.directory);
        for above in &self.made {
            let _ = fs::remove_dir(above);
        }
    }
}

const STRAIGHT: &str = "straight";
const STOPPED: &str = "stopped";
const RECORDS: &str = "records";

/// Gives records a second place, without a copy where the file system can; where it cannot, they are made again.
fn share(from: &Path, to: &Path) {
    let link = || -> io::Result<()> {
        for dataset in fs::read_dir(from)? {
            let dataset = dataset?;
            // What is not whole stands under a hidden name, or in a file.
            let is_hidden = dataset.file_name().to_string_lossy().starts_with('.');
            if is_hidden || !dataset.file_type()?.is_dir() {
                continue;
            }
            let target = to.join(dataset.file_name());
            fs::create_dir_all(&target)?;
            for file in fs::read_dir(dataset.path())? {
                let file = file?;
                fs::hard_link(file.path(), target.join(file.file_name()))?;
            }
        }
        Ok(())
    };
    if link().is_err() {
        let _ = fs::remove_dir_all(to);
    }
}

/// Where two runs differ, and what is there.
#[derive(Clone, Debug, PartialEq)]
pub struct ResumeDifference {
    /// The place: a number of a step, or of a file of the checkpoint.
    pub place: String,
    /// In the straight run.
    pub straight: String,
    /// In the resumed one.
    pub resumed: String,
}

impl fmt::Display for ResumeDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, straight, resumed } = self;
        write!(f, "{place} is {straight} in the straight run and {resumed} in the resumed one")
    }
}

/// The first step whose numbers differ.
fn metrics(roots: &[PathBuf; 2]) -> Result<Option<ResumeDifference>, FileError> {
    let read = |root: &PathBuf| files::read_bounded(&root.join("metrics.jsonl"), MAX_METRICS);
    let [straight, stopped] = [read(&roots[0])?, read(&roots[1])?];
    let [mut straight, mut stopped] = [straight, stopped].map(|text| lines(&text).into_iter());
    loop {
        let step = |line: &Value| line.get("step").and_then(Value::as_u64).unwrap_or_default();
        let (before, now) = match (straight.next(), stopped.next()) {
            (None, None) => return Ok(None),
            (Some(before), Some(now)) => (before, now),
            (before, now) => {
                let [straight, resumed] = [before.is_some(), now.is_some()].map(presence);
                let step = before.or(now).as_ref().map_or(0, step);
                return Ok(Some(ResumeDifference { place: format!("step {step}"), straight, resumed }));
            }
        };
        if let Some(found) = first_difference(&before, &now, &|field| MEASURED.contains(&field)) {
            return Ok(Some(ResumeDifference {
                place: format!("{} of step {}", found.field, step(&before)),
                straight: found.before.to_string(),
                resumed: found.now.to_string(),
            }));
        }
    }
}

fn presence(there: bool) -> String {
    if there { "there" } else { "missing" }.to_owned()
}

fn lines(text: &[u8]) -> Vec<Value> {
    text.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// The first difference between two checkpoints.
fn checkpoints(dirs: &[PathBuf; 2]) -> Result<Option<ResumeDifference>, FileError> {
    let names = files::list_files(&dirs[0])?;
    let others = files::list_files(&dirs[1])?;
    for name in names.iter().chain(others.iter().filter(|name| !names.contains(name))) {
        let there = [names.contains(name), others.contains(name)];
        if there != [true, true] {
            let [straight, resumed] = there.map(presence);
            return Ok(Some(ResumeDifference { place: name.clone(), straight, resumed }));
        }
        let found = match name.as_str() {
            // It has the checksums of the others.
            "manifest.json" => None,
            "state.json" => states(dirs, name)?,
            _ => contents(dirs, name)?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn states(dirs: &[PathBuf; 2], name: &str) -> Result<Option<ResumeDifference>, FileError> {
    let read = |dir: &PathBuf| -> Result<Value, FileError> {
        let text = files::read_bounded(&dir.join(name), MAX_STATE)?;
        Ok(serde_json::from_slice(&text).unwrap_or_default())
    };
    let may_differ = |field: &str| ["progress.elapsed_s", "identity.run.output"].contains(&field);
    let found = first_difference(&read(&dirs[0])?, &read(&dirs[1])?, &may_differ);
    Ok(found.map(|found| ResumeDifference {
        place: format!("{} of {name}", found.field),
        straight: found.before.to_string(),
        resumed: found.now.to_string(),
    }))
}

/// The first tensor of a file that differs, or that the files do.
fn contents(dirs: &[PathBuf; 2], name: &str) -> Result<Option<ResumeDifference>, FileError> {
    let open = |dir: &PathBuf| {
        let path = dir.join(name);
        MappedFile::open(&path).map_err(files::failed("read", &path))
    };
    let [straight, resumed] = [open(&dirs[0])?, open(&dirs[1])?];
    if straight[..] == resumed[..] {
        return Ok(None);
    }
    let sizes = || ResumeDifference {
        place: format!("the content of {name}"),
        straight: format!("one of {} bytes", straight.len()),
        resumed: format!("another, of {} bytes,", resumed.len()),
    };
    let (Ok(before), Ok(now)) = (SafeTensors::deserialize(&straight), SafeTensors::deserialize(&resumed))
    else {
        return Ok(Some(sizes()));
    };
    let mut tensors = before.names();
    tensors.sort_unstable();
    let found = tensors.into_iter().find_map(|tensor| {
        let (before, now) = (before.tensor(tensor).ok()?, now.tensor(tensor).ok()?);
        let width = if before.dtype() == Dtype::F32 { 4 } else { 1 };
        let mut values = before.data().chunks(width).zip(now.data().chunks(width)).enumerate();
        let (index, (before, now)) = values.find(|(_, (before, now))| before != now)?;
        let [straight, resumed] = [before, now].map(|value| match <[u8; 4]>::try_from(value) {
            Ok(bytes) => f32::from_le_bytes(bytes).to_string(),
            Err(_) => format!("{value:?}"),
        });
        Some(ResumeDifference { place: format!("{tensor}[{index}] of {name}"), straight, resumed })
    });
    Ok(Some(found.unwrap_or_else(sizes)))
}

#[cfg(test)]
mod tests;
