//! GPT-2: pre-norm blocks, learned position embeddings, fused QKV projection.
//!
//! Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". Hugging Face:
//! `GPT2LMHeadModel`. Differences: weights are stored `[in, out]` (`Conv1D`), and the head is tied to the token
//! embeddings unless `tie_word_embeddings` is false.
//!
//! Not supported: cross-attention and `reorder_and_upcast_attn`.

use andiron_core::attention::{AttentionConfig, AttentionMask, attend_packed};
use andiron_core::embedding::EmbeddingConfig;
use andiron_core::linear::{LinearConfig, feed_forward};
use andiron_core::norm::LayerNormConfig;
use andiron_core::ops::{self, WeightLayout};
use andiron_core::role::PackedProjections;
use andiron_core::{DropoutSite, Embedding, Forward, KvCache, LayerNorm, Linear, ParamRole, Weight};
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::catalog::{Architecture, Sizes};
use crate::decoder::DecoderArchitecture;
use crate::family::Decoder;
use crate::hf_config::{Activation, ConfigError, Ids, entries, layers, width};
use crate::key_rules::{Inert, KeyRules};
use crate::weights::NameRules;

/// `config.json` of a GPT-2, in Hugging Face's field names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpt2Config {
    /// Vocabulary size.
    pub vocab_size: usize,
    /// Longest sequence.
    pub n_positions: usize,
    /// Width of the hidden states.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Attention heads; divides `n_embd`.
    pub n_head: usize,
    /// Inner width of the feed-forward layers; 4 · `n_embd` if absent.
    #[serde(default)]
    pub n_inner: Option<usize>,
    /// Activation of the feed-forward layers.
    #[serde(default)]
    pub activation_function: Activation,
    /// Dropout on the output of each sublayer, in training.
    #[serde(default = "tenth")]
    pub resid_pdrop: f64,
    /// Dropout on the embeddings, in training.
    #[serde(default = "tenth")]
    pub embd_pdrop: f64,
    /// Dropout on attention probabilities, in training.
    #[serde(default = "tenth")]
    pub attn_pdrop: f64,
    /// Epsilon of the layer norms.
    #[serde(default = "default_eps")]
    pub layer_norm_epsilon: f64,
    /// Standard deviation of initial weights.
    #[serde(default = "default_std")]
    pub initializer_range: f64,
    /// Whether the output head is tied to the token embeddings.
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Whether attention scores are divided by the square root of the head width.
    #[serde(default = "yes")]
    pub scale_attn_weights: bool,
    /// Whether attention scores are also divided by the layer index, from 1.
    #[serde(default)]
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Beginning-of-text token id.
    #[serde(default)]
    pub bos_token_id: Option<u32>,
    /// End-of-text token ids.
    #[serde(default)]
    pub eos_token_id: Ids,
}

fn tenth() -> f64 {
    0.1
}

fn default_eps() -> f64 {
    1e-5
}

fn default_std() -> f64 {
    0.02
}

fn yes() -> bool {
    true
}

