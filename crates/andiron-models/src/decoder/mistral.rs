//! Mistral: the gated decoder with one window for all layers.
//!
//! Paper: Jiang et al. 2023, "Mistral 7B", <https://arxiv.org/abs/2310.06825>. Hugging Face: `MistralForCausalLM`. Unlike
//! its neighbours it has no biases at all, and each layer sees only the last `sliding_window` tokens.
//!
//! Not supported: windows that differ by layer, longrope scaling and quantised weights.

use andiron_kernels::random::Seed;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::catalog::{Architecture, Sizes};
use crate::decoder::gated::{AttentionSizes, Gated, GatedSizes, NAMES, Shape, defaults};
use crate::decoder::layer_types::{LayerType, Windows};
use crate::decoder::rope::{self, Rope, RopeScalingConfig};
use crate::hf_config::Ids;
use crate::hf_config::{Activation, ConfigError};
use crate::key_rules::KeyRules;
use crate::weights::NameRules;

/// `config.json` of a Mistral, in Hugging Face's field names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MistralConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Heads of queries.
    pub num_attention_heads: usize,
    /// Heads of keys and values, which divide those of queries; as many if null, 8 if absent.
    #[serde(default = "key_heads")]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; `hidden_size / num_attention_heads` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Activation of the feed-forward part's gate.
    #[serde(default = "defaults::silu")]
    pub hidden_act: Activation,
    /// Longest text, in tokens; with `rope_scaling` perhaps that of training only.
    pub max_position_embeddings: usize,
    /// Standard deviation of initial weights.
    #[serde(default = "defaults::std")]
    pub initializer_range: f64,
    /// Added to mean squares.
    #[serde(default = "defaults::eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "rope::default_theta")]
    pub rope_theta: f64,
    /// How the frequencies are lowered for longer texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScalingConfig>,
    /// Dropout on attention probabilities, in training.
    #[serde(default)]
    pub attention_dropout: f64,
    /// How many tokens a token sees, its own included; everything if null, 4096 if absent.
    #[serde(default = "window")]
    pub sliding_window: Option<usize>,
    /// What each layer sees; if absent, all see that much. With them, `transformers`' `AutoModel` opens a Ministral.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<LayerType>>,
    /// Whether the output head is the embedding table.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Id that begins a text.
    #[serde(default = "defaults::bos")]
    pub bos_token_id: Option<u32>,
    /// Ids that end a text.
    #[serde(default = "defaults::eos")]
    pub eos_token_id: Ids,
}

fn key_heads() -> Option<usize> {
    Some(8)
}

fn window() -> Option<usize> {
    Some(4096)
}

impl MistralConfig {
    fn shape(&self) -> Shape {
        Shape {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim: self.head_dim,
            rms_norm_eps: self.rms_norm_eps,
            attention_dropout: self.attention_dropout,
        }
    }

    fn rope(&self) -> Rope<'_> {
        Rope {
            theta: self.rope_theta,
            scaling: self.rope_scaling.as_ref(),
            max_position_embeddings: self.max_position_embeddings,
        }
    }

    fn windows(&self) -> Windows<'_> {
        Windows {
            n_layers: self.num_hidden_layers,
            window: self.sliding_window,
            types: self.layer_types.as_deref(),
            n_full: 0,
        }
    }
}

impl Architecture for MistralConfig {
    type Model = Gated;
    const KEYS: KeyRules = KeyRules {
        aliases: &[],
        inert: &[],
        own: &[],
        defaults: &[
            ("vocab_size", 32_000),
            ("hidden_size", 4096),
            ("intermediate_size", 14_336),
            ("num_hidden_layers", 32),
            ("num_attention_heads", 32),
            ("max_position_embeddings", 131_072),
        ],
    };

    fn class_name(&self) -> &'static str {
        "MistralForCausalLM"
    }

    fn name_rules(&self) -> NameRules {
        NAMES
    }

    fn normalise(fields: &mut Map<String, Value>) -> Result<(), ConfigError> {
        rope::normalise(fields);
        Ok(())
    }

    fn supplement(&self, fields: &mut Map<String, Value>) {
        rope::supplement(fields);
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.shape().check()?;
        self.windows().check()?;
        self.rope().check()
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            d_model: self.hidden_size,
            max_positions: self.rope().longest(),
            bos_token_id: self.bos_token_id,
            eos_token_id: self.eos_token_id.as_slice().first().copied(),
        }
    }

    fn end_ids(&self) -> Ids {
        self.eos_token_id.clone()
    }

    fn init(&self, seed: Seed, device: &Device) -> Gated {
        let shape = self.shape();
        let (rope, d_head) = (self.rope(), shape.d_head());
        let attention = AttentionSizes {
            dropout: self.attention_dropout,
            ..AttentionSizes::new(shape.num_attention_heads, shape.num_key_value_heads, d_head)
        };
        let sizes = GatedSizes {
            vocab_size: self.vocab_size,
            max_positions: rope.longest(),
            d_model: self.hidden_size,
            d_hidden: self.intermediate_size,
            attention,
            reaches: self.windows().reaches(),
            rotary: rope.rotary(d_head),
            activation: self.hidden_act,
            mlp_bias: false,
            tied: self.tie_word_embeddings,
            eps: self.rms_norm_eps,
            std: self.initializer_range,
        };
        sizes.init(seed, device)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn layers_may_slide_each_for_itself() {
        let reaches = |layer_types: Value| {
            let config = json!({
                "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
                "num_key_value_heads": 2, "max_position_embeddings": 8, "sliding_window": 4, "layer_types": layer_types,
            });
            let config: MistralConfig = serde_json::from_value(config).expect("a configuration");
            config.windows().reaches()
        };
        assert_eq!(reaches(Value::Null), [Some(3), Some(3)]);
        assert_eq!(reaches(json!(["full_attention", "sliding_attention"])), [None, Some(3)]);
    }
}
