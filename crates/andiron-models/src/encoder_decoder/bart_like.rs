//! Configuration and construction shared by BART and Marian.
//!
//! An architecture of this kind is one file. It lists the fields that only it has ([`bart_like_config`]), its
//! differences from the others ([`Differences`]), and the other keys that a `config.json` may have
//! ([`bart_like_keys`]).

mod model;

use serde_json::{Map, Value};

pub use model::BartModel;
use model::{BartSizes, Stack};

use crate::catalog::Sizes;
use crate::hf_config::{Activation, Ids};
use crate::key_rules::KeyRules;

/// Defaults of keys that a `config.json` leaves out.
pub(super) mod defaults {
    use crate::hf_config::Activation;

    pub(in crate::encoder_decoder) fn gelu() -> Activation {
        Activation::Gelu
    }

    pub(in crate::encoder_decoder) fn yes() -> bool {
        true
    }

    pub(in crate::encoder_decoder) fn tenth() -> f64 {
        0.1
    }

    pub(in crate::encoder_decoder) fn std() -> f64 {
        0.02
    }
}

/// Defines the configuration of a BART-like architecture from the shared fields and those of this architecture.
macro_rules! bart_like_config {
    ($(#[$doc:meta])* $name:ident { $($(#[$meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Size of the source vocabulary, and of the target vocabulary if shared.
            pub vocab_size: usize,
            $($(#[$meta])* pub $field: $type,)*
            /// Longest source and longest target.
            pub max_position_embeddings: usize,
            /// Width of the hidden states.
            pub d_model: usize,
            /// Number of the encoder's layers.
            pub encoder_layers: usize,
            /// Attention heads of the encoder; divides `d_model`.
            pub encoder_attention_heads: usize,
            /// Inner width of the encoder's feed-forward layers.
            pub encoder_ffn_dim: usize,
            /// Number of the decoder's layers.
            pub decoder_layers: usize,
            /// Attention heads of the decoder; divides `d_model`.
            pub decoder_attention_heads: usize,
            /// Inner width of the decoder's feed-forward layers.
            pub decoder_ffn_dim: usize,
            /// Activation of the feed-forward layers.
            #[serde(default = "crate::encoder_decoder::bart_like::defaults::gelu")]
            pub activation_function: $crate::hf_config::Activation,
            /// Whether token embeddings are multiplied by `sqrt(d_model)`.
            #[serde(default)]
            pub scale_embedding: bool,
            /// Whether the output head is tied to the decoder's token embeddings.
            #[serde(default = "crate::encoder_decoder::bart_like::defaults::yes")]
            pub tie_word_embeddings: bool,
            /// Dropout on the embeddings and on each sublayer's output, in training.
            #[serde(default = "crate::encoder_decoder::bart_like::defaults::tenth")]
            pub dropout: f64,
            /// Dropout on attention probabilities, in training.
            #[serde(default)]
            pub attention_dropout: f64,
            /// Dropout inside the feed-forward layers, in training.
            #[serde(default)]
            pub activation_dropout: f64,
            /// Standard deviation of initial weights.
            #[serde(default = "crate::encoder_decoder::bart_like::defaults::std")]
            pub init_std: f64,
        }

        impl $crate::encoder_decoder::bart_like::BartLikeFields for $name {
            fn common(&self) -> $crate::encoder_decoder::bart_like::Common {
                $crate::encoder_decoder::bart_like::Common {
                    vocab_size: self.vocab_size,
                    max_position_embeddings: self.max_position_embeddings,
                    d_model: self.d_model,
                    encoder_layers: self.encoder_layers,
                    encoder_attention_heads: self.encoder_attention_heads,
                    encoder_ffn_dim: self.encoder_ffn_dim,
                    decoder_layers: self.decoder_layers,
                    decoder_attention_heads: self.decoder_attention_heads,
                    decoder_ffn_dim: self.decoder_ffn_dim,
                    activation_function: self.activation_function,
                    scale_embedding: self.scale_embedding,
                    tie_word_embeddings: self.tie_word_embeddings,
                    dropout: self.dropout,
                    attention_dropout: self.attention_dropout,
                    activation_dropout: self.activation_dropout,
                    init_std: self.init_std,
                }
            }
        }

        impl $crate::catalog::Architecture for $name {
            type Model = $crate::encoder_decoder::bart_like::BartModel;
            const KEYS: $crate::key_rules::KeyRules = <Self as $crate::encoder_decoder::bart_like::BartLike>::KEYS;

            fn class_name(&self) -> &'static str {
                <Self as $crate::encoder_decoder::bart_like::BartLike>::CLASS
            }

            fn name_rules(&self) -> $crate::weights::NameRules {
                $crate::encoder_decoder::bart_like::sizes_of(self).name_rules()
            }

            fn normalise(
                fields: &mut serde_json::Map<String, serde_json::Value>,
            ) -> Result<(), $crate::hf_config::ConfigError> {
                $crate::encoder_decoder::check_class(
                    fields,
                    <Self as $crate::encoder_decoder::bart_like::BartLike>::CLASSES,
                )
            }

            fn supplement(&self, fields: &mut serde_json::Map<String, serde_json::Value>) {
                use $crate::encoder_decoder::bart_like::BartLike;
                fields.insert("is_encoder_decoder".to_owned(), true.into());
                self.supplement_own(fields);
            }

            fn validate(&self) -> Result<(), $crate::hf_config::ConfigError> {
                $crate::encoder_decoder::bart_like::sizes_of(self).validate()?;
                $crate::hf_config::padding_id(self.pad_token_id, self.vocab_size)
            }

            fn sizes(&self) -> $crate::catalog::Sizes {
                $crate::encoder_decoder::bart_like::sizes(self)
            }

            fn init(
                &self,
                seed: andiron_kernels::random::Seed,
                device: &burn::tensor::Device,
            ) -> $crate::encoder_decoder::bart_like::BartModel {
                $crate::encoder_decoder::bart_like::sizes_of(self).init(seed, device)
            }
        }

        impl $crate::encoder_decoder::Seq2SeqArchitecture for $name {
            fn target_vocab_size(&self) -> usize {
                $crate::encoder_decoder::bart_like::BartLike::differences(self).target_vocab_size
            }

            fn pad_token_id(&self) -> u32 {
                self.pad_token_id.unwrap_or(0)
            }

            fn decoder_start_token_id(&self) -> u32 {
                self.decoder_start_token_id
            }
        }
    };
}
pub(super) use bart_like_config;

/// Key rules of a BART-like architecture: the shared ones and those of this architecture.
macro_rules! bart_like_keys {
    (inert: [$($inert:expr),* $(,)?], defaults: [$($default:expr),* $(,)?]) => {
        $crate::key_rules::KeyRules {
            // Aliases shared by all configurations in `transformers`.
            aliases: &[
                ("hidden_size", "d_model"),
                ("num_attention_heads", "encoder_attention_heads"),
                ("num_hidden_layers", "encoder_layers"),
            ],
            inert: &[
                // True would mask the encoder causally, too; false would leave the decoder unmasked.
                ("is_causal", $crate::key_rules::Inert::Null),
                ("add_bias_logits", $crate::key_rules::Inert::Off),
                ("add_final_layer_norm", $crate::key_rules::Inert::Off),
                ("classif_dropout", $crate::key_rules::Inert::Always),
                ("decoder_layerdrop", $crate::key_rules::Inert::Always),
                ("do_blenderbot_90_layernorm", $crate::key_rules::Inert::Off),
                ("encoder_layerdrop", $crate::key_rules::Inert::Always),
                ("extra_pos_embeddings", $crate::key_rules::Inert::Always),
                ("is_encoder_decoder", $crate::key_rules::Inert::On),
                ("normalize_before", $crate::key_rules::Inert::Off),
                $($inert,)*
            ],
            defaults: &[
                ("max_position_embeddings", 1024),
                ("d_model", 1024),
                ("encoder_layers", 12),
                ("encoder_attention_heads", 16),
                ("encoder_ffn_dim", 4096),
                ("decoder_layers", 12),
                ("decoder_attention_heads", 16),
                ("decoder_ffn_dim", 4096),
                $($default,)*
            ],
            ..$crate::key_rules::KeyRules::NONE
        }
    };
}
pub(super) use bart_like_keys;

/// The fields shared by BART-like configurations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Common {
    pub(super) vocab_size: usize,
    pub(super) max_position_embeddings: usize,
    pub(super) d_model: usize,
    pub(super) encoder_layers: usize,
    pub(super) encoder_attention_heads: usize,
    pub(super) encoder_ffn_dim: usize,
    pub(super) decoder_layers: usize,
    pub(super) decoder_attention_heads: usize,
    pub(super) decoder_ffn_dim: usize,
    pub(super) activation_function: Activation,
    pub(super) scale_embedding: bool,
    pub(super) tie_word_embeddings: bool,
    pub(super) dropout: f64,
    pub(super) attention_dropout: f64,
    pub(super) activation_dropout: f64,
    pub(super) init_std: f64,
}

