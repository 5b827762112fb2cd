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
    /// A line could not be added to `metrics.jsonl`.
    #[error("the metrics of step {step} could not be written")]
    NotLogged {
        /// Its step.
        step: u64,
        /// The cause.
        source: FileError,
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
