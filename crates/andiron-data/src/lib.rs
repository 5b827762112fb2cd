#![doc = include_str!("../README.md")]

pub mod batch;
pub mod collate;
pub mod document;
mod files;
mod guard;
mod input;
pub mod jinja;
pub mod lines;
pub mod loader;
pub mod prefetch;
pub mod records;
pub mod reply;
pub mod rows;
pub mod seed;
pub mod shard;
pub mod source;
pub mod tokenizer;

pub use batch::{HostBatch, Labels, Sequences, TokenLabels};
pub use document::Document;
pub use loader::{BatchSource, Loader, LoaderOptions, Order};
pub use prefetch::Prefetch;
pub use records::{RecordDataset, RecordLoader};
pub use seed::Seed;
pub use shard::Dataset;
pub use tokenizer::Tokenizer;
