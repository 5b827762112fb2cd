//! T5: relative position biases, pre-RMS-norm sublayers, and no linear biases.
//!
//! Papers: Raffel et al. 2020, <https://arxiv.org/abs/1910.10683>; Shazeer 2020, "GLU Variants Improve Transformer",
//! <https://arxiv.org/abs/2002.05202>, for the gated form of T5 1.1 and Flan-T5. Hugging Face:
//! `T5ForConditionalGeneration`, and `T5Model`, whose head is tied to the token embeddings.
//!
//! Differences: attention scores are not scaled, and one [relative position bias](andiron_core::position::relative)
//! in the first block of the encoder and of the decoder serves all their blocks. Source and target lengths are
//! unlimited. T5 1.0 and 1.1 differ in two ways that `tie_word_embeddings` does not fully determine:
//!
//! - whether the head is tied to the token embeddings: inferred from the files. It is, unless they hold a
//!   `lm_head.weight` with other values.
//! - whether the decoder's output is divided by `sqrt(d_model)`: `scale_decoder_outputs`. Without that key it is, unless
//!   `tie_word_embeddings` is false.
//!
//! Not supported: the encoder alone, classification and span heads.

mod model;

use andiron_core::position::relative::RelativeBiasConfig;
use andiron_kernels::random::Seed;
use burn::tensor::Device;
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

pub use model::T5;

use super::{Seq2SeqArchitecture, check_class};
use crate::catalog::{Architecture, Sizes};
use crate::hf_config::{Activation, ConfigError, Ids, entries, head_width, layers, probability, width};
use crate::key_rules::{Inert, KeyRules};
use crate::weights::{FileError, NameRules, StoredTensors};

/// `config.json` of a T5, in Hugging Face's field names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct T5Config {
    /// Vocabulary size.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width of a head, independent of `d_model`.
    pub d_kv: usize,
    /// Inner width of the feed-forward layers.
    pub d_ff: usize,
    /// Number of the encoder's blocks.
    pub num_layers: usize,
    /// Number of the decoder's blocks; `num_layers` if absent.
    #[serde(default)]
    pub num_decoder_layers: Option<usize>,
    /// Attention heads.
    pub num_heads: usize,
    /// Number of relative position buckets.
    #[serde(default = "buckets")]
    pub relative_attention_num_buckets: usize,
    /// Distance from which on all positions are in one bucket.
    #[serde(default = "far")]
    pub relative_attention_max_distance: usize,
    /// Form of the feed-forward layers.
    #[serde(default)]
    pub feed_forward_proj: FeedForwardProj,
    /// Activation of the feed-forward layers; overrides `feed_forward_proj`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dense_act_fn: Option<Activation>,
    /// Whether the feed-forward layers are gated; overrides `feed_forward_proj`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_gated_act: Option<bool>,
    /// Whether the head is tied to the token embeddings. Inferred from the stored tensors when a model is opened.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Whether the decoder's output is divided by `sqrt(d_model)`.
    #[serde(default = "yes")]
    pub scale_decoder_outputs: bool,
    /// Dropout on the embeddings, on each sublayer's output, inside the feed-forward layers, on attention
    /// probabilities and after the final norms, in training.
    #[serde(default = "tenth")]
    pub dropout_rate: f64,
    /// Epsilon of the RMS norms.
    #[serde(default = "default_eps")]
    pub layer_norm_epsilon: f64,
    /// Multiplies the standard deviations of initial weights.
    #[serde(default = "one")]
    pub initializer_factor: f64,
    /// Padding token id.
    #[serde(default = "pad")]
    pub pad_token_id: Option<u32>,
    /// End-of-text token ids.
    #[serde(default = "eos")]
    pub eos_token_id: Ids,
    /// Decoder start token id; the padding id if absent.
    #[serde(default)]
    pub decoder_start_token_id: Option<u32>,
}

fn buckets() -> usize {
    32
}

