//! Encoder heads as values: layers that are applied to the hidden states of a backbone.
//!
//! Architectures hold the parameters of a head under their names in the file; a [`Head`] borrows them and defines
//! their order. So every head is written once.

use andiron_core::{DropoutSite, Forward, LayerNorm, Linear, Weight, ops};
use burn::module::Param;
use burn::tensor::{Tensor, activation};

use crate::encoder::embed::Pooling;
use crate::encoder::modernbert::Norm;

/// The head of a backbone.
#[derive(Clone, Debug)]
pub enum Head<'a> {
    /// None: the hidden states are the result.
    None,
    /// Masked-language-model head.
    MaskedLm(MaskedLmHead<'a>),
    /// Sequence-classification head.
    SequenceClassification(SequenceHead<'a>),
    /// Token-classification head.
    TokenClassification(TokenHead<'a>),
    /// Span head: scores each token as start (0) and as last token (1) of an answer.
    QuestionAnswering(TokenHead<'a>),
}

/// Masked-language-model head: vocabulary logits at masked positions.
#[derive(Clone, Debug)]
pub struct MaskedLmHead<'a> {
    pub(crate) transform: Transform<'a>,
    /// Output weight, one row per vocabulary entry.
    pub(crate) weight: &'a Weight,
    pub(crate) bias: Option<&'a Param<Tensor<1>>>,
}

/// Sequence-classification head.
#[derive(Clone, Debug)]
pub struct SequenceHead<'a> {
    /// Pooling of a text's hidden states.
    pub(crate) pooling: Pooling,
    /// Dropout before the dense layer, in training.
    pub(crate) pooled_dropout: f32,
    pub(crate) transform: Transform<'a>,
    /// Dropout before the classifier, in training.
    pub(crate) dropout: f32,
    pub(crate) labels: &'a Linear,
}

/// Token-classification head.
#[derive(Clone, Debug)]
pub struct TokenHead<'a> {
    pub(crate) transform: Option<Transform<'a>>,
    /// Dropout before the classifier, in training.
    pub(crate) dropout: f32,
    pub(crate) labels: &'a Linear,
}

/// A linear layer, an activation and, in some heads, a norm.
#[derive(Clone, Debug)]
pub(crate) struct Transform<'a> {
    pub(crate) dense: &'a Linear,
    pub(crate) activation: HeadActivation,
    pub(crate) norm: HeadNorm<'a>,
}

/// The activation of a [`Transform`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum HeadActivation {
    Tanh,
    Of(ops::Activation),
}

/// The norm of a [`Transform`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum HeadNorm<'a> {
    None,
    Layer(&'a LayerNorm),
    /// A layer norm whose bias may be missing.
    ModernBert(&'a Norm),
}

impl Transform<'_> {
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = self.dense.forward(x);
        let x = match self.activation {
            HeadActivation::Tanh => activation::tanh(x),
            HeadActivation::Of(function) => ops::activate(x, function),
        };
        match self.norm {
            HeadNorm::None => x,
            HeadNorm::Layer(norm) => norm.forward(x),
            HeadNorm::ModernBert(norm) => norm.forward(x),
        }
    }
}

impl MaskedLmHead<'_> {
    /// Vocabulary logits at the given positions.
    ///
    /// # Shape
    /// `[n, d_model]`, the hidden states of those positions → `[n, vocabulary]`.
    pub fn forward(&self, hidden_nd: Tensor<2>) -> Tensor<2> {
        let bias = self.bias.map(Param::val);
        self.weight.project(self.transform(hidden_nd), bias)
    }

    /// The layers before the projection to the vocabulary.
    ///
    /// # Shape
    /// `[n, d_model]` → `[n, d_model]`.
    pub fn transform(&self, hidden_nd: Tensor<2>) -> Tensor<2> {
        self.transform.forward(hidden_nd)
    }

    /// The projection to the vocabulary, for a loss that never has all logits at once:
    /// [`ops::head_cross_entropy`] or [`ops::head_losses`] of what [`transform`](Self::transform) returns.
    pub fn projection(&self) -> ops::Head {
        ops::Head { weight_vd: self.weight.val(), bias_v: self.bias.map(Param::val) }
    }
}

impl SequenceHead<'_> {
    /// Label logits of each text, or raw outputs for regression.
    ///
    /// # Shape
    /// `[batch, time, d_model]`, computed over the rows of `cx` → `[batch, labels]`.
    pub fn forward(&self, hidden_btd: Tensor<3>, cx: &mut Forward<'_>) -> Tensor<2> {
        let pooled_bd = self.pooling.pool(hidden_btd, cx.padding_mask());
        let pooled_bd = cx.dropout(pooled_bd, self.pooled_dropout, DropoutSite::Pooled);
        let x_bd = cx.with_adapters(|| self.transform.forward(pooled_bd));
        let x_bd = cx.dropout(x_bd, self.dropout, DropoutSite::Head);
        cx.with_adapters(|| self.labels.forward(x_bd))
    }
}

impl TokenHead<'_> {
    /// Label logits of each token.
    ///
    /// # Shape
    /// `[batch, time, d_model]` → `[batch, time, labels]`.
    pub fn forward(&self, hidden_btd: Tensor<3>, cx: &mut Forward<'_>) -> Tensor<3> {
        let x_btd = match &self.transform {
            Some(transform) => cx.with_adapters(|| transform.forward(hidden_btd)),
            None => hidden_btd,
        };
        let x_btd = cx.dropout(x_btd, self.dropout, DropoutSite::Head);
        cx.with_adapters(|| self.labels.forward(x_btd))
    }
}
