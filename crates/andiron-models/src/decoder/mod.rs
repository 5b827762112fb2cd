//! Decoder architectures: one file each, wiring over shared layers.

mod bundle;
pub mod classifier;
pub mod gemma3;
pub mod gpt2;
pub mod gpt_neox;
pub mod layer_types;
pub mod llama;
pub(crate) mod llama_like;
pub mod mistral;
pub mod qwen2;
pub mod qwen3;
pub mod rope;

pub use bundle::DecoderBundle;
pub use llama_like::LlamaModel;

use crate::catalog::Architecture;

/// Methods of decoder configurations.
pub(crate) trait DecoderArchitecture: Architecture {
    /// Hugging Face's sequence-classification class.
    fn classifier_class(&self) -> &'static str;
}
