//! The gradient of a rotation: the inverse rotation.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::FloatTensor;

use super::{RotaryOps, Turn};

#[derive(Debug)]
struct Rotate;

impl<B: RotaryOps> Backward<B, 1> for Rotate {
    /// Cosines, sines, and the way back.
    type State = ([FloatTensor<B>; 2], Turn);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([cos, sin], back) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |dy| B::rotate(dy, cos, sin, back));
    }
}

impl<B: RotaryOps, C: CheckpointStrategy> RotaryOps for Autodiff<B, C> {
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        way: Turn,
    ) -> FloatTensor<Self> {
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        let back = match way {
            Turn::Forth => Turn::Back,
            Turn::Back => Turn::Forth,
        };
        match Rotate.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::rotate(x.into_primitive(), cos.clone(), sin.clone(), way);
                prep.finish(([cos, sin], back), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::rotate(x.into_primitive(), cos, sin, way)),
        }
    }
}
