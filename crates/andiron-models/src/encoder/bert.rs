//! BERT: post-norm blocks, learned positions, and a vector for which of two texts a token belongs to.
//!
//! Paper: Devlin et al. 2018, "BERT", <https://arxiv.org/abs/1810.04805>. Hugging Face: `BertModel`,
//! `BertForMaskedLM`, `BertForSequenceClassification`, `BertForTokenClassification`, `BertForQuestionAnswering`. Texts
//! are classified by a pooled first token. The head for masked tokens has the embedding table as its last map.
//!
//! Files of any age open: without the prefix `bert.`, with `gamma` and `beta` for gains and offsets, with parts of
//! the pretraining's heads that the configuration does not ask for. Not supported: use as a decoder, relative
//! positions, the next-sentence and multiple-choice heads.

use andiron_core::{Embedding, Forward, LayerNorm, Linear, ParamRole, init, linear, ops};
use andiron_kernels::random::Seed;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, activation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::EncoderArchitecture;
use super::head::{self, Classes, EncoderHead, classes};
use super::layers::{attend_all, first, vocabulary_scores};
use crate::catalog::{Architecture, Sizes};
use crate::family::Encoder;
use crate::hf_config::{Activation, ConfigError, entries, first_id, layers, padding_id, probability, width};
use crate::key_rules::{Inert, KeyRules};
use crate::param_init::ParamInit;
use crate::weights::{NameRules, StoredTensors};

/// `config.json` of a BERT, in Hugging Face's field names, `head` and `labels` apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Activation of the feed-forward part.
    #[serde(default = "gelu")]
    pub hidden_act: Activation,
    /// Dropout on the embeddings and on the output of each sublayer, in training.
    #[serde(default = "tenth")]
    pub hidden_dropout_prob: f64,
    /// Dropout on attention probabilities, in training.
    #[serde(default = "tenth")]
    pub attention_probs_dropout_prob: f64,
    /// Entries of the position table.
    #[serde(default = "default_positions")]
    pub max_position_embeddings: usize,
    /// How many texts can be told apart.
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    /// Standard deviation of initial weights.
    #[serde(default = "default_std")]
    pub initializer_range: f64,
    /// Added to variances.
    #[serde(default = "default_eps")]
    pub layer_norm_eps: f64,
    /// Id that fills rows up.
    #[serde(default)]
    pub pad_token_id: Option<u32>,
    /// Id that begins a text.
    #[serde(default)]
    pub bos_token_id: Option<u32>,
    /// Id that ends a text.
    #[serde(default, deserialize_with = "first_id")]
    pub eos_token_id: Option<u32>,
    /// Dropout before a head with labels, in training; `hidden_dropout_prob` if absent.
    #[serde(default)]
    pub classifier_dropout: Option<f64>,
    /// Whether the head for masked tokens ends in the embedding table.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Whether a model without head has a pooler; files decide where there are any.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub pooler: bool,
    /// What stands on top; `architectures` in the file.
    #[serde(default)]
    pub head: EncoderHead,
    /// Names of the labels; `id2label` in the file.
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

