//! DistilBERT: BERT with half the blocks, without pooler and token types, under other tensor names.
//!
//! Paper: Sanh et al. 2019, "DistilBERT", <https://arxiv.org/abs/1910.01108>. Hugging Face: `DistilBertModel`,
//! `DistilBertForMaskedLM`, `DistilBertForSequenceClassification`, `DistilBertForTokenClassification`,
//! `DistilBertForQuestionAnswering`. Sinusoidal positions are read from the file like learned ones. Token type ids
//! are ignored. Not supported: the multiple-choice head.

use andiron_core::{
    DropoutSite, Embedding, Forward, LayerNorm, Linear, ParamRole, Weight, init, linear, ops,
};
use andiron_kernels::random::Seed;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::EncoderArchitecture;
use super::embed::Pooling;
use super::head::{
    self, Classes, EncoderHead, Head, HeadActivation, HeadNorm, MaskedLmHead, SequenceHead, TokenHead,
    Transform, classes,
};
use super::layers::{LayerSizes, attend_all};
use crate::catalog::{Architecture, Sizes};
use crate::family::Encoder;
use crate::hf_config::{Activation, ConfigError, entries, first_id, layers, padding_id, probability, width};
use crate::key_rules::{Inert, KeyRules};
use crate::param_init::ParamInit;
use crate::weights::NameRules;

/// `config.json` of a DistilBERT, in Hugging Face's field names, `head` and `labels` apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistilBertConfig {
    /// Vocabulary size.
    pub vocab_size: usize,
    /// Longest sequence, in tokens.
    #[serde(default = "default_positions")]
    pub max_position_embeddings: usize,
    /// Whether position embeddings were initialized as sinusoids; they are read from the file.
    #[serde(default)]
    pub sinusoidal_pos_embds: bool,
    /// Number of blocks.
    pub n_layers: usize,
    /// Attention heads; divides `dim`.
    pub n_heads: usize,
    /// Width of the hidden states.
    pub dim: usize,
    /// Inner width of the feed-forward layers.
    pub hidden_dim: usize,
    /// Dropout on the embeddings, the feed-forward layers and before the token-classification head, in training.
    #[serde(default = "tenth")]
    pub dropout: f64,
    /// Dropout on attention probabilities, in training.
    #[serde(default = "tenth")]
    pub attention_dropout: f64,
    /// Activation of the feed-forward layers.
    #[serde(default = "gelu")]
    pub activation: Activation,
    /// Standard deviation of initial weights.
    #[serde(default = "default_std")]
    pub initializer_range: f64,
    /// Dropout before the span (question-answering) head, in training.
    #[serde(default = "tenth")]
    pub qa_dropout: f64,
    /// Dropout before the sequence-classification head, in training.
    #[serde(default = "fifth")]
    pub seq_classif_dropout: f64,
    /// Padding token id.
    #[serde(default)]
    pub pad_token_id: Option<u32>,
    /// Beginning-of-text token id.
    #[serde(default)]
    pub bos_token_id: Option<u32>,
    /// End-of-text token id.
    #[serde(default, deserialize_with = "first_id")]
    pub eos_token_id: Option<u32>,
    /// Whether the masked-LM head is tied to the token embeddings.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// The head; `architectures` in the file.
    #[serde(default)]
    pub head: EncoderHead,
    /// Label names; `id2label` in the file.
    #[serde(default)]
    pub labels: Vec<String>,
}

fn default_positions() -> usize {
    512
}

fn tenth() -> f64 {
    0.1
}

fn fifth() -> f64 {
    0.2
}

fn gelu() -> Activation {
    Activation::Gelu
}

fn default_std() -> f64 {
    0.02
}

fn yes() -> bool {
    true
}

const CLASSES: Classes = classes!("DistilBert");

/// Epsilon of the layer norms; no key sets it.
const EPS: f64 = 1e-12;

impl DistilBertConfig {
    fn init_layer(&self, name: &str, params: &ParamInit<'_>) -> Layer {
        let (d, f) = (self.dim, self.hidden_dim);
        let linear =
            |part: &str, d_input, d_output| params.linear(&format!("{name}.{part}"), d_input, d_output, true);
        Layer {
            attention: Attention {
                q_lin: linear("attention.q_lin", d, d),
                k_lin: linear("attention.k_lin", d, d),
                v_lin: linear("attention.v_lin", d, d),
                out_lin: linear("attention.out_lin", d, d),
            },
            sa_layer_norm: params.layer_norm(d),
            ffn: FeedForward { lin1: linear("ffn.lin1", d, f), lin2: linear("ffn.lin2", f, d) },
            output_layer_norm: params.layer_norm(d),
        }
    }

