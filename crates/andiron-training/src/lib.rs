#![doc = include_str!("../README.md")]

pub mod checkpoint;
pub mod config;
mod files;
mod memory;
pub mod objective;
pub mod observe;
pub mod optimizer;
mod run;
pub mod state;
pub mod step;
#[cfg(test)]
mod testing;
pub mod trainer;

pub use config::TrainConfig;
pub use files::FileError;
pub use observe::Observer;
pub use trainer::{Outcome, Requests, Status, TrainError, Trainer, start_or_resume};
