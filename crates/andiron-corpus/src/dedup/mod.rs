//! Deduplication: one file per method.

mod exact;

pub use exact::ExactDuplicates;
