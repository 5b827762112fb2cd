//! What a model is asked to do so that it can be measured: one file each.

pub mod windows;

pub use andiron_pipelines::score;