impl Gpt2Config {
    /// nanoGPT's configuration for a character model on a CPU: 4 layers of width 128, 64 positions.
    ///
    /// Source: <https://github.com/karpathy/nanoGPT>, README, "I only have a macbook".
    pub fn nano(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            n_positions: 64,
            n_embd: 128,
            n_layer: 4,
            n_head: 4,
            n_inner: None,
            activation_function: Activation::GeluNew,
            resid_pdrop: 0.0,
            embd_pdrop: 0.0,
            attn_pdrop: 0.0,
            layer_norm_epsilon: default_eps(),
            initializer_range: default_std(),
            tie_word_embeddings: true,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            bos_token_id: None,
            eos_token_id: Ids::default(),
        }
    }

    /// The published 124-million-parameter model.
    pub fn small() -> Self {
        Self {
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            bos_token_id: Some(50256),
            eos_token_id: Ids::One(50256),
            ..Self::nano(50257)
        }
    }

    fn init_block(&self, index: usize, seed: Seed, device: &Device) -> Block {
        let std = self.initializer_range as f32;
        let residual_std = std / ((2 * self.n_layer) as f32).sqrt();
        let d_inner = self.n_inner.unwrap_or(4 * self.n_embd);
        let linear = |d_input, d_output, std, name: &str| {
            let seed = seed.derive(&format!("transformer.h.{index}.{name}.weight"));
            LinearConfig { d_input, d_output, bias: true, layout: WeightLayout::InOut }
                .init(std, seed, device)
        };
        let mut scale = 1.0;
        if self.scale_attn_weights {
            scale /= ((self.n_embd / self.n_head) as f32).sqrt();
        }
        if self.scale_attn_by_inverse_layer_idx {
            scale /= (index + 1) as f32;
        }
        Block {
            ln_1: self.init_norm(device),
            attn: Attention {
                c_attn: linear(self.n_embd, 3 * self.n_embd, std, "attn.c_attn")
                    .with_packed(PackedProjections { count: 3, interleaving: 1 }),
                c_proj: linear(self.n_embd, self.n_embd, residual_std, "attn.c_proj"),
                index,
                n_heads: self.n_head,
                scale,
                attn_pdrop: self.attn_pdrop as f32,
            },
            ln_2: self.init_norm(device),
            mlp: Mlp {
                c_fc: linear(self.n_embd, d_inner, std, "mlp.c_fc"),
                c_proj: linear(d_inner, self.n_embd, residual_std, "mlp.c_proj"),
                activation: self.activation_function,
            },
            resid_pdrop: self.resid_pdrop as f32,
        }
    }

    fn init_norm(&self, device: &Device) -> LayerNorm {
        LayerNormConfig { d_model: self.n_embd, eps: self.layer_norm_epsilon }.init(device)
    }
}

impl Architecture for Gpt2Config {
    type Model = Gpt2;
    const KEYS: KeyRules = KeyRules {
        aliases: &[
            ("hidden_size", "n_embd"),
            ("max_position_embeddings", "n_positions"),
            ("num_attention_heads", "n_head"),
            ("num_hidden_layers", "n_layer"),
        ],
        inert: &[
            // Heads that are not implemented.
            ("summary_activation", Inert::Always),
            ("summary_first_dropout", Inert::Always),
            ("summary_last_dropout", Inert::Always),
            ("summary_proj_to_labels", Inert::Always),
            ("summary_type", Inert::Always),
            ("summary_use_proj", Inert::Always),
            // First releases: duplicates of `n_positions`, and vocabulary entries beyond its size.
            ("n_ctx", Inert::Always),
            ("n_special", Inert::Number(0.0)),
            ("predict_special_tokens", Inert::Always),
            ("reorder_and_upcast_attn", Inert::Off),
        ],
        own: &[],
        defaults: &[
            ("vocab_size", 50_257),
            ("n_positions", 1024),
            ("n_embd", 768),
            ("n_layer", 12),
            ("n_head", 12),
        ],
    };

    fn class_name(&self) -> &'static str {
        "GPT2LMHeadModel"
    }

    fn name_rules(&self) -> NameRules {
        NameRules {
            optional_prefix: "transformer.",
            ignored: &["*.attn.bias", "*.attn.masked_bias"],
            tied: &[("lm_head.weight", "transformer.wte.weight")],
            ..NameRules::default()
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        entries("vocab_size", self.vocab_size)?;
        entries("n_positions", self.n_positions)?;
        width("n_embd", self.n_embd)?;
        layers("n_layer", self.n_layer)?;
        width("n_head", self.n_head)?;
        width("n_inner", self.n_inner.unwrap_or(4 * self.n_embd))?;
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(ConfigError::Heads { width: self.n_embd, heads: self.n_head });
        }
        for (key, value) in [
            ("resid_pdrop", self.resid_pdrop),
            ("embd_pdrop", self.embd_pdrop),
            ("attn_pdrop", self.attn_pdrop),
        ] {
            if !(0.0..1.0).contains(&value) {
                return Err(ConfigError::Probability { key, value });
            }
        }
        Ok(())
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            vocab_size: self.vocab_size,
            d_model: self.n_embd,
            max_positions: self.n_positions,
            bos_token_id: self.bos_token_id,
            eos_token_id: self.eos_token_id.as_slice().first().copied(),
        }
    }

    fn end_ids(&self) -> Ids {
        self.eos_token_id.clone()
    }

    fn init(&self, seed: Seed, device: &Device) -> Gpt2 {
        let std = self.initializer_range as f32;
        let table = |n_entries, name| {
            EmbeddingConfig { n_entries, d_model: self.n_embd }.init(std, seed.derive(name), device)
        };
        Gpt2 {
            transformer: Transformer {
                wte: table(self.vocab_size, "transformer.wte.weight"),
                wpe: table(self.n_positions, "transformer.wpe.weight").with_role(ParamRole::Table),
                h: (0..self.n_layer).map(|index| self.init_block(index, seed, device)).collect(),
                ln_f: self.init_norm(device),
            },
            lm_head: (!self.tie_word_embeddings)
                .then(|| table(self.vocab_size, "lm_head.weight").with_role(ParamRole::Head)),
            embd_pdrop: self.embd_pdrop as f32,
        }
    }
}

