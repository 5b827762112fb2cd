//! Observers of a run, and the record that it leaves: metrics, TensorBoard files, a report.

mod append;
mod best;
mod log;
mod metrics;
mod record;
pub mod report;
pub(crate) mod tensorboard;
mod warning;

use std::path::Path;

use crate::evaluation::Evaluation;

pub(crate) use append::AppendFile;
pub use best::BestValue;
pub(crate) use best::BestValues;
pub use metrics::{MetricsFile, StepRecord};
pub use record::{RunFacts, RunRecord};
pub use report::{ConfusionMatrix, Sample};
pub use tensorboard::EventFile;
pub use warning::Warning;
pub(crate) use warning::with_causes;

/// Facts about a run when it begins or resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunStart {
    /// Length of the run, in steps.
    pub steps: u64,
    /// Steps already done by an earlier process; `None` for a new run.
    pub resumed_from: Option<u64>,
    /// Number of the model's parameters.
    pub n_parameters: usize,
    /// Tokens per step.
    pub tokens_per_step: u64,
    /// Rows per step, if the data are rows.
    pub rows_per_step: Option<u64>,
    /// What a target is, in the plural: `"tokens"`, `"rows"`, `"pairs"`.
    pub unit: &'static str,
}

/// How far the rows of a file are encoded, before a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preparation<'a> {
    /// The file.
    pub path: &'a Path,
    /// Rows done.
    pub rows: u64,
    /// Bytes of the file that were read.
    pub bytes_done: u64,
    /// Bytes of the file.
    pub bytes_total: u64,
}

/// An observer of a run, such as a progress bar, a log or a test.
///
/// Every method does nothing by default; `()` is the observer that ignores everything. The run keeps its own [`RunRecord`].
pub trait Observer {
    /// Another row was encoded.
    fn on_prepare(&mut self, preparation: &Preparation<'_>) {
        let _ = preparation;
    }

    /// The run begins.
    fn on_start(&mut self, start: &RunStart) {
        let _ = start;
    }

    /// A step is done, or was skipped.
    fn on_step(&mut self, record: &StepRecord) {
        let _ = record;
    }

    /// The model was validated after `step` steps.
    fn on_eval(&mut self, step: u64, evaluation: &Evaluation) {
        let _ = (step, evaluation);
    }

    /// A classifier was evaluated after `step` steps.
    fn on_confusion(&mut self, step: u64, matrix: &ConfusionMatrix) {
        let _ = (step, matrix);
    }

    /// The model wrote a sample.
    fn on_sample(&mut self, sample: &Sample) {
        let _ = sample;
    }

    /// A checkpoint was saved.
    fn on_checkpoint(&mut self, step: u64, path: &Path) {
        let _ = (step, path);
    }

    /// Something is wrong that does not stop the run.
    fn on_warning(&mut self, warning: &Warning) {
        let _ = warning;
    }
}

impl Observer for () {}
