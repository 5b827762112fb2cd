//! The modules of a BART: the encoder-decoder of Vaswani et al., with a norm after each residual connection.
//!
//! BART and Marian differ in their positions, in a norm after the embeddings, and in which embeddings are tied:
//!
//! | token embeddings | in the file |
//! |---|---|
//! | shared by encoder, decoder and head | `model.shared` |
//! | decoder's tied to the head | `model.encoder.embed_tokens`, `model.decoder.embed_tokens` |
//! | untied | those two, `lm_head`, and an unused `model.shared` if encoder and decoder would share |

use andiron_core::attention::{AttentionConfig, AttentionMask, attend, cross_attend};
use andiron_core::cache::CrossAttentionCache;
use andiron_core::dropout_site;
use andiron_core::position::sinusoidal::sinusoid;
use andiron_core::{
    DropoutSite, Embedding, Forward, KvCache, LayerNorm, Linear, PaddingMask, ParamRole, Weight, init,
    linear, ops,
};
use andiron_kernels::random::Seed;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::family::EncoderDecoder;
use crate::hf_config::{Activation, ConfigError, entries, layers, probability, width};
use crate::param_init::ParamInit;
use crate::weights::NameRules;

/// Position embeddings before that of position 0.
const POSITION_OFFSET: usize = 2;

/// Epsilon of the layer norms; no key sets it.
const EPS: f64 = 1e-5;

/// Sizes of the encoder or the decoder.
#[derive(Clone, Copy, Debug)]
pub(in crate::encoder_decoder) struct Stack {
    pub(in crate::encoder_decoder) n_layers: usize,
    pub(in crate::encoder_decoder) n_heads: usize,
    pub(in crate::encoder_decoder) d_hidden: usize,
    pub(in crate::encoder_decoder) vocab_size: usize,
}

/// Sizes of a [`BartModel`].
#[derive(Clone, Copy, Debug)]
pub(in crate::encoder_decoder) struct BartSizes {
    pub(in crate::encoder_decoder) d_model: usize,
    pub(in crate::encoder_decoder) max_positions: usize,
    pub(in crate::encoder_decoder) encoder: Stack,
    pub(in crate::encoder_decoder) decoder: Stack,
    /// Encoder and decoder share token embeddings.
    pub(in crate::encoder_decoder) shared: bool,
    /// The head is tied to the decoder's token embeddings.
    pub(in crate::encoder_decoder) tied: bool,
    /// Learned positions and a norm after the embeddings (BART), or neither (Marian).
    pub(in crate::encoder_decoder) learned: bool,
    pub(in crate::encoder_decoder) scale_embedding: bool,
    pub(in crate::encoder_decoder) activation: Activation,
    pub(in crate::encoder_decoder) std: f64,
    pub(in crate::encoder_decoder) dropout: f64,
    pub(in crate::encoder_decoder) attention_dropout: f64,
    pub(in crate::encoder_decoder) activation_dropout: f64,
}

impl BartSizes {
    pub(in crate::encoder_decoder) fn validate(&self) -> Result<(), ConfigError> {
        entries("vocab_size", self.encoder.vocab_size)?;
        entries("decoder_vocab_size", self.decoder.vocab_size)?;
        entries("max_position_embeddings", self.max_positions)?;
        width("d_model", self.d_model)?;
        layers("encoder_layers", self.encoder.n_layers)?;
        width("encoder_attention_heads", self.encoder.n_heads)?;
        width("encoder_ffn_dim", self.encoder.d_hidden)?;
        layers("decoder_layers", self.decoder.n_layers)?;
        width("decoder_attention_heads", self.decoder.n_heads)?;
        width("decoder_ffn_dim", self.decoder.d_hidden)?;
        for heads in [self.encoder.n_heads, self.decoder.n_heads] {
            if !self.d_model.is_multiple_of(heads) {
                return Err(ConfigError::Heads { width: self.d_model, heads });
            }
        }
        probability("dropout", self.dropout)?;
        probability("attention_dropout", self.attention_dropout)?;
        probability("activation_dropout", self.activation_dropout)
    }

