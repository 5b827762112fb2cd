//! Evaluation tasks: one file each.

pub mod windows;

pub use andiron_pipelines::score;
