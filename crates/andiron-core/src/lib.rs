#![doc = include_str!("../README.md")]
//!
//! # Axis legend
//!
//! Tensors carry their axes as a suffix of their name:
//! `b` batch · `t` query time · `s` key time · `d` model · `h` heads · `k` head width · `f` feed-forward ·
//! `v` vocabulary · `n` rows (batch and time flattened) · `r` distance of a key from its query.

pub mod activation_checkpointing;
pub mod adapter_dropout;
pub mod attention;
pub mod attention_record;
pub mod cache;
pub mod context;
pub mod device;
pub mod documents;
pub mod dropout_site;
pub mod embedding;
pub mod ids;
pub mod init;
pub mod kernel_choice;
pub mod linear;
pub mod loss;
pub mod norm;
pub mod ops;
pub mod padding_mask;
pub mod position;
pub mod precision;
pub mod quant;
pub mod role;
pub mod weight;

pub use activation_checkpointing::BlockInputs;
pub use attention_record::{AttentionLayers, AttentionProbabilities, AttentionRecord};
pub use cache::{KvCache, KvCacheDtype};
pub use context::Forward;
pub use device::{Backend, DeviceError, DeviceSpec};
pub use documents::Documents;
pub use dropout_site::DropoutSite;
pub use embedding::Embedding;
pub use kernel_choice::KernelChoice;
pub use linear::Linear;
pub use norm::{LayerNorm, RmsNorm};
pub use padding_mask::PaddingMask;
pub use precision::Precision;
pub use role::ParamRole;
pub use weight::Weight;
