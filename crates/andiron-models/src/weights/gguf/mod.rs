//! GGUF files, as llama.cpp reads and writes them.
//!
//! [`GgufFile`] is the raw file: metadata and tensors, validated before use. [`config_json`] and [`GgufWeights`]
//! convert them to Hugging Face's form; [`write()`] is the inverse.

mod blocks;
mod config;
mod file;
mod from_config;
mod names;
mod sentence_piece;
mod source;
mod tokenizer;
mod value;
mod word_piece;
mod write;

pub use blocks::ElementType;
pub use config::config_json;
pub(crate) use config::{config_fields, end_ids, unknown_keys};
pub use file::{GgufError, GgufFile, TensorEntry};
pub use source::{GgufWeights, is_gguf};
pub use tokenizer::{chat_template, tokenizer_config_json, tokenizer_json};
pub use value::{Array, Value};
pub use write::{GgufModel, GgufOptions, TensorToWrite, write};
