//! Cleaning of texts before tokenization: one file per step.

mod line_endings;

pub use line_endings::LineEndings;