/// Keys that no architecture with BERT's fields has fields for.
pub(super) const KEYS: KeyRules = KeyRules {
    aliases: &[],
    inert: &[
        // Of the poolers of the first releases, in their files of many languages.
        ("directionality", Inert::Always),
        ("pooler_fc_size", Inert::Always),
        ("pooler_num_attention_heads", Inert::Always),
        ("pooler_num_fc_layers", Inert::Always),
        ("pooler_size_per_head", Inert::Always),
        ("pooler_type", Inert::Always),
        // Read to allow heads that do not divide the width, which is refused here.
        ("embedding_size", Inert::Always),
        ("is_causal", Inert::Off),
        // A decoder's tokens do not see those after them.
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

    pub(super) fn param_init<'a>(&self, seed: Seed, device: &'a Device) -> ParamInit<'a> {
        ParamInit::new(self.initializer_range, self.layer_norm_eps, seed, device)
    }

    /// Leaves the pooler out if no file has one, as those of embedding models.
    pub(super) fn infer_from_checkpoint(&mut self, stored: &StoredTensors<'_, '_>) {
        self.pooler = stored.has_ending("pooler.dense.weight");
    }

    /// Dropout before a head with labels.
    pub(super) fn head_dropout(&self) -> f32 {
        self.classifier_dropout.unwrap_or(self.hidden_dropout_prob) as f32
    }

    /// The part below the head, with parameters named after `prefix`.
    pub(super) fn init_body(&self, prefix: &str, pooled: bool, seed: Seed, device: &Device) -> Body {
        let (params, d) = (self.param_init(seed, device), self.hidden_size);
        let table = |name: &str, n| params.table(&format!("{prefix}.embeddings.{name}"), n, d);
        Body {
            embeddings: Embeddings {
                word_embeddings: table("word_embeddings", self.vocab_size),
                position_embeddings: table("position_embeddings", self.max_position_embeddings)
                    .with_role(ParamRole::Table),
                token_type_embeddings: table("token_type_embeddings", self.type_vocab_size)
                    .with_role(ParamRole::Table),
                layer_norm_: params.layer_norm(d),
            },
            encoder: Layers {
                layer: (0..self.num_hidden_layers)
                    .map(|index| self.init_layer(&format!("{prefix}.encoder.layer.{index}"), &params))
                    .collect(),
            },
            pooler: pooled
                .then(|| Pooler { dense: params.linear(&format!("{prefix}.pooler.dense"), d, d, true) }),
            n_heads: self.num_attention_heads,
            activation: self.hidden_act,
            dropout: self.hidden_dropout_prob as f32,
            attention_dropout: self.attention_probs_dropout_prob as f32,
        }
    }

    fn init_layer(&self, name: &str, params: &ParamInit<'_>) -> Layer {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        let linear =
            |part: &str, d_input, d_output| params.linear(&format!("{name}.{part}"), d_input, d_output, true);
        Layer {
            attention: Attention {
                self_: Projections {
                    query: linear("attention.self.query", d, d),
                    key: linear("attention.self.key", d, d),
                    value: linear("attention.self.value", d, d),
                },
                output: Output {
                    dense: linear("attention.output.dense", d, d),
                    layer_norm_: params.layer_norm(d),
                },
            },
            intermediate: Intermediate { dense: linear("intermediate.dense", d, f) },
            output: Output { dense: linear("output.dense", f, d), layer_norm_: params.layer_norm(d) },
        }
    }

    /// Everything but the number of positions.
    pub(super) fn validate_sizes(&self) -> Result<(), ConfigError> {
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

/// What old files call gains and offsets.
pub(super) const RENAMED: &[(&str, &str)] =
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
        let (params, d) = (self.param_init(seed, device), self.hidden_size);
        let pooled = match self.head {
            EncoderHead::None => self.pooler,
            head => matches!(head, EncoderHead::Classify { .. }),
        };
        let predictions = || Predictions {
            transform: Output {
                dense: params.linear("cls.predictions.transform.dense", d, d, true),
                layer_norm_: params.layer_norm(d),
            },
            decoder: (!self.tie_word_embeddings).then(|| {
                params.linear("cls.predictions.decoder", d, self.vocab_size, true).with_role(ParamRole::Head)
            }),
            bias: init::zeros([self.vocab_size], device),
        };
        Bert {
            bert: self.init_body("bert", pooled, seed, device),
            cls: (self.head == EncoderHead::MaskedLm).then(|| Cls { predictions: predictions() }),
            classifier: self
                .head
                .has_labels()
                .then(|| params.linear("classifier", d, self.labels.len(), true)),
            qa_outputs: (self.head == EncoderHead::Span).then(|| params.linear("qa_outputs", d, 2, true)),
            dropout: self.head_dropout(),
        }
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

/// A BERT with the head that its configuration names.
#[derive(Module, Debug)]
pub struct Bert {
    bert: Body,
    cls: Option<Cls>,
    classifier: Option<Linear>,
    qa_outputs: Option<Linear>,
    #[module(skip)]
    dropout: f32,
}

#[derive(Module, Debug)]
struct Cls {
    predictions: Predictions,
}

#[derive(Module, Debug)]
struct Predictions {
    transform: Output,
    decoder: Option<Linear>,
    bias: Param<Tensor<1>>,
}

/// Embeddings and blocks; RoBERTa has the same.
#[derive(Module, Debug)]
pub(super) struct Body {
    embeddings: Embeddings,
    encoder: Layers,
    pooler: Option<Pooler>,
    #[module(skip)]
    n_heads: usize,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    dropout: f32,
    #[module(skip)]
    attention_dropout: f32,
}

#[derive(Module, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm_: LayerNorm,
}

#[derive(Module, Debug)]
struct Layers {
    layer: Vec<Layer>,
}

#[derive(Module, Debug)]
struct Pooler {
    dense: Linear,
}

#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    intermediate: Intermediate,
    output: Output,
}

#[derive(Module, Debug)]
struct Attention {
    self_: Projections,
    output: Output,
}

#[derive(Module, Debug)]
struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
}

