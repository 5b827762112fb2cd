//! Collators, which turn sequences of ids into batches: one file per objective.

mod causal;

pub use causal::Causal;
