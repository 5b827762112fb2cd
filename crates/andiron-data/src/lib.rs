#![doc = include_str!("../README.md")]

pub mod batch;
pub mod clean;
pub mod collate;
pub mod dedup;
pub mod document;
mod files;
pub mod loader;
pub mod prepare;
pub mod seed;
pub mod shard;
pub mod source;
pub mod tokenizer;

pub use batch::HostBatch;
pub use document::Document;
pub use loader::{Loader, LoaderOptions, Order};
pub use seed::Seed;
pub use shard::Dataset;
pub use tokenizer::Tokenizer;
