//! Configuration and construction shared by Llama, Mistral, Qwen and their like.
//!
//! An architecture of this kind is one file. It lists the fields that only it has ([`llama_like_config`]), its
//! differences from Llama ([`Differences`]), and the other keys that a `config.json` may have ([`KeyRules`]).
//! Everything else is here; the modules are in [`model`].

mod model;

use andiron_kernels::random::Seed;
use burn::tensor::Device;

pub use model::LlamaModel;
use model::LlamaSizes;
pub(super) use model::{Attention, AttentionSizes, Mlp, MlpSizes};

use super::layer_types::Windows;
use super::rope::Rope;
use crate::catalog::Sizes;
use crate::hf_config::{
    Activation, ConfigError, Ids, entries, head_width, layers, positive_number, probability, width,
};
use crate::key_rules::KeyRules;
use crate::weights::NameRules;

/// How tensor names in files may differ from parameter paths.
pub(super) const NAMES: NameRules = NameRules {
    optional_prefix: "model.",
    ignored: &["*rotary_emb.inv_freq"],
    renamed: &[],
    tied: &[("lm_head.weight", "model.embed_tokens.weight")],
    optional: &[],
};

/// Defaults of keys that a `config.json` leaves out.
pub(super) mod defaults {
    use crate::hf_config::{Activation, Ids};

    pub(in crate::decoder) fn silu() -> Activation {
        Activation::Silu
    }

    pub(in crate::decoder) fn std() -> f64 {
        0.02
    }

    pub(in crate::decoder) fn eps() -> f64 {
        1e-6
    }

    pub(in crate::decoder) fn bos() -> Option<u32> {
        Some(1)
    }

    pub(in crate::decoder) fn eos() -> Ids {
        Ids::One(2)
    }

    pub(in crate::decoder) fn window() -> Option<usize> {
        Some(4096)
    }
}

