//! The modules of a ModernBERT, their fields named as in its files.

use andiron_core::attention::{AttentionConfig, AttentionMask, attend};
use andiron_core::position::rotary::{Angles, Rotary};
use andiron_core::{Embedding, Forward, Linear, Weight, ops};
use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

use crate::encoder::embed::Pooling;
use crate::family::Encoder;
use crate::hf_config::Activation;

/// A ModernBERT with the head that its configuration names.
#[derive(Module, Debug)]
pub struct ModernBert {
    pub(super) model: Body,
    pub(super) head: Option<Head>,
    pub(super) decoder: Option<Projector>,
    pub(super) classifier: Option<Linear>,
    #[module(skip)]
    pub(super) rotary: Rotary,
    #[module(skip)]
    pub(super) local_rotary: Rotary,
    #[module(skip)]
    pub(super) n_heads: usize,
    #[module(skip)]
    pub(super) reach: usize,
    #[module(skip)]
    pub(super) activation: Activation,
    #[module(skip)]
    pub(super) pooling: Pooling,
    #[module(skip)]
    pub(super) dropout: Dropout,
}

/// Probabilities, by place.
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

/// A layer norm whose offset may be missing.
#[derive(Module, Debug)]
pub(super) struct Norm {
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

/// What stands under every head.
#[derive(Module, Debug)]
pub(super) struct Head {
    pub(super) dense: Linear,
    pub(super) norm: Norm,
    #[module(skip)]
    pub(super) activation: Activation,
}

/// The last map of the head for masked tokens; its weight is the embedding table's if they are tied.
#[derive(Module, Debug)]
pub(super) struct Projector {
    pub(super) weight: Option<Weight>,
    pub(super) bias: Option<Param<Tensor<1>>>,
}

impl Norm {
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = self.weight.val();
        let bias = self.bias.as_ref().map_or_else(|| weight.zeros_like(), Param::val);
        ops::layer_norm(x, weight, bias, self.eps)
    }
}

impl Head {
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.norm.forward(ops::activate(self.dense.forward(x), self.activation.function()))
    }
}

impl Encoder for ModernBert {
    fn hidden(&self, ids_bt: Tensor<2, Int>, _: Option<Tensor<2, Int>>, cx: &mut Forward<'_>) -> Tensor<3> {
        let (t, device) = (ids_bt.dims()[1], ids_bt.device());
        let angles = self.rotary.angles(t, cx, &device);
        let local_angles = self.local_rotary.angles(t, cx, &device);
        let embeddings = &self.model.embeddings;
        let embedded = embeddings.norm.forward(embeddings.tok_embeddings.forward(ids_bt));
        let mut x_btd = cx.dropout(embedded, self.dropout.embedding);
        for layer in &self.model.layers {
            x_btd = self.layer(layer, x_btd, if layer.slides { &local_angles } else { &angles }, cx);
        }
        self.model.final_norm.forward(x_btd)
    }

    fn masked_lm_logits(&self, hidden_nd: Tensor<2>) -> Tensor<2> {
        let (Some(head), Some(decoder)) = (&self.head, &self.decoder) else {
            panic!("the model has no head for masked tokens");
        };
        let weight = decoder.weight.as_ref().unwrap_or(&self.model.embeddings.tok_embeddings.weight);
        let bias = decoder.bias.as_ref().map(Param::val);
        weight.project(head.forward(hidden_nd), bias)
    }

    fn classify(&self, hidden_btd: Tensor<3>, cx: &mut Forward<'_>) -> Tensor<2> {
        let pooled_bd = self.pooling.pool(hidden_btd, cx.rows());
        let (head, classifier) = self.labels("labels of texts");
        classifier.forward(cx.dropout(head.forward(pooled_bd), self.dropout.classifier))
    }

    fn label_tokens(&self, hidden_btd: Tensor<3>, cx: &mut Forward<'_>) -> Tensor<3> {
        let (head, classifier) = self.labels("labels of tokens");
        classifier.forward(cx.dropout(head.forward(hidden_btd), self.dropout.classifier))
    }

    fn spans(&self, hidden_btd: Tensor<3>, cx: &mut Forward<'_>) -> Tensor<3> {
        let (head, classifier) = self.labels("spans");
        classifier.forward(cx.dropout(head.forward(hidden_btd), self.dropout.classifier))
    }
}

impl ModernBert {
    fn labels(&self, what: &str) -> (&Head, &Linear) {
        match (&self.head, &self.classifier) {
            (Some(head), Some(classifier)) => (head, classifier),
            _ => panic!("the model has no head for {what}"),
        }
    }

    fn layer(&self, layer: &Layer, x_btd: Tensor<3>, angles: &Angles, cx: &mut Forward<'_>) -> Tensor<3> {
        let normed_btd = match &layer.attn_norm {
            Some(norm) => norm.forward(x_btd.clone()),
            None => x_btd.clone(),
        };
        let x_btd = ops::residual(x_btd, self.attend(layer, normed_btd, angles, cx));
        let inner = layer.mlp.w_i_.forward(layer.mlp_norm.forward(x_btd.clone()));
        let [b, t, f] = inner.dims();
        let half = |part: usize| inner.clone().slice([0..b, 0..t, part * f / 2..(part + 1) * f / 2]);
        let gated = ops::gate(half(0), half(1), self.activation.function());
        ops::residual(x_btd, layer.mlp.w_o_.forward(cx.dropout(gated, self.dropout.mlp)))
    }

    fn attend(&self, layer: &Layer, x_btd: Tensor<3>, angles: &Angles, cx: &mut Forward<'_>) -> Tensor<3> {
        let [b, t, d] = x_btd.dims();
        let (h, k) = (self.n_heads, d / self.n_heads);
        let qkv = layer.attn.w_qkv_.forward(x_btd);
        let [q_bthk, k_bthk, v_bthk] = [0, 1, 2]
            .map(|part| qkv.clone().slice([0..b, 0..t, part * d..(part + 1) * d]).reshape([b, t, h, k]));
        let past = cx.past(0, angles.turn(k_bthk), v_bthk);
        let mask = AttentionMask { causal: false, sliding_window: layer.slides.then_some(self.reach + 1) };
        let config = AttentionConfig {
            dropout: self.dropout.attention,
            ..AttentionConfig::new(1.0 / (k as f32).sqrt(), mask)
        };
        let mixed = attend(angles.turn(q_bthk), past, config, cx).reshape([b, t, d]);
        cx.dropout(layer.attn.w_o_.forward(mixed), self.dropout.attention)
    }
}
