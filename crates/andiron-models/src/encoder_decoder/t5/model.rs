//! The modules of a T5, with field names as in its files.

use andiron_core::attention::{AttentionConfig, AttentionMask, attend, cross_attend};
use andiron_core::cache::CrossAttentionCache;
use andiron_core::dropout_site::Stack;
use andiron_core::linear::{gated_feed_forward, projections};
use andiron_core::ops;
use andiron_core::position::relative::RelativeBias;
use andiron_core::precision::{Precision, with_precision};
use andiron_core::{
    DropoutSite, Embedding, Forward, KvCache, Linear, PaddingMask, ParamRole, RmsNorm, Weight,
};
use andiron_kernels::random::Seed;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use super::T5Config;
use crate::family::EncoderDecoder;
use crate::hf_config::Activation;
use crate::param_init::ParamInit;

/// A T5 with its language-model head.
#[derive(Module, Debug)]
pub struct T5 {
    shared: Embedding,
    encoder: Encoder,
    decoder: Decoder,
    lm_head: Option<Embedding>,
    #[module(skip)]
    output_scale: Option<f32>,
    #[module(skip)]
    dropout: f32,
}

#[derive(Module, Debug)]
struct Encoder {
    block: Vec<EncoderBlock>,
    final_layer_norm: RmsNorm,
}

#[derive(Module, Debug)]
struct Decoder {
    block: Vec<DecoderBlock>,
    final_layer_norm: RmsNorm,
}

#[derive(Module, Debug)]
struct EncoderBlock {
    layer: (SelfAttention, FeedForward),
}

#[derive(Module, Debug)]
struct DecoderBlock {
    layer: (SelfAttention, CrossAttention, FeedForward),
}

#[derive(Module, Debug)]
struct SelfAttention {
    self_attention_: Attention,
    layer_norm: RmsNorm,
}

#[derive(Module, Debug)]
struct CrossAttention {
    enc_dec_attention_: Attention,
    layer_norm: RmsNorm,
}

#[derive(Module, Debug)]
struct FeedForward {
    dense_relu_dense_: Dense,
    layer_norm: RmsNorm,
}

#[derive(Module, Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    /// In the first block only; the other blocks reuse its bias.
    relative_attention_bias: Option<RelativeBias>,
    #[module(skip)]
    n_heads: usize,
    #[module(skip)]
    dropout: f32,
}

#[derive(Module, Debug)]
struct Dense {
    wi: Option<Linear>,
    wi_0: Option<Linear>,
    wi_1: Option<Linear>,
    wo: Linear,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    dropout: f32,
}

impl T5 {
    /// A model with random weights.
    pub(super) fn new(config: &T5Config, seed: Seed, device: &Device) -> Self {
        T5Init { config, seed, device }.model()
    }
}

impl EncoderDecoder for T5 {
    fn encoder_hidden(&self, ids_bs: Tensor<2, Int>, cx: &mut Forward<'_>) -> Tensor<3> {
        let s = ids_bs.dims()[1];
        cx.enter_stack(Stack::Encoder);
        let mut x_bsd = cx.dropout(self.shared.forward(ids_bs), self.dropout, DropoutSite::Embeddings);
        let bias_hr = self.encoder.block.first().and_then(|block| block.layer.0.bias(s, s));
        for (index, block) in self.encoder.block.iter().enumerate() {
            cx.enter_layer(index);
            x_bsd = cx.block(block, (x_bsd, bias_hr.clone()), move |block, (x_bsd, bias_hr), cx| {
                block.forward(x_bsd, bias_hr, index, cx)
            });
        }
        cx.dropout(self.encoder.final_layer_norm.forward(x_bsd), self.dropout, DropoutSite::FinalNorm)
    }

    fn cross_attention_cache(&self, hidden_bsd: Tensor<3>, rows: Option<PaddingMask>) -> CrossAttentionCache {
        let of = |block: &DecoderBlock| {
            let attention = &block.layer.1.enc_dec_attention_;
            let [keys, values] = projections(hidden_bsd.clone(), [&attention.k, &attention.v])
                .map(|projected| attention.heads(projected));
            (keys, values)
        };
        CrossAttentionCache::new(self.decoder.block.iter().map(of).collect(), rows)
    }

    fn hidden(
        &self,
        ids_bt: Tensor<2, Int>,
        cross_cache: &CrossAttentionCache,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let t = ids_bt.dims()[1];
        cx.enter_stack(Stack::Decoder);
        let mut x_btd = cx.dropout(self.shared.forward(ids_bt), self.dropout, DropoutSite::Embeddings);
        let bias_hr = self.decoder.block.first().and_then(|block| block.layer.0.bias(t, cx.start() + t));
        for (index, block) in self.decoder.block.iter().enumerate() {
            cx.enter_layer(index);
            let inputs = ((x_btd, bias_hr.clone()), cross_cache.only(index));
            x_btd = cx.block(block, inputs, move |block, ((x_btd, bias_hr), cross_cache), cx| {
                block.forward((x_btd, bias_hr), &cross_cache, index, cx)
            });
        }
        cx.advance(t);
        let normed_btd = self.decoder.final_layer_norm.forward(x_btd);
        let x_btd = cx.dropout(normed_btd, self.dropout, DropoutSite::FinalNorm);
        match self.output_scale {
            Some(scale) => x_btd * scale,
            None => x_btd,
        }
    }