    pub(in crate::encoder_decoder) fn name_rules(&self) -> NameRules {
        NameRules {
            optional_prefix: "model.",
            ignored: match self.learned {
                true => &["*coder.version"],
                false => &["*coder.version", "*coder.embed_positions.weight"],
            },
            tied: match (self.shared, self.tied) {
                (true, true) => &[
                    ("lm_head.weight", "model.shared.weight"),
                    ("model.decoder.embed_tokens.weight", "model.shared.weight"),
                    ("model.encoder.embed_tokens.weight", "model.shared.weight"),
                ],
                (false, true) => &[("lm_head.weight", "model.decoder.embed_tokens.weight")],
                (_, false) => &[],
            },
            optional: &["final_logits_bias"],
            ..NameRules::default()
        }
    }

    pub(in crate::encoder_decoder) fn init(&self, seed: Seed, device: &Device) -> BartModel {
        let params = ParamInit::new(self.std, EPS, seed, device);
        BartModel {
            model: Body {
                shared: self
                    .shared
                    .then(|| params.table("model.shared", self.encoder.vocab_size, self.d_model)),
                encoder: self.init_half("model.encoder", self.encoder, &params),
                decoder: self.init_half("model.decoder", self.decoder, &params),
            },
            lm_head: (!self.tied).then(|| {
                params.table("lm_head", self.decoder.vocab_size, self.d_model).with_role(ParamRole::Head)
            }),
            final_logits_bias: init::zeros([1, self.decoder.vocab_size], device),
            max_positions: self.max_positions,
            embed_scale: self.scale_embedding.then(|| (self.d_model as f32).sqrt()),
            activation: self.activation,
            dropout: self.dropout as f32,
            activation_dropout: self.activation_dropout as f32,
        }
    }

    fn init_half(&self, name: &str, stack: Stack, params: &ParamInit<'_>) -> Half {
        let d = self.d_model;
        let table = |part: &str, n_entries| params.table(&format!("{name}.{part}"), n_entries, d);
        let layer = |index| self.init_layer(&format!("{name}.layers.{index}"), stack, params);
        let own_table = !(self.shared && self.tied);
        let role = match name.starts_with("model.encoder") {
            true => ParamRole::SourceEmbedding,
            false => ParamRole::Embedding,
        };
        Half {
            embed_tokens: own_table.then(|| table("embed_tokens", stack.vocab_size).with_role(role)),
            embed_positions: self.learned.then(|| {
                let entries = self.max_positions.saturating_add(POSITION_OFFSET);
                table("embed_positions", entries).with_role(ParamRole::Table)
            }),
            layernorm_embedding: self.learned.then(|| params.layer_norm(d)),
            layers: (0..stack.n_layers).map(layer).collect(),
        }
    }

    fn init_layer(&self, name: &str, stack: Stack, params: &ParamInit<'_>) -> Layer {
        let d = self.d_model;
        let linear =
            |part: &str, d_input, d_output| params.linear(&format!("{name}.{part}"), d_input, d_output, true);
        let attention = |part: &str| Attention {
            k_proj: linear(&format!("{part}.k_proj"), d, d),
            v_proj: linear(&format!("{part}.v_proj"), d, d),
            q_proj: linear(&format!("{part}.q_proj"), d, d),
            out_proj: linear(&format!("{part}.out_proj"), d, d),
            n_heads: stack.n_heads,
            dropout: self.attention_dropout as f32,
        };
        let decodes = name.starts_with("model.decoder");
        Layer {
            self_attn: attention("self_attn"),
            self_attn_layer_norm: params.layer_norm(d),
            encoder_attn: decodes.then(|| attention("encoder_attn")),
            encoder_attn_layer_norm: decodes.then(|| params.layer_norm(d)),
            fc1: linear("fc1", d, stack.d_hidden),
            fc2: linear("fc2", stack.d_hidden, d),
            final_layer_norm: params.layer_norm(d),
        }
    }
}

/// A BART or a Marian with its language-model head.
#[derive(Module, Debug)]
pub struct BartModel {
    model: Body,
    lm_head: Option<Embedding>,
    final_logits_bias: Param<Tensor<2>>,
    #[module(skip)]
    max_positions: usize,
    #[module(skip)]
    embed_scale: Option<f32>,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    dropout: f32,
    #[module(skip)]
    activation_dropout: f32,
}

#[derive(Module, Debug)]
struct Body {
    shared: Option<Embedding>,
    encoder: Half,
    decoder: Half,
}

