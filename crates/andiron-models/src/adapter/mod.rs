//! Low-rank adapters in the files of `peft` 0.21: `adapter_config.json` and `adapter_model.safetensors`, both ways.
//!
//! [`with_adapter`](crate::Bundle::with_adapter) of a bundle opens one over its base model, dense or quantized;
//! [`with_lora`](crate::Bundle::with_lora) adds a new one to train, and [`save_adapter`](crate::Bundle::save_adapter) writes it.
//! For whoever holds the model alone there are [`apply_lora`] and [`save_adapter`]. [`AdapterFiles`] reads a directory without a
//! model. Saving a bundle with an adapter merges it ([`Bundle::save`](crate::Bundle::save)).
//!
//! The rules are `peft`'s:
//!
//! - Targets are module paths of Hugging Face's class: names match the end of a path, a pattern the whole; `all-linear` is every
//!   linear projection but the output head.
//! - An adapter of token embeddings does not change an output head tied to them, nor the reverse. Merged, a decoder gets a matrix
//!   for each and `tie_word_embeddings: false`; other models are refused. (`peft` 0.21.2 merges and changes both.)
//! - Modules of [`LoraConfig::modules_to_save`] are stored in full under their own names; so is the table below an adapter of
//!   embeddings, where `peft` wrote it.
//!
//! Differences: every tensor is accounted for, where `peft` ignores those without a place and leaves missing ones as they are
//! initialized; biases and tables shared by encoder and decoder are refused.

mod apply;
mod bundle;
mod config;
mod error;
mod files;
mod names;
mod peft_json;

pub use apply::{apply_lora, lora_parameters};
pub use bundle::Tie;
pub use config::{LoraConfig, Targets};
pub use error::AdapterError;
pub use files::{AdapterFiles, paths, save_adapter};
pub use names::AdapterNames;
