//! The modules of a ModernBERT, with field names as in its files.

use andiron_core::attention::{AttentionConfig, AttentionMask, attend};
use andiron_core::position::rotary::{Angles, Rotary};
use andiron_core::{DropoutSite, Embedding, Forward, Linear, Weight, ops};
use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

use crate::encoder::embed::Pooling;
use crate::encoder::head::{
    EncoderHead, Head, HeadActivation, HeadNorm, MaskedLmHead, SequenceHead, TokenHead, Transform,
};
use crate::family::Encoder;
use crate::hf_config::Activation;

/// A ModernBERT with the head of its configuration.
#[derive(Module, Debug)]
pub struct ModernBert {
    pub(super) model: Body,
    pub(super) head: Option<PredictionHead>,
    pub(super) decoder: Option<Projector>,
    pub(super) classifier: Option<Linear>,
    #[module(skip)]
    pub(super) rotary: Rotary,
    #[module(skip)]
    pub(super) local_rotary: Rotary,
    #[module(skip)]
    pub(super) n_heads: usize,
    #[module(skip)]
    /// Sliding window of local layers: tokens on each side, the query's own included.
    pub(super) sliding_window: usize,
    #[module(skip)]
    pub(super) activation: Activation,
    #[module(skip)]
    pub(super) pooling: Pooling,
    #[module(skip)]
    pub(super) dropout: Dropout,
    #[module(skip)]
    pub(super) task: EncoderHead,
}

/// Dropout probabilities by place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dropout {
    pub(super) embedding: f32,
    pub(super) attention: f32,
    pub(super) mlp: f32,
    pub(super) classifier: f32,
}

#[derive(Module, Debug)]
pub(super) struct Body {
    pub(super) embeddings: Embeddings,
    pub(super) layers: Vec<Layer>,
    pub(super) final_norm: Norm,
}

#[derive(Module, Debug)]
pub(super) struct Embeddings {
    pub(super) tok_embeddings: Embedding,
    pub(super) norm: Norm,
}

/// A layer norm with an optional bias.
#[derive(Module, Debug)]
pub(crate) struct Norm {
    pub(super) weight: Param<Tensor<1>>,
    pub(super) bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(super) eps: f64,
}

#[derive(Module, Debug)]
pub(super) struct Layer {
    pub(super) attn_norm: Option<Norm>,
    pub(super) attn: Attention,
    pub(super) mlp_norm: Norm,
    pub(super) mlp: Mlp,
    #[module(skip)]
    pub(super) slides: bool,
}

#[derive(Module, Debug)]
pub(super) struct Attention {
    pub(super) w_qkv_: Linear,
    pub(super) w_o_: Linear,
}

#[derive(Module, Debug)]
pub(super) struct Mlp {
    pub(super) w_i_: Linear,
    pub(super) w_o_: Linear,
}

/// The dense layer before every head.
#[derive(Module, Debug)]
pub(super) struct PredictionHead {
    pub(super) dense: Linear,
    pub(super) norm: Norm,
    #[module(skip)]
    pub(super) activation: Activation,
}

/// Output projection of the masked-LM head; its weight is the token embeddings' if tied.
#[derive(Module, Debug)]
pub(super) struct Projector {
    pub(super) weight: Option<Weight>,
    pub(super) bias: Option<Param<Tensor<1>>>,
}

impl Norm {
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = self.weight.val();
        let bias = self.bias.as_ref().map_or_else(|| weight.zeros_like(), Param::val);
        ops::layer_norm(x, weight, bias, self.eps)
    }
}

impl Encoder for ModernBert {
    fn hidden(&self, ids_bt: Tensor<2, Int>, _: Option<Tensor<2, Int>>, cx: &mut Forward<'_>) -> Tensor<3> {
        let (t, device) = (ids_bt.dims()[1], ids_bt.device());
        let angles = self.rotary.angles(t, cx, &device);
        let local_angles = self.local_rotary.angles(t, cx, &device);
        let embeddings = &self.model.embeddings;
        let embedded = embeddings.norm.forward(embeddings.tok_embeddings.forward(ids_bt));
        let mut x_btd = cx.dropout(embedded, self.dropout.embedding, DropoutSite::Embeddings);
        let sizes = self.layer_sizes();
        for (index, layer) in self.model.layers.iter().enumerate() {
            cx.enter_layer(index);
            let angles = if layer.slides { &local_angles } else { &angles };
            x_btd = cx.block(layer, (x_btd, angles.clone()), move |layer, (x_btd, angles), cx| {
                layer.forward(x_btd, &angles, sizes, cx)
            });
        }
        self.model.final_norm.forward(x_btd)
    }

