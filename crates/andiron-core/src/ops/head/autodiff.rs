//! Gradients of the head's loss.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::{HeadInputs, HeadOps, HeadOptions};
use crate::ops::OptionalTensor;

/// The sum, whose gradients are computed in the forward pass, while the logits exist. Parents: hidden states, weight and, if
/// there is one, bias.
#[derive(Debug)]
struct Sum;

impl<B: HeadOps, const N: usize> Backward<B, N> for Sum {
    /// The gradients for an upstream gradient of one.
    type State = HeadInputs<B>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let HeadInputs { hidden, weight, bias } = ops.state;
        let square = B::float_reshape(upstream.clone(), [1, 1].into());
        let mut gradients = vec![(hidden, square.clone()), (weight, square)];
        gradients.extend(bias.into_option().map(|bias| (bias, upstream)));
        for (parent, (gradient, upstream)) in ops.parents.into_iter().zip(gradients) {
            give!(grads, parent, B::float_mul(gradient, upstream));
        }
    }
}

/// Each row's loss; gradients are computed in the backward pass. Parents as of [`Sum`].
#[derive(Debug)]
struct Losses;

#[derive(Clone, Debug)]
struct Saved<B: HeadOps> {
    inputs: HeadInputs<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    options: HeadOptions,
}

impl<B: HeadOps, const N: usize> Backward<B, N> for Losses {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let Saved { inputs, targets, weights, options } = ops.state;
        // 1 for rows that count, 0 for skipped rows.
        let counts = B::float_abs(B::float_sign(weights));
        let upstream = B::float_mul(upstream, counts);
        let (_, HeadInputs { hidden, weight, bias }) =
            B::head_cross_entropy_with_grad(inputs, targets, upstream, options);
        for (parent, gradient) in
            ops.parents.into_iter().zip([hidden, weight].into_iter().chain(bias.into_option()))
        {
            give!(grads, parent, gradient);
        }
    }
}

/// The nodes of hidden states and weight, that of the bias, and all three without autodiff.
fn split<B: HeadOps, C: CheckpointStrategy>(
    HeadInputs { hidden, weight, bias }: HeadInputs<Autodiff<B, C>>,
) -> ([NodeGuard; 2], Option<NodeGuard>, HeadInputs<B>) {
    let nodes = [hidden.node(), weight.node()];
    let (bias_node, bias) = bias.into_option().map(|bias| (bias.node(), bias.into_primitive())).unzip();
    let (hidden, weight) = (hidden.into_primitive(), weight.into_primitive());
    (nodes, bias_node, HeadInputs { hidden, weight, bias: OptionalTensor::new(bias) })
}

fn sum<B: HeadOps, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    Saved { inputs, targets, weights, options }: Saved<B>,
) -> FloatTensor<Autodiff<B, C>> {
    match Sum.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (loss, gradients) = B::head_cross_entropy_with_grad(inputs, targets, weights, options);
            prep.finish(gradients, loss)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::head_cross_entropy(inputs, targets, weights, options)),
    }
}

fn losses<B: HeadOps, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    saved: Saved<B>,
) -> FloatTensor<Autodiff<B, C>> {
    let Saved { inputs, targets, weights, options } = saved.clone();
    let losses = B::head_losses(inputs, targets, weights, options);
    match Losses.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(saved, losses),
        OpsKind::UnTracked(prep) => prep.finish(losses),
    }
}

impl<B: HeadOps, C: CheckpointStrategy> HeadOps for Autodiff<B, C> {
    fn head_cross_entropy(
        inputs: HeadInputs<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        options: HeadOptions,
    ) -> FloatTensor<Self> {
        let options = HeadOptions { weight_grad: inputs.weight.is_tracked(), ..options };
        let (nodes, bias, inputs) = split::<B, C>(inputs);
        let saved = Saved { inputs, targets, weights: weights.into_primitive(), options };
        match (nodes, bias) {
            ([hidden, weight], Some(bias)) => sum::<B, C, 3>([hidden, weight, bias], saved),
            (nodes, None) => sum::<B, C, 2>(nodes, saved),
        }
    }

    fn head_losses(
        inputs: HeadInputs<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        options: HeadOptions,
    ) -> FloatTensor<Self> {
        let options = HeadOptions { weight_grad: inputs.weight.is_tracked(), ..options };
        let (nodes, bias, inputs) = split::<B, C>(inputs);
        let saved = Saved { inputs, targets, weights: weights.into_primitive(), options };
        match (nodes, bias) {
            ([hidden, weight], Some(bias)) => losses::<B, C, 3>([hidden, weight, bias], saved),
            (nodes, None) => losses::<B, C, 2>(nodes, saved),
        }
    }
}
