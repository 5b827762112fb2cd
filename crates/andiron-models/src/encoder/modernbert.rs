//! ModernBERT: pre-norm blocks, RoPE, gated feed-forward layers, and sliding windows in most layers.
//!
//! Paper: Warner et al. 2024, "Smarter, Better, Faster, Longer", <https://arxiv.org/abs/2412.13663>. Hugging Face:
//! `ModernBertModel`, `ModernBertForMaskedLM`, `ModernBertForSequenceClassification`,
//! `ModernBertForTokenClassification`, `ModernBertForQuestionAnswering`. Differences: few biases, no norm before the
//! first attention, and the same dense layer before every head. Token type ids are ignored.
//!
//! Not supported: RoPE scaling and the multiple-choice head.

mod model;

use andiron_core::position::rotary::Rotary;
use andiron_core::{ParamRole, init};
use andiron_kernels::random::Seed;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use model::ModernBert;
pub(crate) use model::Norm;
use model::{Attention, Body, Dropout, Embeddings, Layer, Mlp, PredictionHead, Projector};

use super::EncoderArchitecture;
use super::embed::Pooling;
use super::head::{self, Classes, EncoderHead, classes};
use crate::catalog::{Architecture, Sizes};
use crate::decoder::layer_types::LayerType;
use crate::decoder::rope;
use crate::hf_config::{
    Activation, ConfigError, entries, first_id, layers, padding_id, positive, positive_number, probability,
    width,
};
use crate::key_rules::{Inert, KeyRules};
use crate::param_init::ParamInit;
use crate::weights::NameRules;

/// `config.json` of a ModernBERT, in Hugging Face's field names, `head` and `labels` apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModernBertConfig {
    /// Vocabulary size.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Inner width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Activation of the feed-forward gate.
    #[serde(default = "gelu")]
    pub hidden_activation: Activation,
    /// Longest sequence, in tokens.
    #[serde(default = "default_positions")]
    pub max_position_embeddings: usize,
    /// Standard deviation of initial weights.
    #[serde(default = "default_std")]
    pub initializer_range: f64,
    /// Epsilon of the layer norms.
    #[serde(default = "default_eps")]
    pub norm_eps: f64,
    /// Whether layer norms have biases.
    #[serde(default)]
    pub norm_bias: bool,
    /// Padding token id.
    #[serde(default)]
    pub pad_token_id: Option<u32>,
    /// Beginning-of-text token id.
    #[serde(default)]
    pub bos_token_id: Option<u32>,
    /// End-of-text token id.
    #[serde(default, deserialize_with = "first_id")]
    pub eos_token_id: Option<u32>,
    /// Classification (`[CLS]`) token id.
    #[serde(default)]
    pub cls_token_id: Option<u32>,
    /// Separator (`[SEP]`) token id.
    #[serde(default)]
    pub sep_token_id: Option<u32>,
    /// Whether the attention projections have biases.
    #[serde(default)]
    pub attention_bias: bool,
    /// Dropout on attention probabilities and on the attention output, in training.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Attention type of each layer. If absent, every `global_attn_every_n_layers`-th layer, from the first on, has
    /// full attention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<LayerType>>,
    /// See `layer_types`.
    #[serde(default = "three")]
    pub global_attn_every_n_layers: usize,
    /// RoPE base (theta) of full-attention layers.
    #[serde(default = "default_global_theta")]
    pub global_rope_theta: f64,
    /// RoPE base (theta) of sliding-window layers; `global_rope_theta` if null.
    #[serde(default = "default_local_theta")]
    pub local_rope_theta: Option<f64>,
    /// Attention window in tokens, half on either side.
    #[serde(default = "default_window")]
    pub local_attention: usize,
    /// Dropout on the embeddings, in training.
    #[serde(default)]
    pub embedding_dropout: f64,
    /// Whether the feed-forward projections have biases.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Dropout inside the feed-forward layers, in training.
    #[serde(default)]
    pub mlp_dropout: f64,
    /// Whether the masked-LM head has an output bias.
    #[serde(default = "yes")]
    pub decoder_bias: bool,
    /// Pooling of the sequence-classification head.
    #[serde(default)]
    pub classifier_pooling: ClassifierPooling,
    /// Dropout before a classification head, in training.
    #[serde(default)]
    pub classifier_dropout: f64,
    /// Whether the dense layer before the heads has a bias.
    #[serde(default)]
    pub classifier_bias: bool,
    /// Activation of the dense layer before the heads.
    #[serde(default = "gelu")]
    pub classifier_activation: Activation,
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

/// Pooling of the sequence-classification head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassifierPooling {
    /// The first token.
    #[default]
    Cls,
    /// The mean over all tokens.
    Mean,
}

