//! Gemma 3, text only: norms before and after each sublayer, and sliding windows in most layers, with their own RoPE
//! base.
//!
//! Report: Gemma Team 2025, "Gemma 3", <https://arxiv.org/abs/2503.19786>. Hugging Face: `Gemma3ForCausalLM`.
//! Differences: embeddings are multiplied by the square root of their width, attention scores divided by the square
//! root of `query_pre_attn_scalar`, norm weights are stored as offsets from 1, and the RoPE base is
//! `rope_local_base_freq` in sliding-window layers and `rope_theta` in the others.
//!
//! Not supported: images, logit soft-capping, bidirectional attention, and RoPE scaling in sliding-window layers.

use andiron_core::ops;
use andiron_core::position::rope_scaling::ScaledRotary;
use andiron_core::position::rotary::Angles;
use andiron_core::{Embedding, Forward, KvCache, ParamRole, RmsNorm, Weight};
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::catalog::{Architecture, Sizes};
use crate::decoder::DecoderArchitecture;
use crate::decoder::layer_types::{LayerType, Windows};
use crate::decoder::llama_like::{Attention, AttentionSizes, Mlp, MlpSizes, NAMES, Shape, defaults};
use crate::decoder::rope::{self, Rope, RopeScalingConfig};
use crate::family::Decoder;
use crate::hf_config::{Activation, ConfigError, Ids, positive, positive_number};
use crate::key_rules::{Inert, KeyRules};
use crate::param_init::ParamInit;
use crate::weights::NameRules;

/// `config.json` of a Gemma 3, in Hugging Face's field names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gemma3Config {
    /// Vocabulary size.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Inner width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key/value heads; divides the number of query heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    #[serde(default = "default_width")]
    pub head_dim: usize,
    /// Activation of the feed-forward gate.
    #[serde(default = "default_activation")]
    pub hidden_activation: Activation,
    /// Longest sequence, in tokens.
    #[serde(default = "default_positions")]
    pub max_position_embeddings: usize,
    /// Standard deviation of initial weights.
    #[serde(default = "defaults::std")]
    pub initializer_range: f64,
    /// Epsilon of the RMS norms.
    #[serde(default = "defaults::eps")]
    pub rms_norm_eps: f64,
    /// RoPE base (theta) of full-attention layers.
    #[serde(default = "default_theta")]
    pub rope_theta: f64,
    /// RoPE scaling of full-attention layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScalingConfig>,
    /// RoPE base (theta) of sliding-window layers.
    #[serde(default = "rope::default_theta")]
    pub rope_local_base_freq: f64,
    /// Attention scores are divided by the square root of this.
    #[serde(default = "default_scalar")]
    pub query_pre_attn_scalar: usize,
    /// Sliding window, in tokens.
    #[serde(default = "default_window")]
    pub sliding_window: Option<usize>,
    /// Attention type of each layer. If absent, every `sliding_window_pattern`-th layer has full attention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<LayerType>>,
    /// See `layer_types`.
    #[serde(default = "default_pattern")]
    pub sliding_window_pattern: usize,
    /// Whether the attention projections have biases.
    #[serde(default)]
    pub attention_bias: bool,
    /// Dropout on attention probabilities, in training.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Whether the output head is tied to the token embeddings.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Beginning-of-text token id.
    #[serde(default = "bos")]
    pub bos_token_id: Option<u32>,
    /// End-of-text token ids.
    #[serde(default = "eos")]
    pub eos_token_id: Ids,
}

fn default_width() -> usize {
    256
}

fn default_activation() -> Activation {
    Activation::GeluPytorchTanh
}

fn default_positions() -> usize {
    131_072
}

fn default_theta() -> f64 {
    1_000_000.0
}

fn default_scalar() -> usize {
    256
}

fn default_window() -> Option<usize> {
    Some(4096)
}

fn default_pattern() -> usize {
    6
}

fn yes() -> bool {
    true
}

fn bos() -> Option<u32> {
    Some(2)
}

fn eos() -> Ids {
    Ids::One(1)
}

const PARAMETERS: &str = "rope_parameters";
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";
const PATTERN: &str = "sliding_window_pattern";
/// Name of [`PATTERN`] in files that the class writes.
const OLD_PATTERN: &str = "_sliding_window_pattern";