#[derive(Module, Debug)]
struct Half {
    embed_tokens: Option<Embedding>,
    embed_positions: Option<Embedding>,
    layernorm_embedding: Option<LayerNorm>,
    layers: Vec<Layer>,
}

/// One layer; in the decoder it has an `encoder_attn`.
#[derive(Module, Debug)]
struct Layer {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    encoder_attn: Option<Attention>,
    encoder_attn_layer_norm: Option<LayerNorm>,
    fc1: Linear,
    fc2: Linear,
    final_layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
struct Attention {
    k_proj: Linear,
    v_proj: Linear,
    q_proj: Linear,
    out_proj: Linear,
    #[module(skip)]
    n_heads: usize,
    #[module(skip)]
    dropout: f32,
}

impl EncoderDecoder for BartModel {
    fn encoder_hidden(&self, ids_bs: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3> {
        cx.enter_stack(dropout_site::Stack::Encoder);
        let sizes = self.layer_sizes();
        let mut x_bsd = self.embed(&self.model.encoder, ids_bs, cx);
        for (index, layer) in self.model.encoder.layers.iter().enumerate() {
            cx.enter_layer(index);
            x_bsd = cx
                .block(layer, x_bsd, move |layer, x_bsd, cx| layer.forward(x_bsd, (index, None), sizes, cx));
        }
        x_bsd
    }

    fn cross_attention_cache(&self, hidden_bsd: Tensor<3>, rows: Option<PaddingMask>) -> CrossAttentionCache {
        let attentions = self.model.decoder.layers.iter().filter_map(|layer| layer.encoder_attn.as_ref());
        let of = |attention: &Attention| {
            let maps = [&attention.k_proj, &attention.v_proj];
            let [keys, values] =
                linear::projections(hidden_bsd.clone(), maps).map(|projected| attention.heads(projected));
            (keys, values)
        };
        CrossAttentionCache::new(attentions.map(of).collect(), rows)
    }

    fn hidden(
        &self,
        ids_bt: Tensor<2, Int>,
        cross_cache: &CrossAttentionCache,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let t = ids_bt.dims()[1];
        cx.enter_stack(dropout_site::Stack::Decoder);
        let sizes = self.layer_sizes();
        let mut x_btd = self.embed(&self.model.decoder, ids_bt, cx);
        for (index, layer) in self.model.decoder.layers.iter().enumerate() {
            cx.enter_layer(index);
            let inputs = (x_btd, cross_cache.only(index));
            x_btd = cx.block(layer, inputs, move |layer, (x_btd, cross_cache), cx| {
                layer.forward(x_btd, (index, Some(&cross_cache)), sizes, cx)
            });
        }
        cx.advance(t);
        x_btd
    }

    fn head(&self) -> &Weight {
        let own = self.lm_head.as_ref();
        &own.unwrap_or_else(|| self.model.table(&self.model.decoder)).weight
    }

    // Not trained.
    fn head_bias(&self) -> Option<Tensor<1>> {
        let [_, v] = self.final_logits_bias.lazy_shape().dims();
        Some(self.final_logits_bias.val().detach().reshape([v]))
    }

    fn new_cache(&self) -> KvCache {
        KvCache::new(self.model.decoder.layers.len(), self.max_positions)
    }
}

impl Body {
    /// Token embeddings of the encoder or the decoder.
    fn table<'a>(&'a self, half: &'a Half) -> &'a Embedding {
        half.embed_tokens.as_ref().or(self.shared.as_ref()).expect("each half has a table or both share one")
    }
}

impl BartModel {
    fn embed(&self, half: &Half, ids_bt: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3> {
        let (t, device) = (ids_bt.dims()[1], ids_bt.device());
        let tokens_btd = self.model.table(half).forward(ids_bt);
        let tokens_btd = match self.embed_scale {
            Some(scale) => tokens_btd * scale,
            None => tokens_btd,
        };
        let positions_btd = match &half.embed_positions {
            Some(table) => table.positions(t, POSITION_OFFSET, cx),
            None => self.sinusoids(t, tokens_btd.dims()[2], cx, &device),
        };
        let embedded = tokens_btd + positions_btd;
        let embedded = match &half.layernorm_embedding {
            Some(norm) => norm.forward(embedded),
            None => embedded,
        };
        cx.dropout(embedded, self.dropout, DropoutSite::Embeddings)
    }

    fn sinusoids(&self, columns: usize, d: usize, cx: &Forward<'_>, device: &Device) -> Tensor<3> {
        let (end, known) = (cx.end(columns), self.max_positions);
        assert!(end <= known, "positions up to {end} of {known}");
        let positions = cx.positions(columns);
        let shape = [positions.len(), columns, d];
        let values = positions.into_iter().flatten().flat_map(|position| sinusoid(position, d)).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn layer_sizes(&self) -> LayerSizes {
        let Self { activation, dropout, activation_dropout, .. } = *self;
        LayerSizes { activation, dropout, activation_dropout }
    }
}

/// What all layers have in common.
#[derive(Clone, Copy, Debug)]
struct LayerSizes {
    activation: Activation,
    dropout: f32,
    activation_dropout: f32,
}

impl Layer {
    /// A layer of the encoder, or of the decoder if `cross_cache` is given.
    fn forward(
        &self,
        x_btd: Tensor<3>,
        (index, cross_cache): (usize, Option<&CrossAttentionCache>),
        sizes: LayerSizes,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let mask = if cross_cache.is_some() { AttentionMask::CAUSAL } else { AttentionMask::FULL };
        let attended = self.self_attn.self_attention(x_btd.clone(), index, mask, cx);
        let attended = cx.dropout(attended, sizes.dropout, DropoutSite::AttentionOutput);
        let mut x_btd = self.self_attn_layer_norm.of_sum(x_btd, attended);
        if let (Some(cross_cache), Some(attention), Some(norm)) =
            (cross_cache, &self.encoder_attn, &self.encoder_attn_layer_norm)
        {
            let attended = attention.cross_attention(x_btd.clone(), cross_cache, index, cx);
            let attended = cx.dropout(attended, sizes.dropout, DropoutSite::CrossAttentionOutput);
            x_btd = norm.of_sum(x_btd, attended);
        }
        let activation = sizes.activation.function();
        let fed = if cx.drops(sizes.activation_dropout) {
            let inner_btf = ops::activate(self.fc1.forward(x_btd.clone()), activation);
            let dropped_btf = cx.dropout(inner_btf, sizes.activation_dropout, DropoutSite::FeedForwardInner);
            self.fc2.forward(dropped_btf)
        } else {
            linear::feed_forward(x_btd.clone(), [&self.fc1, &self.fc2], activation)
        };
        let fed = cx.dropout(fed, sizes.dropout, DropoutSite::FeedForwardOutput);
        self.final_layer_norm.of_sum(x_btd, fed)
    }
}

impl Attention {
    fn self_attention(
        &self,
        x_btd: Tensor<3>,
        layer: usize,
        mask: AttentionMask,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let maps = [&self.q_proj, &self.k_proj, &self.v_proj];
        let [q_bthk, k_bthk, v_bthk] =
            linear::projections(x_btd.clone(), maps).map(|projected| self.heads(projected));
        let config =
            AttentionConfig { dropout: self.dropout, ..AttentionConfig::new(self.scale(&q_bthk), mask) };
        let keys_values = cx.keys_values(layer, k_bthk, v_bthk);
        self.out_proj.forward(attend(q_bthk, keys_values, config, cx).reshape(x_btd.dims()))
    }

    fn cross_attention(
        &self,
        x_btd: Tensor<3>,
        cross_cache: &CrossAttentionCache,
        layer: usize,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let shape = x_btd.dims();
        let q_bthk = self.heads(self.q_proj.forward(x_btd));
        let scale = self.scale(&q_bthk);
        let attended = cross_attend(q_bthk, cross_cache, layer, (scale, self.dropout), cx);
        self.out_proj.forward(attended.reshape(shape))
    }

    /// `[batch, t, heads · width]` → `[batch, t, heads, width]`.
    fn heads(&self, x_btd: Tensor<3>) -> Tensor<4> {
        let [b, t, d] = x_btd.dims();
        x_btd.reshape([b, t, self.n_heads, d / self.n_heads])
    }

    fn scale(&self, q_bthk: &Tensor<4>) -> f32 {
        1.0 / (q_bthk.dims()[3] as f32).sqrt()
    }
}
