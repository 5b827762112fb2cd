//! `report.html`: a run on one page, without scripts and without other files.
//!
//! [`ReportData`] holds what is shown, in bounded memory whatever the length of the run; [`render`] turns it into the page.

mod chart;
mod confusion;
mod curve;
mod page;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

pub(super) use andiron_page::text::count;
pub use andiron_page::text::duration;
pub use confusion::ConfusionMatrix;
pub use curve::Curve;
pub use page::render;

use super::StepRecord;

/// Warnings that are kept.
const MAX_WARNINGS: usize = 200;

/// Samples that are kept.
const MAX_SAMPLES: usize = 64;

/// Names of validation metrics that get a curve.
const MAX_METRICS: usize = 12;

/// Everything that a report shows.
#[derive(Clone, Debug)]
pub struct ReportData {
    /// The name of the run.
    pub name: String,
    /// Whether it goes on.
    pub status: ReportStatus,
    /// When this was true.
    pub updated: SystemTime,
    /// How often the page loads itself again while the run goes on.
    pub refresh: Duration,
    /// Steps done.
    pub step: u64,
    /// Length of the run, in steps.
    pub steps: u64,
    /// Targets trained on.
    pub tokens: u64,
    /// Seconds of training, over all processes of the run.
    pub elapsed_s: f64,
    /// Estimated seconds to the end of the run, if they can be estimated.
    pub remaining_s: Option<f64>,
    /// What is trained on what, as names and values.
    pub facts: Vec<(String, String)>,
    /// The resolved configuration, as TOML.
    pub config: String,
    /// The metrics over steps.
    pub curves: RunCurves,
    /// The newest evaluation.
    pub evaluation: Option<Evaluation>,
    /// Problems that did not stop the run.
    pub warnings: Warnings,
    /// Texts that the model wrote.
    pub samples: Samples,
}

/// Whether a run goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportStatus {
    /// It does.
    Running,
    /// All its steps are done.
    Finished,
    /// It was asked to stop, and can be resumed.
    Interrupted,
    /// It ended with an error.
    Failed(String),
}

/// The metrics of a run, over its steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunCurves {
    /// Training loss.
    pub loss: Curve,
    /// Validation loss.
    pub valid_loss: Curve,
    /// Learning rate.
    pub lr: Curve,
    /// Gradient norm before clipping.
    pub grad_norm: Curve,
    /// Targets trained on per second.
    pub tokens_per_s: Curve,
    /// Share of a step's time that it waited for data, in percent.
    pub data_wait: Curve,
    /// Further metrics of the validation, by name: the first twelve names.
    pub valid_metrics: BTreeMap<String, Curve>,
}

impl RunCurves {
    /// Adds the metrics of a step.
    pub fn push(&mut self, record: &StepRecord) {
        let step = record.step;
        self.loss.push(step, f64::from(record.loss));
        self.lr.push(step, record.lr);
        self.grad_norm.push(step, record.grad_norm);
        self.tokens_per_s.push(step, record.tokens_per_s);
        self.data_wait.push(step, 100.0 * record.data_wait());
        if let Some(loss) = record.valid_loss {
            self.valid_loss.push(step, loss);
        }
        for (name, &value) in &record.valid_metrics {
            if let Some(curve) = self.valid_metrics.get_mut(name) {
                curve.push(step, value);
            } else if self.valid_metrics.len() < MAX_METRICS {
                self.valid_metrics.entry(name.clone()).or_default().push(step, value);
            }
        }
    }

    /// The first and the last step of all curves; `None` if there are no steps.
    fn steps(&self) -> Option<(u64, u64)> {
        let Self { loss, valid_loss, lr, grad_norm, tokens_per_s, data_wait, valid_metrics } = self;
        let curves = [loss, valid_loss, lr, grad_norm, tokens_per_s, data_wait]
            .into_iter()
            .chain(valid_metrics.values());
        curves.filter_map(Curve::steps).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}

/// What was measured on the validation data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Steps done before it.
    pub step: u64,
    /// Names and values, in the order to show them.
    pub values: Vec<(String, f64)>,
    /// What a classifier took for what.
    pub confusion: Option<ConfusionMatrix>,
}

/// The warnings of a run: their number, and the newest of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    n: u64,
    newest: Vec<(u64, String)>,
}

impl Warnings {
    /// Adds a warning that was given after `step` steps.
    pub fn push(&mut self, step: u64, text: String) {
        self.n += 1;
        if self.newest.len() == MAX_WARNINGS {
            self.newest.remove(0);
        }
        self.newest.push((step, text));
    }

    /// The newest, with their steps.
    pub(super) fn into_newest(self) -> Vec<(u64, String)> {
        self.newest
    }
}

/// A text that the model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Steps done before.
    pub step: u64,
    /// What it was given.
    pub prompt: String,
    /// How it went on.
    pub text: String,
}

/// Samples over the whole run, of which a bounded number is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    kept: Vec<Sample>,
}

impl Samples {
    /// Adds a sample. When there are too many, every second of the older ones goes.
    pub fn push(&mut self, sample: Sample) {
        if self.kept.len() == MAX_SAMPLES {
            let mut index = 0;
            self.kept.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
        self.kept.push(sample);
    }

    /// Removes the samples of steps after `step`.
    pub fn truncate(&mut self, step: u64) {
        self.kept.retain(|sample| sample.step <= step);
    }
}

#[cfg(test)]
mod tests;