    /// Dropout before the head.
    fn head_dropout(&self) -> f64 {
        match self.head {
            EncoderHead::Classify { .. } => self.seq_classif_dropout,
            EncoderHead::Span => self.qa_dropout,
            _ => self.dropout,
        }
    }
}

impl Architecture for DistilBertConfig {
    type Model = DistilBert;
    const KEYS: KeyRules = KeyRules {
        aliases: &[
            ("hidden_size", "dim"),
            ("num_attention_heads", "n_heads"),
            ("num_hidden_layers", "n_layers"),
        ],
        inert: &[("is_causal", Inert::Off), ("tie_weights_", Inert::Always)],
        own: &["head", "labels"],
        defaults: &[
            ("vocab_size", 30_522),
            ("n_layers", 6),
            ("n_heads", 12),
            ("dim", 768),
            ("hidden_dim", 3072),
        ],
    };

    fn class_name(&self) -> &'static str {
        CLASSES.of(self.head)
    }

    fn name_rules(&self) -> NameRules {
        NameRules {
            optional_prefix: "distilbert.",
            ignored: match self.head {
                EncoderHead::None => &["*position_ids", "vocab_*"],
                _ => &["*position_ids"],
            },
            tied: match self.head {
                EncoderHead::MaskedLm if self.tie_word_embeddings => {
                    &[("vocab_projector.weight", "distilbert.embeddings.word_embeddings.weight")]
                }
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
        entries("vocab_size", self.vocab_size)?;
        padding_id(self.pad_token_id, self.vocab_size)?;
        entries("max_position_embeddings", self.max_position_embeddings)?;
        layers("n_layers", self.n_layers)?;
        width("n_heads", self.n_heads)?;
        width("dim", self.dim)?;
        width("hidden_dim", self.hidden_dim)?;
        if !self.dim.is_multiple_of(self.n_heads) {
            return Err(ConfigError::Heads { width: self.dim, heads: self.n_heads });
        }
        probability("dropout", self.dropout)?;
        probability("attention_dropout", self.attention_dropout)?;
        probability("qa_dropout", self.qa_dropout)?;
        probability("seq_classif_dropout", self.seq_classif_dropout)?;
        head::validate(self.head, &self.labels)
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            d_model: self.dim,
            max_positions: self.max_position_embeddings,
            bos_token_id: self.bos_token_id,
            eos_token_id: self.eos_token_id,
        }
    }

    fn init(&self, seed: Seed, device: &Device) -> DistilBert {
        let (d, head) = (self.dim, self.head);
        let params = ParamInit::new(self.initializer_range, EPS, seed, device);
        let masked = head == EncoderHead::MaskedLm;
        let table = |name: &str, n| params.table(&format!("distilbert.embeddings.{name}"), n, d);
        let layer = |index| self.init_layer(&format!("distilbert.transformer.layer.{index}"), &params);
        let own_weight =
            || params.table("vocab_projector", self.vocab_size, d).weight.with_role(ParamRole::Head);
        DistilBert {
            distilbert: Body {
                embeddings: Embeddings {
                    word_embeddings: table("word_embeddings", self.vocab_size),
                    position_embeddings: table("position_embeddings", self.max_position_embeddings)
                        .with_role(ParamRole::Table),
                    layer_norm_: params.layer_norm(d),
                },
                transformer: Layers { layer: (0..self.n_layers).map(layer).collect() },
            },
            vocab_transform: masked.then(|| params.linear("vocab_transform", d, d, true)),
            vocab_layer_norm: masked.then(|| params.layer_norm(d)),
            vocab_projector: masked.then(|| Projector {
                weight: (!self.tie_word_embeddings).then(own_weight),
                bias: init::zeros([self.vocab_size], device),
            }),
            pre_classifier: matches!(head, EncoderHead::Classify { .. })
                .then(|| params.linear("pre_classifier", d, d, true)),
            classifier: head.has_labels().then(|| params.linear("classifier", d, self.labels.len(), true)),
            qa_outputs: (head == EncoderHead::Span).then(|| params.linear("qa_outputs", d, 2, true)),
            n_heads: self.n_heads,
            activation: self.activation,
            dropout: self.dropout as f32,
            attention_dropout: self.attention_dropout as f32,
            head_dropout: self.head_dropout() as f32,
        }
    }
}

impl EncoderArchitecture for DistilBertConfig {
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
        0
    }

    fn set_head(&mut self, head: EncoderHead, labels: Vec<String>) {
        (self.head, self.labels) = (head, labels);
    }

    fn load_backbone(model: &mut DistilBert, other: DistilBert) {
        model.distilbert = other.distilbert;
    }
}

