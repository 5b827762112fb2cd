//! Gradients of linear projections.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{LinearGrads, LinearOps, LinearWeight, SavedInput};
use crate::ops::OptionalTensor;
use crate::precision::Precision;

/// Parents: input, weight unless that is quantized and, if there is one, bias.
#[derive(Debug)]
struct Linear;

#[derive(Clone, Debug)]
struct Saved<B: LinearOps> {
    x: SavedInput<B>,
    weight: LinearWeight<B>,
    precision: Precision,
}

impl<B: LinearOps, const N: usize> Backward<B, N> for Linear {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let Saved { x, weight, precision } = ops.state;
        let dense = matches!(weight, LinearWeight::Dense { .. });
        let mut parents = ops.parents.into_iter();
        let x_node = parents.next().flatten();
        let weight_node = if dense { parents.next().flatten() } else { None };
        let bias_node = parents.next().flatten();
        let wanted =
            LinearGrads { x: x_node.is_some(), weight: weight_node.is_some(), bias: bias_node.is_some() };
        let (dx, dweight, dbias) = B::project_backward(x, weight, dy, wanted, precision);
        for (parent, gradient) in [(x_node, dx), (weight_node, dweight), (bias_node, dbias)] {
            if let Some(gradient) = gradient {
                give!(grads, parent, gradient);
            }
        }
    }
}

fn finish<B: LinearOps, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    saved: Saved<B>,
    y: FloatTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    match Linear.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(saved, y),
        OpsKind::UnTracked(prep) => prep.finish(y),
    }
}

impl<B: LinearOps, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn project(
        x: FloatTensor<Self>,
        weight: LinearWeight<Self>,
        bias: OptionalTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let (x_node, x) = (x.node(), x.into_primitive());
        let learns = matches!(&weight, LinearWeight::Dense { weight, .. } if weight.is_tracked());
        let (weight_node, weight) = match weight {
            LinearWeight::Dense { weight, layout } => {
                let node = weight.node();
                (Some(node), LinearWeight::Dense { weight: weight.into_primitive(), layout })
            }
            LinearWeight::Quantized { matrix } => (None, LinearWeight::Quantized { matrix }),
        };
        let (bias_node, bias) = bias.into_option().map(|bias| (bias.node(), bias.into_primitive())).unzip();
        let bias = OptionalTensor::new(bias);
        let (y, x) = match learns {
            true => B::project_saved(x, weight.clone(), bias, precision),
            false => (B::project(x, weight.clone(), bias, precision), SavedInput::Nothing),
        };
        let saved = Saved { x, weight, precision };
        match (weight_node, bias_node) {
            (Some(weight), Some(bias)) => finish::<B, C, 3>([x_node, weight, bias], saved, y),
            (Some(node), None) | (None, Some(node)) => finish::<B, C, 2>([x_node, node], saved, y),
            (None, None) => finish::<B, C, 1>([x_node], saved, y),
        }
    }
}
