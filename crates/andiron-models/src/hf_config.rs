//! `config.json` as Hugging Face writes it: the parts that architectures share, and what can be wrong with it.

mod ids;

use std::fmt;
use std::path::PathBuf;

use andiron_core::ops;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use ids::Ids;

use crate::key_rules::{Inert, UnknownKeys};
use crate::named_fields::Shown;

/// More layers than any model has: a number from a file is not believed beyond it.
const MAX_LAYERS: usize = 1 << 12;
/// A wider vector than any model has; also for the heads of a layer together. With [`MAX_ENTRIES`] and [`MAX_LAYERS`] it
/// keeps every product of sizes below 2^63.
const MAX_WIDTH: usize = 1 << 20;
/// A wider head than any model has: for each two channels there is a rotary frequency before any weight is looked at.
const MAX_HEAD: usize = 1 << 16;
/// More rows than any table has, and more positions than any text: what 32 bits with a sign can count.
const MAX_ENTRIES: usize = i32::MAX as usize;

/// Activation functions by Hugging Face's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// `gelu`: the exact form.
    #[serde(rename = "gelu")]
    Gelu,
    /// `gelu_new` and its aliases: the tanh form.
    #[default]
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    /// `silu`, or `swish`.
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    /// `relu`.
    #[serde(rename = "relu")]
    Relu,
}

impl Activation {
    /// The function itself.
    pub fn function(self) -> ops::Activation {
        match self {
            Self::Gelu => ops::Activation::GeluErf,
            Self::GeluNew => ops::Activation::GeluTanh,
            Self::Silu => ops::Activation::Silu,
            Self::Relu => ops::Activation::Relu,
        }
    }
}

pub(crate) fn positive(key: &'static str, value: usize) -> Result<(), ConfigError> {
    if value == 0 { Err(ConfigError::Zero { key }) } else { Ok(()) }
}

/// Checks a number of layers, for each of which something is allocated before the weights are looked at.
pub(crate) fn layers(key: &'static str, value: usize) -> Result<(), ConfigError> {
    believable(key, value, MAX_LAYERS)
}

/// Checks the width of a vector, or a number of heads.
pub(crate) fn width(key: &'static str, value: usize) -> Result<(), ConfigError> {
    believable(key, value, MAX_WIDTH)
}

/// Checks the width of a head, called `key`, of which a layer has `n_heads`.
pub(crate) fn head_width(key: &'static str, value: usize, n_heads: usize) -> Result<(), ConfigError> {
    believable(key, value, MAX_HEAD.min(MAX_WIDTH / n_heads.max(1)).max(1))
}

/// Checks a number of rows of a table, or of positions.
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

/// Checks that the vocabulary has the id that fills rows up.
pub(crate) fn padding_id(id: Option<u32>, vocab_size: usize) -> Result<(), ConfigError> {
    match id.filter(|&id| id as usize >= vocab_size) {
        Some(id) => Err(ConfigError::TokenId { key: "pad_token_id", id, vocab_size }),
        None => Ok(()),
    }
}

/// The id of a key that may have several, of which only the first is used here.
pub(crate) fn first_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Ok(Ids::deserialize(deserializer)?.as_slice().first().copied())
}