/// Defines the configuration of a Llama-like architecture from the shared fields and those of this architecture. The
/// two literals name the functions for the default begin and end ids.
macro_rules! llama_like_config {
    (
        $(#[$doc:meta])*
        $name:ident($bos:literal, $eos:literal) {
            $($(#[$meta:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Vocabulary size.
            pub vocab_size: usize,
            /// Width of the hidden states.
            pub hidden_size: usize,
            /// Inner width of the feed-forward layers.
            pub intermediate_size: usize,
            /// Number of blocks.
            pub num_hidden_layers: usize,
            /// Query heads.
            pub num_attention_heads: usize,
            $($(#[$meta])* pub $field: $type,)*
            /// Activation of the feed-forward gate.
            #[serde(default = "crate::decoder::llama_like::defaults::silu")]
            pub hidden_act: $crate::hf_config::Activation,
            /// Longest sequence, in tokens; with `rope_scaling` it may be the training length only.
            pub max_position_embeddings: usize,
            /// Standard deviation of initial weights.
            #[serde(default = "crate::decoder::llama_like::defaults::std")]
            pub initializer_range: f64,
            /// Epsilon of the RMS norms.
            #[serde(default = "crate::decoder::llama_like::defaults::eps")]
            pub rms_norm_eps: f64,
            /// RoPE base (theta).
            #[serde(default = "crate::decoder::rope::default_theta")]
            pub rope_theta: f64,
            /// RoPE scaling.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub rope_scaling: Option<$crate::decoder::rope::RopeScalingConfig>,
            /// Dropout on attention probabilities, in training.
            #[serde(default)]
            pub attention_dropout: f64,
            /// Whether the output head is tied to the token embeddings.
            #[serde(default)]
            pub tie_word_embeddings: bool,
            /// Beginning-of-text token id.
            #[serde(default = $bos)]
            pub bos_token_id: Option<u32>,
            /// End-of-text token ids.
            #[serde(default = $eos)]
            pub eos_token_id: $crate::hf_config::Ids,
        }

        impl $crate::decoder::llama_like::LlamaLikeFields for $name {
            fn common(&self) -> $crate::decoder::llama_like::Common<'_> {
                $crate::decoder::llama_like::Common {
                    vocab_size: self.vocab_size,
                    hidden_size: self.hidden_size,
                    intermediate_size: self.intermediate_size,
                    num_hidden_layers: self.num_hidden_layers,
                    num_attention_heads: self.num_attention_heads,
                    hidden_act: self.hidden_act,
                    initializer_range: self.initializer_range,
                    rms_norm_eps: self.rms_norm_eps,
                    rope: $crate::decoder::rope::Rope {
                        theta: self.rope_theta,
                        scaling: self.rope_scaling.as_ref(),
                        max_position_embeddings: self.max_position_embeddings,
                    },
                    attention_dropout: self.attention_dropout,
                    tie_word_embeddings: self.tie_word_embeddings,
                    bos_token_id: self.bos_token_id,
                    eos_token_id: &self.eos_token_id,
                }
            }
        }

        impl $crate::catalog::Architecture for $name {
            type Model = $crate::decoder::llama_like::LlamaModel;
            const KEYS: $crate::key_rules::KeyRules = <Self as $crate::decoder::llama_like::LlamaLike>::KEYS;

            fn class_name(&self) -> &'static str {
                <Self as $crate::decoder::llama_like::LlamaLike>::CLASS
            }

            fn name_rules(&self) -> $crate::weights::NameRules {
                $crate::decoder::llama_like::NAMES
            }

            fn normalise(
                fields: &mut serde_json::Map<String, serde_json::Value>,
            ) -> Result<(), $crate::hf_config::ConfigError> {
                $crate::decoder::rope::normalise(fields);
                Ok(())
            }

            fn supplement(&self, fields: &mut serde_json::Map<String, serde_json::Value>) {
                $crate::decoder::rope::supplement(fields);
            }

            fn validate(&self) -> Result<(), $crate::hf_config::ConfigError> {
                $crate::decoder::llama_like::validate(self)
            }

            fn sizes(&self) -> $crate::catalog::Sizes {
                $crate::decoder::llama_like::sizes(self)
            }

            fn end_ids(&self) -> $crate::hf_config::Ids {
                self.eos_token_id.clone()
            }

            fn init(
                &self,
                seed: andiron_kernels::random::Seed,
                device: &burn::tensor::Device,
            ) -> $crate::decoder::llama_like::LlamaModel {
                $crate::decoder::llama_like::init(self, seed, device)
            }
        }

        impl $crate::decoder::DecoderArchitecture for $name {
            fn classifier_class(&self) -> &'static str {
                <Self as $crate::decoder::llama_like::LlamaLike>::CLASSIFIER
            }
        }
    };
}
pub(super) use llama_like_config;

/// The fields shared by Llama-like configurations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Common<'a> {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) hidden_act: Activation,
    pub(crate) initializer_range: f64,
    pub(crate) rms_norm_eps: f64,
    pub(crate) rope: Rope<'a>,
    pub(crate) attention_dropout: f64,
    pub(crate) tie_word_embeddings: bool,
    pub(crate) bos_token_id: Option<u32>,
    pub(crate) eos_token_id: &'a Ids,
}

/// Differences from Llama 1, which has none of these.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Differences<'a> {
    /// Number of key/value heads; divides the number of query heads, and equals it if none.
    pub(crate) key_heads: Option<usize>,
    /// Width of a head; `d_model / n_heads` if none.
    pub(crate) head_dim: Option<usize>,
    /// Whether the QKV projections have biases.
    pub(crate) qkv_bias: bool,
    /// Whether the attention output projection has a bias.
    pub(crate) out_bias: bool,
    /// Whether the feed-forward projections have biases.
    pub(crate) mlp_bias: bool,
    /// Whether queries and keys are normalised per head before RoPE (QK norm).
    pub(crate) qk_norm: bool,
    /// Sliding windows, by layer.
    pub(crate) windows: Option<Windows<'a>>,
}

/// Access to the shared fields, implemented by [`llama_like_config`].
pub(crate) trait LlamaLikeFields {
    fn common(&self) -> Common<'_>;
}

/// The configuration of a Llama-like architecture.
pub(crate) trait LlamaLike: LlamaLikeFields {
    /// Hugging Face's causal-LM class.
    const CLASS: &'static str;
    /// Hugging Face's sequence-classification class.
    const CLASSIFIER: &'static str;
    /// Keys of `config.json` that are not fields of the configuration.
    const KEYS: KeyRules;

