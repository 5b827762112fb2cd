//! Gradients of activation functions and gates.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Activation, ActivationOps};
use crate::ops::OptionalTensor;

/// Parents: input and, of a gate, the gated tensor.
#[derive(Debug)]
struct Activate;

impl<B: ActivationOps, const N: usize> Backward<B, N> for Activate {
    type State = (FloatTensor<B>, OptionalTensor<B>, Activation);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, up, form) = ops.state;
        let (dx, dup) = B::activate_backward(x, up, dy, form);
        for (parent, gradient) in ops.parents.into_iter().zip([Some(dx), dup].into_iter().flatten()) {
            give!(grads, parent, gradient);
        }
    }
}

fn finish<B: ActivationOps, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    x: FloatTensor<B>,
    up: OptionalTensor<B>,
    form: Activation,
) -> FloatTensor<Autodiff<B, C>> {
    match Activate.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let y = B::activate(x.clone(), up.clone(), form);
            prep.finish((x, up, form), y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::activate(x, up, form)),
    }
}

impl<B: ActivationOps, C: CheckpointStrategy> ActivationOps for Autodiff<B, C> {
    fn activate(x: FloatTensor<Self>, up: OptionalTensor<Self>, form: Activation) -> FloatTensor<Self> {
        let x_node = x.node();
        match up {
            OptionalTensor::Present(up) => {
                let nodes = [x_node, up.node()];
                let up = OptionalTensor::Present(up.into_primitive());
                finish::<B, C, 2>(nodes, x.into_primitive(), up, form)
            }
            OptionalTensor::Absent => {
                finish::<B, C, 1>([x_node], x.into_primitive(), OptionalTensor::Absent, form)
            }
        }
    }
}
