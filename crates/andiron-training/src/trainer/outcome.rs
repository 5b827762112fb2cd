//! The outcome of a run.

use std::path::PathBuf;

use crate::evaluation::Evaluation;
use crate::observe::BestValue;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Why it ended.
    pub status: Status,
    /// Steps done.
    pub step: u64,
    /// Targets trained on.
    pub tokens: u64,
    /// How often every example was read, rows that were skipped included; `None` if examples are drawn with replacement.
    pub epochs: Option<f64>,
    /// Rows read, those of skipped steps included, if the data are rows.
    pub rows: Option<u64>,
    /// Seconds of training and validation, over all processes of the run.
    pub elapsed_s: f64,
    /// Share of the time of this process's steps in which they waited for their batches; `None` if it did no step.
    pub data_wait: Option<f64>,
    /// Steps that an earlier process had done; `None` if this one began the run.
    pub resumed_from: Option<u64>,
    /// The final validation over all rows, if the run finished and has validation data.
    pub valid: Option<Evaluation>,
    /// The best value of each metric of the validation, over all processes of the run.
    pub best: Vec<BestValue>,
    /// The final model's directory, if the run finished.
    pub model: Option<PathBuf>,
    /// Steps after which the model was what that directory holds: fewer than [`step`](Self::step) if the best one is kept.
    pub model_step: Option<u64>,
    /// Whether a checkpoint of the last step was saved.
    pub saved: bool,
    /// Step of the newest checkpoint that was saved or resumed from.
    pub saved_step: Option<u64>,
    /// Number of checkpoints that could not be saved.
    pub failed_saves: u32,
    /// Number of rollbacks to an earlier state.
    pub rollbacks: u32,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All steps are done.
    Finished,
    /// It was asked to stop; starting it again resumes it.
    Interrupted,
}
