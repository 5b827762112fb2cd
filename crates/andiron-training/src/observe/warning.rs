//! What is wrong without stopping a run.

use crate::checkpoint::SetAside;
use crate::files::FileError;
use crate::trainer::SaveError;

/// Something a person should know, although the run goes on.
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
    /// A step's loss or gradients were not finite, so the weights were left as they were.
    #[error("step {step} was skipped: loss {loss}, gradient norm {grad_norm}")]
    Skipped {
        /// The step.
        step: u64,
        /// Its loss.
        loss: f32,
        /// The length of its gradients.
        grad_norm: f64,
    },
    /// Too many steps were skipped: an earlier state is back, and the data that followed it is left out.
    #[error(
        "too many steps were not finite: back to the state after step {to}, leaving out the batches since then \
         (rollback {count})"
    )]
    RolledBack {
        /// Steps that remain done.
        to: u64,
        /// How many rollbacks the run has had.
        count: u32,
    },
}