impl Gemma3Config {
    fn shape(&self) -> Shape {
        Shape {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: Some(self.head_dim),
            rms_norm_eps: self.rms_norm_eps,
            attention_dropout: self.attention_dropout,
        }
    }

    fn rope(&self) -> Rope<'_> {
        Rope {
            theta: self.rope_theta,
            scaling: self.rope_scaling.as_ref(),
            max_position_embeddings: self.max_position_embeddings,
        }
    }

    fn types(&self) -> Vec<LayerType> {
        let of_pattern = |layer: usize| match (layer + 1).is_multiple_of(self.sliding_window_pattern) {
            true => LayerType::Full,
            false => LayerType::Sliding,
        };
        self.layer_types.clone().unwrap_or_else(|| (0..self.num_hidden_layers).map(of_pattern).collect())
    }

    /// Sliding window of each layer, in tokens, the query's own included; `None` is full attention.
    fn sliding_windows(&self) -> Result<Vec<Option<usize>>, ConfigError> {
        let types = self.types();
        let windows = Windows {
            n_layers: self.num_hidden_layers,
            window: self.sliding_window,
            types: Some(&types),
            n_full: 0,
        };
        windows.check().map(|()| windows.by_layer())
    }
}

impl Architecture for Gemma3Config {
    type Model = Gemma3;
    const KEYS: KeyRules = KeyRules {
        aliases: &[],
        inert: &[
            ("attn_logit_softcapping", Inert::Off),
            ("final_logit_softcapping", Inert::Off),
            ("use_bidirectional_attention", Inert::Off),
        ],
        own: &[],
        defaults: &[
            ("vocab_size", 262_208),
            ("hidden_size", 2304),
            ("intermediate_size", 9216),
            ("num_hidden_layers", 26),
            ("num_attention_heads", 8),
            ("num_key_value_heads", 4),
        ],
    };

    fn class_name(&self) -> &'static str {
        "Gemma3ForCausalLM"
    }

    fn name_rules(&self) -> NameRules {
        NAMES
    }

    fn normalise(fields: &mut Map<String, Value>) -> Result<(), ConfigError> {
        // Ignored if `layer_types` is present; the class does not read it.
        fields.shift_remove(OLD_PATTERN);
        if let Some(Value::Object(mut kinds)) = fields.shift_remove(PARAMETERS) {
            if let Some(Value::Object(local)) = kinds.shift_remove(SLIDING) {
                let name = format!("{PARAMETERS}.{SLIDING}");
                if let Some(theta) = rope::plain_theta(&name, local, fields)? {
                    fields.insert("rope_local_base_freq".to_owned(), theta);
                }
            }
            let all = kinds.shift_remove(FULL).unwrap_or_else(|| kinds.into());
            fields.insert(PARAMETERS.to_owned(), all);
        }
        rope::normalise(fields);
        Ok(())
    }

    fn supplement(&self, fields: &mut Map<String, Value>) {
        rope::supplement(fields);
        let all = fields.shift_remove(PARAMETERS).unwrap_or_default();
        let local = json!({ "rope_type": "default", "rope_theta": self.rope_local_base_freq });
        fields.insert(PARAMETERS.to_owned(), json!({ FULL: all, SLIDING: local }));
        fields.insert("layer_types".to_owned(), json!(self.types()));
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.shape().check()?;
        positive(PATTERN, self.sliding_window_pattern)?;
        self.sliding_windows()?;
        positive("query_pre_attn_scalar", self.query_pre_attn_scalar)?;
        positive_number("rope_local_base_freq", self.rope_local_base_freq)?;
        self.rope().check()
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            d_model: self.hidden_size,
            max_positions: self.rope().longest(),
            bos_token_id: self.bos_token_id,
            eos_token_id: self.eos_token_id.as_slice().first().copied(),
        }
    }

    fn end_ids(&self) -> Ids {
        self.eos_token_id.clone()
    }

    fn init(&self, seed: Seed, device: &Device) -> Gemma3 {
        let d_model = self.hidden_size;
        let params = ParamInit {
            unit_offset: true,
            ..ParamInit::new(self.initializer_range, self.rms_norm_eps, seed, device)
        };
        let attention = AttentionSizes {
            qkv_bias: self.attention_bias,
            out_bias: self.attention_bias,
            qk_norm: true,
            scale: 1.0 / (self.query_pre_attn_scalar as f32).sqrt(),
            dropout: self.attention_dropout,
            ..AttentionSizes::new(self.num_attention_heads, self.num_key_value_heads, self.head_dim)
        };
        let mlp = MlpSizes {
            d_model,
            d_hidden: self.intermediate_size,
            bias: false,
            activation: self.hidden_activation,
        };
        // Checked: see `validate`.
        let sliding_windows = self.sliding_windows().unwrap_or_default();
        let layer = |(index, sliding_window): (usize, Option<usize>)| {
            let name = format!("model.layers.{index}");
            Layer {
                self_attn: attention.init(
                    &format!("{name}.self_attn"),
                    d_model,
                    (index, sliding_window),
                    params,
                ),
                mlp: mlp.init(&format!("{name}.mlp"), params),
                input_layernorm: params.rms_norm(d_model),
                post_attention_layernorm: params.rms_norm(d_model),
                pre_feedforward_layernorm: params.rms_norm(d_model),
                post_feedforward_layernorm: params.rms_norm(d_model),
                slides: sliding_window.is_some(),
            }
        };
        Gemma3 {
            model: Body {
                embed_tokens: params.table("model.embed_tokens", self.vocab_size, d_model),
                layers: sliding_windows.into_iter().enumerate().map(layer).collect(),
                norm: params.rms_norm(d_model),
            },
            lm_head: (!self.tie_word_embeddings)
                .then(|| params.table("lm_head", self.vocab_size, d_model).with_role(ParamRole::Head)),
            rotary: self.rope().rotary(self.head_dim),
            local_rotary: ScaledRotary::new(self.rope_local_base_freq, self.head_dim, None),
            max_positions: self.rope().longest(),
            embedding_scale: (d_model as f32).sqrt(),
        }
    }
}