/// Why a configuration does not describe a model that can be built here.
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
    /// The file is not a JSON object of the expected fields.
    #[error("{} is not a valid {what}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// The cause; names the key and the line.
        source: serde_json::Error,
    },
    /// The file describes nothing that can be built.
    #[error("{}: {reason}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is the matter.
        reason: Box<ConfigError>,
    },
    /// The `model_type` is not one that is implemented.
    #[error("model_type {model_type:?} is not supported: this build knows {known}")]
    UnknownArchitecture {
        /// What the configuration says.
        model_type: String,
        /// What is implemented.
        known: String,
    },
    /// `architectures` names a class whose head is not implemented.
    #[error("architectures names {class}: its head is not supported; this build knows {known}")]
    UnknownHead {
        /// The class.
        class: String,
        /// Endings of the classes that are implemented.
        known: &'static str,
    },
    /// The position table has no entry for a token.
    #[error(
        "config key max_position_embeddings is {entries}: positions begin after pad_token_id, which is {padding}"
    )]
    Positions {
        /// Entries of the table.
        entries: usize,
        /// The entry before the first token's.
        padding: usize,
    },
    /// `id2label` does not name the labels from 0 on.
    #[error("config key id2label must name every label from 0 on: {reason}")]
    Labels {
        /// What is wrong.
        reason: String,
    },
    /// A key asks for mathematics that is not implemented.
    #[error("config key {key} is {}: only {supported} is supported", Shown(value))]
    NotSupported {
        /// The key.
        key: String,
        /// Its value.
        value: Box<Value>,
        /// The values that change nothing.
        supported: Inert,
    },
    /// Keys that nothing reads, where somebody is strict about them.
    #[error("the configuration has keys that nothing reads: {keys}")]
    UnknownKeys {
        /// The keys.
        keys: UnknownKeys,
    },
    /// A key of `generation_config.json` changes results in a way that is not implemented.
    #[error("generation config key {key} is {value}: supported is {wanted}")]
    Generation {
        /// The key.
        key: &'static str,
        /// Its value.
        value: Value,
        /// What is supported.
        wanted: &'static str,
    },
    /// A number of `generation_config.json` is out of its range.
    #[error("generation config key {0}")]
    GenerationNumber(#[source] crate::generate::SamplingError),
    /// A cross-encoder's output goes through a function that is not implemented.
    #[error("config key {key} asks for {value}: Sigmoid and Identity are supported")]
    Relevance {
        /// The key.
        key: &'static str,
        /// What it asks for.
        value: Value,
    },
    /// A size is zero.
    #[error("config key {key} is 0: it must be at least 1")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// A number is beyond what any model has.
    #[error("config key {key} is {value}: at most {limit} are believed")]
    TooMany {
        /// The key.
        key: &'static str,
        /// Its value.
        value: usize,
        /// What would be believed.
        limit: usize,
    },
    /// The heads do not divide the width.
    #[error("{heads} attention heads do not divide a width of {width} evenly")]
    Heads {
        /// Hidden width.
        width: usize,
        /// Number of heads.
        heads: usize,
    },
    /// A key names an id that the vocabulary lacks.
    #[error("config key {key} names token id {id}: the vocabulary has {vocab_size} ids")]
    TokenId {
        /// The key.
        key: &'static str,
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// Some distances between positions have no bucket.
    #[error(
        "config key relative_attention_num_buckets is {n_buckets} and relative_attention_max_distance is \
         {max_distance}: there must be 4 buckets or more, and a distance above half their number"
    )]
    Buckets {
        /// Number of buckets.
        n_buckets: usize,
        /// Distance from which on all positions are in one bucket.
        max_distance: usize,
    },
    /// The key heads cannot be shared out.
    #[error(
        "num_attention_heads is {heads}: it must be a multiple of num_key_value_heads, which is {key_heads}"
    )]
    KeyHeads {
        /// Heads of queries.
        heads: usize,
        /// Heads of keys and values.
        key_heads: usize,
    },
    /// Channels of a head cannot be turned in pairs.
    #[error("heads are {width} wide: rotary positions need an even head_dim")]
    OddHead {
        /// Width of a head.
        width: usize,
    },
    /// The types of layers are not those of all layers.
    #[error("config key layer_types has {types} entries: it must have one for each of {layers} layers")]
    LayerTypes {
        /// Entries.
        types: usize,
        /// Layers.
        layers: usize,
    },
    /// A layer with a window, and no window.
    #[error(
        "config key layer_types has sliding_attention: set sliding_window to its tokens and use_sliding_window to true"
    )]
    NoWindow,
    /// A number that must be positive is not.
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

// `Activation` stands in module fields; Burn asks that they can be displayed.
impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gelu => "gelu",
            Self::GeluNew => "gelu_new",
            Self::Silu => "silu",
            Self::Relu => "relu",
        })
    }
}
