//! The modules of a Llama: pre-RMS-norm blocks, RoPE, grouped-query attention, gated feed-forward layers.

use andiron_core::attention::{AttentionConfig, AttentionMask, attend};
use andiron_core::linear::{gated_feed_forward, projections};
use andiron_core::ops;
use andiron_core::position::rope_scaling::ScaledRotary;
use andiron_core::position::rotary::Angles;
use andiron_core::{Embedding, Forward, KvCache, Linear, ParamRole, RmsNorm, Weight};
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use crate::family::Decoder;
use crate::hf_config::Activation;
use crate::param_init::ParamInit;

/// Sizes and differences of a Llama-like model.
#[derive(Clone, Debug)]
pub(in crate::decoder) struct LlamaSizes {
    pub(in crate::decoder) vocab_size: usize,
    /// Longest sequence, in tokens.
    pub(in crate::decoder) max_positions: usize,
    pub(in crate::decoder) d_model: usize,
    /// Inner width of the feed-forward layers.
    pub(in crate::decoder) d_hidden: usize,
    pub(in crate::decoder) attention: AttentionSizes,
    /// Sliding window of each layer, in tokens, the query's own included; `None` is full attention.
    pub(in crate::decoder) sliding_windows: Vec<Option<usize>>,
    pub(in crate::decoder) rotary: ScaledRotary,
    pub(in crate::decoder) activation: Activation,
    /// Whether the feed-forward projections have biases.
    pub(in crate::decoder) mlp_bias: bool,
    /// Whether the output head is tied to the token embeddings.
    pub(in crate::decoder) tied: bool,
    /// Epsilon of the RMS norms.
    pub(in crate::decoder) eps: f64,
    /// Standard deviation of initial weights.
    pub(in crate::decoder) std: f64,
}

/// Sizes and differences of an [`Attention`].
#[derive(Clone, Copy, Debug)]
pub(in crate::decoder) struct AttentionSizes {
    pub(in crate::decoder) n_heads: usize,
    pub(in crate::decoder) n_key_heads: usize,
    pub(in crate::decoder) d_head: usize,
    /// Whether the QKV projections have biases.
    pub(in crate::decoder) qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub(in crate::decoder) out_bias: bool,
    /// Whether queries and keys are normalised per head before RoPE (QK norm).
    pub(in crate::decoder) qk_norm: bool,
    /// Scale of the attention scores.
    pub(in crate::decoder) scale: f32,
    /// Dropout on attention probabilities, in training.
    pub(in crate::decoder) dropout: f64,
}

impl AttentionSizes {
    /// No biases, norms or dropout; scores scaled by the inverse square root of the head width.
    pub(in crate::decoder) fn new(n_heads: usize, n_key_heads: usize, d_head: usize) -> Self {
        let scale = 1.0 / (d_head as f32).sqrt();
        Self {
            n_heads,
            n_key_heads,
            d_head,
            qkv_bias: false,
            out_bias: false,
            qk_norm: false,
            scale,
            dropout: 0.0,
        }
    }
}

/// Sizes and differences of an [`Mlp`].
#[derive(Clone, Copy, Debug)]
pub(in crate::decoder) struct MlpSizes {
    pub(in crate::decoder) d_model: usize,
    /// Inner width.
    pub(in crate::decoder) d_hidden: usize,
    pub(in crate::decoder) bias: bool,
    pub(in crate::decoder) activation: Activation,
}

impl LlamaSizes {
    pub(in crate::decoder) fn init(&self, seed: Seed, device: &Device) -> LlamaModel {
        let params = ParamInit::new(self.std, self.eps, seed, device);
        let mlp = MlpSizes {
            d_model: self.d_model,
            d_hidden: self.d_hidden,
            bias: self.mlp_bias,
            activation: self.activation,
        };
        let layer = |(index, &sliding_window): (usize, &Option<usize>)| {
            let name = format!("model.layers.{index}");
            let norms = [0, 1].map(|_| params.rms_norm(self.d_model));
            let [input_layernorm, post_attention_layernorm] = norms;
            Layer {
                self_attn: self.attention.init(
                    &format!("{name}.self_attn"),
                    self.d_model,
                    (index, sliding_window),
                    params,
                ),
                mlp: mlp.init(&format!("{name}.mlp"), params),
                input_layernorm,
                post_attention_layernorm,
            }
        };
        LlamaModel {
            model: Body {
                embed_tokens: params.table("model.embed_tokens", self.vocab_size, self.d_model),
                layers: self.sliding_windows.iter().enumerate().map(layer).collect(),
                norm: params.rms_norm(self.d_model),
            },
            lm_head: (!self.tied)
                .then(|| params.table("lm_head", self.vocab_size, self.d_model).with_role(ParamRole::Head)),
            rotary: self.rotary.clone(),
            max_positions: self.max_positions,
        }
    }
}

