//! The decoder that Llama, Mistral and Qwen share: RMS norms before each part, rotary positions, key heads that groups
//! of query heads share, and a gated feed-forward part.

use andiron_core::attention::{AttentionConfig, AttentionMask, attend};
use andiron_core::embedding::EmbeddingConfig;
use andiron_core::linear::{LinearConfig, gated_feed_forward};
use andiron_core::norm::RmsNormConfig;
use andiron_core::ops::{self, WeightLayout};
use andiron_core::position::rope_scaling::ScaledRotary;
use andiron_core::position::rotary::Angles;
use andiron_core::{Embedding, Forward, KvCache, Linear, ParamRole, RmsNorm, Weight};
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use crate::family::Decoder;
use crate::hf_config::{
    Activation, ConfigError, entries, head_width, layers, positive_number, probability, width,
};
use crate::weights::NameRules;

/// How names in files may differ from those of a [`Gated`].
pub(super) const NAMES: NameRules = NameRules {
    optional_prefix: "model.",
    ignored: &["*rotary_emb.inv_freq"],
    renamed: &[],
    tied: &[("lm_head.weight", "model.embed_tokens.weight")],
    optional: &[],
};

/// What `config.json` means by the keys that it leaves out.
pub(super) mod defaults {
    use crate::hf_config::Activation;
    use crate::hf_config::Ids;

    pub(in crate::decoder) fn silu() -> Activation {
        Activation::Silu
    }

    pub(in crate::decoder) fn std() -> f64 {
        0.02
    }

    pub(in crate::decoder) fn eps() -> f64 {
        1e-6
    }

    pub(in crate::decoder) fn bos() -> Option<u32> {
        Some(1)
    }

    pub(in crate::decoder) fn eos() -> Ids {
        Ids::One(2)
    }
}

/// Everything that tells one of these models from another.
#[derive(Clone, Debug)]
pub(super) struct GatedSizes {
    pub(super) vocab_size: usize,
    /// Longest text, in tokens.
    pub(super) max_positions: usize,
    pub(super) d_model: usize,
    /// Width inside the feed-forward part.
    pub(super) d_hidden: usize,
    pub(super) attention: AttentionSizes,
    /// How many positions back each layer sees, none being all.
    pub(super) reaches: Vec<Option<usize>>,
    pub(super) rotary: ScaledRotary,
    pub(super) activation: Activation,
    /// Whether the maps of the feed-forward part have biases.
    pub(super) mlp_bias: bool,
    /// Whether the output head is the embedding table.
    pub(super) tied: bool,
    /// Added to mean squares.
    pub(super) eps: f64,
    /// Standard deviation of initial weights.
    pub(super) std: f64,
}

/// What tells one [`Attention`] from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionSizes {
    pub(super) n_heads: usize,
    pub(super) n_key_heads: usize,
    pub(super) d_head: usize,
    /// Whether queries, keys and values have biases.
    pub(super) qkv_bias: bool,
    /// Whether the output has one.
    pub(super) out_bias: bool,
    /// Whether each head's queries and keys are normalised before they are turned.
    pub(super) normed: bool,
    /// Multiplies the scores.
    pub(super) scale: f32,
    /// Dropout on attention probabilities, in training.
    pub(super) dropout: f64,
}

impl AttentionSizes {
    /// Without biases, norms and dropout, scores divided by the root of the head width.
    pub(super) fn new(n_heads: usize, n_key_heads: usize, d_head: usize) -> Self {
        let scale = 1.0 / (d_head as f32).sqrt();
        Self {
            n_heads,
            n_key_heads,
            d_head,
            qkv_bias: false,
            out_bias: false,
            normed: false,
            scale,
            dropout: 0.0,
        }
    }
}

/// What tells one [`Mlp`] from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct MlpSizes {
    pub(super) d_model: usize,
    /// Width inside.
    pub(super) d_hidden: usize,
    pub(super) bias: bool,
    pub(super) activation: Activation,
}

/// The sizes as a configuration has them, to be checked before they are used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) num_key_value_heads: usize,
    pub(super) head_dim: Option<usize>,
    pub(super) rms_norm_eps: f64,
    pub(super) attention_dropout: f64,
}