    fn head(&self) -> &Weight {
        &self.lm_head.as_ref().unwrap_or(&self.shared).weight
    }

    fn head_bias(&self) -> Option<Tensor<1>> {
        None
    }

    fn new_cache(&self) -> KvCache {
        KvCache::new(self.decoder.block.len(), usize::MAX)
    }
}

impl EncoderBlock {
    fn forward(
        &self,
        x_bsd: Tensor<3>,
        bias_hr: Option<Tensor<2>>,
        index: usize,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let (attention, feed_forward) = &self.layer;
        let config = AttentionConfig { bias_hr, ..AttentionConfig::new(1.0, AttentionMask::FULL) };
        feed_forward.forward(attention.forward(x_bsd, index, config, cx), cx)
    }
}

impl DecoderBlock {
    fn forward(
        &self,
        (x_btd, bias_hr): (Tensor<3>, Option<Tensor<2>>),
        cross_cache: &CrossAttentionCache,
        index: usize,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let (attention, cross_attention, feed_forward) = &self.layer;
        let config = AttentionConfig { bias_hr, ..AttentionConfig::new(1.0, AttentionMask::CAUSAL) };
        let x_btd = attention.forward(x_btd, index, config, cx);
        feed_forward.forward(cross_attention.forward(x_btd, cross_cache, index, cx), cx)
    }
}

impl SelfAttention {
    /// The relative position bias of this and later blocks, if this block holds it.
    fn bias(&self, t: usize, s: usize) -> Option<Tensor<2>> {
        self.self_attention_.relative_attention_bias.as_ref().map(|bias| bias.forward(t, s))
    }

    fn forward(
        &self,
        x_btd: Tensor<3>,
        layer: usize,
        config: AttentionConfig,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let attention = &self.self_attention_;
        let normal_btd = self.layer_norm.branch(x_btd.clone());
        let maps = [&attention.q, &attention.k, &attention.v];
        let [q_bthk, k_bthk, v_bthk] =
            projections(normal_btd, maps).map(|projected| attention.heads(projected));
        let keys_values = cx.keys_values(layer, k_bthk, v_bthk);
        let config = AttentionConfig { dropout: attention.dropout, ..config };
        // In f32: unscaled attention scores are larger, so rounding would change them more than elsewhere.
        let attended = with_precision(Precision::F32, || attend(q_bthk, keys_values, config, cx));
        ops::residual(x_btd, attention.output(attended, DropoutSite::AttentionOutput, cx))
    }
}

impl CrossAttention {
    fn forward(
        &self,
        x_btd: Tensor<3>,
        cross_cache: &CrossAttentionCache,
        layer: usize,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let attention = &self.enc_dec_attention_;
        let q_bthk = attention.heads(attention.q.forward(self.layer_norm.branch(x_btd.clone())));
        let attended = cross_attend(q_bthk, cross_cache, layer, (1.0, attention.dropout), cx);
        ops::residual(x_btd, attention.output(attended, DropoutSite::CrossAttentionOutput, cx))
    }
}

impl Attention {
    /// `[batch, t, heads · width]` → `[batch, t, heads, width]`.
    fn heads(&self, x_bti: Tensor<3>) -> Tensor<4> {
        let [b, t, d_inner] = x_bti.dims();
        x_bti.reshape([b, t, self.n_heads, d_inner / self.n_heads])
    }

    fn output(&self, x_bthk: Tensor<4>, site: DropoutSite, cx: &mut Forward<'_>) -> Tensor<3> {
        let [b, t, h, k] = x_bthk.dims();
        cx.dropout(self.o.forward(x_bthk.reshape([b, t, h * k])), self.dropout, site)
    }
}

impl FeedForward {
    fn forward(&self, x_btd: Tensor<3>, cx: &mut Forward<'_>) -> Tensor<3> {
        let dense = &self.dense_relu_dense_;
        let fed = dense.forward(self.layer_norm.branch(x_btd.clone()), cx);
        ops::residual(x_btd, cx.dropout(fed, dense.dropout, DropoutSite::FeedForwardOutput))
    }
}

impl Dense {
    fn forward(&self, x_btd: Tensor<3>, cx: &mut Forward<'_>) -> Tensor<3> {
        let form = self.activation.function();
        let inner_btf = match (&self.wi, &self.wi_0, &self.wi_1) {
            (_, Some(gate), Some(up)) if !cx.drops(self.dropout) => {
                return gated_feed_forward(x_btd, [gate, up, &self.wo], form);
            }
            (_, Some(gate), Some(up)) => ops::gate(gate.forward(x_btd.clone()), up.forward(x_btd), form),
            (Some(up), _, _) => ops::activate(up.forward(x_btd), form),
            _ => unreachable!("a feed-forward part is plain or gated"),
        };
        self.wo.forward(cx.dropout(inner_btf, self.dropout, DropoutSite::FeedForwardInner))
    }
}

