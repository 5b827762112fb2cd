//! Gradients of feed-forward layers.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{FeedForwardOps, FeedForwardOptions, FeedForwardParams};
use crate::ops::Tensors;
use crate::precision::Precision;

/// Parents: input and parameters, in the order of their fields.
#[derive(Debug)]
struct FeedForward;

#[derive(Clone, Debug)]
struct Saved<B: FeedForwardOps> {
    params: FeedForwardParams<B>,
    of_forward: Tensors<B>,
    options: FeedForwardOptions,
    precision: Precision,
}

impl<B: FeedForwardOps, const N: usize> Backward<B, N> for FeedForward {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let Saved { params, of_forward, options, precision } = ops.state;
        let (dx, params) = B::feed_forward_backward(params, of_forward, dy, options, precision);
        let gradients = match params {
            FeedForwardParams::Plain { up, up_bias, down, down_bias } => {
                vec![dx, up, up_bias, down, down_bias]
            }
            FeedForwardParams::Gated { gate, up, down } => vec![dx, gate, up, down],
        };
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            give!(grads, parent, gradient);
        }
    }
}

fn finish<B: FeedForwardOps, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    x: FloatTensor<B>,
    params: FeedForwardParams<B>,
    options: FeedForwardOptions,
    precision: Precision,
) -> FloatTensor<Autodiff<B, C>> {
    match FeedForward.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (y, of_forward) = B::feed_forward_saved(x, params.clone(), options, precision);
            prep.finish(Saved { params, of_forward, options, precision }, y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::feed_forward(x, params, options, precision)),
    }
}

impl<B: FeedForwardOps, C: CheckpointStrategy> FeedForwardOps for Autodiff<B, C> {
    fn feed_forward(
        x: FloatTensor<Self>,
        params: FeedForwardParams<Self>,
        options: FeedForwardOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        match params {
            FeedForwardParams::Plain { up, up_bias, down, down_bias } => {
                let nodes = [&x, &up, &up_bias, &down, &down_bias].map(|tensor| tensor.node());
                let [x, up, up_bias, down, down_bias] =
                    [x, up, up_bias, down, down_bias].map(|tensor| tensor.into_primitive());
                let params = FeedForwardParams::Plain { up, up_bias, down, down_bias };
                finish::<B, C, 5>(nodes, x, params, options, precision)
            }
            FeedForwardParams::Gated { gate, up, down } => {
                let nodes = [&x, &gate, &up, &down].map(|tensor| tensor.node());
                let [x, gate, up, down] = [x, gate, up, down].map(|tensor| tensor.into_primitive());
                finish::<B, C, 4>(nodes, x, FeedForwardParams::Gated { gate, up, down }, options, precision)
            }
        }
    }
}