impl Shape {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        entries("vocab_size", self.vocab_size)?;
        width("hidden_size", self.hidden_size)?;
        width("intermediate_size", self.intermediate_size)?;
        layers("num_hidden_layers", self.num_hidden_layers)?;
        width("num_attention_heads", self.num_attention_heads)?;
        width("num_key_value_heads", self.num_key_value_heads)?;
        let (heads, key_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(key_heads) {
            return Err(ConfigError::KeyHeads { heads, key_heads });
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(heads) {
            return Err(ConfigError::Heads { width: self.hidden_size, heads });
        }
        let d_head = self.d_head();
        head_width("head_dim", d_head, heads)?;
        if !d_head.is_multiple_of(2) {
            return Err(ConfigError::OddHead { width: d_head });
        }
        positive_number("rms_norm_eps", self.rms_norm_eps)?;
        probability("attention_dropout", self.attention_dropout)
    }

    /// Width of a head; where it is not said, the heads share out the width of the model.
    pub(super) fn d_head(&self) -> usize {
        self.head_dim.unwrap_or_else(|| self.hidden_size / self.num_attention_heads)
    }
}

/// Makes parameters, each drawn from a stream of its own name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh<'a> {
    pub(super) std: f32,
    pub(super) eps: f64,
    /// Whether gains of norms are counted from 1.
    pub(super) unit_offset: bool,
    pub(super) seed: Seed,
    pub(super) device: &'a Device,
}

impl Fresh<'_> {
    pub(super) fn linear(&self, name: &str, d_input: usize, d_output: usize, bias: bool) -> Linear {
        let seed = self.seed.derive(&format!("{name}.weight"));
        let config = LinearConfig { d_input, d_output, bias, layout: WeightLayout::OutIn };
        config.init(self.std, seed, self.device)
    }

    pub(super) fn table(&self, name: &str, n_entries: usize, d_model: usize) -> Embedding {
        let seed = self.seed.derive(&format!("{name}.weight"));
        EmbeddingConfig { n_entries, d_model }.init(self.std, seed, self.device)
    }

    pub(super) fn norm(&self, d_model: usize) -> RmsNorm {
        RmsNormConfig { d_model, eps: self.eps, unit_offset: self.unit_offset }.init(self.device)
    }
}

impl GatedSizes {
    pub(super) fn init(&self, seed: Seed, device: &Device) -> Gated {
        let fresh = Fresh { std: self.std as f32, eps: self.eps, unit_offset: false, seed, device };
        let mlp = MlpSizes {
            d_model: self.d_model,
            d_hidden: self.d_hidden,
            bias: self.mlp_bias,
            activation: self.activation,
        };
        let layer = |(index, &reach): (usize, &Option<usize>)| {
            let name = format!("model.layers.{index}");
            let norms = [0, 1].map(|_| fresh.norm(self.d_model));
            let [input_layernorm, post_attention_layernorm] = norms;
            Layer {
                self_attn: self.attention.init(
                    &format!("{name}.self_attn"),
                    self.d_model,
                    (index, reach),
                    fresh,
                ),
                mlp: mlp.init(&format!("{name}.mlp"), fresh),
                input_layernorm,
                post_attention_layernorm,
            }
        };
        Gated {
            model: Body {
                embed_tokens: fresh.table("model.embed_tokens", self.vocab_size, self.d_model),
                layers: self.reaches.iter().enumerate().map(layer).collect(),
                norm: fresh.norm(self.d_model),
            },
            lm_head: (!self.tied)
                .then(|| fresh.table("lm_head", self.vocab_size, self.d_model).with_role(ParamRole::Head)),
            rotary: self.rotary.clone(),
            max_positions: self.max_positions,
        }
    }
}

/// A decoder of gated blocks with its language-model head.
#[derive(Module, Debug)]
pub struct Gated {
    model: Body,
    lm_head: Option<Embedding>,
    #[module(skip)]
    rotary: ScaledRotary,
    #[module(skip)]
    max_positions: usize,
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
}

