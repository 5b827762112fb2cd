//! The nodes of activation checkpointing and their backward steps.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend as _, TensorMetadata as _};

use super::{BlockGradients, GradientSlot, MOST_INPUTS, Recompute, RecomputeOps};
use crate::ops::Tensors;

/// A parent for each input, and one parameter: it keeps the node in the graph if no input needs a gradient.
const PARENTS: usize = MOST_INPUTS + 1;

#[derive(Debug)]
struct Block;

#[derive(Clone, Debug)]
struct OfBlock {
    /// Which inputs need a gradient. Their nodes are the first parents, in this order.
    tracked: Vec<bool>,
    params: Vec<NodeId>,
    recompute: Recompute,
}

impl<B: RecomputeOps> Backward<B, PARENTS> for Block {
    type State = OfBlock;

    fn backward(self, ops: Ops<OfBlock, PARENTS>, grads: &mut Gradients, _: &mut Checkpointer) {
        let OfBlock { tracked, params, recompute } = ops.state;
        let output = GradientSlot::holding(grads.consume::<B>(&ops.node));
        let inputs: Vec<_> = tracked.iter().map(|tracked| tracked.then(GradientSlot::default)).collect();
        let of_params: Vec<_> = params.iter().map(|_| GradientSlot::default()).collect();
        recompute.run(BlockGradients { output, inputs: inputs.clone(), params: of_params.clone() });
        for (parent, slot) in ops.parents.into_iter().zip(inputs.into_iter().flatten()) {
            if let Some(gradient) = slot.take() {
                give!(grads, parent, gradient);
            }
        }
        for (id, slot) in params.into_iter().zip(of_params) {
            if let Some(gradient) = slot.take() {
                grads.register::<B>(id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Kept;

impl<B: RecomputeOps> Backward<B, 1> for Kept {
    type State = GradientSlot;

    fn backward(self, ops: Ops<GradientSlot, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        ops.state.put(grads.consume::<B>(&ops.node));
    }
}

#[derive(Debug)]
struct Root;

impl<B: RecomputeOps> Backward<B, 1> for Root {
    type State = GradientSlot;

    fn backward(self, ops: Ops<GradientSlot, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [parent] = ops.parents;
        give!(grads, parent, ops.state.take().expect("the gradient of the output"));
    }
}

impl<B: RecomputeOps, C: CheckpointStrategy> RecomputeOps for Autodiff<B, C> {
    fn recomputed(
        output: FloatTensor<Self>,
        inputs: Tensors<Self>,
        params: Tensors<Self>,
        recompute: Recompute,
    ) -> FloatTensor<Self> {
        let output = output.into_primitive();
        let tracked: Vec<bool> = inputs.0.iter().map(|input| input.is_tracked()).collect();
        let needed = inputs.0.iter().filter(|input| input.is_tracked());
        let mut parents: Vec<_> = needed.chain(params.0.first()).map(|parent| parent.node()).collect();
        assert!(parents.len() <= PARENTS, "a block has at most {MOST_INPUTS} inputs that need a gradient");
        parents.resize_with(PARENTS, || Self::from_inner(output.clone()).node());
        let parents = parents.try_into().expect("just resized");
        match Block.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let params = params.0.iter().map(|param| param.id()).collect();
                prep.finish(OfBlock { tracked, params, recompute }, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn keep_gradient(x: FloatTensor<Self>, slot: GradientSlot) -> FloatTensor<Self> {
        let node = x.node();
        match Kept.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(slot, x.into_primitive()),
            OpsKind::UnTracked(prep) => prep.finish(x.into_primitive()),
        }
    }

    fn from_gradient(output: FloatTensor<Self>, slot: GradientSlot) -> FloatTensor<Self> {
        let device = output.device();
        let node = output.node();
        let root = B::float_zeros([1].into(), &device, output.dtype().into());
        match Root.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(slot, root),
            OpsKind::UnTracked(prep) => prep.finish(root),
        }
    }
}
