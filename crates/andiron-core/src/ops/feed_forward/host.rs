//! Feed-forward layers through `andiron-kernels`.

use std::borrow::Cow;

use andiron_kernels::feed_forward::{self, FeedForward, FeedForwardGrads};
use andiron_kernels::memory::unspecified as output;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{FeedForwardOps, FeedForwardOptions, FeedForwardParams, composed};
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::ops::linear::host::as_in_out;
use crate::ops::{OpKind, Tensors};
use crate::precision::Precision;

impl<B: HostTensors> FeedForwardOps for B {
    fn feed_forward(
        x: FloatTensor<Self>,
        params: FeedForwardParams<Self>,
        options: FeedForwardOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let _time = OpKind::FeedForward.timer();
        if !are_f32::<B>(tensors::<B>(&params).chain([&x])) {
            return composed::feed_forward_saved::<B>(x, params, options).0;
        }
        forward::<B>(&x, &params, (options, precision), false).0
    }

    /// Saved is what the kernel saves and, unless that has the input in it, the input.
    fn feed_forward_saved(
        x: FloatTensor<Self>,
        params: FeedForwardParams<Self>,
        options: FeedForwardOptions,
        precision: Precision,
    ) -> (FloatTensor<Self>, Tensors<Self>) {
        let _time = OpKind::FeedForward.timer();
        if !are_f32::<B>(tensors::<B>(&params).chain([&x])) {
            return composed::feed_forward_saved::<B>(x, params, options);
        }
        let (y, mut saved) = forward::<B>(&x, &params, (options, precision), true);
        let [rows, _] = x.shape().dims();
        let cpu = cpu().at(precision);
        if !with_slices::<B, _>(&params, options, |layer, _| layer.saves_input(cpu, rows)) {
            saved.0.push(x);
        }
        (y, saved)
    }

    fn feed_forward_backward(
        params: FeedForwardParams<Self>,
        saved: Tensors<Self>,
        dy: FloatTensor<Self>,
        options: FeedForwardOptions,
        precision: Precision,
    ) -> (FloatTensor<Self>, FeedForwardParams<Self>) {
        let _time = OpKind::FeedForward.timer();
        if !are_f32::<B>(tensors::<B>(&params).chain([&dy]).chain(&saved.0)) {
            return composed::feed_forward_backward::<B>(params, saved, dy, options);
        }
        backward::<B>(&saved.0, &dy, &params, (options, precision))
    }
}

type How = (FeedForwardOptions, Precision);

fn tensors<B: HostTensors>(params: &FeedForwardParams<B>) -> impl Iterator<Item = &FloatTensor<B>> {
    match params {
        FeedForwardParams::Plain { up, up_bias, down, down_bias } => vec![up, up_bias, down, down_bias],
        FeedForwardParams::Gated { gate, up, down } => vec![gate, up, down],
    }
    .into_iter()
}

/// A weight in memory, and its shape.
fn floats<B: HostTensors>(weight: &FloatTensor<B>) -> (Cow<'_, [f32]>, [usize; 2]) {
    (B::floats(weight), weight.shape().dims())
}

/// Calls `run` with the layer's weights, and its biases, as slices.
fn with_slices<B: HostTensors, T>(
    params: &FeedForwardParams<B>,
    FeedForwardOptions { activation, layouts }: FeedForwardOptions,
    run: impl FnOnce(FeedForward, [Option<&[f32]>; 2]) -> T,
) -> T {
    let ((gate, up, down), biases) = match params {
        FeedForwardParams::Plain { up, up_bias, down, down_bias } => {
            ((None, floats::<B>(up), floats::<B>(down)), Some([up_bias, down_bias].map(B::floats)))
        }
        FeedForwardParams::Gated { gate, up, down } => {
            ((Some(floats::<B>(gate)), floats::<B>(up), floats::<B>(down)), None)
        }
    };
    let layer = FeedForward {
        gate: gate.as_ref().map(|(gate, shape)| as_in_out(gate, *shape, layouts[0])),
        up: as_in_out(&up.0, up.1, layouts[0]),
        activation,
        down: as_in_out(&down.0, down.1, layouts[1]),
    };
    run(layer, [0, 1].map(|at| biases.as_ref().map(|biases| &*biases[at])))
}

/// The output and, if `saving`, what [`backward`] needs, else nothing.
fn forward<B: HostTensors>(
    x: &FloatTensor<B>,
    params: &FeedForwardParams<B>,
    (options, precision): How,
    saving: bool,
) -> (FloatTensor<B>, Tensors<B>) {
    let [rows, _] = x.shape().dims();
    let cpu = cpu().at(precision);
    with_slices::<B, _>(params, options, |layer, biases| {
        let mut saved = output(if saving { layer.saved_len(cpu, rows) } else { 0 });
        let d_output = layer.down.cols;
        let mut y = output(rows * d_output);
        feed_forward::forward(cpu, layer, biases, &B::floats(x), saving.then_some(&mut saved), &mut y);
        let saved_shape = [saved.len()];
        let saved = saving.then(|| B::from_vec(saved, &saved_shape));
        (B::from_vec(y, &[rows, d_output]), Tensors(saved.into_iter().collect()))
    })
}

fn backward<B: HostTensors>(
    saved: &[FloatTensor<B>],
    dy: &FloatTensor<B>,
    params: &FeedForwardParams<B>,
    (options, precision): How,
) -> (FloatTensor<B>, FeedForwardParams<B>) {
    with_slices::<B, _>(params, options, |layer, _| {
        let plain = layer.gate.is_none();
        let gate_len = layer.gate.map_or(0, |gate| gate.data.len());
        let bias_lens = [layer.up.cols, layer.down.cols].map(|width| if plain { width } else { 0 });
        let [rows, _] = dy.shape().dims();
        let d_input = layer.up.rows;
        let (mut dx, mut dgate) = (output(rows * d_input), output(gate_len));
        let (mut dup, mut ddown) = (output(layer.up.data.len()), output(layer.down.data.len()));
        let [mut dup_bias, mut ddown_bias] = bias_lens.map(output);
        let grads = FeedForwardGrads {
            dx: &mut dx,
            dgate: (!plain).then_some(&mut dgate),
            dup: &mut dup,
            ddown: &mut ddown,
            dbiases: [&mut dup_bias, &mut ddown_bias].map(|bias| plain.then_some(&mut bias[..])),
        };
        let x = saved.get(1).map(B::floats);
        let inputs = (x.as_deref(), &*B::floats(&saved[0]));
        feed_forward::backward(cpu().at(precision), layer, inputs, &B::floats(dy), grads);
        let like = |values, tensor: &FloatTensor<B>| B::from_vec(values, &tensor.shape());
        let grads = match params {
            FeedForwardParams::Plain { up, up_bias, down, down_bias } => FeedForwardParams::Plain {
                up: like(dup, up),
                up_bias: like(dup_bias, up_bias),
                down: like(ddown, down),
                down_bias: like(ddown_bias, down_bias),
            },
            FeedForwardParams::Gated { gate, up, down } => FeedForwardParams::Gated {
                gate: like(dgate, gate),
                up: like(dup, up),
                down: like(ddown, down),
            },
        };
        (B::from_vec(dx, &[rows, d_input]), grads)
    })
}
