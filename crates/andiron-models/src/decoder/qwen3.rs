//! Qwen 3: QK norm.
//!
//! Paper: Yang et al. 2025, "Qwen3 Technical Report", <https://arxiv.org/abs/2505.09388>. Hugging Face:
//! `Qwen3ForCausalLM`. Queries and keys are normalised per head before RoPE; heads are 128 wide by default.
//!
//! Not supported: mixture of experts (`qwen3_moe` is another architecture), longrope scaling and quantised weights.

use crate::decoder::layer_types::{LayerType, Windows};
use crate::decoder::llama_like::{Differences, LlamaLike, llama_like_config};
use crate::decoder::qwen2::{key_heads, max_window_layers};
use crate::key_rules::{Inert, KeyRules};

llama_like_config! {
    /// `config.json` of a Qwen3, in Hugging Face's field names.
    Qwen3Config("Default::default", "Default::default") {
        /// Number of key/value heads; divides the number of query heads, equals it if null, and is 32 if absent.
        #[serde(default = "key_heads")]
        num_key_value_heads: Option<usize>,
        /// Width of a head.
        #[serde(default = "head_dim")]
        head_dim: usize,
        /// Whether the attention projections have biases.
        #[serde(default)]
        attention_bias: bool,
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

fn head_dim() -> usize {
    128
}

impl LlamaLike for Qwen3Config {
    const CLASS: &'static str = "Qwen3ForCausalLM";
    const CLASSIFIER: &'static str = "Qwen3ForSequenceClassification";
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
            head_dim: Some(self.head_dim),
            qkv_bias: self.attention_bias,
            out_bias: self.attention_bias,
            qk_norm: true,
            windows: Some(windows),
            ..Differences::default()
        }
    }
}