impl Decoder for Gated {
    fn hidden(&self, ids_bt: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3> {
        let t = ids_bt.dims()[1];
        let angles = self.rotary.angles(t, cx, &ids_bt.device());
        let mut x_btd = self.model.embed_tokens.forward(ids_bt);
        for layer in &self.model.layers {
            x_btd = layer.forward(x_btd, &angles, cx);
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
        let normed_btd = self.input_layernorm.branch(x_btd.clone());
        let attended_btd = self.self_attn.forward(normed_btd, angles, cx);
        let (x_btd, normed_btd) = self.post_attention_layernorm.between_branches(x_btd, attended_btd);
        ops::residual(x_btd, self.mlp.forward(normed_btd))
    }
}

/// Causal attention with rotary positions, groups of query heads sharing a key head.
///
/// Source: Ainslie et al. 2023, "GQA", <https://arxiv.org/abs/2305.13245>.
#[derive(Module, Debug)]
pub(super) struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    #[module(skip)]
    index: usize,
    #[module(skip)]
    d_head: usize,
    #[module(skip)]
    reach: Option<usize>,
    #[module(skip)]
    scale: f32,
    #[module(skip)]
    dropout: f32,
}

impl AttentionSizes {
    /// The attention of layer `index`, which sees `reach` positions back.
    pub(super) fn init(
        &self,
        name: &str,
        d_model: usize,
        (index, reach): (usize, Option<usize>),
        fresh: Fresh<'_>,
    ) -> Attention {
        let (d_queries, d_keys) = (self.n_heads * self.d_head, self.n_key_heads * self.d_head);
        let linear = |part: &str, d_input, d_output, bias| {
            fresh.linear(&format!("{name}.{part}"), d_input, d_output, bias)
        };
        Attention {
            q_proj: linear("q_proj", d_model, d_queries, self.qkv_bias),
            k_proj: linear("k_proj", d_model, d_keys, self.qkv_bias),
            v_proj: linear("v_proj", d_model, d_keys, self.qkv_bias),
            o_proj: linear("o_proj", d_queries, d_model, self.out_bias),
            q_norm: self.normed.then(|| fresh.norm(self.d_head)),
            k_norm: self.normed.then(|| fresh.norm(self.d_head)),
            index,
            d_head: self.d_head,
            reach,
            scale: self.scale,
            dropout: self.dropout as f32,
        }
    }
}

impl Attention {
    /// New positions over themselves and their past.
    ///
    /// # Shape
    /// `[batch, t, d_model]` → the same.
    pub(super) fn forward(&self, x_btd: Tensor<3>, angles: &Angles, cx: &mut Forward<'_>) -> Tensor<3> {
        let [b, t, _] = x_btd.dims();
        let heads = |map: &Linear| -> Tensor<4> {
            let y_btd = map.forward(x_btd.clone());
            let n_heads = y_btd.dims()[2] / self.d_head;
            y_btd.reshape([b, t, n_heads, self.d_head])
        };
        let normed = |x_bthk: Tensor<4>, norm: &Option<RmsNorm>| match norm {
            Some(norm) => norm.forward(x_bthk),
            None => x_bthk,
        };
        let q_bthk = angles.turn(normed(heads(&self.q_proj), &self.q_norm));
        let k_bthk = angles.turn(normed(heads(&self.k_proj), &self.k_norm));
        let past = cx.past(self.index, k_bthk, heads(&self.v_proj));
        let mask =
            AttentionMask { sliding_window: self.reach.map(|reach| reach + 1), ..AttentionMask::CAUSAL };
        let config = AttentionConfig { dropout: self.dropout, ..AttentionConfig::new(self.scale, mask) };
        let out_bthk = attend(q_bthk, past, config, cx);
        let [_, _, h, k] = out_bthk.dims();
        self.o_proj.forward(out_bthk.reshape([b, t, h * k]))
    }
}

/// `down(activation(gate(x)) · up(x))`, applied to every position on its own.
///
/// Source: Shazeer 2020, "GLU Variants Improve Transformer", <https://arxiv.org/abs/2002.05202>.
#[derive(Module, Debug)]
pub(super) struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    #[module(skip)]
    activation: Activation,
}

impl MlpSizes {
    pub(super) fn init(&self, name: &str, fresh: Fresh<'_>) -> Mlp {
        let linear = |part: &str, d_input, d_output| {
            fresh.linear(&format!("{name}.{part}"), d_input, d_output, self.bias)
        };
        Mlp {
            gate_proj: linear("gate_proj", self.d_model, self.d_hidden),
            up_proj: linear("up_proj", self.d_model, self.d_hidden),
            down_proj: linear("down_proj", self.d_hidden, self.d_model),
            activation: self.activation,
        }
    }
}

impl Mlp {
    /// Transforms each position.
    ///
    /// # Shape
    /// `[batch, t, d_model]` → the same.
    pub(super) fn forward(&self, x_btd: Tensor<3>) -> Tensor<3> {
        let maps = [&self.gate_proj, &self.up_proj, &self.down_proj];
        gated_feed_forward(x_btd, maps, self.activation.function())
    }
}