    /// The model's differences.
    fn differences(&self) -> Differences<'_>;
}

/// Unchecked sizes of a configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_key_value_heads: usize,
    pub(crate) head_dim: Option<usize>,
    pub(crate) rms_norm_eps: f64,
    pub(crate) attention_dropout: f64,
}

impl Shape {
    pub(crate) fn of<C: LlamaLike>(config: &C) -> Self {
        let (common, differences) = (config.common(), config.differences());
        Self {
            vocab_size: common.vocab_size,
            hidden_size: common.hidden_size,
            intermediate_size: common.intermediate_size,
            num_hidden_layers: common.num_hidden_layers,
            num_attention_heads: common.num_attention_heads,
            num_key_value_heads: differences.key_heads.unwrap_or(common.num_attention_heads),
            head_dim: differences.head_dim,
            rms_norm_eps: common.rms_norm_eps,
            attention_dropout: common.attention_dropout,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        entries("vocab_size", self.vocab_size)?;
        width("hidden_size", self.hidden_size)?;
        width("intermediate_size", self.intermediate_size)?;
        layers("num_hidden_layers", self.num_hidden_layers)?;
        width("num_attention_heads", self.num_attention_heads)?;
        width("num_key_value_heads", self.num_key_value_heads)?;
        let (heads, key_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(key_heads) {
            return Err(ConfigError::KeyHeads { heads, key_heads });
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(heads) {
            return Err(ConfigError::Heads { width: self.hidden_size, heads });
        }
        let d_head = self.d_head();
        head_width("head_dim", d_head, ("num_attention_heads", heads))?;
        if !d_head.is_multiple_of(2) {
            return Err(ConfigError::OddHead { width: d_head });
        }
        positive_number("rms_norm_eps", self.rms_norm_eps)?;
        probability("attention_dropout", self.attention_dropout)
    }

    /// Width of a head; `d_model / n_heads` if unset.
    pub(crate) fn d_head(&self) -> usize {
        self.head_dim.unwrap_or_else(|| self.hidden_size / self.num_attention_heads)
    }
}

/// [`Architecture::validate`](crate::catalog::Architecture::validate) of a Llama-like configuration.
pub(super) fn validate<C: LlamaLike>(config: &C) -> Result<(), ConfigError> {
    Shape::of(config).check()?;
    if let Some(windows) = config.differences().windows {
        windows.check()?;
    }
    config.common().rope.check()
}

/// [`Architecture::sizes`](crate::catalog::Architecture::sizes) of a Llama-like configuration.
pub(super) fn sizes<C: LlamaLike>(config: &C) -> Sizes {
    let common = config.common();
    Sizes {
        vocab_size: common.vocab_size,
        d_model: common.hidden_size,
        max_positions: common.rope.longest(),
        bos_token_id: common.bos_token_id,
        eos_token_id: common.eos_token_id.as_slice().first().copied(),
    }
}

/// [`Architecture::init`](crate::catalog::Architecture::init) of a Llama-like configuration.
pub(super) fn init<C: LlamaLike>(config: &C, seed: Seed, device: &Device) -> LlamaModel {
    let (common, differences, shape) = (config.common(), config.differences(), Shape::of(config));
    let d_head = shape.d_head();
    let attention = AttentionSizes {
        qkv_bias: differences.qkv_bias,
        out_bias: differences.out_bias,
        qk_norm: differences.qk_norm,
        dropout: common.attention_dropout,
        ..AttentionSizes::new(shape.num_attention_heads, shape.num_key_value_heads, d_head)
    };
    let sizes = LlamaSizes {
        vocab_size: common.vocab_size,
        max_positions: common.rope.longest(),
        d_model: common.hidden_size,
        d_hidden: common.intermediate_size,
        attention,
        sliding_windows: match differences.windows {
            Some(windows) => windows.by_layer(),
            None => vec![None; common.num_hidden_layers],
        },
        rotary: common.rope.rotary(d_head),
        activation: common.hidden_act,
        mlp_bias: differences.mlp_bias,
        tied: common.tie_word_embeddings,
        eps: common.rms_norm_eps,
        std: common.initializer_range,
    };
    sizes.init(seed, device)
}
