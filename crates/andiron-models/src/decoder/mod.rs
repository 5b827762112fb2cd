//! Decoder architectures: one file each, wiring over shared layers.

mod bundle;
pub mod classifier;
pub mod gated;
pub mod gemma3;
pub mod gpt2;
pub mod gpt_neox;
pub mod layer_types;
pub mod llama;
pub mod mistral;
pub mod qwen2;
pub mod qwen3;
pub mod rope;

pub use bundle::DecoderBundle;
