//! `config.json` of a BERT.

use andiron_kernels::random::Seed;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::model::Bert;
use crate::catalog::{Architecture, Sizes};
use crate::encoder::EncoderArchitecture;
use crate::encoder::head::{self, Classes, EncoderHead, classes};
use crate::hf_config::{Activation, ConfigError, entries, first_id, layers, padding_id, probability, width};
use crate::key_rules::{Inert, KeyRules};
use crate::param_init::ParamInit;
use crate::weights::{NameRules, StoredTensors};

/// `config.json` of a BERT, in Hugging Face's field names, `head` and `labels` apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertConfig {
    /// Vocabulary size.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Inner width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Activation of the feed-forward layers.
    #[serde(default = "gelu")]
    pub hidden_act: Activation,
    /// Dropout on the embeddings and on the output of each sublayer, in training.
    #[serde(default = "tenth")]
    pub hidden_dropout_prob: f64,
    /// Dropout on attention probabilities, in training.
    #[serde(default = "tenth")]
    pub attention_probs_dropout_prob: f64,
    /// Number of position embeddings.
    #[serde(default = "default_positions")]
    pub max_position_embeddings: usize,
    /// Number of token types.
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    /// Standard deviation of initial weights.
    #[serde(default = "default_std")]
    pub initializer_range: f64,
    /// Epsilon of the layer norms.
    #[serde(default = "default_eps")]
    pub layer_norm_eps: f64,
    /// Padding token id.
    #[serde(default)]
    pub pad_token_id: Option<u32>,
    /// Beginning-of-text token id.
    #[serde(default)]
    pub bos_token_id: Option<u32>,
    /// End-of-text token id.
    #[serde(default, deserialize_with = "first_id")]
    pub eos_token_id: Option<u32>,
    /// Dropout before a classification head, in training; `hidden_dropout_prob` if absent.
    #[serde(default)]
    pub classifier_dropout: Option<f64>,
    /// Whether the masked-LM head is tied to the token embeddings.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Whether a model without a head has a pooler; inferred from the stored tensors where there are any.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub pooler: bool,
    /// The head; `architectures` in the file.
    #[serde(default)]
    pub head: EncoderHead,
    /// Label names; `id2label` in the file.
    #[serde(default)]
    pub labels: Vec<String>,
}

fn gelu() -> Activation {
    Activation::Gelu
}

fn tenth() -> f64 {
    0.1
}

fn default_positions() -> usize {
    512
}

fn two() -> usize {
    2
}

fn default_std() -> f64 {
    0.02
}

fn default_eps() -> f64 {
    1e-12
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

/// Keys without a field in architectures with BERT's configuration.
pub(in crate::encoder) const KEYS: KeyRules = KeyRules {
    aliases: &[],
    inert: &[
        // Pooler settings of the first releases, in multilingual models.
        ("directionality", Inert::Always),
        ("pooler_fc_size", Inert::Always),
        ("pooler_num_attention_heads", Inert::Always),
        ("pooler_num_fc_layers", Inert::Always),
        ("pooler_size_per_head", Inert::Always),
        ("pooler_type", Inert::Always),
        // Read to allow head counts that do not divide the width, which are refused here.
        ("embedding_size", Inert::Always),
        ("is_causal", Inert::Off),
        // A decoder would use causal attention.
        ("is_decoder", Inert::Off),
        ("position_embedding_type", Inert::Texts(&["absolute"])),
    ],
    own: &["head", "labels"],
    defaults: &[
        ("vocab_size", 30_522),
        ("hidden_size", 768),
        ("num_hidden_layers", 12),
        ("num_attention_heads", 12),
        ("intermediate_size", 3072),
    ],
};

impl BertConfig {
    /// 2 blocks of width 128: the smallest of the published sizes.
    ///
    /// Source: Turc et al. 2019, "Well-Read Students Learn Better", <https://arxiv.org/abs/1908.08962>.
    pub fn tiny(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            hidden_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 512,
            hidden_act: gelu(),
            hidden_dropout_prob: tenth(),
            attention_probs_dropout_prob: tenth(),
            max_position_embeddings: default_positions(),
            type_vocab_size: two(),
            initializer_range: default_std(),
            layer_norm_eps: default_eps(),
            pad_token_id: Some(0),
            bos_token_id: None,
            eos_token_id: None,
            classifier_dropout: None,
            tie_word_embeddings: true,
            pooler: true,
            head: EncoderHead::MaskedLm,
            labels: Vec::new(),
        }
    }

    /// The published model of 110 million parameters.
    pub fn base() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            ..Self::tiny(30522)
        }
    }

    pub(in crate::encoder) fn param_init<'a>(&self, seed: Seed, device: &'a Device) -> ParamInit<'a> {
        ParamInit::new(self.initializer_range, self.layer_norm_eps, seed, device)
    }

    /// Drops the pooler if no file has one, as for embedding models.
    pub(in crate::encoder) fn infer_from_checkpoint(&mut self, stored: &StoredTensors<'_, '_>) {
        self.pooler = stored.has_ending("pooler.dense.weight");
    }

    /// Dropout before a classification head.
    pub(in crate::encoder) fn head_dropout(&self) -> f32 {
        self.classifier_dropout.unwrap_or(self.hidden_dropout_prob) as f32
    }

    /// Validates all but the number of positions.
    pub(in crate::encoder) fn validate_sizes(&self) -> Result<(), ConfigError> {
        entries("vocab_size", self.vocab_size)?;
        padding_id(self.pad_token_id, self.vocab_size)?;
        width("hidden_size", self.hidden_size)?;
        layers("num_hidden_layers", self.num_hidden_layers)?;
        width("num_attention_heads", self.num_attention_heads)?;
        width("intermediate_size", self.intermediate_size)?;
        entries("max_position_embeddings", self.max_position_embeddings)?;
        entries("type_vocab_size", self.type_vocab_size)?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(ConfigError::Heads { width: self.hidden_size, heads: self.num_attention_heads });
        }
        probability("hidden_dropout_prob", self.hidden_dropout_prob)?;
        probability("attention_probs_dropout_prob", self.attention_probs_dropout_prob)?;
        probability("classifier_dropout", self.classifier_dropout.unwrap_or(0.0))?;
        head::validate(self.head, &self.labels)
    }
}

