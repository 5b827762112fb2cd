//! Llama 1 to 3, and models of the same architecture such as TinyLlama and SmolLM.
//!
//! Papers: Touvron et al. 2023, "LLaMA", <https://arxiv.org/abs/2302.13971>; Llama Team 2024, "The Llama 3 Herd of
//! Models", <https://arxiv.org/abs/2407.21783>. Hugging Face: `LlamaForCausalLM`. Every projection may have a bias.
//!
//! Not supported: longrope scaling and quantised weights.

use crate::decoder::llama_like::{Differences, LlamaLike, llama_like_config};
use crate::key_rules::{Inert, KeyRules};

llama_like_config! {
    /// `config.json` of a Llama, in Hugging Face's field names.
    LlamaConfig("crate::decoder::llama_like::defaults::bos", "crate::decoder::llama_like::defaults::eos") {
        /// Number of key/value heads; divides the number of query heads, and equals it if null or absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        num_key_value_heads: Option<usize>,
        /// Width of a head; `hidden_size / num_attention_heads` if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        head_dim: Option<usize>,
        /// Whether the attention projections have biases.
        #[serde(default)]
        attention_bias: bool,
        /// Whether the feed-forward projections have biases.
        #[serde(default)]
        mlp_bias: bool,
    }
}

impl LlamaLike for LlamaConfig {
    const CLASS: &'static str = "LlamaForCausalLM";
    const CLASSIFIER: &'static str = "LlamaForSequenceClassification";
    const KEYS: KeyRules = KeyRules {
        inert: &[
            ("is_llama_config", Inert::Always),
            // Split matmuls (tensor parallelism in pretraining) have the same result.
            ("pretraining_tp", Inert::Always),
            ("rope_interleaved", Inert::Off),
        ],
        defaults: &[
            ("vocab_size", 32_000),
            ("hidden_size", 4096),
            ("intermediate_size", 11_008),
            ("num_hidden_layers", 32),
            ("num_attention_heads", 32),
            ("max_position_embeddings", 2048),
        ],
        ..KeyRules::NONE
    };

    fn differences(&self) -> Differences<'_> {
        Differences {
            key_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            qkv_bias: self.attention_bias,
            out_bias: self.attention_bias,
            mlp_bias: self.mlp_bias,
            ..Differences::default()
        }
    }
}
