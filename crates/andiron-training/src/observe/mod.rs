//! What a run tells while it goes.

mod metrics;
mod warning;

use std::path::Path;

use andiron_eval::LossReport;

pub use metrics::{MetricsFile, StepRecord};
pub use warning::Warning;

/// What is known when a run begins or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunStart {
    /// Length of the run, in steps.
    pub steps: u64,
    /// Steps already done by an earlier process; `None` for a new run.
    pub resumed_from: Option<u64>,
    /// Number of the model's parameters.
    pub n_parameters: usize,
    /// Tokens trained on in each step.
    pub tokens_per_step: u64,
}

/// Someone who watches a run: a progress bar, a log, a test.
///
/// Every method does nothing unless it is written; `()` watches nothing. The file `metrics.jsonl` is written by the
/// run itself.
pub trait Observer {
    /// The run begins.
    fn on_start(&mut self, start: &RunStart) {
        let _ = start;
    }

    /// A step is done, or was skipped.
    fn on_step(&mut self, record: &StepRecord) {
        let _ = record;
    }

    /// The model was measured on the validation data after `step` steps.
    fn on_eval(&mut self, step: u64, report: &LossReport) {
        let _ = (step, report);
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