const CLASSES: Classes = classes!("Bert");

/// Names of norm weights and biases in old files.
pub(in crate::encoder) const RENAMED: &[(&str, &str)] =
    &[("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")];

impl Architecture for BertConfig {
    type Model = Bert;
    const KEYS: KeyRules = KEYS;

    fn class_name(&self) -> &'static str {
        CLASSES.of(self.head)
    }

    fn name_rules(&self) -> NameRules {
        NameRules {
            optional_prefix: "bert.",
            renamed: RENAMED,
            ignored: match self.head {
                EncoderHead::None => &["*position_ids", "cls.*"],
                EncoderHead::Classify { .. } => &["*position_ids"],
                EncoderHead::MaskedLm => {
                    &["*position_ids", "cls.seq_relationship.*", "bert.pooler.*", "pooler.*"]
                }
                EncoderHead::TokenClassify | EncoderHead::Span => {
                    &["*position_ids", "bert.pooler.*", "pooler.*"]
                }
            },
            tied: match self.head {
                EncoderHead::MaskedLm if self.tie_word_embeddings => &[
                    ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
                    ("cls.predictions.decoder.bias", "cls.predictions.bias"),
                ],
                _ => &[],
            },
            ..NameRules::default()
        }
    }

    fn normalise(fields: &mut Map<String, Value>) -> Result<(), ConfigError> {
        head::read(fields)
    }

    fn supplement(&self, fields: &mut Map<String, Value>) {
        head::write(self.head, &self.labels, fields);
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.validate_sizes()
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            d_model: self.hidden_size,
            max_positions: self.max_position_embeddings,
            bos_token_id: self.bos_token_id,
            eos_token_id: self.eos_token_id,
        }
    }

    fn init(&self, seed: Seed, device: &Device) -> Bert {
        Bert::new(self, seed, device)
    }
}

impl EncoderArchitecture for BertConfig {
    fn head(&self) -> EncoderHead {
        self.head
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }

    fn pad_token_id(&self) -> u32 {
        self.pad_token_id.unwrap_or(0)
    }

    fn n_token_types(&self) -> usize {
        self.type_vocab_size
    }

    fn infer_from_checkpoint(&mut self, stored: &StoredTensors<'_, '_>) {
        self.infer_from_checkpoint(stored);
    }

    fn set_head(&mut self, head: EncoderHead, labels: Vec<String>) {
        (self.head, self.labels) = (head, labels);
    }

    fn load_backbone(model: &mut Bert, other: Bert) {
        model.bert.load_backbone(other.bert);
    }
}