fn far() -> usize {
    128
}

fn yes() -> bool {
    true
}

fn tenth() -> f64 {
    0.1
}

fn default_eps() -> f64 {
    1e-6
}

fn one() -> f64 {
    1.0
}

fn pad() -> Option<u32> {
    Some(0)
}

fn eos() -> Ids {
    Ids::One(1)
}

/// Form of a feed-forward layer, written `relu` or `gated-silu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedForwardProj {
    gated: bool,
    activation: Activation,
}

impl FeedForwardProj {
    /// `activation(x · wi) · wo`.
    pub fn plain(activation: Activation) -> Self {
        Self { gated: false, activation }
    }

    /// `(activation(x · wi_0) ∘ (x · wi_1)) · wo`. As `gated-gelu` means the tanh form, the exact one becomes it too.
    pub fn gated(activation: Activation) -> Self {
        let activation = if activation == Activation::Gelu { Activation::GeluNew } else { activation };
        Self { gated: true, activation }
    }
}

impl Default for FeedForwardProj {
    fn default() -> Self {
        Self::plain(Activation::Relu)
    }
}

impl Serialize for FeedForwardProj {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.gated, self.activation) {
            (true, Activation::GeluNew) => serializer.serialize_str("gated-gelu"),
            (true, activation) => serializer.collect_str(&format_args!("gated-{activation}")),
            (false, activation) => serializer.collect_str(&activation),
        }
    }
}

impl<'de> Deserialize<'de> for FeedForwardProj {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = String::deserialize(deserializer)?;
        match form.strip_prefix("gated-") {
            Some(name) => Activation::deserialize(name.into_deserializer()).map(Self::gated),
            None => Activation::deserialize(form.as_str().into_deserializer()).map(Self::plain),
        }
    }
}

const CLASS: &str = "T5ForConditionalGeneration";

/// Supported classes; the last is a former name of the first.
const CLASSES: &str = "T5ForConditionalGeneration, T5Model, T5WithLMHeadModel";

const TABLE: &str = "shared.weight";
const HEAD: &str = "lm_head.weight";

/// Tensor names of the token embeddings.
const TABLES: &[(&str, &str)] =
    &[("encoder.embed_tokens.weight", TABLE), ("decoder.embed_tokens.weight", TABLE), (HEAD, TABLE)];

impl T5Config {
    /// The smallest published model of version 1.0, of 60 million parameters.
    pub fn small() -> Self {
        Self {
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: buckets(),
            relative_attention_max_distance: far(),
            feed_forward_proj: FeedForwardProj::default(),
            dense_act_fn: None,
            is_gated_act: None,
            tie_word_embeddings: true,
            scale_decoder_outputs: true,
            dropout_rate: tenth(),
            layer_norm_epsilon: default_eps(),
            initializer_factor: one(),
            pad_token_id: pad(),
            eos_token_id: eos(),
            decoder_start_token_id: pad(),
        }
    }

    fn n_decoder_layers(&self) -> usize {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    fn activation(&self) -> Activation {
        self.dense_act_fn.unwrap_or(self.feed_forward_proj.activation)
    }

    fn is_gated(&self) -> bool {
        self.is_gated_act.unwrap_or(self.feed_forward_proj.gated)
    }

    fn relative_bias(&self, causal: bool) -> RelativeBiasConfig {
        RelativeBiasConfig {
            n_heads: self.num_heads,
            n_buckets: self.relative_attention_num_buckets,
            max_distance: self.relative_attention_max_distance,
            causal,
        }
    }
}

impl Architecture for T5Config {
    type Model = T5;
    const KEYS: KeyRules = KeyRules {
        aliases: &[
            ("head_dim", "d_kv"),
            ("hidden_size", "d_model"),
            ("num_attention_heads", "num_heads"),
            ("num_hidden_layers", "num_layers"),
        ],
        inert: &[
            // True would mask the encoder causally, too; false would leave the decoder unmasked.
            ("is_causal", Inert::Null),
            ("is_encoder_decoder", Inert::On),
            ("n_positions", Inert::Always),
        ],
        own: &[],
        defaults: &[
            ("vocab_size", 32_128),
            ("d_model", 512),
            ("d_kv", 64),
            ("d_ff", 2048),
            ("num_layers", 6),
            ("num_heads", 8),
        ],
    };

