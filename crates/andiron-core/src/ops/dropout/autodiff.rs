//! The gradient of dropout: the same dropout.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::FloatTensor;

use super::{Dropout, DropoutOps};

#[derive(Debug)]
struct DropOut;

impl<B: DropoutOps> Backward<B, 1> for DropOut {
    type State = Dropout;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let rule = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |dy| B::dropout(dy, rule));
    }
}

impl<B: DropoutOps, C: CheckpointStrategy> DropoutOps for Autodiff<B, C> {
    fn dropout(x: FloatTensor<Self>, rule: Dropout) -> FloatTensor<Self> {
        let prep = DropOut.prepare::<C>([x.node()]).compute_bound().stateful();
        let y = B::dropout(x.into_primitive(), rule);
        match prep {
            OpsKind::Tracked(prep) => prep.finish(rule, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}
