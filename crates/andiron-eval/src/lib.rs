#![doc = include_str!("../README.md")]

pub mod metric;
pub mod report;
pub mod task;
#[cfg(test)]
mod testing;

pub use metric::perplexity::LossSum;
pub use report::LossReport;
