//! Fused feed-forward layers: two or three projections and the activation between them.

mod autodiff;
mod composed;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType};
use burn::tensor::Tensor;

pub use extension::FeedForwardOps;

use super::{Activation, Dispatch, WeightLayout};
use crate::precision;

/// Options of a [`feed_forward`] or [`gated_feed_forward`] layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedForwardOptions {
    /// The function between the projections.
    pub activation: Activation,
    /// Layouts of the weights before and after the activation.
    pub layouts: [WeightLayout; 2],
}

/// The parameters of a feed-forward layer; also their gradients.
#[derive(Clone, Debug, ExtensionType)]
pub enum FeedForwardParams<B: Backend> {
    /// Of [`feed_forward`].
    Plain {
        /// Weight before the activation.
        up: FloatTensor<B>,
        /// Its bias.
        up_bias: FloatTensor<B>,
        /// Weight after the activation.
        down: FloatTensor<B>,
        /// Its bias.
        down_bias: FloatTensor<B>,
    },
    /// Of [`gated_feed_forward`].
    Gated {
        /// Weight before the activation.
        gate: FloatTensor<B>,
        /// Weight of the up projection, which the activation gates.
        up: FloatTensor<B>,
        /// Weight of the down projection.
        down: FloatTensor<B>,
    },
}

/// `activate(x · W₁ + b₁) · W₂ + b₂` on the last axis, fused: where that is faster, the hidden
/// activations are never stored as a whole, and the backward pass recomputes the activation function.
///
/// Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.3, <https://arxiv.org/abs/1706.03762>.
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn feed_forward<const D: usize>(
    x: Tensor<D>,
    weights: [Tensor<2>; 2],
    biases: [Tensor<1>; 2],
    options: FeedForwardOptions,
) -> Tensor<D> {
    let sizes = sizes(x.dims(), weights.each_ref(), options);
    let [_, d_inner, d_output] = sizes;
    assert_eq!(
        [d_inner, d_output],
        biases.each_ref().map(|bias| bias.dims()[0]),
        "biases of the projections"
    );
    let ([up, down], [up_bias, down_bias]) =
        (weights.map(Tensor::into_dispatch), biases.map(Tensor::into_dispatch));
    run(x, FeedForwardParams::Plain { up, up_bias, down, down_bias }, sizes, options)
}

/// `(activate(x · W₁) · (x · W₂)) · W₃` on the last axis, fused like [`feed_forward`].
///
/// Source: Shazeer 2020, "GLU Variants Improve Transformer", <https://arxiv.org/abs/2002.05202>.
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn gated_feed_forward<const D: usize>(
    x: Tensor<D>,
    [gate, up, down]: [Tensor<2>; 3],
    options: FeedForwardOptions,
) -> Tensor<D> {
    let sizes = sizes(x.dims(), [&up, &down], options);
    assert_eq!(gate.dims(), up.dims(), "both first projections have one shape");
    let [gate, up, down] = [gate, up, down].map(Tensor::into_dispatch);
    run(x, FeedForwardParams::Gated { gate, up, down }, sizes, options)
}

/// Widths of input, activation and output.
#[track_caller]
fn sizes<const D: usize>(
    shape: [usize; D],
    [up, down]: [&Tensor<2>; 2],
    options: FeedForwardOptions,
) -> [usize; 3] {
    let (d_input, d_inner) = options.layouts[0].sizes(up.dims());
    let (d_inner_too, d_output) = options.layouts[1].sizes(down.dims());
    assert_eq!(shape[D - 1], d_input, "input {shape:?} does not fit a weight of {d_input} to {d_inner}");
    assert_eq!(d_inner, d_inner_too, "one projection makes what the other takes");
    [d_input, d_inner, d_output]
}

fn run<const D: usize>(
    x: Tensor<D>,
    params: FeedForwardParams<Dispatch>,
    [d_input, _, d_output]: [usize; 3],
    options: FeedForwardOptions,
) -> Tensor<D> {
    let mut shape = x.dims();
    let x_nd: Tensor<2> = x.reshape([-1, d_input as isize]);
    let y = Dispatch::feed_forward(x_nd.into_dispatch(), params, options, precision::current());
    shape[D - 1] = d_output;
    Tensor::<2>::from_dispatch(y).reshape(shape)
}
