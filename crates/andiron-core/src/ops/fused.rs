//! The extension trait: what a backend may compute in one go, and its portable default.

#![allow(deprecated)] // `NdArray` is deprecated in Burn 0.22; it stays a supported choice here.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};

use super::{
    Activation, AdamWStep, AttentionOptions, FeedForwardOptions, Matrices, MuonStep, Precision, Turn,
    WeightLayout, composed,
};
use crate::quant::QuantMatrix;

/// Operations that a backend may override with kernels of its own.
///
/// Every method has a default body made of Burn's operations, which is also the oracle that overrides are
/// tested against. The methods named `…_backward`, `…_grad` and `…_with_…` serve the hand-written gradients.
/// Rank-2 tensors are `[rows, width]`; [`super`] documents the meaning and checks the shapes.
// The macro reads tuples of tensors, not aliases of them; default bodies heed no precision.
#[allow(clippy::too_many_arguments, clippy::type_complexity, unused_variables)]
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Autodiff,
    Fusion: cfg(feature = "cube")
)]
pub trait FusedOps: Backend {
    /// `x · W`.
    ///
    /// `precision` is what the factors of products may be rounded to; the default bodies do not.
    #[fusion(default)]
    fn affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        layout: WeightLayout,
        precision: Precision,
    ) -> FloatTensor<Self> {
        composed::affine::<Self>(x, weight, layout)
    }

    /// `x · W + b`.
    #[fusion(default)]
    fn affine_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        layout: WeightLayout,
        precision: Precision,
    ) -> FloatTensor<Self> {
        composed::affine_bias::<Self>(x, weight, bias, layout)
    }

    /// `x · Wᵀ` of a matrix in blocks.
    #[fusion(default)]
    fn affine_quantized(
        x: FloatTensor<Self>,
        weight: QuantMatrix,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let weight = composed::dequantized::<Self>(&x, &weight);
        Self::affine(x, weight, WeightLayout::OutIn, precision)
    }

    /// `x · Wᵀ + b` of a matrix in blocks.
    #[fusion(default)]
    fn affine_quantized_bias(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        weight: QuantMatrix,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let weight = composed::dequantized::<Self>(&x, &weight);
        Self::affine_bias(x, weight, bias, WeightLayout::OutIn, precision)
    }

    /// Gradients of [`FusedOps::affine`] with respect to input and weight.
    #[fusion(default)]
    fn affine_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        layout: WeightLayout,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let dx = Self::affine(dy.clone(), weight, layout.transposed(), precision);
        (dx, Self::affine_weight_grad(x, dy, layout, precision))
    }

    /// Gradients of [`FusedOps::affine_bias`] with respect to input, weight and bias.
    #[fusion(default)]
    fn affine_bias_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        layout: WeightLayout,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (dx, dweight) = Self::affine_backward(x, weight, dy.clone(), layout, precision);
        (dx, dweight, Self::column_sum(dy))
    }

    /// Gradient of [`FusedOps::affine`] with respect to the weight.
    #[fusion(default)]
    fn affine_weight_grad(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        layout: WeightLayout,
        precision: Precision,
    ) -> FloatTensor<Self> {
        composed::affine_weight_grad::<Self>(x, dy, layout)
    }

    /// Sum over rows: the gradient of a bias.
    #[fusion(default)]
    fn column_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::column_sum::<Self>(x)
    }

    /// Layer norm of the last axis, of any number of others. If `carried`, the gradient of `x` is there, but for this
    /// norm's share, before that is computed.
    #[fusion(default)]
    fn layer_norm_rows(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        eps: f64,
        carried: bool,
    ) -> FloatTensor<Self> {
        Self::layer_norm_with_moments(x, gain, offset, eps).0
    }

    /// Layer norm of each row, with each row's mean and reciprocal standard deviation.
    #[fusion(default)]
    fn layer_norm_with_moments(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed::layer_norm_with_moments::<Self>(x, gain, offset, eps)
    }

    /// A sum and its layer norm.
    #[fusion(default)]
    fn layer_norm_of_sum(
        x: FloatTensor<Self>,
        added: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        eps: f64,
        carried: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (sum, y, _, _) = Self::layer_norm_of_sum_with_moments(x, added, gain, offset, eps);
        (sum, y)
    }

    /// The same, with each row's mean and reciprocal standard deviation.
    #[fusion(default)]
    fn layer_norm_of_sum_with_moments(
        x: FloatTensor<Self>,
        added: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let sum = Self::residual(x, added);
        let (y, mean, rstd) = Self::layer_norm_with_moments(sum.clone(), gain, offset, eps);
        (sum, y, mean, rstd)
    }

    /// Gradients of [`FusedOps::layer_norm_rows`] with respect to input, gain and offset.
    #[fusion(default)]
    fn layer_norm_backward(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed::layer_norm_backward::<Self>(x, gain, mean, rstd, dy)
    }

    /// The same, the first gradient being added to `past`.
    #[fusion(default)]
    fn layer_norm_backward_onto(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        past: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (dx, dgain, doffset) = Self::layer_norm_backward(x, gain, mean, rstd, dy);
        (Self::float_add(past, dx), dgain, doffset)
    }

    /// RMS norm of the last axis, of any number of others; `carried` as for [`FusedOps::layer_norm_rows`].
    #[fusion(default)]
    fn rms_norm_rows(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        eps: f64,
        carried: bool,
    ) -> FloatTensor<Self> {
        Self::rms_norm_with_rstd(x, gain, eps).0
    }

    /// RMS norm of each row, with the reciprocal root of each row's mean square.
    #[fusion(default)]
    fn rms_norm_with_rstd(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::rms_norm_with_rstd::<Self>(x, gain, eps)
    }

    /// A sum and its RMS norm.
    #[fusion(default)]
    fn rms_norm_of_sum(
        x: FloatTensor<Self>,
        added: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        eps: f64,
        carried: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (sum, y, _) = Self::rms_norm_of_sum_with_rstd(x, added, gain, eps);
        (sum, y)
    }

    /// The same, with the reciprocal root of each row's mean square.
    #[fusion(default)]
    fn rms_norm_of_sum_with_rstd(
        x: FloatTensor<Self>,
        added: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let sum = Self::residual(x, added);
        let (y, rstd) = Self::rms_norm_with_rstd(sum.clone(), gain, eps);
        (sum, y, rstd)
    }

    /// Gradients of [`FusedOps::rms_norm_rows`] with respect to input and gain.
    #[fusion(default)]
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::rms_norm_backward::<Self>(x, gain, rstd, dy)
    }

    /// The same, the first gradient being added to `past`.
    #[fusion(default)]
    fn rms_norm_backward_onto(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        rstd: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        past: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (dx, dgain) = Self::rms_norm_backward(x, gain, rstd, dy);
        (Self::float_add(past, dx), dgain)
    }

    /// An activation function of each element.
    #[fusion(default)]
    fn activate(x: FloatTensor<Self>, form: Activation) -> FloatTensor<Self> {
        composed::activate::<Self>(x, form)
    }

    /// Gradient of [`FusedOps::activate`].
    #[fusion(default)]
    fn activate_backward(x: FloatTensor<Self>, dy: FloatTensor<Self>, form: Activation) -> FloatTensor<Self> {
        composed::activate_backward::<Self>(x, dy, form)
    }

    /// An activation function of each element, times another element.
    #[fusion(default)]
    fn gate(x: FloatTensor<Self>, up: FloatTensor<Self>, form: Activation) -> FloatTensor<Self> {
        Self::float_mul(Self::activate(x, form), up)
    }

    /// Gradients of [`FusedOps::gate`] with respect to both.
    #[fusion(default)]
    fn gate_backward(
        x: FloatTensor<Self>,
        up: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        form: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let dx = Self::activate_backward(x.clone(), Self::float_mul(dy.clone(), up), form);
        (dx, Self::gate(x, dy, form))
    }

    /// An affine map, an activation function of each element, and another affine map.
    #[fusion(default)]
    fn feed_forward(
        x: FloatTensor<Self>,
        up: FloatTensor<Self>,
        up_bias: FloatTensor<Self>,
        down: FloatTensor<Self>,
        down_bias: FloatTensor<Self>,
        how: (FeedForwardOptions, Precision),
    ) -> FloatTensor<Self> {
        Self::feed_forward_with_saved(x, up, up_bias, down, down_bias, how).0
    }

    /// The same, with what [`FusedOps::feed_forward_backward`] wants: here, the input of the activation.
    #[fusion(default)]
    fn feed_forward_with_saved(
        x: FloatTensor<Self>,
        up: FloatTensor<Self>,
        up_bias: FloatTensor<Self>,
        down: FloatTensor<Self>,
        down_bias: FloatTensor<Self>,
        how: (FeedForwardOptions, Precision),
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::feed_forward_with_saved::<Self>(x, [up, down], [up_bias, down_bias], how.0)
    }

    /// Gradients of [`FusedOps::feed_forward`] with respect to the input, the first map and its bias, the second map and
    /// its bias.
    #[fusion(default)]
    fn feed_forward_backward(
        x: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        how: (FeedForwardOptions, Precision),
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed::feed_forward_backward::<Self>(x, [up, down], saved, dy, how.0)
    }

    /// Two maps, an activation function of each element that the first makes, times that of the second, and a last map.
    #[fusion(default)]
    fn gated_feed_forward(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        how: (FeedForwardOptions, Precision),
    ) -> FloatTensor<Self> {
        Self::gated_feed_forward_with_saved(x, gate, up, down, how).0
    }

    /// The same, with two tensors that [`FusedOps::gated_feed_forward_backward`] wants: here, what the first maps make.
    #[fusion(default)]
    fn gated_feed_forward_with_saved(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        how: (FeedForwardOptions, Precision),
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed::gated_feed_forward_with_saved::<Self>(x, [gate, up, down], how.0)
    }

    /// Gradients of [`FusedOps::gated_feed_forward`] with respect to the input and the maps.
    #[fusion(default)]
    fn gated_feed_forward_backward(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        gate_saved: FloatTensor<Self>,
        up_saved: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        how: (FeedForwardOptions, Precision),
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed::gated_feed_forward_backward::<Self>(x, [gate, up, down], [gate_saved, up_saved], dy, how.0)
    }

    /// Sum of two tensors of one shape.
    #[fusion(default)]
    fn residual(x: FloatTensor<Self>, added: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_add(x, added)
    }

    /// Pairs of channels of `[batch, time, heads, width]`, turned by the angles of `[batch or 1, time, 1, pairs]`.
    #[fusion(default)]
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        way: Turn,
    ) -> FloatTensor<Self> {
        composed::rotate::<Self>(x, cos, sin, way)
    }

    /// Attention over heads.
    #[fusion(default)]
    fn attention_heads(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        Self::attention_with_lse(q, k, v, options, precision).0
    }

    /// Attention over heads, with the logarithm of each softmax's denominator, `[batch, heads, t]`.
    #[fusion(default)]
    fn attention_with_lse(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::attention_with_lse::<Self>([q, k, v], None, options)
    }

    /// Gradients of [`FusedOps::attention_heads`] with respect to queries, keys and values.
    #[fusion(default)]
    fn attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        how: (AttentionOptions, Precision),
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed::attention_backward::<Self>([q, k, v, out, lse, dout], None, how.0).0
    }

    /// [`FusedOps::attention_heads`] with a bias for each head and distance, `[heads, t + n_keys − 1]`.
    #[fusion(default)]
    fn attention_biased(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        Self::attention_biased_with_lse(q, k, v, bias, options, precision).0
    }

    /// The same, with the logarithm of each softmax's denominator, `[batch, heads, t]`.
    #[fusion(default)]
    fn attention_biased_with_lse(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::attention_with_lse::<Self>([q, k, v], Some(bias), options)
    }

    /// Gradients of [`FusedOps::attention_biased`] with respect to queries, keys, values and biases.
    #[fusion(default)]
    fn attention_biased_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        how: (AttentionOptions, Precision),
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let tensors = [q, k, v, out, lse, dout];
        let ((dq, dk, dv), dbias) = composed::attention_backward::<Self>(tensors, Some(bias), how.0);
        (dq, dk, dv, dbias.expect("a bias has a gradient"))
    }

    /// Attention of positions over themselves, from one tensor `[batch, t, 3 · heads · width]` of queries, keys and
    /// values side by side; `[batch, t, heads · width]`.
    #[fusion(default)]
    fn attention_packed(
        qkv: FloatTensor<Self>,
        heads: usize,
        options: AttentionOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        Self::attention_packed_with_lse(qkv, heads, options, precision).0
    }

    /// The same, with the logarithm of each softmax's denominator, `[batch, heads, t]`.
    #[fusion(default)]
    fn attention_packed_with_lse(
        qkv: FloatTensor<Self>,
        heads: usize,
        options: AttentionOptions,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::attention_packed_with_lse::<Self>(qkv, heads, options)
    }

    /// Gradient of [`FusedOps::attention_packed`].
    #[fusion(default)]
    fn attention_packed_backward(
        qkv: FloatTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        composed::attention_packed_backward::<Self>([qkv, out, lse, dout], options)
    }

    /// Rows of a table.
    #[fusion(default)]
    fn embedding_rows(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        Self::embedding(table, ids)
    }

    /// Gradient of [`FusedOps::embedding_rows`] with respect to the table.
    #[fusion(default)]
    fn embedding_rows_backward(
        table: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        ids: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::embedding_backward(table, dy, ids)
    }

    /// Weighted cross-entropy of an output head.
    #[fusion(default)]
    fn head_cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        composed::head_cross_entropy::<Self>(hidden, head, targets, weights)
    }

    /// The same, with its gradients with respect to hidden states and head.
    #[fusion(default)]
    fn head_cross_entropy_with_grad(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed::head_cross_entropy_with_grad::<Self>(hidden, head, targets, weights)
    }

    /// Dropout by a mask that is a function of `seed` and place.
    #[fusion(default)]
    fn dropout(x: FloatTensor<Self>, probability: f32, seed: u64) -> FloatTensor<Self> {
        composed::dropout::<Self>(x, probability, seed)
    }

    /// One AdamW step: parameter, mean, square.
    #[fusion(default)]
    fn adamw(
        value: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        square: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composed::adamw::<Self>([value, grad, mean, square], step)
    }

    /// The direction of a Muon step, and the new running mean of gradients.
    #[fusion(default)]
    fn muon_direction(
        grad: FloatTensor<Self>,
        momentum: FloatTensor<Self>,
        how: (MuonStep, Matrices),
        precision: Precision,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed::muon_direction::<Self>(grad, momentum, how)
    }

    /// `keep · value − size · direction`.
    #[fusion(default)]
    fn descend(
        value: FloatTensor<Self>,
        direction: FloatTensor<Self>,
        keep: f32,
        size: f32,
    ) -> FloatTensor<Self> {
        composed::descend::<Self>(value, direction, keep, size)
    }

    /// Sum of squares.
    #[fusion(default)]
    fn square_sum(x: FloatTensor<Self>) -> FloatTensor<Self> {
        composed::square_sum::<Self>(x)
    }
}

#[cfg(feature = "cube")]
impl FusedOps for burn::backend::Cube {}
