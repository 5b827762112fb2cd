//! Gradients of projections with adapters.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{Factors, LowRankOps, LowRankOptions};
use crate::ops::linear::composed::column_sum;
use crate::ops::{LinearWeight, OptionalTensor, SavedInput};
use crate::precision::Precision;

/// Parents: input, factors and, if there is one, bias. The weight is frozen.
#[derive(Debug)]
struct LowRank;

#[derive(Clone, Debug)]
struct Saved<B: LowRankOps> {
    x: SavedInput<B>,
    inner: FloatTensor<B>,
    weight: LinearWeight<B>,
    factors: Factors<B>,
    options: LowRankOptions,
}

impl<B: LowRankOps, const N: usize> Backward<B, N> for LowRank {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let Saved { x, inner, weight, factors, options } = ops.state;
        let mut parents = ops.parents.into_iter();
        let mut parent = || parents.next().flatten();
        let [x_node, a_node, b_node, bias_node] = [parent(), parent(), parent(), parent()];
        if bias_node.is_some() {
            give!(grads, bias_node, column_sum::<B>(dy.clone()));
        }
        let (dx, Factors { a, b }) =
            B::low_rank_backward(x, inner, weight, factors, dy, options, x_node.is_some());
        if let Some(dx) = dx {
            give!(grads, x_node, dx);
        }
        give!(grads, a_node, a);
        give!(grads, b_node, b);
    }
}

struct Inputs<B: LowRankOps> {
    x: FloatTensor<B>,
    kept: SavedInput<B>,
    weight: LinearWeight<B>,
    factors: Factors<B>,
    bias: OptionalTensor<B>,
    options: LowRankOptions,
}

fn finish<B: LowRankOps, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    Inputs { x, kept, weight, factors, bias, options }: Inputs<B>,
) -> FloatTensor<Autodiff<B, C>> {
    match LowRank.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let kept = match kept {
                SavedInput::Nothing => B::kept_input(x.clone(), options.precision),
                kept => kept,
            };
            let (y, inner) = B::low_rank_saved(x, weight.clone(), factors.clone(), bias, options);
            prep.finish(Saved { x: kept, inner, weight, factors, options }, y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::low_rank_saved(x, weight, factors, bias, options).0),
    }
}

impl<B: LowRankOps, C: CheckpointStrategy> LowRankOps for Autodiff<B, C> {
    fn keep_input(x: FloatTensor<Self>, precision: Precision) -> SavedInput<Self> {
        SavedInput::with_autodiff(B::kept_input(x.into_primitive(), precision))
    }

    fn low_rank(
        x: FloatTensor<Self>,
        kept: SavedInput<Self>,
        weight: LinearWeight<Self>,
        Factors { a, b }: Factors<Self>,
        bias: OptionalTensor<Self>,
        options: LowRankOptions,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), a.node(), b.node()];
        let weight = match weight {
            LinearWeight::Dense { weight, layout } => {
                LinearWeight::Dense { weight: weight.into_primitive(), layout }
            }
            LinearWeight::Quantized { matrix } => LinearWeight::Quantized { matrix },
        };
        let (bias_node, bias) = bias.into_option().map(|bias| (bias.node(), bias.into_primitive())).unzip();
        let inputs = Inputs {
            x: x.into_primitive(),
            kept: kept.without_autodiff(),
            weight,
            factors: Factors { a: a.into_primitive(), b: b.into_primitive() },
            bias: OptionalTensor::new(bias),
            options,
        };
        match (nodes, bias_node) {
            (nodes, None) => finish::<B, C, 3>(nodes, inputs),
            ([x, a, b], Some(bias)) => finish::<B, C, 4>([x, a, b, bias], inputs),
        }
    }
}
