//! Examples of a supervised dataset.

mod record;

pub use record::{Record, columns};
