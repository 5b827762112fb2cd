//! Feed-forward layers over memory.

use andiron_kernels::feed_forward::{self, FeedForward, FeedForwardGrads};
use andiron_kernels::memory::unspecified as output;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::HostTensors;
use super::kernels::{are_f32, as_map, cpu, unit};
use crate::ops::{FeedForwardOptions, Precision, composed};

type Five<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

fn layer<'a>(
    [up, down]: [&'a [f32]; 2],
    shapes: [[usize; 2]; 2],
    FeedForwardOptions { activation, layouts }: FeedForwardOptions,
) -> FeedForward<'a> {
    FeedForward {
        up: as_map(up, shapes[0], layouts[0]),
        activation: unit(activation),
        down: as_map(down, shapes[1], layouts[1]),
    }
}

/// The second tensor is what the backward pass wants; it is empty unless `saving`.
pub(super) fn forward<B: HostTensors>(
    x: FloatTensor<B>,
    weights: [FloatTensor<B>; 2],
    biases: [FloatTensor<B>; 2],
    (options, precision): (FeedForwardOptions, Precision),
    saving: bool,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [(up, up_bias), (down, down_bias)] = [(&weights[0], &biases[0]), (&weights[1], &biases[1])];
    if !are_f32::<B>(&[&x, up, up_bias, down, down_bias]) {
        return composed::feed_forward_with_saved::<B>(x, weights, biases, options);
    }
    let [rows, _] = x.shape().dims();
    let (ups, downs) = (B::floats(up), B::floats(down));
    let layer = layer([&ups, &downs], [up.shape().dims(), down.shape().dims()], options);
    let cpu = cpu().at(precision);
    let mut saved = output(if saving { layer.saved_len(cpu, rows) } else { 0 });
    let d_output = layer.down.cols;
    let mut y = output(rows * d_output);
    let biases = [&*B::floats(up_bias), &*B::floats(down_bias)];
    feed_forward::forward(cpu, layer, biases, &B::floats(&x), saving.then_some(&mut saved), &mut y);
    let saved_shape = [saved.len()];
    (B::from_vec(y, &[rows, d_output]), B::from_vec(saved, &saved_shape))
}

pub(super) fn backward<B: HostTensors>(
    x: FloatTensor<B>,
    weights: [FloatTensor<B>; 2],
    saved: FloatTensor<B>,
    dy: FloatTensor<B>,
    (options, precision): (FeedForwardOptions, Precision),
) -> Five<B> {
    let [up, down] = &weights;
    if !are_f32::<B>(&[&x, up, down, &saved, &dy]) {
        return composed::feed_forward_backward::<B>(x, weights, saved, dy, options);
    }
    let [rows, d_input] = x.shape().dims();
    let (ups, downs) = (B::floats(up), B::floats(down));
    let shapes = [up.shape().dims(), down.shape().dims()];
    let layer = layer([&ups, &downs], shapes, options);
    let (d_inner, d_output) = (layer.up.cols, layer.down.cols);
    let (mut dx, mut dup, mut dup_bias) = (output(rows * d_input), output(ups.len()), output(d_inner));
    let (mut ddown, mut ddown_bias) = (output(downs.len()), output(d_output));
    let grads = FeedForwardGrads {
        dx: &mut dx,
        dup: &mut dup,
        dup_bias: &mut dup_bias,
        ddown: &mut ddown,
        ddown_bias: &mut ddown_bias,
    };
    let inputs = (&*B::floats(&x), &*B::floats(&saved));
    feed_forward::backward(cpu().at(precision), layer, inputs, &B::floats(&dy), grads);
    (
        B::from_vec(dx, &[rows, d_input]),
        B::from_vec(dup, &shapes[0]),
        B::from_vec(dup_bias, &[d_inner]),
        B::from_vec(ddown, &shapes[1]),
        B::from_vec(ddown_bias, &[d_output]),
    )
}
