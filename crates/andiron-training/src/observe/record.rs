//! The record that a run leaves behind: `metrics.jsonl`, `log.jsonl`, TensorBoard files and `report.html`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::log::LogFile;
use super::metrics::METRICS;
use super::report::{
    self, ConfusionMatrix, Evaluation, ReportData, ReportStatus, RunCurves, Sample, Samples, Warnings,
};
use super::{BestValue, BestValues, EventFile, MetricsFile, Observer, RunStart, StepRecord, Warning};
use crate::files::{self, FileError};

const LOG: &str = "log.jsonl";
const TENSORBOARD: &str = "tensorboard";
const REPORT: &str = "report.html";

/// Time between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The same, when a checkpoint was saved or the validation loss measured.
const REPORT_AT_MILESTONES: Duration = Duration::from_secs(1);

/// The time between two reports is at least this many times what one takes.
const REPORT_COST: u32 = 100;

/// What is known of a run before it begins.
#[derive(Clone, Debug, Default)]
pub struct RunFacts {
    /// Name of the run.
    pub name: String,
    /// What is trained on what, as names and values, for the report.
    pub facts: Vec<(String, String)>,
    /// The resolved configuration, as TOML.
    pub config: String,
    /// Steps between two lines of `metrics.jsonl`.
    pub log_every: u64,
}

/// Writes down what happens in a run, and passes it on to another observer.
///
/// Only `metrics.jsonl` must be writable: it is part of a checkpoint. Whatever else cannot be written is a warning.
pub struct RunRecord<'a> {
    observer: &'a mut dyn Observer,
    directory: PathBuf,
    log_every: u64,
    data: ReportData,
    best: BestValues,
    /// The step from which the time left is estimated, and when it was.
    began_at: (u64, Instant),
    /// Whether there are files: another process writes them otherwise.
    is_kept: bool,
    /// `None` before the run begins.
    files: Option<Files>,
    /// When the newest report was written, and how long that took.
    reported: Option<(Instant, Duration)>,
    failing: Failing,
}

struct Files {
    metrics: MetricsFile,
    log: LogFile,
    /// `None` if it could not be created.
    events: Option<EventFile>,
}

/// The files that could not be written the last time.
#[derive(Default)]
struct Failing {
    metrics: bool,
    log: bool,
    events: bool,
    report: bool,
}

impl<'a> RunRecord<'a> {
    /// A record in `directory`. Nothing is read or written before [`open`](Self::open).
    pub fn new(directory: &Path, facts: RunFacts, observer: &'a mut dyn Observer) -> Self {
        let RunFacts { name, facts, config, log_every } = facts;
        let data = ReportData {
            name,
            status: ReportStatus::Running,
            updated: SystemTime::UNIX_EPOCH,
            refresh: REPORT_EVERY,
            step: 0,
            steps: 0,
            tokens: 0,
            elapsed_s: 0.0,
            remaining_s: None,
            facts,
            config,
            curves: RunCurves::default(),
            evaluation: None,
            warnings: Warnings::default(),
            samples: Samples::default(),
        };
        Self {
            observer,
            directory: directory.to_owned(),
            log_every,
            data,
            best: BestValues::default(),
            began_at: (0, Instant::now()),
            is_kept: true,
            files: None,
            reported: None,
            failing: Failing::default(),
        }
    }

    /// The same without files, for a process of a run whose first one keeps the record.
    #[must_use]
    pub fn unkept(self) -> Self {
        Self { is_kept: false, ..self }
    }

    /// Opens the files of a run that goes on after step `after`, 0 for a new one. What they say of later steps is removed.
    ///
    /// # Errors
    /// If `metrics.jsonl` cannot be read or written.
    pub fn open(&mut self, after: u64) -> Result<(), FileError> {
        if !self.is_kept {
            return Ok(());
        }
        let metrics = self.open_metrics(after)?;
        self.began_at = (after, Instant::now());
        let log_path = self.directory.join(LOG);
        let mut warnings = Warnings::default();
        let log = LogFile::open(&log_path, after, &mut warnings, &mut self.data.samples);
        let (log, log_error) = match log {
            Ok(log) => (log, None),
            Err(error) => (LogFile::closed(&log_path), Some(error)),
        };
        let (events, events_error) = match EventFile::create(&self.directory.join(TENSORBOARD), after) {
            Ok(events) => (Some(events), None),
            Err(error) => (None, Some(error)),
        };
        self.files = Some(Files { metrics, log, events });
        // Warnings that came before the log was open come after those of earlier processes.
        let early = std::mem::replace(&mut self.data.warnings, warnings);
        for (step, text) in early.into_newest() {
            self.note(step, text);
        }
        self.judge(log_error.map_or(Ok(()), Err), |failing| &mut failing.log);
        self.judge(events_error.map_or(Ok(()), Err), |failing| &mut failing.events);
        Ok(())
    }

