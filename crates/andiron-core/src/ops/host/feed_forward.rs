//! Feed-forward layers over memory.

use andiron_kernels::feed_forward::{self, FeedForward, FeedForwardGrads};
use andiron_kernels::memory::unspecified as output;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::HostTensors;
use super::kernels::{are_f32, as_map, cpu, unit};
use crate::ops::{FeedForwardOptions, Precision, composed};

type How = (FeedForwardOptions, Precision);
type Five<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);
type Four<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);
type Three<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

/// The second tensor is what the backward pass wants; it is empty unless `saving`.
pub(super) fn forward<B: HostTensors>(
    x: FloatTensor<B>,
    maps: [FloatTensor<B>; 2],
    biases: [FloatTensor<B>; 2],
    how: How,
    saving: bool,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [(up, up_bias), (down, down_bias)] = [(&maps[0], &biases[0]), (&maps[1], &biases[1])];
    if !are_f32::<B>(&[&x, up, up_bias, down, down_bias]) {
        return composed::feed_forward_with_saved::<B>(x, maps, biases, how.0);
    }
    Maps::<B> { gate: None, up, down }.forward(&x, Some([up_bias, down_bias]), how, saving)
}

/// The second tensor is all that the backward pass wants, unless this was computed from plain operations.
pub(super) fn gated_forward<B: HostTensors>(
    x: FloatTensor<B>,
    maps: [FloatTensor<B>; 3],
    how: How,
    saving: bool,
) -> Three<B> {
    let [gate, up, down] = &maps;
    if !are_f32::<B>(&[&x, gate, up, down]) {
        return composed::gated_feed_forward_with_saved::<B>(x, maps, how.0);
    }
    let (y, saved) = Maps::<B> { gate: Some(gate), up, down }.forward(&x, None, how, saving);
    (y, saved, B::from_vec(Vec::new(), &[0]))
}

pub(super) fn backward<B: HostTensors>(
    x: FloatTensor<B>,
    maps: [FloatTensor<B>; 2],
    saved: FloatTensor<B>,
    dy: FloatTensor<B>,
    how: How,
) -> Five<B> {
    let [up, down] = &maps;
    if !are_f32::<B>(&[&x, up, down, &saved, &dy]) {
        return composed::feed_forward_backward::<B>(x, maps, saved, dy, how.0);
    }
    let (dx, _, dup, ddown, [dup_bias, ddown_bias]) =
        Maps::<B> { gate: None, up, down }.backward([&x, &saved, &dy], how);
    (dx, dup, dup_bias, ddown, ddown_bias)
}

pub(super) fn gated_backward<B: HostTensors>(
    x: FloatTensor<B>,
    maps: [FloatTensor<B>; 3],
    saved: [FloatTensor<B>; 2],
    dy: FloatTensor<B>,
    how: How,
) -> Four<B> {
    let [gate, up, down] = &maps;
    if !are_f32::<B>(&[&x, gate, up, down, &saved[0], &dy]) {
        return composed::gated_feed_forward_backward::<B>(x, maps, saved, dy, how.0);
    }
    let (dx, dgate, dup, ddown, _) =
        Maps::<B> { gate: Some(gate), up, down }.backward([&x, &saved[0], &dy], how);
    (dx, dgate, dup, ddown)
}

/// The maps of a layer, all f32.
struct Maps<'a, B: HostTensors> {
    gate: Option<&'a FloatTensor<B>>,
    up: &'a FloatTensor<B>,
    down: &'a FloatTensor<B>,
}

impl<B: HostTensors> Maps<'_, B> {
    /// Calls `run` with the layer in memory.
    fn with<T>(&self, options: FeedForwardOptions, run: impl FnOnce(FeedForward) -> T) -> T {
        let FeedForwardOptions { activation, layouts } = options;
        let [up, down] = [self.up, self.down].map(|map| (B::floats(map), map.shape().dims()));
        let gate = self.gate.map(|gate| (B::floats(gate), gate.shape().dims()));
        run(FeedForward {
            gate: gate.as_ref().map(|(gate, shape)| as_map(gate, *shape, layouts[0])),
            up: as_map(&up.0, up.1, layouts[0]),
            activation: unit(activation),
            down: as_map(&down.0, down.1, layouts[1]),
        })
    }

    /// The output, and what [`backward`](Self::backward) wants if `saving`, else nothing.
    fn forward(
        &self,
        x: &FloatTensor<B>,
        biases: Option<[&FloatTensor<B>; 2]>,
        (options, precision): How,
        saving: bool,
    ) -> (FloatTensor<B>, FloatTensor<B>) {
        let [rows, _] = x.shape().dims();
        let cpu = cpu().at(precision);
        self.with(options, |layer| {
            let mut saved = output(if saving { layer.saved_len(cpu, rows) } else { 0 });
            let d_output = layer.down.cols;
            let mut y = output(rows * d_output);
            let biases = biases.map(|biases| biases.map(B::floats));
            let biases = [0, 1].map(|at| biases.as_ref().map(|biases| &*biases[at]));
            feed_forward::forward(cpu, layer, biases, &B::floats(x), saving.then_some(&mut saved), &mut y);
            let saved_shape = [saved.len()];
            (B::from_vec(y, &[rows, d_output]), B::from_vec(saved, &saved_shape))
        })
    }

    /// Gradients of `x`, the gate's map (empty if there is none), the other first map, the last map, and of the biases of
    /// a plain layer (empty in a gated one).
    #[allow(clippy::type_complexity)]
    fn backward(
        &self,
        [x, saved, dy]: [&FloatTensor<B>; 3],
        (options, precision): How,
    ) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, [FloatTensor<B>; 2]) {
        self.with(options, |layer| {
            let plain = layer.gate.is_none();
            let gate_len = layer.gate.map_or(0, |gate| gate.data.len());
            let bias_lens = [layer.up.cols, layer.down.cols].map(|width| if plain { width } else { 0 });
            let (mut dx, mut dgate) = (output(B::floats(x).len()), output(gate_len));
            let (mut dup, mut ddown) = (output(layer.up.data.len()), output(layer.down.data.len()));
            let mut dbiases = bias_lens.map(output);
            let grads = FeedForwardGrads {
                dx: &mut dx,
                dgate: (!plain).then_some(&mut dgate),
                dup: &mut dup,
                ddown: &mut ddown,
                dbiases: dbiases.each_mut().map(|bias| plain.then_some(&mut bias[..])),
            };
            let inputs = (&*B::floats(x), &*B::floats(saved));
            feed_forward::backward(cpu().at(precision), layer, inputs, &B::floats(dy), grads);
            let like = |values, map: &FloatTensor<B>| B::from_vec(values, &map.shape().dims::<2>());
            let dbiases = dbiases.map(|bias| {
                let len = bias.len();
                B::from_vec(bias, &[len])
            });
            let dgate = match self.gate {
                Some(gate) => like(dgate, gate),
                None => B::from_vec(dgate, &[0]),
            };
            (like(dx, x), dgate, like(dup, self.up), like(ddown, self.down), dbiases)
        })
    }
}
