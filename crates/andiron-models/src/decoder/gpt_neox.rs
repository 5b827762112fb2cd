//! GPT-NeoX, such as Pythia: parallel attention and feed-forward layers, partial RoPE.
//!
//! Paper: Black et al. 2022, "GPT-NeoX-20B", <https://arxiv.org/abs/2204.06745>. Hugging Face: `GPTNeoXForCausalLM`.
//! Differences: the fused QKV projection is interleaved per head, and RoPE is applied to the first `rotary_pct` of
//! each head's channels only.
//!
//! Not supported: longrope scaling.

use andiron_core::attention::{AttentionConfig, AttentionMask, attend};
use andiron_core::embedding::EmbeddingConfig;
use andiron_core::linear::{LinearConfig, feed_forward};
use andiron_core::norm::LayerNormConfig;
use andiron_core::ops::{self, WeightLayout};
use andiron_core::position::rope_scaling::ScaledRotary;
use andiron_core::position::rotary::Angles;
use andiron_core::role::PackedProjections;
use andiron_core::{DropoutSite, Embedding, Forward, KvCache, LayerNorm, Linear, ParamRole, Weight};
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::catalog::{Architecture, Sizes};
use crate::decoder::DecoderArchitecture;
use crate::decoder::llama_like::defaults;
use crate::decoder::rope::{self, Rope, RopeScalingConfig};
use crate::family::Decoder;
use crate::hf_config::{Activation, ConfigError, Ids, entries, layers, positive_number, probability, width};
use crate::key_rules::KeyRules;
use crate::weights::NameRules;

/// `config.json` of a GPT-NeoX, in Hugging Face's field names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GptNeoxConfig {
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
    /// Share of each head's channels that RoPE is applied to.
    #[serde(default = "quarter")]
    pub rotary_pct: f64,
    /// RoPE base (theta).
    #[serde(default = "rope::default_theta")]
    pub rotary_emb_base: f64,
    /// RoPE scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScalingConfig>,
    /// Dropout on attention probabilities, in training.
    #[serde(default)]
    pub attention_dropout: f64,
    /// Dropout on the embeddings and on the output of each sublayer, in training.
    #[serde(default)]
    pub hidden_dropout: f64,
    /// Longest sequence, in tokens; with `rope_scaling` it may be the training length only.
    pub max_position_embeddings: usize,
    /// Standard deviation of initial weights.
    #[serde(default = "defaults::std")]
    pub initializer_range: f64,
    /// Epsilon of the layer norms.
    #[serde(default = "eps")]
    pub layer_norm_eps: f64,
    /// Whether attention and feed-forward layer read the same input (parallel residual) instead of one after the
    /// other.
    #[serde(default = "yes")]
    pub use_parallel_residual: bool,
    /// Whether the attention projections have biases.
    #[serde(default = "yes")]
    pub attention_bias: bool,
    /// Whether the output head is tied to the token embeddings.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Beginning-of-text token id.
    #[serde(default = "bos")]
    pub bos_token_id: Option<u32>,
    /// End-of-text token ids.
    #[serde(default = "defaults::eos")]
    pub eos_token_id: Ids,
}

fn gelu() -> Activation {
    Activation::Gelu
}

fn quarter() -> f64 {
    0.25
}

fn eps() -> f64 {
    1e-5
}

fn yes() -> bool {
    true
}

fn bos() -> Option<u32> {
    Some(0)
}

const PARAMETERS: &str = "rope_parameters";
const PARTIAL: &str = "partial_rotary_factor";
const THETA: &str = "rope_theta";

