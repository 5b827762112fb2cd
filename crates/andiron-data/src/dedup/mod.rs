//! Removal of repeated documents: one file per notion of "the same".

mod exact;

pub use exact::ExactDuplicates;