/// Initializes a T5; standard deviations shrink with the fan-in.
struct T5Init<'a> {
    config: &'a T5Config,
    seed: Seed,
    device: &'a Device,
}

impl T5Init<'_> {
    fn model(&self) -> T5 {
        let config = self.config;
        // Without output scaling the head is initialized smaller.
        let head_width = if config.scale_decoder_outputs { 1 } else { config.d_model };
        T5 {
            shared: self.table("shared", 1),
            encoder: Encoder {
                block: (0..config.num_layers).map(|index| self.encoder_block(index)).collect(),
                final_layer_norm: self.norm(),
            },
            decoder: Decoder {
                block: (0..config.n_decoder_layers()).map(|index| self.decoder_block(index)).collect(),
                final_layer_norm: self.norm(),
            },
            lm_head: (!config.tie_word_embeddings)
                .then(|| self.table("lm_head", head_width).with_role(ParamRole::Head)),
            output_scale: config.scale_decoder_outputs.then(|| 1.0 / (config.d_model as f32).sqrt()),
            dropout: config.dropout_rate as f32,
        }
    }

    fn encoder_block(&self, index: usize) -> EncoderBlock {
        let name = |layer| format!("encoder.block.{index}.layer.{layer}");
        let bias = (index == 0).then_some(false);
        EncoderBlock { layer: (self.self_attention(&name(0), bias), self.feed_forward(&name(1))) }
    }

    fn decoder_block(&self, index: usize) -> DecoderBlock {
        let name = |layer| format!("decoder.block.{index}.layer.{layer}");
        let bias = (index == 0).then_some(true);
        let cross_attention = CrossAttention {
            enc_dec_attention_: self.attention(&format!("{}.EncDecAttention", name(1)), None),
            layer_norm: self.norm(),
        };
        let (first, last) = (self.self_attention(&name(0), bias), self.feed_forward(&name(2)));
        DecoderBlock { layer: (first, cross_attention, last) }
    }

    fn self_attention(&self, name: &str, bias: Option<bool>) -> SelfAttention {
        SelfAttention {
            self_attention_: self.attention(&format!("{name}.SelfAttention"), bias),
            layer_norm: self.norm(),
        }
    }

    /// `bias`: whether there is a relative position bias, and whether it is causal.
    fn attention(&self, name: &str, bias: Option<bool>) -> Attention {
        let config = self.config;
        let (d, d_inner) = (config.d_model, config.num_heads.saturating_mul(config.d_kv));
        let linear = |part: &str, sizes, width| self.linear(&format!("{name}.{part}"), sizes, width);
        Attention {
            // Small, because attention scores are not scaled.
            q: linear("q", (d, d_inner), d.saturating_mul(config.d_kv)),
            k: linear("k", (d, d_inner), d),
            v: linear("v", (d, d_inner), d),
            o: linear("o", (d_inner, d), d_inner),
            relative_attention_bias: bias.map(|causal| {
                let seed = self.seed.derive(&format!("{name}.relative_attention_bias.weight"));
                config.relative_bias(causal).init(self.std(d), seed, self.device)
            }),
            n_heads: config.num_heads,
            dropout: config.dropout_rate as f32,
        }
    }

    fn feed_forward(&self, name: &str) -> FeedForward {
        let (d, d_inner) = (self.config.d_model, self.config.d_ff);
        let part = |part: &str| format!("{name}.DenseReluDense.{part}");
        let inner = |name: &str| self.linear(&part(name), (d, d_inner), d);
        let gated = self.config.is_gated();
        FeedForward {
            dense_relu_dense_: Dense {
                wi: (!gated).then(|| inner("wi")),
                wi_0: gated.then(|| inner("wi_0")),
                wi_1: gated.then(|| inner("wi_1")),
                wo: self.linear(&part("wo"), (d_inner, d), d_inner),
                activation: self.config.activation(),
                dropout: self.config.dropout_rate as f32,
            },
            layer_norm: self.norm(),
        }
    }

    /// Standard deviation for a fan-in of `width`.
    fn std(&self, width: usize) -> f32 {
        self.config.initializer_factor as f32 / (width as f32).sqrt()
    }

    fn linear(&self, name: &str, (d_input, d_output): (usize, usize), width: usize) -> Linear {
        self.params(self.std(width)).linear(name, d_input, d_output, false)
    }

    fn table(&self, name: &str, width: usize) -> Embedding {
        self.params(self.std(width)).table(name, self.config.vocab_size, self.config.d_model)
    }

    fn norm(&self) -> RmsNorm {
        self.params(0.0).rms_norm(self.config.d_model)
    }

    fn params(&self, std: f32) -> ParamInit<'_> {
        let eps = self.config.layer_norm_epsilon;
        ParamInit { std, eps, unit_offset: false, seed: self.seed, device: self.device }
    }
}