/// A Llama-like model with its language-model head.
#[derive(Module, Debug)]
pub struct LlamaModel {
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

impl Decoder for LlamaModel {
    fn hidden(&self, ids_bt: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3> {
        let t = ids_bt.dims()[1];
        let angles = self.rotary.angles(t, cx, &ids_bt.device());
        let mut x_btd = self.model.embed_tokens.forward(ids_bt);
        for (index, layer) in self.model.layers.iter().enumerate() {
            cx.enter_layer(index);
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
        let normed_btd = self.input_layernorm.branch(x_btd.clone());
        let attended_btd = self.self_attn.forward(normed_btd, angles, cx);
        let (x_btd, normed_btd) = self.post_attention_layernorm.between_branches(x_btd, attended_btd);
        ops::residual(x_btd, self.mlp.forward(normed_btd))
    }
}

/// Causal grouped-query attention with RoPE.
///
/// Source: Ainslie et al. 2023, "GQA", <https://arxiv.org/abs/2305.13245>.
#[derive(Module, Debug)]
pub(in crate::decoder) struct Attention {
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
    sliding_window: Option<usize>,
    #[module(skip)]
    scale: f32,
    #[module(skip)]
    dropout: f32,
}

impl AttentionSizes {
    /// The attention of layer `index`; `sliding_window` is in tokens, `None` for full attention.
    pub(in crate::decoder) fn init(
        &self,
        name: &str,
        d_model: usize,
        (index, sliding_window): (usize, Option<usize>),
        params: ParamInit<'_>,
    ) -> Attention {
        let (d_queries, d_keys) = (self.n_heads * self.d_head, self.n_key_heads * self.d_head);
        let linear = |part: &str, d_input, d_output, bias| {
            params.linear(&format!("{name}.{part}"), d_input, d_output, bias)
        };
        Attention {
            q_proj: linear("q_proj", d_model, d_queries, self.qkv_bias),
            k_proj: linear("k_proj", d_model, d_keys, self.qkv_bias),
            v_proj: linear("v_proj", d_model, d_keys, self.qkv_bias),
            o_proj: linear("o_proj", d_queries, d_model, self.out_bias),
            q_norm: self.qk_norm.then(|| params.rms_norm(self.d_head)),
            k_norm: self.qk_norm.then(|| params.rms_norm(self.d_head)),
            index,
            d_head: self.d_head,
            sliding_window,
            scale: self.scale,
            dropout: self.dropout as f32,
        }
    }
}

impl Attention {
    /// Self-attention of the new positions over themselves and the KV cache.
    ///
    /// # Shape
    /// `[batch, t, d_model]` → the same.
    pub(in crate::decoder) fn forward(
        &self,
        x_btd: Tensor<3>,
        angles: &Angles,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let [b, t, _] = x_btd.dims();
        let [q_bthk, k_bthk, v_bthk] =
            projections(x_btd, [&self.q_proj, &self.k_proj, &self.v_proj]).map(|y_btd| -> Tensor<4> {
                let n_heads = y_btd.dims()[2] / self.d_head;
                y_btd.reshape([b, t, n_heads, self.d_head])
            });
        let normed = |x_bthk: Tensor<4>, norm: &Option<RmsNorm>| match norm {
            Some(norm) => norm.forward(x_bthk),
            None => x_bthk,
        };
        let q_bthk = angles.turn(normed(q_bthk, &self.q_norm));
        let k_bthk = angles.turn(normed(k_bthk, &self.k_norm));
        let keys_values = cx.keys_values(self.index, k_bthk, v_bthk);
        let mask = AttentionMask { sliding_window: self.sliding_window, ..AttentionMask::CAUSAL };
        let config = AttentionConfig { dropout: self.dropout, ..AttentionConfig::new(self.scale, mask) };
        let out_bthk = attend(q_bthk, keys_values, config, cx);
        let [_, _, h, k] = out_bthk.dims();
        self.o_proj.forward(out_bthk.reshape([b, t, h * k]))
    }
}

/// `down(activation(gate(x)) · up(x))`, applied to every position on its own.
///
/// Source: Shazeer 2020, "GLU Variants Improve Transformer", <https://arxiv.org/abs/2002.05202>.
#[derive(Module, Debug)]
pub(in crate::decoder) struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    #[module(skip)]
    activation: Activation,
}

impl MlpSizes {
    pub(in crate::decoder) fn init(&self, name: &str, params: ParamInit<'_>) -> Mlp {
        let linear = |part: &str, d_input, d_output| {
            params.linear(&format!("{name}.{part}"), d_input, d_output, self.bias)
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
    pub(in crate::decoder) fn forward(&self, x_btd: Tensor<3>) -> Tensor<3> {
        let maps = [&self.gate_proj, &self.up_proj, &self.down_proj];
        gated_feed_forward(x_btd, maps, self.activation.function())
    }
}