impl DecoderArchitecture for Gemma3Config {
    fn classifier_class(&self) -> &'static str {
        "Gemma3TextForSequenceClassification"
    }
}

/// A Gemma 3 with its language-model head.
#[derive(Module, Debug)]
pub struct Gemma3 {
    model: Body,
    lm_head: Option<Embedding>,
    #[module(skip)]
    rotary: ScaledRotary,
    #[module(skip)]
    local_rotary: ScaledRotary,
    #[module(skip)]
    max_positions: usize,
    #[module(skip)]
    embedding_scale: f32,
}

#[derive(Module, Debug)]
struct Body {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
}

#[derive(Module, Debug)]
struct Layer {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    post_feedforward_layernorm: RmsNorm,
    #[module(skip)]
    slides: bool,
}

impl Decoder for Gemma3 {
    fn hidden(&self, ids_bt: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3> {
        let t = ids_bt.dims()[1];
        let device = ids_bt.device();
        let angles = self.rotary.angles(t, cx, &device);
        let local_angles = self.local_rotary.angles(t, cx, &device);
        let mut x_btd = self.model.embed_tokens.forward(ids_bt) * self.embedding_scale;
        for (index, layer) in self.model.layers.iter().enumerate() {
            cx.enter_layer(index);
            let angles = if layer.slides { &local_angles } else { &angles };
            x_btd = cx.block(layer, (x_btd, angles.clone()), |layer, (x_btd, angles), cx| {
                layer.forward(x_btd, &angles, cx)
            });
        }
        cx.advance(t);
        self.model.norm.forward(x_btd)
    }

    fn head(&self) -> &Weight {
        &self.lm_head.as_ref().unwrap_or(&self.model.embed_tokens).weight
    }

    fn new_cache(&self) -> KvCache {
        KvCache::new(self.model.layers.len(), self.max_positions)
    }
}

impl Layer {
    fn forward(&self, x_btd: Tensor<3>, angles: &Angles, cx: &mut Forward<'_>) -> Tensor<3> {
        let attended_btd = self.self_attn.forward(self.input_layernorm.branch(x_btd.clone()), angles, cx);
        let attended_btd = self.post_attention_layernorm.forward(attended_btd);
        let (x_btd, normed_btd) = self.pre_feedforward_layernorm.between_branches(x_btd, attended_btd);
        let fed_btd = self.mlp.forward(normed_btd);
        ops::residual(x_btd, self.post_feedforward_layernorm.forward(fed_btd))
    }
}