    /// The run was rolled back to the state after step `to`: what the files say of later steps is removed.
    ///
    /// # Errors
    /// If `metrics.jsonl` cannot be read or written.
    ///
    /// # Panics
    /// If the record is not open.
    pub fn roll_back(&mut self, to: u64) -> Result<(), FileError> {
        if !self.is_kept {
            return Ok(());
        }
        let metrics = self.open_metrics(to)?;
        self.began_at = (to, Instant::now());
        let files = self.files.as_mut().expect("the record is open");
        files.metrics = metrics;
        self.data.evaluation.take_if(|evaluation| evaluation.step > to);
        let log = files.log.go_on_after(to, &mut self.data.samples);
        let events = files.events.as_mut().map_or(Ok(()), |events| events.restart(to));
        self.judge(log, |failing| &mut failing.log);
        self.judge(events, |failing| &mut failing.events);
        Ok(())
    }

    /// Syncs to disk what a resumed run would not write again.
    ///
    /// # Errors
    /// If `metrics.jsonl` cannot be written.
    ///
    /// # Panics
    /// If the record is not open.
    pub fn sync(&mut self) -> Result<(), FileError> {
        let files = self.files.as_ref().expect("the record is open");
        let metrics = files.metrics.sync();
        let events = files.events.as_ref().map_or(Ok(()), EventFile::sync);
        // Success would not mean that the file can be written again.
        if events.is_err() {
            self.judge(events, |failing| &mut failing.events);
        }
        metrics
    }

    /// The best value of each metric of the validation so far, over all processes of the run.
    pub fn best(&self) -> Vec<BestValue> {
        self.best.values()
    }

    /// Steps after which the model was the best so far: see [`CheckpointConfig::keep_best`](crate::config::CheckpointConfig).
    pub fn best_step(&self) -> Option<u64> {
        self.best.step()
    }

    /// The run ends: the last report.
    pub fn end(&mut self, status: ReportStatus) {
        self.data.status = status;
        self.write_report();
    }

    /// Cuts the metrics after a step, and reads those that stay.
    fn open_metrics(&mut self, after: u64) -> Result<MetricsFile, FileError> {
        let (mut curves, mut best) = (RunCurves::default(), BestValues::default());
        let (mut tokens, mut elapsed_s) = (0, 0.0);
        let file = MetricsFile::open(&self.directory.join(METRICS), after, &mut |record| {
            (tokens, elapsed_s) = (record.tokens, record.elapsed_s);
            curves.push(&record);
            best.push(&record);
        })?;
        self.best = best;
        let data = &mut self.data;
        (data.step, data.tokens, data.curves) = (after, tokens, curves);
        if self.files.is_none() {
            data.elapsed_s = elapsed_s;
        }
        Ok(file)
    }

    /// Warns of a file that could not be written, unless that is known.
    fn judge(&mut self, result: Result<(), FileError>, failing: impl Fn(&mut Failing) -> &mut bool) {
        let was_failing = std::mem::replace(failing(&mut self.failing), result.is_err());
        if let Err(source) = result
            && !was_failing
        {
            self.on_warning(&Warning::NotLogged { step: self.data.step, source });
        }
    }

    /// Writes a warning down.
    fn note(&mut self, step: u64, text: String) {
        let logged = self.files.as_mut().map_or(Ok(()), |files| files.log.warning(step, &text));
        self.data.warnings.push(step, text);
        self.judge(logged, |failing| &mut failing.log);
    }

    /// Writes the metrics of a step.
    fn log(&mut self, record: &StepRecord) {
        let Some(files) = &mut self.files else { return };
        self.data.curves.push(record);
        self.best.push(record);
        let metrics = files.metrics.write(record);
        let events = files.events.as_mut().map_or(Ok(()), |events| log_scalars(events, record));
        self.judge(metrics, |failing| &mut failing.metrics);
        self.judge(events, |failing| &mut failing.events);
    }

    /// Writes the report if the last one is older than `every`.
    fn report(&mut self, every: Duration) {
        if self.reported.is_none_or(|(at, took)| at.elapsed() >= every.max(took * REPORT_COST)) {
            self.write_report();
        }
    }

