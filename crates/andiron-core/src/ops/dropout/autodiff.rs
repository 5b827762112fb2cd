//! The gradient of dropout: the same dropout.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::FloatTensor;

use super::DropoutOps;

#[derive(Debug)]
struct Dropout;

impl<B: DropoutOps> Backward<B, 1> for Dropout {
    type State = (f32, u64);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (probability, seed) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |dy| B::dropout(dy, probability, seed));
    }
}

impl<B: DropoutOps, C: CheckpointStrategy> DropoutOps for Autodiff<B, C> {
    fn dropout(x: FloatTensor<Self>, probability: f32, seed: u64) -> FloatTensor<Self> {
        let prep = Dropout.prepare::<C>([x.node()]).compute_bound().stateful();
        let y = B::dropout(x.into_primitive(), probability, seed);
        match prep {
            OpsKind::Tracked(prep) => prep.finish((probability, seed), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}
