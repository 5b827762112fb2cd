//! Fused operations on tensors in this process's memory, through `andiron-kernels`.
//!
//! [`HostTensors`] is how a CPU backend lends the memory of a tensor and takes a new one over without a copy;
//! `kernels`, `norms` and `feed_forward` write the operations once over it; [`host_ops!`] makes a backend use them, and
//! has their time counted.

mod blocks;
mod feed_forward;
#[cfg(feature = "flex")]
mod flex;
mod kernels;
#[cfg(feature = "ndarray")]
mod ndarray;
mod norms;

use std::borrow::Cow;

use burn::backend::Backend;
use burn::backend::tensor::{FloatTensor, IntTensor};

pub(super) use blocks::attention_blocks;

/// A backend whose tensors are ordinary memory.
trait HostTensors: Backend {
    /// The elements in row-major order: borrowed where the tensor lies so, else gathered.
    ///
    /// # Panics
    /// If the elements are not f32.
    fn floats(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]>;

    /// The ids of an integer tensor of any width, in row-major order.
    ///
    /// # Panics
    /// If one is negative or does not fit 32 bits.
    fn ids(tensor: &IntTensor<Self>) -> Vec<u32>;

    /// A tensor that owns `values`, laid out row-major.
    fn from_vec(values: Vec<f32>, shape: &[usize]) -> FloatTensor<Self>;

    /// The tensor's memory, row-major: taken over if nobody else holds it, else copied.
    ///
    /// # Panics
    /// If the elements are not f32.
    fn into_vec(tensor: FloatTensor<Self>) -> Vec<f32>;
}