    fn class_name(&self) -> &'static str {
        CLASS
    }

    fn name_rules(&self) -> NameRules {
        NameRules {
            // Some files store a relative position bias where the model has none.
            ignored: &["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"],
            tied: if self.tie_word_embeddings { TABLES } else { &TABLES[..2] },
            ..NameRules::default()
        }
    }

    fn normalise(fields: &mut Map<String, Value>) -> Result<(), ConfigError> {
        check_class(fields, CLASSES)?;
        let untied = fields.get("tie_word_embeddings") == Some(&Value::Bool(false));
        fields.entry("scale_decoder_outputs").or_insert((!untied).into());
        fields.retain(|key, value| key != "tie_word_embeddings" || !value.is_null());
        Ok(())
    }

    fn supplement(&self, fields: &mut Map<String, Value>) {
        let said: [(&str, Value); 5] = [
            ("is_encoder_decoder", true.into()),
            ("is_gated_act", self.is_gated().into()),
            ("dense_act_fn", self.activation().to_string().into()),
            ("num_decoder_layers", self.n_decoder_layers().into()),
            ("decoder_start_token_id", self.decoder_start_token_id().into()),
        ];
        for (key, value) in said {
            // In one place, whether a file had them or not.
            fields.shift_remove(key);
            fields.insert(key.to_owned(), value);
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        entries("vocab_size", self.vocab_size)?;
        width("d_model", self.d_model)?;
        width("d_ff", self.d_ff)?;
        layers("num_layers", self.num_layers)?;
        layers("num_decoder_layers", self.n_decoder_layers())?;
        width("num_heads", self.num_heads)?;
        head_width("d_kv", self.d_kv, ("num_heads", self.num_heads))?;
        width("relative_attention_num_buckets", self.relative_attention_num_buckets)?;
        entries("relative_attention_max_distance", self.relative_attention_max_distance)?;
        probability("dropout_rate", self.dropout_rate)?;
        if [true, false].iter().any(|&causal| !self.relative_bias(causal).is_sound()) {
            let (n_buckets, max_distance) =
                (self.relative_attention_num_buckets, self.relative_attention_max_distance);
            return Err(ConfigError::Buckets { n_buckets, max_distance });
        }
        Ok(())
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            d_model: self.d_model,
            max_positions: usize::MAX,
            bos_token_id: None,
            eos_token_id: self.eos_token_id.as_slice().first().copied(),
        }
    }

    fn init(&self, seed: Seed, device: &Device) -> T5 {
        T5::new(self, seed, device)
    }
}

impl Seq2SeqArchitecture for T5Config {
    fn pad_token_id(&self) -> u32 {
        // It only fills rows up, which any id can: T5 in `transformers` opens with one that the vocabulary lacks.
        self.pad_token_id.filter(|&id| (id as usize) < self.vocab_size).unwrap_or(0)
    }

    fn decoder_start_token_id(&self) -> u32 {
        self.decoder_start_token_id.or(self.pad_token_id).unwrap_or(0)
    }

    fn infer_from_checkpoint(&mut self, stored: &mut StoredTensors<'_, '_>) -> Result<(), FileError> {
        let tables = TABLES.iter().map(|(name, _)| *name).filter(|name| *name != HEAD);
        let table = std::iter::once(TABLE).chain(tables).find(|name| stored.has(name));
        self.tie_word_embeddings = match table {
            Some(table) if stored.has(HEAD) => stored.same(table, HEAD)?,
            _ => true,
        };
        Ok(())
    }
}
