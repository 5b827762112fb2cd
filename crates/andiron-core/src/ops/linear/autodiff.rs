//! Gradients of linear projections.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend as _, Backend};

use super::{LinearGrads, LinearOps, LinearWeight, SavedInput};
use crate::ops::OptionalTensor;
use crate::precision::Precision;

/// An input kept for a backward pass is in no graph itself.
impl<B: Backend, C: CheckpointStrategy> SavedInput<Autodiff<B, C>> {
    pub(in crate::ops) fn without_autodiff(self) -> SavedInput<B> {
        match self {
            Self::Nothing => SavedInput::Nothing,
            Self::Exact(x) => SavedInput::Exact(x.into_primitive()),
            Self::Rounded(x) => SavedInput::Rounded(x.into_primitive()),
            Self::Activated { x, up, form, in_bf16 } => {
                let up = OptionalTensor::new(up.into_option().map(|up| up.into_primitive()));
                SavedInput::Activated { x: x.into_primitive(), up, form, in_bf16 }
            }
        }
    }

    pub(in crate::ops) fn with_autodiff(saved: SavedInput<B>) -> Self {
        let of = Autodiff::<B, C>::from_inner;
        match saved {
            SavedInput::Nothing => Self::Nothing,
            SavedInput::Exact(x) => Self::Exact(of(x)),
            SavedInput::Rounded(x) => Self::Rounded(of(x)),
            SavedInput::Activated { x, up, form, in_bf16 } => {
                Self::Activated { x: of(x), up: OptionalTensor::new(up.into_option().map(of)), form, in_bf16 }
            }
        }
    }
}

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
