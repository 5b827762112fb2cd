//! Gradients of norms and residual sums. The graph has a node for each, even if the forward pass fused them.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{NormOps, NormOptions, NormParams, SavedNorm};
use crate::ops::OptionalTensor;

/// Parents: input, weight and, of a layer norm, bias.
#[derive(Debug)]
struct Norm {
    branch: bool,
}

impl<B: NormOps, const N: usize> Backward<B, N> for Norm {
    type State = SavedNorm<B>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        // Takes the gradient that has accumulated for the input. It exists when the input also feeds the residual
        // connection, whose backward has run already. That of a leaf stays where it is.
        let past = match ops.parents.first() {
            Some(Some(x)) if self.branch && !x.parents.is_empty() => Some(grads.consume::<B>(x)),
            _ => None,
        };
        let (dx, params) = B::norm_backward(ops.state, dy, OptionalTensor::new(past));
        let gradients = match params {
            NormParams::Layer { weight, bias } => vec![dx, weight, bias],
            NormParams::Rms { weight } => vec![dx, weight],
        };
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            give!(grads, parent, gradient);
        }
    }
}

fn finish<B: NormOps, C: CheckpointStrategy, const N: usize>(
    branch: bool,
    nodes: [NodeGuard; N],
    saved: SavedNorm<B>,
    y: FloatTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    match (Norm { branch }).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(saved, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

#[derive(Debug)]
struct Residual;

impl<B: NormOps> Backward<B, 2> for Residual {
    type State = ();

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let [x, added] = ops.parents;
        give!(grads, x, dy.clone());
        give!(grads, added, dy);
    }
}

fn finish_residual<B: NormOps, C: CheckpointStrategy>(
    nodes: [NodeGuard; 2],
    sum: FloatTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    match Residual.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((), sum),
        OpsKind::UnTracked(prep) => prep.finish(sum),
    }
}

/// The forward pass: the residual sum if there is one, the node of the norm's input, the saved tensors, and the norm.
#[allow(clippy::type_complexity)]
fn forward<B: NormOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    added: OptionalTensor<Autodiff<B, C>>,
    params: NormParams<B>,
    eps: f64,
) -> (Option<FloatTensor<Autodiff<B, C>>>, NodeGuard, SavedNorm<B>, FloatTensor<B>) {
    let x_node = x.node();
    let Some(added) = added.into_option() else {
        let (_, y, saved) = B::norm_saved(x.into_primitive(), OptionalTensor::Absent, params, eps);
        return (None, x_node, saved, y);
    };
    let nodes = [x_node, added.node()];
    let added = OptionalTensor::Present(added.into_primitive());
    let (sum, y, saved) = B::norm_saved(x.into_primitive(), added, params, eps);
    let sum = finish_residual::<B, C>(nodes, sum.expect("a sum of two tensors"));
    let sum_node = sum.node();
    (Some(sum), sum_node, saved, y)
}

impl<B: NormOps, C: CheckpointStrategy> NormOps for Autodiff<B, C> {
    fn residual(x: FloatTensor<Self>, added: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), added.node()];
        finish_residual::<B, C>(nodes, B::residual(x.into_primitive(), added.into_primitive()))
    }

    fn norm(
        x: FloatTensor<Self>,
        added: OptionalTensor<Self>,
        params: NormParams<Self>,
        NormOptions { eps, branch }: NormOptions,
    ) -> (Option<FloatTensor<Self>>, FloatTensor<Self>) {
        match params {
            NormParams::Layer { weight, bias } => {
                let [weight_node, bias_node] = [weight.node(), bias.node()];
                let (weight, bias) = (weight.into_primitive(), bias.into_primitive());
                let (sum, x, saved, y) = forward::<B, C>(x, added, NormParams::Layer { weight, bias }, eps);
                (sum, finish::<B, C, 3>(branch, [x, weight_node, bias_node], saved, y))
            }
            NormParams::Rms { weight } => {
                let weight_node = weight.node();
                let params = NormParams::Rms { weight: weight.into_primitive() };
                let (sum, x, saved, y) = forward::<B, C>(x, added, params, eps);
                (sum, finish::<B, C, 2>(branch, [x, weight_node], saved, y))
            }
        }
    }
}
