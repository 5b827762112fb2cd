//! Llama: the gated decoder in its plain form; Llama 1 to 3, TinyLlama and SmolLM among others.
//!
//! Papers: Touvron et al. 2023, "LLaMA", <https://arxiv.org/abs/2302.13971>; Llama Team 2024, "The Llama 3 Herd of
//! Models", <https://arxiv.org/abs/2407.21783>. Hugging Face: `LlamaForCausalLM`. Unlike its neighbours every map may
//! have a bias.
//!
//! Not supported: longrope scaling and quantised weights.

use andiron_kernels::random::Seed;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::catalog::{Architecture, Sizes};
use crate::decoder::gated::{AttentionSizes, Gated, GatedSizes, NAMES, Shape, defaults};
use crate::decoder::rope::{self, Rope, RopeScalingConfig};
use crate::hf_config::Ids;
use crate::hf_config::{Activation, ConfigError};
use crate::key_rules::{Inert, KeyRules};
use crate::weights::NameRules;

/// `config.json` of a Llama, in Hugging Face's field names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlamaConfig {
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
    /// Heads of keys and values, which divide those of queries; as many if null or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    /// Whether the maps of the attention have biases.
    #[serde(default)]
    pub attention_bias: bool,
    /// Dropout on attention probabilities, in training.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Whether the maps of the feed-forward part have biases.
    #[serde(default)]
    pub mlp_bias: bool,
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

impl LlamaConfig {
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
}

impl Architecture for LlamaConfig {
    type Model = Gated;
    const KEYS: KeyRules = KeyRules {
        aliases: &[],
        inert: &[
            ("is_llama_config", Inert::Always),
            // Products in parts have the same sums.
            ("pretraining_tp", Inert::Always),
            ("rope_interleaved", Inert::Off),
        ],
        own: &[],
        defaults: &[
            ("vocab_size", 32_000),
            ("hidden_size", 4096),
            ("intermediate_size", 11_008),
            ("num_hidden_layers", 32),
            ("num_attention_heads", 32),
            ("max_position_embeddings", 2048),
        ],
    };

    fn class_name(&self) -> &'static str {
        "LlamaForCausalLM"
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
            qkv_bias: self.attention_bias,
            out_bias: self.attention_bias,
            dropout: self.attention_dropout,
            ..AttentionSizes::new(shape.num_attention_heads, shape.num_key_value_heads, d_head)
        };
        let sizes = GatedSizes {
            vocab_size: self.vocab_size,
            max_positions: rope.longest(),
            d_model: self.hidden_size,
            d_hidden: self.intermediate_size,
            attention,
            reaches: vec![None; self.num_hidden_layers],
            rotary: rope.rotary(d_head),
            activation: self.hidden_act,
            mlp_bias: self.mlp_bias,
            tied: self.tie_word_embeddings,
            eps: self.rms_norm_eps,
            std: self.initializer_range,
        };
        sizes.init(seed, device)
    }
}
