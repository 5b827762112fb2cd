//! Problems that do not stop a run.

use crate::checkpoint::SetAside;
use crate::files::FileError;
use crate::trainer::SaveError;

/// A problem that does not stop the run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A checkpoint is damaged; an older one is tried.
    #[error("checkpoint of step {} is damaged and now at {}: {}", .0.step, .0.path.display(), .0.damage)]
    DamagedCheckpoint(SetAside),
    /// A checkpoint could not be saved.
    #[error("the checkpoint of step {step} could not be saved; the run goes on with the older ones")]
    NotSaved {
        /// Its step.
        step: u64,
        /// The cause.
        source: SaveError,
    },
    /// The checkpoint of the best validation is gone or damaged.
    #[error(
        "the checkpoint of step {step}, the best, is gone or damaged: the model at the end is the last one"
    )]
    NoBest {
        /// Its step.
        step: u64,
    },
    /// Metrics, a warning or the report could not be written to a file of the run. There is one such warning for each file
    /// until it can be written again.
    #[error("step {step} could not be recorded")]
    NotLogged {
        /// The step.
        step: u64,
        /// The cause; names the file.
        source: FileError,
    },
    /// Rows of the data do not fit and were skipped.
    #[error("{rows} rows of {} were skipped; the first: {first}", path.display())]
    SkippedRows {
        /// The file.
        path: std::path::PathBuf,
        /// How many.
        rows: u64,
        /// What is wrong with the first.
        first: String,
    },
    /// The model directory that the run begins with has not the head that the objective trains.
    #[error(
        "the head of the {class} is new: the model directory has none for this objective and these labels"
    )]
    NewHead {
        /// Hugging Face's class of the model.
        class: &'static str,
    },
    /// A step was skipped because its loss or gradients were not finite.
    #[error("step {step} was skipped: loss {loss}, gradient norm {grad_norm}")]
    Skipped {
        /// The step.
        step: u64,
        /// Its loss.
        loss: f32,
        /// Its gradient norm.
        grad_norm: f64,
    },
    /// Too many steps were skipped: the run was rolled back to an earlier state, and the data since then is skipped.
    #[error(
        "too many steps were not finite: back to the state after step {to}, leaving out the batches since then \
         (rollback {count})"
    )]
    RolledBack {
        /// The step of that state.
        to: u64,
        /// Number of rollbacks so far.
        count: u32,
    },
}

impl Warning {
    /// The step that it is about.
    pub fn step(&self) -> u64 {
        match self {
            Self::DamagedCheckpoint(aside) => aside.step,
            Self::NotSaved { step, .. }
            | Self::NoBest { step }
            | Self::NotLogged { step, .. }
            | Self::Skipped { step, .. } => *step,
            Self::RolledBack { to, .. } => *to,
            Self::NewHead { .. } | Self::SkippedRows { .. } => 0,
        }
    }

    /// The warning and its causes in one line.
    pub fn with_causes(&self) -> String {
        with_causes(self)
    }
}

/// An error and its causes in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