#[derive(Module, Debug)]
struct Intermediate {
    dense: Linear,
}

#[derive(Module, Debug)]
struct Output {
    dense: Linear,
    layer_norm_: LayerNorm,
}

impl Encoder for Bert {
    fn hidden(
        &self,
        ids_bt: Tensor<2, Int>,
        types_bt: Option<Tensor<2, Int>>,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let positions = self.bert.embeddings.position_embeddings.positions(ids_bt.dims()[1], 0, cx);
        self.bert.forward(ids_bt, types_bt, positions, cx)
    }

    fn masked_lm_logits(&self, hidden_nd: Tensor<2>) -> Tensor<2> {
        let head = &self.cls.as_ref().expect("the model has a head for masked tokens").predictions;
        let inner = ops::activate(head.transform.dense.forward(hidden_nd), self.bert.activation.function());
        let x_nd = head.transform.layer_norm_.forward(inner);
        vocabulary_scores(x_nd, head.decoder.as_ref(), self.bert.words(), &head.bias)
    }

    fn classify(&self, hidden_btd: Tensor<3>, cx: &mut Forward<'_>) -> Tensor<2> {
        let (Some(pooler), Some(classifier)) = (&self.bert.pooler, &self.classifier) else {
            panic!("the model has no head for labels of texts");
        };
        let pooled = activation::tanh(pooler.dense.forward(first(hidden_btd)));
        classifier.forward(cx.dropout(pooled, self.dropout))
    }

    fn label_tokens(&self, hidden_btd: Tensor<3>, cx: &mut Forward<'_>) -> Tensor<3> {
        let head = self.classifier.as_ref().filter(|_| self.bert.pooler.is_none());
        head.expect("the model has a head for labels of tokens").forward(cx.dropout(hidden_btd, self.dropout))
    }

    fn spans(&self, hidden_btd: Tensor<3>, _: &mut Forward<'_>) -> Tensor<3> {
        self.qa_outputs.as_ref().expect("the model has a head for spans").forward(hidden_btd)
    }
}

impl Body {
    /// The table of tokens.
    pub(super) fn words(&self) -> &Embedding {
        &self.embeddings.word_embeddings
    }

    /// The table of positions.
    pub(super) fn places(&self) -> &Embedding {
        &self.embeddings.position_embeddings
    }

    /// Takes the weights of `other`, of which the pooler may be missing.
    pub(super) fn load_backbone(&mut self, other: Self) {
        self.embeddings = other.embeddings;
        self.encoder = other.encoder;
        if let (Some(pooler), Some(theirs)) = (&mut self.pooler, other.pooler) {
            *pooler = theirs;
        }
    }

    /// Hidden states after the last block, given the vectors of the positions.
    pub(super) fn forward(
        &self,
        ids_bt: Tensor<2, Int>,
        types_bt: Option<Tensor<2, Int>>,
        positions_btd: Tensor<3>,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let tables = &self.embeddings;
        let types_btd = match types_bt {
            Some(types_bt) => tables.token_type_embeddings.forward(types_bt),
            None => {
                let table = tables.token_type_embeddings.weight.val();
                let d = table.dims()[1];
                table.slice([0..1, 0..d]).unsqueeze()
            }
        };
        let embedded = tables.word_embeddings.forward(ids_bt) + types_btd + positions_btd;
        let mut x_btd = cx.dropout(tables.layer_norm_.forward(embedded), self.dropout);
        for layer in &self.encoder.layer {
            x_btd = self.layer(layer, x_btd, cx);
        }
        x_btd
    }

    fn layer(&self, layer: &Layer, x_btd: Tensor<3>, cx: &mut Forward<'_>) -> Tensor<3> {
        let projections = &layer.attention.self_;
        let maps = [&projections.query, &projections.key, &projections.value];
        let attended = attend_all(x_btd.clone(), maps, (self.n_heads, self.attention_dropout), cx);
        let output = &layer.attention.output;
        let x_btd = output.close(output.dense.forward(attended), x_btd, self.dropout, cx);
        let maps = [&layer.intermediate.dense, &layer.output.dense];
        let fed_btd = linear::feed_forward(x_btd.clone(), maps, self.activation.function());
        layer.output.close(fed_btd, x_btd, self.dropout, cx)
    }
}

impl Output {
    /// Adds what went around the sublayer to what its last map made, and normalises.
    fn close(&self, made: Tensor<3>, around: Tensor<3>, dropout: f32, cx: &mut Forward<'_>) -> Tensor<3> {
        self.layer_norm_.of_sum(around, cx.dropout(made, dropout))
    }
}