fn gelu() -> Activation {
    Activation::Gelu
}

fn default_positions() -> usize {
    8192
}

fn default_std() -> f64 {
    0.02
}

fn default_eps() -> f64 {
    1e-5
}

fn three() -> usize {
    3
}

fn default_global_theta() -> f64 {
    160_000.0
}

fn default_local_theta() -> Option<f64> {
    Some(10_000.0)
}

fn default_window() -> usize {
    128
}

fn yes() -> bool {
    true
}

const CLASSES: Classes = classes!("ModernBert");
const PARAMETERS: &str = "rope_parameters";
const HALF_WINDOW: &str = "sliding_window";

impl ModernBertConfig {
    fn types(&self) -> Vec<LayerType> {
        let of_pattern = |layer: usize| match layer.is_multiple_of(self.global_attn_every_n_layers) {
            true => LayerType::Full,
            false => LayerType::Sliding,
        };
        self.layer_types.clone().unwrap_or_else(|| (0..self.num_hidden_layers).map(of_pattern).collect())
    }

    fn init_layer(&self, index: usize, kind: LayerType, params: &ParamInit<'_>) -> Layer {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        let linear = |part: &str, d_input, d_output, bias| {
            params.linear(&format!("model.layers.{index}.{part}"), d_input, d_output, bias)
        };
        Layer {
            attn_norm: (index > 0).then(|| self.init_norm(params.device)),
            attn: Attention {
                w_qkv_: linear("attn.Wqkv", d, 3 * d, self.attention_bias),
                w_o_: linear("attn.Wo", d, d, self.attention_bias),
            },
            mlp_norm: self.init_norm(params.device),
            mlp: Mlp {
                w_i_: linear("mlp.Wi", d, 2 * f, self.mlp_bias),
                w_o_: linear("mlp.Wo", f, d, self.mlp_bias),
            },
            slides: kind == LayerType::Sliding,
        }
    }

    fn init_norm(&self, device: &Device) -> Norm {
        Norm {
            weight: init::ones([self.hidden_size], device),
            bias: self.norm_bias.then(|| init::zeros([self.hidden_size], device)),
            eps: self.norm_eps,
        }
    }
}

impl Architecture for ModernBertConfig {
    type Model = ModernBert;
    const KEYS: KeyRules = KeyRules {
        aliases: &[],
        inert: &[
            ("deterministic_flash_attn", Inert::Always),
            ("initializer_cutoff_factor", Inert::Always),
            ("is_causal", Inert::Off),
            ("position_embedding_type", Inert::Always),
            ("reference_compile", Inert::Always),
            ("repad_logits_with_grad", Inert::Always),
            ("rope_scaling", Inert::Off),
            // Loss settings.
            ("sparse_pred_ignore_index", Inert::Always),
            ("sparse_prediction", Inert::Always),
        ],
        own: &["head", "labels"],
        defaults: &[
            ("vocab_size", 50_368),
            ("hidden_size", 768),
            ("intermediate_size", 1152),
            ("num_hidden_layers", 22),
            ("num_attention_heads", 12),
        ],
    };