/// A DistilBERT with the head of its configuration.
#[derive(Module, Debug)]
pub struct DistilBert {
    distilbert: Body,
    vocab_transform: Option<Linear>,
    vocab_layer_norm: Option<LayerNorm>,
    vocab_projector: Option<Projector>,
    pre_classifier: Option<Linear>,
    classifier: Option<Linear>,
    qa_outputs: Option<Linear>,
    #[module(skip)]
    n_heads: usize,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    dropout: f32,
    #[module(skip)]
    attention_dropout: f32,
    #[module(skip)]
    head_dropout: f32,
}

#[derive(Module, Debug)]
struct Body {
    embeddings: Embeddings,
    transformer: Layers,
}

#[derive(Module, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    layer_norm_: LayerNorm,
}

#[derive(Module, Debug)]
struct Layers {
    layer: Vec<Layer>,
}

#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    sa_layer_norm: LayerNorm,
    ffn: FeedForward,
    output_layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
struct Attention {
    q_lin: Linear,
    k_lin: Linear,
    v_lin: Linear,
    out_lin: Linear,
}

#[derive(Module, Debug)]
struct FeedForward {
    lin1: Linear,
    lin2: Linear,
}

/// Output projection of the masked-LM head; its weight is the token embeddings' if tied.
#[derive(Module, Debug)]
struct Projector {
    weight: Option<Weight>,
    bias: Param<Tensor<1>>,
}

impl Encoder for DistilBert {
    fn hidden(&self, ids_bt: Tensor<2, Int>, _: Option<Tensor<2, Int>>, cx: &mut Forward<'_>) -> Tensor<3> {
        let tables = &self.distilbert.embeddings;
        let positions_btd = tables.position_embeddings.positions(ids_bt.dims()[1], 0, cx);
        let embedded = tables.word_embeddings.forward(ids_bt) + positions_btd;
        let normed_btd = tables.layer_norm_.forward(embedded);
        let mut x_btd = cx.dropout(normed_btd, self.dropout, DropoutSite::Embeddings);
        let sizes = self.layer_sizes();
        for (index, layer) in self.distilbert.transformer.layer.iter().enumerate() {
            cx.enter_layer(index);
            x_btd = cx.block(layer, x_btd, move |layer, x_btd, cx| layer.forward(x_btd, sizes, cx));
        }
        x_btd
    }

    fn head(&self) -> Head<'_> {
        if let (Some(dense), Some(norm), Some(projector)) =
            (&self.vocab_transform, &self.vocab_layer_norm, &self.vocab_projector)
        {
            let activation = HeadActivation::Of(self.activation.function());
            let words = &self.distilbert.embeddings.word_embeddings.weight;
            return Head::MaskedLm(MaskedLmHead {
                transform: Transform { dense, activation, norm: HeadNorm::Layer(norm) },
                weight: projector.weight.as_ref().unwrap_or(words),
                bias: Some(&projector.bias),
            });
        }
        let dropout = self.head_dropout;
        match (&self.classifier, &self.pre_classifier, &self.qa_outputs) {
            (Some(labels), Some(dense), _) => Head::SequenceClassification(SequenceHead {
                pooling: Pooling::Cls,
                pooled_dropout: 0.0,
                transform: Transform {
                    dense,
                    activation: HeadActivation::Of(ops::Activation::Relu),
                    norm: HeadNorm::None,
                },
                dropout,
                labels,
            }),
            (Some(labels), None, _) => {
                Head::TokenClassification(TokenHead { transform: None, dropout, labels })
            }
            (None, _, Some(labels)) => {
                Head::QuestionAnswering(TokenHead { transform: None, dropout, labels })
            }
            (None, _, None) => Head::None,
        }
    }
}

impl DistilBert {
    fn layer_sizes(&self) -> LayerSizes {
        let Self { n_heads, activation, dropout, attention_dropout, .. } = *self;
        LayerSizes { n_heads, activation, dropout, attention_dropout }
    }
}

impl Layer {
    fn forward(&self, x_btd: Tensor<3>, sizes: LayerSizes, cx: &mut Forward<'_>) -> Tensor<3> {
        let projections = &self.attention;
        let maps = [&projections.q_lin, &projections.k_lin, &projections.v_lin];
        let attended = attend_all(x_btd.clone(), maps, sizes, cx);
        let x_btd = self.sa_layer_norm.of_sum(x_btd, projections.out_lin.forward(attended));
        let maps = [&self.ffn.lin1, &self.ffn.lin2];
        let fed = linear::feed_forward(x_btd.clone(), maps, sizes.activation.function());
        let fed = cx.dropout(fed, sizes.dropout, DropoutSite::FeedForwardOutput);
        self.output_layer_norm.of_sum(x_btd, fed)
    }
}
