//! `config.json` in Hugging Face's format: shared parts, validation and errors.

mod ids;

use std::fmt;
use std::path::PathBuf;

use andiron_core::ops;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use ids::Ids;

use crate::key_rules::{Inert, UnknownKeys};
use crate::named_fields::Shown;

/// Maximum number of layers accepted from a file.
const MAX_LAYERS: usize = 1 << 12;
/// Maximum width, also of all heads of a layer together. With [`MAX_ENTRIES`] and [`MAX_LAYERS`] it keeps every
/// product of sizes below 2^63.
const MAX_WIDTH: usize = 1 << 20;
/// Maximum head width: RoPE allocates a frequency per channel pair before any weight is read.
const MAX_HEAD: usize = 1 << 16;
/// Maximum vocabulary size and number of positions: `i32::MAX`.
const MAX_ENTRIES: usize = i32::MAX as usize;

/// Activation functions by Hugging Face's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// `gelu`: the exact form.
    #[serde(rename = "gelu")]
    Gelu,
    /// `gelu_new`: the tanh form.
    #[default]
    #[serde(rename = "gelu_new")]
    GeluNew,
    /// `gelu_pytorch_tanh`: the same function, under the name that Gemma's files must keep.
    #[serde(rename = "gelu_pytorch_tanh")]
    GeluPytorchTanh,
    /// `gelu_fast`: the same function.
    #[serde(rename = "gelu_fast")]
    GeluFast,
    /// `silu`, or `swish`.
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    /// `relu`.
    #[serde(rename = "relu")]
    Relu,
}

impl Activation {
    /// The operation.
    pub fn function(self) -> ops::Activation {
        match self {
            Self::Gelu => ops::Activation::GeluErf,
            Self::GeluNew | Self::GeluPytorchTanh | Self::GeluFast => ops::Activation::GeluTanh,
            Self::Silu => ops::Activation::Silu,
            Self::Relu => ops::Activation::Relu,
        }
    }
}

pub(crate) fn positive(key: &'static str, value: usize) -> Result<(), ConfigError> {
    if value == 0 { Err(ConfigError::Zero { key }) } else { Ok(()) }
}

/// Checks a number of layers; each allocates before the weights are read.
pub(crate) fn layers(key: &'static str, value: usize) -> Result<(), ConfigError> {
    believable(key, value, MAX_LAYERS)
}

/// Checks a width or a number of heads.
pub(crate) fn width(key: &'static str, value: usize) -> Result<(), ConfigError> {
    believable(key, value, MAX_WIDTH)
}

/// Checks the head width under `key`, with the number of heads per layer and its key. If their product is too large, the
/// larger of the two is named.
pub(crate) fn head_width(
    key: &'static str,
    value: usize,
    (heads_key, n_heads): (&'static str, usize),
) -> Result<(), ConfigError> {
    believable(key, value, MAX_HEAD)?;
    match value < n_heads {
        true => believable(heads_key, n_heads, MAX_WIDTH / value),
        false => believable(key, value, MAX_WIDTH / n_heads.max(1)),
    }
}

/// Checks a vocabulary size or a number of positions.
pub(crate) fn entries(key: &'static str, value: usize) -> Result<(), ConfigError> {
    believable(key, value, MAX_ENTRIES)
}

fn believable(key: &'static str, value: usize, limit: usize) -> Result<(), ConfigError> {
    positive(key, value)?;
    if value > limit { Err(ConfigError::TooMany { key, value, limit }) } else { Ok(()) }
}

pub(crate) fn positive_number(key: &'static str, value: f64) -> Result<(), ConfigError> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(ConfigError::NotPositive { key, value }) }
}

pub(crate) fn probability(key: &'static str, value: f64) -> Result<(), ConfigError> {
    if (0.0..1.0).contains(&value) { Ok(()) } else { Err(ConfigError::Probability { key, value }) }
}

/// Checks that the padding id is in the vocabulary.
pub(crate) fn padding_id(id: Option<u32>, vocab_size: usize) -> Result<(), ConfigError> {
    match id.filter(|&id| id as usize >= vocab_size) {
        Some(id) => Err(ConfigError::TokenId { key: "pad_token_id", id, vocab_size }),
        None => Ok(()),
    }
}

/// The first of the ids under a key.
pub(crate) fn first_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(Ids::deserialize(deserializer)?.as_slice().first().copied())
}