impl DecoderArchitecture for Gpt2Config {
    fn classifier_class(&self) -> &'static str {
        "GPT2ForSequenceClassification"
    }
}

/// A GPT-2 with its language-model head.
#[derive(Module, Debug)]
pub struct Gpt2 {
    transformer: Transformer,
    lm_head: Option<Embedding>,
    #[module(skip)]
    embd_pdrop: f32,
}

#[derive(Module, Debug)]
struct Transformer {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

#[derive(Module, Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
    #[module(skip)]
    resid_pdrop: f32,
}

#[derive(Module, Debug)]
struct Attention {
    c_attn: Linear,
    c_proj: Linear,
    #[module(skip)]
    index: usize,
    #[module(skip)]
    n_heads: usize,
    #[module(skip)]
    scale: f32,
    #[module(skip)]
    attn_pdrop: f32,
}

#[derive(Module, Debug)]
struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Decoder for Gpt2 {
    fn hidden(&self, ids_bt: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3> {
        let t = ids_bt.dims()[1];
        let body = &self.transformer;
        let embedded = body.wte.forward(ids_bt) + body.wpe.positions(t, 0, cx);
        let mut x_btd = cx.dropout(embedded, self.embd_pdrop, DropoutSite::Embeddings);
        for (index, block) in body.h.iter().enumerate() {
            cx.enter_layer(index);
            x_btd = cx.block(block, x_btd, Block::forward);
        }
        cx.advance(t);
        body.ln_f.forward(x_btd)
    }

    fn head(&self) -> &Weight {
        &self.lm_head.as_ref().unwrap_or(&self.transformer.wte).weight
    }

    fn new_cache(&self) -> KvCache {
        KvCache::new(self.transformer.h.len(), self.transformer.wpe.weight.dims()[0])
    }
}

impl Block {
    fn forward(&self, x_btd: Tensor<3>, cx: &mut Forward<'_>) -> Tensor<3> {
        let attended = self.attn.forward(self.ln_1.branch(x_btd.clone()), cx);
        let attended = cx.dropout(attended, self.resid_pdrop, DropoutSite::AttentionOutput);
        let (x_btd, normed_btd) = self.ln_2.between_branches(x_btd, attended);
        let fed = self.mlp.forward(normed_btd);
        ops::residual(x_btd, cx.dropout(fed, self.resid_pdrop, DropoutSite::FeedForwardOutput))
    }
}

impl Attention {
    fn forward(&self, x_btd: Tensor<3>, cx: &mut Forward<'_>) -> Tensor<3> {
        let config = AttentionConfig {
            dropout: self.attn_pdrop,
            ..AttentionConfig::new(self.scale, AttentionMask::CAUSAL)
        };
        let qkv_bt3d = self.c_attn.forward(x_btd);
        self.c_proj.forward(attend_packed(qkv_bt3d, (self.index, self.n_heads), config, cx))
    }
}

impl Mlp {
    fn forward(&self, x_btd: Tensor<3>) -> Tensor<3> {
        feed_forward(x_btd, [&self.c_fc, &self.c_proj], self.activation.function())
    }
}
