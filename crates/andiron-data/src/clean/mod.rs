//! What is done to a text before it is tokenized: one file per step.

mod line_endings;

pub use line_endings::LineEndings;
