//! BART: learned positions and a norm after the embeddings, one table for sources, targets and head.
//!
//! Paper: Lewis et al. 2019, "BART", <https://arxiv.org/abs/1910.13461>. Hugging Face: `BartForConditionalGeneration`,
//! and `BartModel`, whose head is the table of tokens. A position table has two entries before position 0, which are
//! never read. `final_logits_bias` is added to the logits and not trained. Not supported: the heads for labels and
//! spans, the norms before the blocks that mBART has, and leaving layers out in training.

use andiron_kernels::random::Seed;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::post_norm::{self, PostNorm, PostNormSizes, Stack};
use super::{Seq2SeqArchitecture, check_class, check_ids};
use crate::catalog::{Architecture, Sizes};
use crate::hf_config::Ids;
use crate::hf_config::{Activation, ConfigError};
use crate::key_rules::{Inert, KeyRules};
use crate::weights::NameRules;

/// `config.json` of a BART, in Hugging Face's field names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BartConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Longest source and longest target.
    pub max_position_embeddings: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Number of the encoder's layers.
    pub encoder_layers: usize,
    /// Attention heads of the encoder; divides `d_model`.
    pub encoder_attention_heads: usize,
    /// Width inside the encoder's feed-forward parts.
    pub encoder_ffn_dim: usize,
    /// Number of the decoder's layers.
    pub decoder_layers: usize,
    /// Attention heads of the decoder; divides `d_model`.
    pub decoder_attention_heads: usize,
    /// Width inside the decoder's feed-forward parts.
    pub decoder_ffn_dim: usize,
    /// Activation of the feed-forward parts.
    #[serde(default = "gelu")]
    pub activation_function: Activation,
    /// Whether embeddings are multiplied by the root of `d_model`.
    #[serde(default)]
    pub scale_embedding: bool,
    /// Whether sources, targets and head share a table.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Dropout on the embeddings and on what each sublayer adds, in training.
    #[serde(default = "tenth")]
    pub dropout: f64,
    /// Dropout on attention probabilities, in training.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Dropout inside the feed-forward parts, in training.
    #[serde(default)]
    pub activation_dropout: f64,
    /// Standard deviation of initial weights.
    #[serde(default = "default_std")]
    pub init_std: f64,
    /// Id that begins a text.
    #[serde(default = "bos")]
    pub bos_token_id: Option<u32>,
    /// Id that fills rows up.
    #[serde(default = "pad")]
    pub pad_token_id: Option<u32>,
    /// Ids that end a text.
    #[serde(default = "eos")]
    pub eos_token_id: Ids,
    /// Id before the first of a target.
    #[serde(default = "start")]
    pub decoder_start_token_id: u32,
    /// The last id of a target of the greatest length.
    #[serde(default = "eos")]
    pub forced_eos_token_id: Ids,
}

fn gelu() -> Activation {
    Activation::Gelu
}

fn yes() -> bool {
    true
}

fn tenth() -> f64 {
    0.1
}

fn default_std() -> f64 {
    0.02
}

fn bos() -> Option<u32> {
    Some(0)
}

fn pad() -> Option<u32> {
    Some(1)
}

fn eos() -> Ids {
    Ids::One(2)
}

fn start() -> u32 {
    2
}

const CLASS: &str = "BartForConditionalGeneration";

/// Classes whose heads are implemented.
const CLASSES: &str = "BartForConditionalGeneration, BartModel";

impl BartConfig {
    fn post_norm(&self) -> PostNormSizes {
        PostNormSizes {
            d_model: self.d_model,
            max_positions: self.max_position_embeddings,
            encoder: Stack {
                n_layers: self.encoder_layers,
                n_heads: self.encoder_attention_heads,
                d_hidden: self.encoder_ffn_dim,
                vocab_size: self.vocab_size,
            },
            decoder: Stack {
                n_layers: self.decoder_layers,
                n_heads: self.decoder_attention_heads,
                d_hidden: self.decoder_ffn_dim,
                vocab_size: self.vocab_size,
            },
            shared: true,
            tied: self.tie_word_embeddings,
            learned: true,
            scale_embedding: self.scale_embedding,
            activation: self.activation_function,
            std: self.init_std,
            dropout: self.dropout,
            attention_dropout: self.attention_dropout,
            activation_dropout: self.activation_dropout,
        }
    }
}

impl Architecture for BartConfig {
    type Model = PostNorm;
    const KEYS: KeyRules = KeyRules {
        aliases: post_norm::ALIASES,
        inert: &[
            // True is a mask for the encoder, too, and false none for the decoder.
            ("is_causal", Inert::Null),
            ("add_bias_logits", Inert::Off),
            ("add_final_layer_norm", Inert::Off),
            ("classif_dropout", Inert::Always),
            ("decoder_layerdrop", Inert::Always),
            ("do_blenderbot_90_layernorm", Inert::Off),
            ("encoder_layerdrop", Inert::Always),
            ("extra_pos_embeddings", Inert::Always),
            ("is_encoder_decoder", Inert::On),
            ("normalize_before", Inert::Off),
            ("normalize_embedding", Inert::Always),
            ("static_position_embeddings", Inert::Off),
        ],
        own: &[],
        defaults: &[
            ("vocab_size", 50_265),
            ("max_position_embeddings", 1024),
            ("d_model", 1024),
            ("encoder_layers", 12),
            ("encoder_attention_heads", 16),
            ("encoder_ffn_dim", 4096),
            ("decoder_layers", 12),
            ("decoder_attention_heads", 16),
            ("decoder_ffn_dim", 4096),
        ],
    };

    fn class_name(&self) -> &'static str {
        CLASS
    }

    fn name_rules(&self) -> NameRules {
        self.post_norm().name_rules()
    }

    fn normalise(fields: &mut Map<String, Value>) -> Result<(), ConfigError> {
        check_class(fields, CLASSES)
    }

    fn supplement(&self, fields: &mut Map<String, Value>) {
        fields.insert("is_encoder_decoder".to_owned(), true.into());
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.post_norm().validate()?;
        check_ids(self)
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            d_model: self.d_model,
            max_positions: self.max_position_embeddings,
            bos_token_id: self.bos_token_id,
            eos_token_id: self.eos_token_id.as_slice().first().copied(),
        }
    }

    fn init(&self, seed: Seed, device: &Device) -> PostNorm {
        self.post_norm().init(seed, device)
    }
}

impl Seq2SeqArchitecture for BartConfig {
    fn pad_token_id(&self) -> u32 {
        self.pad_token_id.unwrap_or(0)
    }

    fn decoder_start_token_id(&self) -> u32 {
        self.decoder_start_token_id
    }
}
