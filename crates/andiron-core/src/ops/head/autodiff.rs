//! Gradients of the head's loss: computed in the forward pass, while the logits are at hand.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::HeadOps;
use crate::precision::Precision;

/// Parents: hidden states and head.
#[derive(Debug)]
struct HeadCrossEntropy;

impl<B: HeadOps> Backward<B, 2> for HeadCrossEntropy {
    /// Gradients of hidden states and head for an upstream gradient of one.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let upstream = B::float_reshape(upstream, [1, 1].into());
        for (parent, gradient) in ops.parents.into_iter().zip(ops.state) {
            give!(grads, parent, B::float_mul(gradient, upstream.clone()));
        }
    }
}

impl<B: HeadOps, C: CheckpointStrategy> HeadOps for Autodiff<B, C> {
    fn head_cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let nodes = [hidden.node(), head.node()];
        let (hidden, head) = (hidden.into_primitive(), head.into_primitive());
        let weights = weights.into_primitive();
        match HeadCrossEntropy.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (loss, dhidden, dhead) =
                    B::head_cross_entropy_with_grad(hidden, head, targets, weights, precision);
                prep.finish([dhidden, dhead], loss)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::head_cross_entropy(hidden, head, targets, weights, precision))
            }
        }
    }
}
