//! Mistral: sliding-window attention in every layer.
//!
//! Paper: Jiang et al. 2023, "Mistral 7B", <https://arxiv.org/abs/2310.06825>. Hugging Face: `MistralForCausalLM`. No
//! biases.
//!
//! Not supported: windows of different sizes, longrope scaling and quantised weights.

use crate::decoder::layer_types::{LayerType, Windows};
use crate::decoder::llama_like::{Differences, LlamaLike, llama_like_config};
use crate::key_rules::KeyRules;

llama_like_config! {
    /// `config.json` of a Mistral, in Hugging Face's field names.
    MistralConfig("crate::decoder::llama_like::defaults::bos", "crate::decoder::llama_like::defaults::eos") {
        /// Number of key/value heads; divides the number of query heads, equals it if null, and is 8 if absent.
        #[serde(default = "key_heads")]
        num_key_value_heads: Option<usize>,
        /// Width of a head; `hidden_size / num_attention_heads` if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        head_dim: Option<usize>,
        /// Sliding window in tokens, the query's own included; full attention if null, 4096 if absent.
        #[serde(default = "crate::decoder::llama_like::defaults::window")]
        sliding_window: Option<usize>,
        /// Attention type of each layer; if absent, all use the sliding window. If present, `transformers`'
        /// `AutoModel` opens a Ministral.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layer_types: Option<Vec<LayerType>>,
    }
}

fn key_heads() -> Option<usize> {
    Some(8)
}

impl LlamaLike for MistralConfig {
    const CLASS: &'static str = "MistralForCausalLM";
    const CLASSIFIER: &'static str = "MistralForSequenceClassification";
    const KEYS: KeyRules = KeyRules {
        defaults: &[
            ("vocab_size", 32_000),
            ("hidden_size", 4096),
            ("intermediate_size", 14_336),
            ("num_hidden_layers", 32),
            ("num_attention_heads", 32),
            ("max_position_embeddings", 131_072),
        ],
        ..KeyRules::NONE
    };

    fn differences(&self) -> Differences<'_> {
        let windows = Windows {
            n_layers: self.num_hidden_layers,
            window: self.sliding_window,
            types: self.layer_types.as_deref(),
            n_full: 0,
        };
        Differences {
            key_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            windows: Some(windows),
            ..Differences::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn layers_may_slide_each_for_itself() {
        let sliding_windows = |layer_types: Value| {
            let config = json!({
                "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 2, "max_position_embeddings": 8, "sliding_window": 4, "layer_types": layer_types,
            });
            let config: MistralConfig = serde_json::from_value(config).expect("a configuration");
            config.differences().windows.expect("it has windows").by_layer()
        };
        assert_eq!(sliding_windows(Value::Null), [Some(4), Some(4)]);
        assert_eq!(sliding_windows(json!(["full_attention", "sliding_attention"])), [None, Some(4)]);
    }
}