/// Errors of a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Invalid JSON, or wrong fields.
    #[error("{} is not a valid {what}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Expected content.
        what: &'static str,
        /// The cause; names the key and the line.
        source: serde_json::Error,
    },
    /// The configuration is invalid.
    #[error("{}: {reason}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: Box<ConfigError>,
    },
    /// An unsupported `model_type`.
    #[error("model_type {model_type:?} is not supported: this build knows {known}")]
    UnknownArchitecture {
        /// The value found.
        model_type: String,
        /// Supported values.
        known: String,
    },
    /// An unsupported class in `architectures`.
    #[error("architectures names {class}: its head is not supported; this build knows {known}")]
    UnknownHead {
        /// The class.
        class: String,
        /// Suffixes of the supported classes.
        known: &'static str,
    },
    /// Too few position embeddings for a single token.
    #[error(
        "config key max_position_embeddings is {entries}: positions begin after pad_token_id, which is {padding}"
    )]
    Positions {
        /// Number of position embeddings.
        entries: usize,
        /// Index before that of the first token.
        padding: usize,
    },
    /// `id2label` does not name every label from 0 on.
    #[error("config key id2label must name every label from 0 on: {reason}")]
    Labels {
        /// What is wrong.
        reason: String,
    },
    /// A key asks for something that is not implemented.
    #[error("config key {key} is {}: only {supported} is supported", Shown(value))]
    NotSupported {
        /// The key.
        key: String,
        /// Its value.
        value: Box<Value>,
        /// Supported values.
        supported: Inert,
    },
    /// Unknown keys, in strict mode.
    #[error("the configuration has keys that nothing reads: {keys}")]
    UnknownKeys {
        /// The keys.
        keys: UnknownKeys,
    },
    /// A key of `generation_config.json` asks for something that is not implemented.
    #[error("generation config key {key} is {value}: supported is {wanted}")]
    Generation {
        /// The key.
        key: &'static str,
        /// Its value.
        value: Value,
        /// Supported values.
        wanted: &'static str,
    },
    /// A value of `generation_config.json` is out of range.
    #[error("generation config key {0}")]
    GenerationNumber(#[source] crate::generate::SamplingError),
    /// An unsupported activation of a cross-encoder's output.
    #[error("config key {key} asks for {value}: Sigmoid and Identity are supported")]
    Relevance {
        /// The key.
        key: &'static str,
        /// The value found.
        value: Value,
    },
    /// A size is zero.
    #[error("config key {key} is 0: it must be at least 1")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// A size exceeds its bound.
    #[error("config key {key} is {value}: at most {limit} are believed")]
    TooMany {
        /// The key.
        key: &'static str,
        /// Its value.
        value: usize,
        /// The bound.
        limit: usize,
    },
    /// The number of heads does not divide the width.
    #[error("{heads} attention heads do not divide a width of {width} evenly")]
    Heads {
        /// Hidden width.
        width: usize,
        /// Number of heads.
        heads: usize,
    },
    /// A token id outside the vocabulary.
    #[error("config key {key} names token id {id}: the vocabulary has {vocab_size} ids")]
    TokenId {
        /// The key.
        key: &'static str,
        /// The id.
        id: u32,
        /// Vocabulary size.
        vocab_size: usize,
    },
    /// Some relative positions have no bucket.
    #[error(
        "config key relative_attention_num_buckets is {n_buckets} and relative_attention_max_distance is \
         {max_distance}: there must be 4 buckets or more, and a distance above half their number"
    )]
    Buckets {
        /// Number of buckets.
        n_buckets: usize,
        /// Distance from which on all positions share a bucket.
        max_distance: usize,
    },
    /// The number of key/value heads does not divide that of query heads.
    #[error(
        "num_attention_heads is {heads}: it must be a multiple of num_key_value_heads, which is {key_heads}"
    )]
    KeyHeads {
        /// Number of query heads.
        heads: usize,
        /// Number of key/value heads.
        key_heads: usize,
    },
    /// RoPE needs an even head width.
    #[error("heads are {width} wide: rotary positions need an even head_dim")]
    OddHead {
        /// Width of a head.
        width: usize,
    },
    /// The length of `layer_types` differs from the number of layers.
    #[error("config key layer_types has {types} entries: it must have one for each of {layers} layers")]
    LayerTypes {
        /// Entries.
        types: usize,
        /// Layers.
        layers: usize,
    },
    /// A sliding-window layer without `sliding_window`.
    #[error(
        "config key layer_types has sliding_attention: set sliding_window to its tokens and use_sliding_window to true"
    )]
    NoWindow,
    /// A value is not positive and finite.
    #[error("config key {key} is {value}: it must be finite and above 0")]
    NotPositive {
        /// The key.
        key: &'static str,
        /// Its value.
        value: f64,
    },
    /// A probability is out of range.
    #[error("config key {key} is {value}: a probability lies in 0..1")]
    Probability {
        /// The key.
        key: &'static str,
        /// Its value.
        value: f64,
    },
}

// `Activation` is a module field; Burn requires `Display`.
impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gelu => "gelu",
            Self::GeluNew => "gelu_new",
            Self::GeluPytorchTanh => "gelu_pytorch_tanh",
            Self::GeluFast => "gelu_fast",
            Self::Silu => "silu",
            Self::Relu => "relu",
        })
    }
}