/// Differences between BART-like models.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Differences<'a> {
    /// Size of the target vocabulary.
    pub(super) target_vocab_size: usize,
    /// Whether encoder and decoder share token embeddings.
    pub(super) shared: bool,
    /// Whether positions are learned and a norm follows the embeddings; otherwise neither.
    pub(super) learned_positions: bool,
    pub(super) bos_token_id: Option<u32>,
    pub(super) eos_token_id: &'a Ids,
}

/// Access to the shared fields, implemented by [`bart_like_config`].
pub(crate) trait BartLikeFields {
    fn common(&self) -> Common;
}

/// The configuration of a BART-like architecture.
pub(crate) trait BartLike: BartLikeFields {
    /// Hugging Face's supported classes, separated by commas; the first has an output head.
    const CLASSES: &'static str;
    /// The first of [`Self::CLASSES`].
    const CLASS: &'static str;
    /// Keys of `config.json` that are not fields of the configuration.
    const KEYS: KeyRules;

    /// The model's differences.
    fn differences(&self) -> Differences<'_>;

    /// Adds keys that `transformers` reads to the written object.
    fn supplement_own(&self, _fields: &mut Map<String, Value>) {}
}

/// The sizes of the model.
pub(super) fn sizes_of<C: BartLike>(config: &C) -> BartSizes {
    let (common, differences) = (config.common(), config.differences());
    BartSizes {
        d_model: common.d_model,
        max_positions: common.max_position_embeddings,
        encoder: Stack {
            n_layers: common.encoder_layers,
            n_heads: common.encoder_attention_heads,
            d_hidden: common.encoder_ffn_dim,
            vocab_size: common.vocab_size,
        },
        decoder: Stack {
            n_layers: common.decoder_layers,
            n_heads: common.decoder_attention_heads,
            d_hidden: common.decoder_ffn_dim,
            vocab_size: differences.target_vocab_size,
        },
        shared: differences.shared,
        tied: common.tie_word_embeddings,
        learned: differences.learned_positions,
        scale_embedding: common.scale_embedding,
        activation: common.activation_function,
        std: common.init_std,
        dropout: common.dropout,
        attention_dropout: common.attention_dropout,
        activation_dropout: common.activation_dropout,
    }
}

/// [`Architecture::sizes`](crate::catalog::Architecture::sizes) of a BART-like configuration.
pub(super) fn sizes<C: BartLike>(config: &C) -> Sizes {
    let (common, differences) = (config.common(), config.differences());
    Sizes {
        vocab_size: common.vocab_size,
        d_model: common.d_model,
        max_positions: common.max_position_embeddings,
        bos_token_id: differences.bos_token_id,
        eos_token_id: differences.eos_token_id.as_slice().first().copied(),
    }
}