    fn class_name(&self) -> &'static str {
        CLASSES.of(self.head)
    }

    fn name_rules(&self) -> NameRules {
        NameRules {
            optional_prefix: "model.",
            ignored: match self.head {
                EncoderHead::None => &["*rotary_emb.inv_freq", "head.*", "decoder.*"],
                _ => &["*rotary_emb.inv_freq"],
            },
            tied: match self.head {
                EncoderHead::MaskedLm if self.tie_word_embeddings => {
                    &[("decoder.weight", "model.embeddings.tok_embeddings.weight")]
                }
                _ => &[],
            },
            ..NameRules::default()
        }
    }

    fn normalise(fields: &mut Map<String, Value>) -> Result<(), ConfigError> {
        if let Some(Value::Object(kinds)) = fields.shift_remove(PARAMETERS) {
            for (kind, value) in kinds {
                let key = match kind.as_str() {
                    "full_attention" => "global_rope_theta",
                    "sliding_attention" => "local_rope_theta",
                    _ => "",
                };
                let name = format!("{PARAMETERS}.{kind}");
                match value {
                    Value::Null => {}
                    Value::Object(parameters) if !key.is_empty() => {
                        if let Some(theta) = rope::plain_theta(&name, parameters, fields)? {
                            fields.insert(key.to_owned(), theta);
                        }
                    }
                    other => drop(fields.insert(name, other)),
                }
            }
        }
        // Half the window, under the name that other architectures use for a whole one.
        if let Some(half) = fields.get(HALF_WINDOW).and_then(Value::as_u64) {
            fields.shift_remove(HALF_WINDOW);
            fields.insert("local_attention".to_owned(), half.saturating_mul(2).into());
        }
        rope::refuse_other_head_width(fields)?;
        head::read(fields)
    }

    fn supplement(&self, fields: &mut Map<String, Value>) {
        let local = self.local_rope_theta.unwrap_or(self.global_rope_theta);
        let parameters = |theta: f64| json!({ "rope_type": "default", "rope_theta": theta });
        fields.insert(
            PARAMETERS.to_owned(),
            json!({
                "full_attention": parameters(self.global_rope_theta),
                "sliding_attention": parameters(local),
            }),
        );
        fields.insert("layer_types".to_owned(), json!(self.types()));
        head::write(self.head, &self.labels, fields);
    }

    fn validate(&self) -> Result<(), ConfigError> {
        entries("vocab_size", self.vocab_size)?;
        padding_id(self.pad_token_id, self.vocab_size)?;
        width("hidden_size", self.hidden_size)?;
        width("intermediate_size", self.intermediate_size)?;
        layers("num_hidden_layers", self.num_hidden_layers)?;
        width("num_attention_heads", self.num_attention_heads)?;
        entries("max_position_embeddings", self.max_position_embeddings)?;
        positive("global_attn_every_n_layers", self.global_attn_every_n_layers)?;
        entries("local_attention", self.local_attention)?;
        positive_number("norm_eps", self.norm_eps)?;
        positive_number("global_rope_theta", self.global_rope_theta)?;
        positive_number("local_rope_theta", self.local_rope_theta.unwrap_or(1.0))?;
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        if !width.is_multiple_of(heads) {
            return Err(ConfigError::Heads { width, heads });
        }
        if !(width / heads).is_multiple_of(2) {
            return Err(ConfigError::OddHead { width: width / heads });
        }
        let types = self.types().len();
        if types != self.num_hidden_layers {
            return Err(ConfigError::LayerTypes { types, layers: self.num_hidden_layers });
        }
        probability("attention_dropout", self.attention_dropout)?;
        probability("embedding_dropout", self.embedding_dropout)?;
        probability("mlp_dropout", self.mlp_dropout)?;
        probability("classifier_dropout", self.classifier_dropout)?;
        head::validate(self.head, &self.labels)
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

    fn init(&self, seed: Seed, device: &Device) -> ModernBert {
        let (d, head) = (self.hidden_size, self.head);
        let params = ParamInit::new(self.initializer_range, self.norm_eps, seed, device);
        let kinds = self.types();
        let d_head = d / self.num_attention_heads;
        let outputs = match head {
            EncoderHead::Span => Some(2),
            head => head.has_labels().then_some(self.labels.len()),
        };
        ModernBert {
            model: Body {
                embeddings: Embeddings {
                    tok_embeddings: params.table("model.embeddings.tok_embeddings", self.vocab_size, d),
                    norm: self.init_norm(device),
                },
                layers: kinds
                    .into_iter()
                    .enumerate()
                    .map(|(index, kind)| self.init_layer(index, kind, &params))
                    .collect(),
                final_norm: self.init_norm(device),
            },
            head: (head != EncoderHead::None).then(|| PredictionHead {
                dense: params.linear("head.dense", d, d, self.classifier_bias),
                norm: self.init_norm(device),
                activation: self.classifier_activation,
            }),
            decoder: (head == EncoderHead::MaskedLm).then(|| Projector {
                weight: (!self.tie_word_embeddings)
                    .then(|| params.table("decoder", self.vocab_size, d).weight.with_role(ParamRole::Head)),
                bias: self.decoder_bias.then(|| init::zeros([self.vocab_size], device)),
            }),
            classifier: outputs.map(|n| params.linear("classifier", d, n, true)),
            rotary: Rotary::new(self.global_rope_theta, d_head),
            local_rotary: Rotary::new(self.local_rope_theta.unwrap_or(self.global_rope_theta), d_head),
            n_heads: self.num_attention_heads,
            sliding_window: self.local_attention / 2 + 1,
            activation: self.hidden_activation,
            pooling: match self.classifier_pooling {
                ClassifierPooling::Cls => Pooling::Cls,
                ClassifierPooling::Mean => Pooling::Mean,
            },
            dropout: Dropout {
                embedding: self.embedding_dropout as f32,
                attention: self.attention_dropout as f32,
                mlp: self.mlp_dropout as f32,
                classifier: self.classifier_dropout as f32,
            },
            task: head,
        }
    }
}

impl EncoderArchitecture for ModernBertConfig {
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

    fn load_backbone(model: &mut ModernBert, other: ModernBert) {
        model.model = other.model;
        // Every head has this dense layer, so it is kept if present.
        if model.head.is_some() && other.head.is_some() {
            model.head = other.head;
        }
    }
}
