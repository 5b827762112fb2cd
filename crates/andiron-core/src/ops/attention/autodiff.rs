//! Gradients of attention.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::{AttentionOps, AttentionOptions, Qkv, SavedAttention};
use crate::ops::OptionalTensor;
use crate::precision::Precision;

/// Parents: queries, keys and values, or all three in one; then the bias, if there is one.
#[derive(Debug)]
struct Attention;

#[derive(Clone, Debug)]
struct Saved<B: AttentionOps> {
    of_forward: SavedAttention<B>,
    bias: OptionalTensor<B>,
    options: AttentionOptions,
    precision: Precision,
}

impl<B: AttentionOps, const N: usize> Backward<B, N> for Attention {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let Saved { of_forward, bias, options, precision } = ops.state;
        let (dqkv, dbias) = B::attend_backward(of_forward, bias, dout, options, precision);
        let mut gradients = match dqkv {
            Qkv::Separate { q, k, v } => vec![q, k, v],
            Qkv::Packed { qkv, .. } => vec![qkv],
        };
        gradients.extend(dbias);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            give!(grads, parent, gradient);
        }
    }
}

fn finish<B: AttentionOps, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    qkv: Qkv<B>,
    bias: OptionalTensor<B>,
    options: AttentionOptions,
    precision: Precision,
) -> FloatTensor<Autodiff<B, C>> {
    match Attention.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (out, of_forward) = B::attend_saved(qkv, bias.clone(), options.clone(), precision);
            prep.finish(Saved { of_forward, bias, options, precision }, out)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::attend(qkv, bias, options, precision)),
    }
}

impl<B: AttentionOps, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn attend(
        qkv: Qkv<Self>,
        bias: OptionalTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let bias = bias.into_option().map(|bias| (bias.node(), bias.into_primitive()));
        let (bias_node, bias) = bias.unzip();
        let bias = OptionalTensor::new(bias);
        match qkv {
            Qkv::Separate { q, k, v } => {
                let [q_node, k_node, v_node] = [q.node(), k.node(), v.node()];
                let [q, k, v] = [q, k, v].map(|tensor| tensor.into_primitive());
                let qkv = Qkv::Separate { q, k, v };
                match bias_node {
                    Some(bias_node) => {
                        let nodes = [q_node, k_node, v_node, bias_node];
                        finish::<B, C, 4>(nodes, qkv, bias, options, precision)
                    }
                    None => finish::<B, C, 3>([q_node, k_node, v_node], qkv, bias, options, precision),
                }
            }
            Qkv::Packed { qkv, heads } => {
                let node = qkv.node();
                let qkv = Qkv::Packed { qkv: qkv.into_primitive(), heads };
                match bias_node {
                    Some(bias_node) => finish::<B, C, 2>([node, bias_node], qkv, bias, options, precision),
                    None => finish::<B, C, 1>([node], qkv, bias, options, precision),
                }
            }
        }
    }
}