/// Implements [`FusedOps`](super::FusedOps) for a backend that implements [`HostTensors`].
macro_rules! host_ops {
    ($backend:ty) => {
        use crate::ops::host::{feed_forward, kernels, norms};
        use crate::ops::{
            Activation, AdamWStep, AttentionOptions, FeedForwardOptions, FusedOps, Matrices, MuonStep,
            OpKind, Precision, Turn, WeightLayout,
        };
        use crate::quant::QuantMatrix;

        type Float = burn::backend::tensor::FloatTensor<$backend>;
        type Int = burn::backend::tensor::IntTensor<$backend>;

        impl FusedOps for $backend {
            fn affine(x: Float, weight: Float, layout: WeightLayout, precision: Precision) -> Float {
                let _time = OpKind::Products.timer();
                kernels::affine::<Self>(x, weight, layout, precision)
            }

            fn affine_bias(
                x: Float,
                weight: Float,
                bias: Float,
                layout: WeightLayout,
                precision: Precision,
            ) -> Float {
                let _time = OpKind::Products.timer();
                kernels::affine_bias::<Self>(x, weight, bias, layout, precision)
            }

            fn affine_backward(
                x: Float,
                weight: Float,
                dy: Float,
                layout: WeightLayout,
                precision: Precision,
            ) -> (Float, Float) {
                let _time = OpKind::Products.timer();
                let (dx, dweight, _) =
                    kernels::affine_backward::<Self>(x, weight, dy, (layout, precision), false);
                (dx, dweight)
            }

            fn affine_bias_backward(
                x: Float,
                weight: Float,
                dy: Float,
                layout: WeightLayout,
                precision: Precision,
            ) -> (Float, Float, Float) {
                let _time = OpKind::Products.timer();
                kernels::affine_backward::<Self>(x, weight, dy, (layout, precision), true)
            }

            fn affine_quantized(x: Float, weight: QuantMatrix, precision: Precision) -> Float {
                let _time = OpKind::Products.timer();
                kernels::affine_quantized::<Self>(x, None, weight, precision)
            }

            fn affine_quantized_bias(
                x: Float,
                bias: Float,
                weight: QuantMatrix,
                precision: Precision,
            ) -> Float {
                let _time = OpKind::Products.timer();
                kernels::affine_quantized::<Self>(x, Some(bias), weight, precision)
            }

            fn affine_weight_grad(x: Float, dy: Float, layout: WeightLayout, precision: Precision) -> Float {
                let _time = OpKind::Products.timer();
                kernels::affine_weight_grad::<Self>(x, dy, layout, precision)
            }

            fn column_sum(x: Float) -> Float {
                let _time = OpKind::Products.timer();
                kernels::column_sum::<Self>(x)
            }

            fn layer_norm_with_moments(
                x: Float,
                gain: Float,
                offset: Float,
                eps: f64,
            ) -> (Float, Float, Float) {
                let _time = OpKind::Norms.timer();
                norms::layer_norm_with_moments::<Self>(x, gain, offset, eps)
            }

            fn layer_norm_of_sum_with_moments(
                x: Float,
                added: Float,
                gain: Float,
                offset: Float,
                eps: f64,
            ) -> (Float, Float, Float, Float) {
                let _time = OpKind::Norms.timer();
                norms::layer_norm_of_sum_with_moments::<Self>(x, added, [gain, offset], eps)
            }

            fn layer_norm_backward(
                x: Float,
                gain: Float,
                mean: Float,
                rstd: Float,
                dy: Float,
            ) -> (Float, Float, Float) {
                let _time = OpKind::Norms.timer();
                norms::layer_norm_backward::<Self>(x, gain, mean, rstd, dy, None)
            }

            fn layer_norm_backward_onto(
                x: Float,
                gain: Float,
                mean: Float,
                rstd: Float,
                dy: Float,
                past: Float,
            ) -> (Float, Float, Float) {
                let _time = OpKind::Norms.timer();
                norms::layer_norm_backward::<Self>(x, gain, mean, rstd, dy, Some(past))
            }

            fn rms_norm_with_rstd(x: Float, gain: Float, eps: f64) -> (Float, Float) {
                let _time = OpKind::Norms.timer();
                norms::rms_norm_with_rstd::<Self>(x, gain, eps)
            }

            fn rms_norm_of_sum_with_rstd(
                x: Float,
                added: Float,
                gain: Float,
                eps: f64,
            ) -> (Float, Float, Float) {
                let _time = OpKind::Norms.timer();
                norms::rms_norm_of_sum_with_rstd::<Self>(x, added, gain, eps)
            }

            fn rms_norm_backward(x: Float, gain: Float, rstd: Float, dy: Float) -> (Float, Float) {
                let _time = OpKind::Norms.timer();
                norms::rms_norm_backward::<Self>(x, gain, rstd, dy, None)
            }

            fn rms_norm_backward_onto(
                x: Float,
                gain: Float,
                rstd: Float,
                dy: Float,
                past: Float,
            ) -> (Float, Float) {
                let _time = OpKind::Norms.timer();
                norms::rms_norm_backward::<Self>(x, gain, rstd, dy, Some(past))
            }

            fn activate(x: Float, form: Activation) -> Float {
                let _time = OpKind::Activations.timer();
                kernels::activate::<Self>(x, form)
            }

            fn activate_backward(x: Float, dy: Float, form: Activation) -> Float {
                let _time = OpKind::Activations.timer();
                kernels::activate_backward::<Self>(x, dy, form)
            }

            fn gate(x: Float, up: Float, form: Activation) -> Float {
                let _time = OpKind::Activations.timer();
                kernels::gate::<Self>(x, up, form)
            }

            fn gate_backward(x: Float, up: Float, dy: Float, form: Activation) -> (Float, Float) {
                let _time = OpKind::Activations.timer();
                kernels::gate_backward::<Self>(x, up, dy, form)
            }

            fn feed_forward(
                x: Float,
                up: Float,
                up_bias: Float,
                down: Float,
                down_bias: Float,
                how: (FeedForwardOptions, Precision),
            ) -> Float {
                let _time = OpKind::FeedForward.timer();
                feed_forward::forward::<Self>(x, [up, down], [up_bias, down_bias], how, false).0
            }

            fn feed_forward_with_saved(
                x: Float,
                up: Float,
                up_bias: Float,
                down: Float,
                down_bias: Float,
                how: (FeedForwardOptions, Precision),
            ) -> (Float, Float) {
                let _time = OpKind::FeedForward.timer();
                feed_forward::forward::<Self>(x, [up, down], [up_bias, down_bias], how, true)
            }

            fn feed_forward_backward(
                x: Float,
                up: Float,
                down: Float,
                saved: Float,
                dy: Float,
                how: (FeedForwardOptions, Precision),
            ) -> (Float, Float, Float, Float, Float) {
                let _time = OpKind::FeedForward.timer();
                feed_forward::backward::<Self>(x, [up, down], saved, dy, how)
            }

            fn gated_feed_forward(
                x: Float,
                gate: Float,
                up: Float,
                down: Float,
                how: (FeedForwardOptions, Precision),
            ) -> Float {
                let _time = OpKind::FeedForward.timer();
                feed_forward::gated_forward::<Self>(x, [gate, up, down], how, false).0
            }

            fn gated_feed_forward_with_saved(
                x: Float,
                gate: Float,
                up: Float,
                down: Float,
                how: (FeedForwardOptions, Precision),
            ) -> (Float, Float, Float) {
                let _time = OpKind::FeedForward.timer();
                feed_forward::gated_forward::<Self>(x, [gate, up, down], how, true)
            }

            fn gated_feed_forward_backward(
                x: Float,
                gate: Float,
                up: Float,
                down: Float,
                gate_saved: Float,
                up_saved: Float,
                dy: Float,
                how: (FeedForwardOptions, Precision),
            ) -> (Float, Float, Float, Float) {
                let _time = OpKind::FeedForward.timer();
                feed_forward::gated_backward::<Self>(x, [gate, up, down], [gate_saved, up_saved], dy, how)
            }

            fn residual(x: Float, added: Float) -> Float {
                let _time = OpKind::Residuals.timer();
                kernels::residual::<Self>(x, added)
            }

            fn rotate(x: Float, cos: Float, sin: Float, way: Turn) -> Float {
                let _time = OpKind::Rotary.timer();
                kernels::rotate::<Self>(x, (cos, sin), way)
            }

            fn attention_with_lse(
                q: Float,
                k: Float,
                v: Float,
                options: AttentionOptions,
                precision: Precision,
            ) -> (Float, Float) {
                let _time = OpKind::Attention.timer();
                kernels::attention_with_lse::<Self>([q, k, v], None, (options, precision))
            }

            fn attention_backward(
                q: Float,
                k: Float,
                v: Float,
                out: Float,
                lse: Float,
                dout: Float,
                how: (AttentionOptions, Precision),
            ) -> (Float, Float, Float) {
                let _time = OpKind::Attention.timer();
                kernels::attention_backward::<Self>([q, k, v, out, lse, dout], None, how).0
            }

            fn attention_biased_with_lse(
                q: Float,
                k: Float,
                v: Float,
                bias: Float,
                options: AttentionOptions,
                precision: Precision,
            ) -> (Float, Float) {
                let _time = OpKind::Attention.timer();
                kernels::attention_with_lse::<Self>([q, k, v], Some(bias), (options, precision))
            }

            fn attention_biased_backward(
                q: Float,
                k: Float,
                v: Float,
                bias: Float,
                out: Float,
                lse: Float,
                dout: Float,
                how: (AttentionOptions, Precision),
            ) -> (Float, Float, Float, Float) {
                let _time = OpKind::Attention.timer();
                let tensors = [q, k, v, out, lse, dout];
                let ((dq, dk, dv), dbias) = kernels::attention_backward::<Self>(tensors, Some(bias), how);
                (dq, dk, dv, dbias.expect("a bias has a gradient"))
            }

            fn attention_packed_with_lse(
                qkv: Float,
                heads: usize,
                options: AttentionOptions,
                precision: Precision,
            ) -> (Float, Float) {
                let _time = OpKind::Attention.timer();
                kernels::attention_packed_with_lse::<Self>(qkv, heads, options, precision)
            }

            fn attention_packed_backward(
                qkv: Float,
                out: Float,
                lse: Float,
                dout: Float,
                options: AttentionOptions,
                precision: Precision,
            ) -> Float {
                let _time = OpKind::Attention.timer();
                kernels::attention_packed_backward::<Self>([qkv, out, lse, dout], options, precision)
            }

            fn embedding_rows(table: Float, ids: Int) -> Float {
                let _time = OpKind::Embedding.timer();
                kernels::embedding_rows::<Self>(table, ids)
            }

            fn embedding_rows_backward(table: Float, dy: Float, ids: Int) -> Float {
                let _time = OpKind::Embedding.timer();
                kernels::embedding_rows_backward::<Self>(table, dy, ids)
            }

            fn head_cross_entropy(
                hidden: Float,
                head: Float,
                targets: Int,
                weights: Float,
                precision: Precision,
            ) -> Float {
                let _time = OpKind::CrossEntropy.timer();
                kernels::head_cross_entropy::<Self>(hidden, head, targets, weights, precision)
            }

            fn head_cross_entropy_with_grad(
                hidden: Float,
                head: Float,
                targets: Int,
                weights: Float,
                precision: Precision,
            ) -> (Float, Float, Float) {
                let _time = OpKind::CrossEntropy.timer();
                kernels::head_cross_entropy_with_grad::<Self>(hidden, head, targets, weights, precision)
            }

            fn dropout(x: Float, probability: f32, seed: u64) -> Float {
                let _time = OpKind::Dropout.timer();
                kernels::dropout::<Self>(x, probability, seed)
            }

            fn adamw(
                value: Float,
                grad: Float,
                mean: Float,
                square: Float,
                step: AdamWStep,
            ) -> (Float, Float, Float) {
                let _time = OpKind::Optimizer.timer();
                kernels::adamw::<Self>([value, grad, mean, square], step)
            }

            fn muon_direction(
                grad: Float,
                momentum: Float,
                how: (MuonStep, Matrices),
                precision: Precision,
            ) -> (Float, Float) {
                let _time = OpKind::Optimizer.timer();
                kernels::muon_direction::<Self>(grad, momentum, how, precision)
            }

            fn descend(value: Float, direction: Float, keep: f32, size: f32) -> Float {
                let _time = OpKind::Optimizer.timer();
                kernels::descend::<Self>(value, direction, (keep, size))
            }

            fn square_sum(x: Float) -> Float {
                let _time = OpKind::Optimizer.timer();
                kernels::square_sum::<Self>(x)
            }
        }
    };
}
use host_ops;
