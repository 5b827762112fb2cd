//! Correlations and errors: a number against the expected one.

use andiron_eval::metric::correlation::{mean_absolute_error, mean_squared_error, pearson, spearman};
use clap::Args;

use super::measure::{Files, Measure};
use super::row::Row;
use crate::exit::Ending;
use crate::flags::Common;

/// Pearson's correlation of predicted and expected numbers, as SciPy 1.17 computes it
///
/// Rows: `{"prediction": 0.8, "label": 1}`. It is undefined, null in JSON, where all predictions or all labels are equal.
#[derive(Debug, Args)]
pub struct PearsonArgs {
    #[command(flatten)]
    files: Files,
}

/// Spearman's rank correlation of predicted and expected numbers, as SciPy 1.17 computes it
///
/// Rows: `{"prediction": 0.8, "label": 1}`. Equal numbers share the mean of their ranks. It is undefined, null in JSON,
/// where all predictions or all labels are equal.
#[derive(Debug, Args)]
pub struct SpearmanArgs {
    #[command(flatten)]
    files: Files,
}

/// Mean squared error of predicted numbers
///
/// Rows: `{"prediction": 0.8, "label": 1}`.
#[derive(Debug, Args)]
pub struct MseArgs {
    #[command(flatten)]
    files: Files,
}

/// Mean absolute error of predicted numbers
///
/// Rows: `{"prediction": 0.8, "label": 1}`.
#[derive(Debug, Args)]
pub struct MaeArgs {
    #[command(flatten)]
    files: Files,
}

impl PearsonArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&OfNumbers::Pearson, common)
    }
}

impl SpearmanArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&OfNumbers::Spearman, common)
    }
}

impl MseArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&OfNumbers::Squared, common)
    }
}

impl MaeArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&OfNumbers::Absolute, common)
    }
}

enum OfNumbers {
    Pearson,
    Spearman,
    Squared,
    Absolute,
}

impl Measure for OfNumbers {
    /// The prediction and the label.
    type Row = (f64, f64);
    type Rows = Vec<(f64, f64)>;
    const GOLD: &'static [&'static str] = &["label"];

    fn name(&self) -> &'static str {
        match self {
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
            Self::Squared => "mse",
            Self::Absolute => "mae",
        }
    }

    fn row(&self, mut row: Row) -> Result<Self::Row, String> {
        Ok((row.number("prediction")?, row.number("label")?))
    }

    fn gather(&self, rows: Vec<Self::Row>) -> Self::Rows {
        rows
    }

    fn scores(&self, _: &Self::Rows) -> Vec<&'static str> {
        vec![self.name()]
    }

    fn over(&self, rows: &Self::Rows, chosen: &[u32]) -> Vec<f64> {
        let (predictions, labels): (Vec<f64>, Vec<f64>) =
            chosen.iter().map(|&row| rows[row as usize]).unzip();
        vec![match self {
            Self::Pearson => pearson(&predictions, &labels).unwrap_or(f64::NAN),
            Self::Spearman => spearman(&predictions, &labels).unwrap_or(f64::NAN),
            Self::Squared => mean_squared_error(&predictions, &labels),
            Self::Absolute => mean_absolute_error(&predictions, &labels),
        }]
    }

    fn is_mean(&self) -> bool {
        matches!(self, Self::Squared | Self::Absolute)
    }
}
