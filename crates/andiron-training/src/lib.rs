#![doc = include_str!("../README.md")]

// Small runs for tests are shared with tests that see the library from outside.
#[cfg(test)]
extern crate self as andiron_training;

mod base;
pub mod checkpoint;
mod collective;
pub mod config;
mod evaluation;
mod files;
mod memory;
pub mod objective;
pub mod observe;
pub mod optimizer;
pub mod plan;
mod rows;
mod run;
pub mod state;
pub mod step;
#[cfg(test)]
mod testing;
mod tokenizer;
mod trace;
pub mod trainer;
mod validation;
mod verify;

pub use base::Base;
pub use collective::{Collective, Single, agree};
pub use config::TrainConfig;
pub use evaluation::Evaluation;
pub use files::FileError;
pub use objective::{Objective, ObjectiveConfig};
pub use observe::Observer;
pub use tokenizer::TokenizerSource;
pub use trace::{SeenInBatch, documents_of_step};
pub use trainer::{Outcome, Requests, Status, TrainError, Trainer, start_or_resume, start_or_resume_shared};
pub use validation::validate;
pub use verify::{ResumeCheck, ResumeDifference};
