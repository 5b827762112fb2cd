//! Gradients of activation functions and gates.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Activation, ActivationOps};
use crate::ops::{OptionalTensor, SavedInput};
use crate::precision::{self, Precision};

/// Parents: input and, of a gate, the gated tensor.
#[derive(Debug)]
struct Activate;

impl<B: ActivationOps, const N: usize> Backward<B, N> for Activate {
    type State = SavedInput<B>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (dx, dup) = B::activate_kept_backward(ops.state, dy);
        for (parent, gradient) in ops.parents.into_iter().zip([Some(dx), dup].into_iter().flatten()) {
            give!(grads, parent, gradient);
        }
    }
}

fn finish<B: ActivationOps, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    x: FloatTensor<B>,
    up: OptionalTensor<B>,
    kept: SavedInput<B>,
    (form, precision): (Activation, Precision),
) -> FloatTensor<Autodiff<B, C>> {
    match Activate.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let kept = match kept {
                SavedInput::Nothing => B::kept_activation(x.clone(), up.clone(), form, precision),
                kept => kept,
            };
            prep.finish(kept, B::activate(x, up, form))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::activate(x, up, form)),
    }
}

impl<B: ActivationOps, C: CheckpointStrategy> ActivationOps for Autodiff<B, C> {
    fn activate(x: FloatTensor<Self>, up: OptionalTensor<Self>, form: Activation) -> FloatTensor<Self> {
        Self::activate_kept(x, up, SavedInput::Nothing, (form, precision::current()))
    }

    fn keep_activation(
        x: FloatTensor<Self>,
        up: OptionalTensor<Self>,
        form: Activation,
        precision: Precision,
    ) -> SavedInput<Self> {
        let up = OptionalTensor::new(up.into_option().map(|up| up.into_primitive()));
        SavedInput::with_autodiff(B::kept_activation(x.into_primitive(), up, form, precision))
    }

    fn activate_kept(
        x: FloatTensor<Self>,
        up: OptionalTensor<Self>,
        kept: SavedInput<Self>,
        how: (Activation, Precision),
    ) -> FloatTensor<Self> {
        let (x_node, kept) = (x.node(), kept.without_autodiff());
        match up {
            OptionalTensor::Present(up) => {
                let nodes = [x_node, up.node()];
                let up = OptionalTensor::Present(up.into_primitive());
                finish::<B, C, 2>(nodes, x.into_primitive(), up, kept, how)
            }
            OptionalTensor::Absent => {
                finish::<B, C, 1>([x_node], x.into_primitive(), OptionalTensor::Absent, kept, how)
            }
        }
    }
}
