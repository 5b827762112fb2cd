//! The gradient of a rotation: the inverse rotation.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::FloatTensor;

use super::{RotaryOps, Rotation};

#[derive(Debug)]
struct Rotate;

impl<B: RotaryOps> Backward<B, 1> for Rotate {
    /// Cosines, sines, and the inverse rotation.
    type State = ([FloatTensor<B>; 2], Rotation);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([cos, sin], inverse) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |dy| B::rotate(dy, cos, sin, inverse));
    }
}

impl<B: RotaryOps, C: CheckpointStrategy> RotaryOps for Autodiff<B, C> {
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        rotation: Rotation,
    ) -> FloatTensor<Self> {
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        let inverse = match rotation {
            Rotation::Forward => Rotation::Inverse,
            Rotation::Inverse => Rotation::Forward,
        };
        match Rotate.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::rotate(x.into_primitive(), cos.clone(), sin.clone(), rotation);
                prep.finish(([cos, sin], inverse), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::rotate(x.into_primitive(), cos, sin, rotation)),
        }
    }
}