    fn head(&self) -> Head<'_> {
        let Some(head) = &self.head else { return Head::None };
        let transform = Transform {
            dense: &head.dense,
            activation: HeadActivation::Of(head.activation.function()),
            norm: HeadNorm::ModernBert(&head.norm),
        };
        let dropout = self.dropout.classifier;
        match (&self.decoder, &self.classifier, self.task) {
            (Some(decoder), ..) => {
                let words = &self.model.embeddings.tok_embeddings.weight;
                let (weight, bias) = (decoder.weight.as_ref().unwrap_or(words), decoder.bias.as_ref());
                Head::MaskedLm(MaskedLmHead { transform, weight, bias })
            }
            (None, Some(labels), EncoderHead::Classify { .. }) => {
                let pooling = self.pooling;
                let head = SequenceHead { pooling, pooled_dropout: 0.0, transform, dropout, labels };
                Head::SequenceClassification(head)
            }
            (None, Some(labels), EncoderHead::TokenClassify) => {
                Head::TokenClassification(TokenHead { transform: Some(transform), dropout, labels })
            }
            (None, Some(labels), _) => {
                Head::QuestionAnswering(TokenHead { transform: Some(transform), dropout, labels })
            }
            (None, None, _) => Head::None,
        }
    }
}

/// What all layers have in common.
#[derive(Clone, Copy, Debug)]
struct LayerSizes {
    n_heads: usize,
    sliding_window: usize,
    activation: Activation,
    dropout: Dropout,
}

impl ModernBert {
    fn layer_sizes(&self) -> LayerSizes {
        let Self { n_heads, sliding_window, activation, dropout, .. } = *self;
        LayerSizes { n_heads, sliding_window, activation, dropout }
    }
}

impl Layer {
    fn forward(
        &self,
        x_btd: Tensor<3>,
        angles: &Angles,
        sizes: LayerSizes,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let normed_btd = match &self.attn_norm {
            Some(norm) => norm.forward(x_btd.clone()),
            None => x_btd.clone(),
        };
        let x_btd = ops::residual(x_btd, self.attend(normed_btd, angles, sizes, cx));
        let inner = self.mlp.w_i_.forward(self.mlp_norm.forward(x_btd.clone()));
        let [b, t, f] = inner.dims();
        let half = |part: usize| inner.clone().slice([0..b, 0..t, part * f / 2..(part + 1) * f / 2]);
        let gated = ops::gate(half(0), half(1), sizes.activation.function());
        let dropped = cx.dropout(gated, sizes.dropout.mlp, DropoutSite::FeedForwardInner);
        ops::residual(x_btd, self.mlp.w_o_.forward(dropped))
    }

    fn attend(
        &self,
        x_btd: Tensor<3>,
        angles: &Angles,
        sizes: LayerSizes,
        cx: &mut Forward<'_>,
    ) -> Tensor<3> {
        let [b, t, d] = x_btd.dims();
        let (h, k) = (sizes.n_heads, d / sizes.n_heads);
        let qkv = self.attn.w_qkv_.forward(x_btd);
        let [q_bthk, k_bthk, v_bthk] = [0, 1, 2]
            .map(|part| qkv.clone().slice([0..b, 0..t, part * d..(part + 1) * d]).reshape([b, t, h, k]));
        let keys_values = cx.keys_values(0, angles.turn(k_bthk), v_bthk);
        let mask =
            AttentionMask { causal: false, sliding_window: self.slides.then_some(sizes.sliding_window) };
        let config = AttentionConfig {
            dropout: sizes.dropout.attention,
            ..AttentionConfig::new(1.0 / (k as f32).sqrt(), mask)
        };
        let mixed = attend(angles.turn(q_bthk), keys_values, config, cx).reshape([b, t, d]);
        cx.dropout(self.attn.w_o_.forward(mixed), sizes.dropout.attention, DropoutSite::AttentionOutput)
    }
}
