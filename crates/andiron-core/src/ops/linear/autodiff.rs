//! Gradients of linear projections.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{LinearGrads, LinearOps, LinearWeight, WeightLayout, composed};
use crate::ops::OptionalTensor;
use crate::precision::Precision;

/// Parents: input, weight and, if there is one, bias.
#[derive(Debug)]
struct Linear;

#[derive(Clone, Debug)]
struct Saved<T> {
    x: T,
    weight: T,
    layout: WeightLayout,
    precision: Precision,
}

impl<B: LinearOps, const N: usize> Backward<B, N> for Linear {
    type State = Saved<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let Saved { x, weight, layout, precision } = ops.state;
        let has = |at: usize| ops.parents.get(at).is_some_and(Option::is_some);
        let wanted = LinearGrads { x: has(0), weight: has(1), bias: has(2) };
        let weight = LinearWeight::Dense { weight, layout };
        let (dx, dweight, dbias) = B::project_backward(x, weight, dy, wanted, precision);
        for (parent, gradient) in ops.parents.into_iter().zip([dx, dweight, dbias]) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

fn finish<B: LinearOps, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    saved: Saved<FloatTensor<B>>,
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
        let (weight, layout) = match weight {
            LinearWeight::Dense { weight, layout } => (weight, layout),
            LinearWeight::Quantized { matrix } => {
                (composed::dequantized::<Self>(&x, &matrix), WeightLayout::OutIn)
            }
        };
        let bias = bias.into_option().map(|bias| (bias.node(), bias.into_primitive()));
        let (bias_node, bias) = bias.unzip();
        let nodes = [x.node(), weight.node()];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let dense = LinearWeight::Dense { weight: weight.clone(), layout };
        let y = B::project(x.clone(), dense, OptionalTensor::new(bias), precision);
        let saved = Saved { x, weight, layout, precision };
        match (nodes, bias_node) {
            ([x, weight], Some(bias)) => finish::<B, C, 3>([x, weight, bias], saved, y),
            (nodes, None) => finish::<B, C, 2>(nodes, saved, y),
        }
    }
}
