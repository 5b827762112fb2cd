//! Supervised examples: [`Record`]s, which stand on disk as columns of token ids and numbers, and batches of them.
//!
//! A [`RecordWriter`] writes a dataset, which appears whole or not at all, and does not change afterwards. A
//! [`RecordDataset`] memory-maps it: records are read without a copy. A [`RecordLoader`] gives its batches, each a function of
//! its index; a [`TokenLoader`] gives batches of a bounded number of tokens, a [`PackedLoader`] batches of rows that several
//! records are packed into.

mod dataset;
mod length_runs;
mod loader;
mod manifest;
mod packed_loader;
mod packing;
mod record;
mod token_batches;
mod token_loader;
mod writer;

pub use dataset::RecordDataset;
pub use loader::{LengthGroups, RecordLoader, RecordLoaderOptions, RecordOrder};
pub use manifest::{ColumnEntry, ColumnType, RecordManifest};
pub use packed_loader::{PackedLoader, PackedLoaderOptions, PackedOrder};
pub use packing::Packing;
pub use record::{Record, columns};
pub use token_batches::{BatchBudget, RecordSize, RecordTooLong, TokenBatches};
pub use token_loader::TokenLoader;
pub use writer::RecordWriter;

#[cfg(test)]
mod tests;