    fn write_report(&mut self) {
        if self.files.is_none() {
            return;
        }
        let started = Instant::now();
        let data = &mut self.data;
        let (first, began) = self.began_at;
        let n_steps = data.step.saturating_sub(first) as f64;
        let n_left = data.steps.saturating_sub(data.step) as f64;
        data.remaining_s = (n_steps > 0.0).then(|| began.elapsed().as_secs_f64() / n_steps * n_left);
        data.updated = SystemTime::now();
        let page = report::render(data);
        let written = files::replace(&self.directory.join(REPORT), page.as_bytes());
        self.reported = Some((Instant::now(), started.elapsed()));
        self.judge(written, |failing| &mut failing.report);
    }
}

/// Writes the metrics of a step as scalars.
fn log_scalars(events: &mut EventFile, record: &StepRecord) -> Result<(), FileError> {
    events.scalars(
        record.step,
        &[
            ("train/loss", record.loss),
            ("train/lr", record.lr as f32),
            ("train/grad_norm", record.grad_norm as f32),
            ("train/tokens_per_s", record.tokens_per_s as f32),
            ("train/data_wait", record.data_wait() as f32),
        ],
    )?;
    if let Some(rows_per_s) = record.rows_per_s {
        events.scalar(record.step, "train/rows_per_s", rows_per_s as f32)?;
    }
    if let Some(loss) = record.valid_loss {
        events.scalar(record.step, "valid/loss", loss as f32)?;
    }
    for (name, &value) in &record.valid_metrics {
        events.scalar(record.step, &format!("valid/{name}"), value as f32)?;
    }
    Ok(())
}

impl Observer for RunRecord<'_> {
    fn on_start(&mut self, start: &RunStart) {
        self.data.steps = start.steps;
        let n_parameters = report::count(start.n_parameters as u64);
        self.data.facts.push(("Parameters".to_owned(), n_parameters));
        self.data.facts.push(("Tokens per step".to_owned(), report::count(start.tokens_per_step)));
        if let Some(rows) = start.rows_per_step {
            self.data.facts.push(("Rows per step".to_owned(), report::count(rows)));
        }
        self.observer.on_start(start);
        self.report(REPORT_AT_MILESTONES);
    }

    fn on_step(&mut self, record: &StepRecord) {
        let data = &mut self.data;
        (data.step, data.tokens, data.elapsed_s) = (record.step, record.tokens, record.elapsed_s);
        let is_measured = record.valid_loss.is_some() || !record.valid_metrics.is_empty();
        if record.step.is_multiple_of(self.log_every) || is_measured || record.step == data.steps {
            self.log(record);
        }
        self.observer.on_step(record);
        self.report(if is_measured { REPORT_AT_MILESTONES } else { REPORT_EVERY });
    }

    fn on_eval(&mut self, step: u64, evaluation: &crate::Evaluation) {
        let mut values = vec![("loss".to_owned(), evaluation.loss)];
        values.extend(evaluation.metrics.iter().map(|(name, value)| (name.replace('_', " "), *value)));
        values.push((evaluation.unit.to_owned(), evaluation.n_targets as f64));
        self.data.evaluation = Some(Evaluation { step, values, confusion: None });
        self.observer.on_eval(step, evaluation);
    }

    fn on_confusion(&mut self, step: u64, matrix: &ConfusionMatrix) {
        let evaluation = self.data.evaluation.take_if(|evaluation| evaluation.step == step);
        let evaluation = evaluation.unwrap_or(Evaluation { step, ..Evaluation::default() });
        self.data.evaluation = Some(Evaluation { confusion: Some(matrix.clone()), ..evaluation });
        self.observer.on_confusion(step, matrix);
    }

    fn on_sample(&mut self, sample: &Sample) {
        let logged = self.files.as_mut().map_or(Ok(()), |files| files.log.sample(sample));
        self.data.samples.push(sample.clone());
        self.judge(logged, |failing| &mut failing.log);
        self.observer.on_sample(sample);
    }

    fn on_checkpoint(&mut self, step: u64, path: &Path) {
        self.observer.on_checkpoint(step, path);
        self.report(REPORT_AT_MILESTONES);
    }

    fn on_warning(&mut self, warning: &Warning) {
        self.note(warning.step(), warning.with_causes());
        self.observer.on_warning(warning);
    }
}

#[cfg(test)]
mod tests;