impl GptNeoxConfig {
    fn rope(&self) -> Rope<'_> {
        Rope {
            theta: self.rotary_emb_base,
            scaling: self.rope_scaling.as_ref(),
            max_position_embeddings: self.max_position_embeddings,
        }
    }

    /// Number of channels of a head that RoPE is applied to.
    fn n_turned(&self) -> usize {
        ((self.hidden_size / self.num_attention_heads) as f64 * self.rotary_pct) as usize
    }

    fn init_layer(&self, index: usize, seed: Seed, device: &Device) -> Layer {
        let linear = |name: &str, d_input, d_output, bias| {
            let seed = seed.derive(&format!("gpt_neox.layers.{index}.{name}.weight"));
            LinearConfig { d_input, d_output, bias, layout: WeightLayout::OutIn }.init(
                self.initializer_range as f32,
                seed,
                device,
            )
        };
        let (d, d_head) = (self.hidden_size, self.hidden_size / self.num_attention_heads);
        Layer {
            input_layernorm: self.init_norm(device),
            post_attention_layernorm: self.init_norm(device),
            attention: Attention {
                query_key_value: linear("attention.query_key_value", d, 3 * d, self.attention_bias)
                    .with_packed(PackedProjections { count: 3, interleaving: self.num_attention_heads }),
                dense: linear("attention.dense", d, d, self.attention_bias),
                index,
                d_head,
                dropout: self.attention_dropout as f32,
            },
            mlp: Mlp {
                dense_h_to_4h: linear("mlp.dense_h_to_4h", d, self.intermediate_size, true),
                dense_4h_to_h: linear("mlp.dense_4h_to_h", self.intermediate_size, d, true),
                activation: self.hidden_act,
            },
            parallel: self.use_parallel_residual,
            dropout: self.hidden_dropout as f32,
        }
    }

    fn init_norm(&self, device: &Device) -> LayerNorm {
        LayerNormConfig { d_model: self.hidden_size, eps: self.layer_norm_eps }.init(device)
    }
}

impl Architecture for GptNeoxConfig {
    type Model = GptNeox;
    const KEYS: KeyRules = KeyRules {
        aliases: &[],
        inert: &[],
        own: &[],
        defaults: &[
            ("vocab_size", 50_432),
            ("hidden_size", 6144),
            ("num_hidden_layers", 44),
            ("num_attention_heads", 64),
            ("intermediate_size", 24_576),
            ("max_position_embeddings", 2048),
        ],
    };

    fn class_name(&self) -> &'static str {
        "GPTNeoXForCausalLM"
    }

    fn name_rules(&self) -> NameRules {
        NameRules {
            optional_prefix: "gpt_neox.",
            ignored: &["*.attention.bias", "*.attention.masked_bias", "*rotary_emb.inv_freq"],
            renamed: &[("lm_head.weight", "embed_out.weight")],
            tied: &[("embed_out.weight", "gpt_neox.embed_in.weight")],
            ..NameRules::default()
        }
    }

    fn normalise(fields: &mut Map<String, Value>) -> Result<(), ConfigError> {
        // Besides `rope_parameters`, this architecture has its own names for them.
        fields.shift_remove(THETA);
        fields.shift_remove(PARTIAL);
        rope::normalise(fields);
        let share = fields.shift_remove(PARTIAL);
        rope::refuse_other_head_width(fields)?;
        for (key, value) in [("rotary_pct", share), ("rotary_emb_base", fields.shift_remove(THETA))] {
            if let Some(value) = value {
                fields.insert(key.to_owned(), value);
            }
        }
        Ok(())
    }

    fn supplement(&self, fields: &mut Map<String, Value>) {
        rope::supplement(fields);
        if let Some(Value::Object(parameters)) = fields.get_mut(PARAMETERS) {
            parameters.insert(THETA.to_owned(), self.rotary_emb_base.into());
            parameters.insert(PARTIAL.to_owned(), self.rotary_pct.into());
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        entries("vocab_size", self.vocab_size)?;
        width("hidden_size", self.hidden_size)?;
        layers("num_hidden_layers", self.num_hidden_layers)?;
        width("num_attention_heads", self.num_attention_heads)?;
        width("intermediate_size", self.intermediate_size)?;
        positive_number("layer_norm_eps", self.layer_norm_eps)?;
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        if !width.is_multiple_of(heads) {
            return Err(ConfigError::Heads { width, heads });
        }
        positive_number("rotary_pct", self.rotary_pct)?;
        positive_number("1 - rotary_pct plus what rounding takes", 1.0 + 1e-9 - self.rotary_pct)?;
        if !self.n_turned().is_multiple_of(2) || self.n_turned() == 0 {
            return Err(ConfigError::OddHead { width: self.n_turned() });
        }
        probability("attention_dropout", self.attention_dropout)?;
        probability("hidden_dropout", self.hidden_dropout)?;
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

    fn init(&self, seed: Seed, device: &Device) -> GptNeox {
        let table = |name: &str| {
            let config = EmbeddingConfig { n_entries: self.vocab_size, d_model: self.hidden_size };
            config.init(self.initializer_range as f32, seed.derive(name), device)
        };
        GptNeox {
            gpt_neox: Body {
                embed_in: table("gpt_neox.embed_in.weight"),
                layers: (0..self.num_hidden_layers)
                    .map(|index| self.init_layer(index, seed, device))
                    .collect(),
                final_layer_norm: self.init_norm(device),
            },
            embed_out: (!self.tie_word_embeddings)
                .then(|| table("embed_out.weight").with_role(ParamRole::OutputEmbedding)),
            rotary: self.rope().rotary(self.n_turned()),
            max_positions: self.rope().longest(),
            dropout: self.hidden_dropout as f32,
        }
    }
}

impl DecoderArchitecture for GptNeoxConfig {
    fn classifier_class(&self) -> &'static str {
        "GPTNeoXForSequenceClassification"
    }
}

