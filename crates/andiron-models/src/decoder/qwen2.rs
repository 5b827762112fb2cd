//! Qwen 2 and 2.5: biases in the QKV projections.
//!
//! Paper: Yang et al. 2024, "Qwen2 Technical Report", <https://arxiv.org/abs/2407.10671>. Hugging Face:
//! `Qwen2ForCausalLM`. It has exactly these biases, whatever the configuration says; its later layers may have a
//! sliding window.
//!
//! Not supported: multi-axis RoPE (`mrope`), longrope scaling and quantised weights.

use crate::decoder::layer_types::{LayerType, Windows};
use crate::decoder::llama_like::{Differences, LlamaLike, llama_like_config};
use crate::key_rules::{Inert, KeyRules};

llama_like_config! {
    /// `config.json` of a Qwen2, in Hugging Face's field names.
    Qwen2Config("Default::default", "Default::default") {
        /// Number of key/value heads; divides the number of query heads, equals it if null, and is 32 if absent.
        #[serde(default = "key_heads")]
        num_key_value_heads: Option<usize>,
        /// Width of a head; `hidden_size / num_attention_heads` if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        head_dim: Option<usize>,
        /// Whether `sliding_window` is used.
        #[serde(default)]
        use_sliding_window: bool,
        /// Sliding window in tokens, the query's own included; 4096 if absent.
        #[serde(default = "crate::decoder::llama_like::defaults::window")]
        sliding_window: Option<usize>,
        /// Number of full-attention layers at the start, if `layer_types` is absent.
        #[serde(default = "max_window_layers")]
        max_window_layers: usize,
        /// Attention type of each layer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layer_types: Option<Vec<LayerType>>,
    }
}

pub(super) fn key_heads() -> Option<usize> {
    Some(32)
}

pub(super) fn max_window_layers() -> usize {
    28
}

impl LlamaLike for Qwen2Config {
    const CLASS: &'static str = "Qwen2ForCausalLM";
    const CLASSIFIER: &'static str = "Qwen2ForSequenceClassification";
    const KEYS: KeyRules = KeyRules {
        inert: &[("use_mrope", Inert::Off)],
        defaults: &[
            ("vocab_size", 151_936),
            ("hidden_size", 4096),
            ("intermediate_size", 22_016),
            ("num_hidden_layers", 32),
            ("num_attention_heads", 32),
            ("max_position_embeddings", 32_768),
        ],
        ..KeyRules::NONE
    };

    fn differences(&self) -> Differences<'_> {
        let windows = Windows {
            n_layers: self.num_hidden_layers,
            window: self.sliding_window.filter(|_| self.use_sliding_window),
            types: self.layer_types.as_deref(),
            n_full: self.max_window_layers,
        };
        Differences {
            key_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            qkv_bias: true,
            windows: Some(windows),
            ..Differences::default()
        }
    }
}
