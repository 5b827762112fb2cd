//! From sequences of ids to batches: one file per objective.

mod causal;

pub use causal::Causal;