/// A GPT-NeoX with its language-model head.
#[derive(Module, Debug)]
pub struct GptNeox {
    gpt_neox: Body,
    embed_out: Option<Embedding>,
    #[module(skip)]
    rotary: ScaledRotary,
    #[module(skip)]
    max_positions: usize,
    #[module(skip)]
    dropout: f32,
}

#[derive(Module, Debug)]
struct Body {
    embed_in: Embedding,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
struct Layer {
    input_layernorm: LayerNorm,
    post_attention_layernorm: LayerNorm,
    attention: Attention,
    mlp: Mlp,
    #[module(skip)]
    parallel: bool,
    #[module(skip)]
    dropout: f32,
}

#[derive(Module, Debug)]
struct Attention {
    query_key_value: Linear,
    dense: Linear,
    #[module(skip)]
    index: usize,
    #[module(skip)]
    d_head: usize,
    #[module(skip)]
    dropout: f32,
}

#[derive(Module, Debug)]
struct Mlp {
    dense_h_to_4h: Linear,
    dense_4h_to_h: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Decoder for GptNeox {
    fn hidden(&self, ids_bt: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3> {
        let t = ids_bt.dims()[1];
        let angles = self.rotary.angles(t, cx, &ids_bt.device());
        let embedded = self.gpt_neox.embed_in.forward(ids_bt);
        let mut x_btd = cx.dropout(embedded, self.dropout, DropoutSite::Embeddings);
        for (index, layer) in self.gpt_neox.layers.iter().enumerate() {
            cx.enter_layer(index);
            x_btd = cx.block(layer, (x_btd, angles.clone()), |layer, (x_btd, angles), cx| {
                layer.forward(x_btd, &angles, cx)
            });
        }
        cx.advance(t);
        self.gpt_neox.final_layer_norm.forward(x_btd)
    }

    fn head(&self) -> &Weight {
        &self.embed_out.as_ref().unwrap_or(&self.gpt_neox.embed_in).weight
    }

    fn new_cache(&self) -> KvCache {
        KvCache::new(self.gpt_neox.layers.len(), self.max_positions)
    }
}

impl Layer {
    fn forward(&self, x_btd: Tensor<3>, angles: &Angles, cx: &mut Forward<'_>) -> Tensor<3> {
        let attended = self.attention.forward(self.input_layernorm.branch(x_btd.clone()), angles, cx);
        let attended = cx.dropout(attended, self.dropout, DropoutSite::AttentionOutput);
        let sum_btd = ops::residual(x_btd.clone(), attended);
        let read_btd = if self.parallel { x_btd } else { sum_btd.clone() };
        let fed = self.mlp.forward(self.post_attention_layernorm.branch(read_btd));
        ops::residual(sum_btd, cx.dropout(fed, self.dropout, DropoutSite::FeedForwardOutput))
    }
}

impl Attention {
    fn forward(&self, x_btd: Tensor<3>, angles: &Angles, cx: &mut Forward<'_>) -> Tensor<3> {
        let [b, t, d] = x_btd.dims();
        let (h, k) = (d / self.d_head, self.d_head);
        // QKV is interleaved per head.
        let qkv = self.query_key_value.forward(x_btd).reshape([b, t, h, 3 * k]);
        let [q_bthk, k_bthk, v_bthk] =
            [0, 1, 2].map(|part| qkv.clone().slice([0..b, 0..t, 0..h, part * k..(part + 1) * k]));
        let keys_values = cx.keys_values(self.index, angles.turn(k_bthk), v_bthk);
        let config = AttentionConfig {
            dropout: self.dropout,
            ..AttentionConfig::new(1.0 / (k as f32).sqrt(), AttentionMask::CAUSAL)
        };
        let out_bthk = attend(angles.turn(q_bthk), keys_values, config, cx);
        self.dense.forward(out_bthk.reshape([b, t, d]))
    }
}

impl Mlp {
    fn forward(&self, x_btd: Tensor<3>) -> Tensor<3> {
        feed_forward(x_btd, [&self.dense_h_to_4h, &self.dense_4h_to_h], self.activation.function())
    }
}
