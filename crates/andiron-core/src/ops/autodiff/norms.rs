//! Norms and the sums between them: the graph has a node for each, whether or not they were made together.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::FusedOps;

#[derive(Debug)]
pub(super) struct LayerNorm {
    pub(super) carried: bool,
}

impl LayerNorm {
    /// `saved`: input, gain, mean, reciprocal standard deviation.
    pub(super) fn finish<B: FusedOps, C: CheckpointStrategy>(
        self,
        nodes: [NodeGuard; 3],
        saved: [FloatTensor<B>; 4],
        y: FloatTensor<B>,
    ) -> FloatTensor<Autodiff<B, C>> {
        match self.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

impl<B: FusedOps> Backward<B, 3> for LayerNorm {
    type State = [FloatTensor<B>; 4];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x, gain, mean, rstd] = ops.state;
        let (dx, dgain, doffset) = match past!(grads, &ops.parents[0], self.carried) {
            Some(past) => B::layer_norm_backward_onto(x, gain, mean, rstd, dy, past),
            None => B::layer_norm_backward(x, gain, mean, rstd, dy),
        };
        let [x, gain, offset] = ops.parents;
        give!(grads, x, dx);
        give!(grads, gain, dgain);
        give!(grads, offset, doffset);
    }
}

#[derive(Debug)]
pub(super) struct RmsNorm {
    pub(super) carried: bool,
}

impl RmsNorm {
    /// `saved`: input, gain, reciprocal root of the mean square.
    pub(super) fn finish<B: FusedOps, C: CheckpointStrategy>(
        self,
        nodes: [NodeGuard; 2],
        saved: [FloatTensor<B>; 3],
        y: FloatTensor<B>,
    ) -> FloatTensor<Autodiff<B, C>> {
        match self.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

impl<B: FusedOps> Backward<B, 2> for RmsNorm {
    type State = [FloatTensor<B>; 3];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x, gain, rstd] = ops.state;
        let (dx, dgain) = match past!(grads, &ops.parents[0], self.carried) {
            Some(past) => B::rms_norm_backward_onto(x, gain, rstd, dy, past),
            None => B::rms_norm_backward(x, gain, rstd, dy),
        };
        let [x, gain] = ops.parents;
        give!(grads, x, dx);
        give!(grads, gain, dgain);
    }
}

#[derive(Debug)]
pub(super) struct Residual;

impl Residual {
    pub(super) fn finish<B: FusedOps, C: CheckpointStrategy>(
        self,
        nodes: [NodeGuard; 2],
        sum: FloatTensor<B>,
    ) -> FloatTensor<Autodiff<B, C>> {
        match self.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((), sum),
            OpsKind::UnTracked(prep) => prep.finish(sum),
        }
    }
}

impl<B: FusedOps> Backward<B, 2> for Residual {
    type State = ();

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x, added] = ops.parents;
        give!(grads, x, dy.clone());
        give!(grads, added, dy);
    }
}
