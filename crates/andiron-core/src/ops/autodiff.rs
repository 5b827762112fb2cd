//! Gradients by hand, once for all backends.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::{Activation, AttentionOptions, FeedForwardOptions, FusedOps, Precision, Turn, WeightLayout};

/// Hands `gradient` to the parent, if it wants one.
macro_rules! give {
    ($grads:expr, $parent:expr, $gradient:expr) => {
        if let Some(parent) = $parent {
            $grads.register::<B>(parent.id, $gradient);
        }
    };
}

/// The gradient of a parent so far, taken out: it is there if the parent is `carried` past an operation into a later
/// one, whose turn has come before. Of a leaf it stays where it is.
macro_rules! past {
    ($grads:expr, $parent:expr, $carried:expr) => {
        match $parent {
            Some(parent) if $carried && !parent.parents.is_empty() => Some($grads.consume::<B>(parent)),
            _ => None,
        }
    };
}

mod norms;

use norms::{LayerNorm, Residual, RmsNorm};

/// Backward of an affine map with (3 parents) or without (2 parents) a bias.
#[derive(Debug)]
struct Affine;

#[derive(Clone, Debug)]
struct SavedAffine<T> {
    x: T,
    weight: T,
    layout: WeightLayout,
    precision: Precision,
}

impl<B: FusedOps, const N: usize> Backward<B, N> for Affine {
    type State = SavedAffine<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let SavedAffine { x, weight, layout, precision } = ops.state;
        // Gradients of all parents cost less together.
        match &ops.parents[..] {
            [Some(of_x), Some(of_weight), Some(of_bias)] => {
                let (dx, dweight, dbias) = B::affine_bias_backward(x, weight, dy, layout, precision);
                grads.register::<B>(of_x.id, dx);
                grads.register::<B>(of_weight.id, dweight);
                grads.register::<B>(of_bias.id, dbias);
                return;
            }
            [Some(of_x), Some(of_weight)] => {
                let (dx, dweight) = B::affine_backward(x, weight, dy, layout, precision);
                grads.register::<B>(of_x.id, dx);
                grads.register::<B>(of_weight.id, dweight);
                return;
            }
            _ => {}
        }
        for (parent, at) in ops.parents.into_iter().zip(0..) {
            let Some(parent) = parent else { continue };
            let gradient = match at {
                0 => B::affine(dy.clone(), weight.clone(), layout.transposed(), precision),
                1 => B::affine_weight_grad(x.clone(), dy.clone(), layout, precision),
                _ => B::column_sum(dy.clone()),
            };
            grads.register::<B>(parent.id, gradient);
        }
    }
}

impl<B: FusedOps, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        layout: WeightLayout,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let y = B::affine(x.clone(), weight.clone(), layout, precision);
        match Affine.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(SavedAffine { x, weight, layout, precision }, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn affine_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        layout: WeightLayout,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let y = B::affine_bias(x.clone(), weight.clone(), bias.into_primitive(), layout, precision);
        match Affine.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(SavedAffine { x, weight, layout, precision }, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }

    fn layer_norm_rows(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        eps: f64,
        carried: bool,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gain.node(), offset.node()];
        let (x, gain, offset) = (x.into_primitive(), gain.into_primitive(), offset.into_primitive());
        let (y, mean, rstd) = B::layer_norm_with_moments(x.clone(), gain.clone(), offset, eps);
        LayerNorm { carried }.finish::<B, C>(nodes, [x, gain, mean, rstd], y)
    }

    fn layer_norm_of_sum(
        x: FloatTensor<Self>,
        added: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        eps: f64,
        carried: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (summands, affine) = ([x.node(), added.node()], [gain.node(), offset.node()]);
        let [x, added, gain, offset] = [x, added, gain, offset].map(|tensor| tensor.into_primitive());
        let (sum, y, mean, rstd) = B::layer_norm_of_sum_with_moments(x, added, gain.clone(), offset, eps);
        let sum_too = Residual.finish::<B, C>(summands, sum.clone());
        let [gain_node, offset_node] = affine;
        let nodes = [sum_too.node(), gain_node, offset_node];
        let y = LayerNorm { carried }.finish::<B, C>(nodes, [sum, gain, mean, rstd], y);
        (sum_too, y)
    }

    fn rms_norm_rows(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        eps: f64,
        carried: bool,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gain.node()];
        let (x, gain) = (x.into_primitive(), gain.into_primitive());
        let (y, rstd) = B::rms_norm_with_rstd(x.clone(), gain.clone(), eps);
        RmsNorm { carried }.finish::<B, C>(nodes, [x, gain, rstd], y)
    }

    fn rms_norm_of_sum(
        x: FloatTensor<Self>,
        added: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        eps: f64,
        carried: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (summands, gain_node) = ([x.node(), added.node()], gain.node());
        let [x, added, gain] = [x, added, gain].map(|tensor| tensor.into_primitive());
        let (sum, y, rstd) = B::rms_norm_of_sum_with_rstd(x, added, gain.clone(), eps);
        let sum_too = Residual.finish::<B, C>(summands, sum.clone());
        let nodes = [sum_too.node(), gain_node];
        let y = RmsNorm { carried }.finish::<B, C>(nodes, [sum, gain, rstd], y);
        (sum_too, y)
    }

    fn residual(x: FloatTensor<Self>, added: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), added.node()];
        Residual.finish::<B, C>(nodes, B::residual(x.into_primitive(), added.into_primitive()))
    }

    fn activate(x: FloatTensor<Self>, form: Activation) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Activate;

        impl<B: FusedOps> Backward<B, 1> for Activate {
            type State = (FloatTensor<B>, Activation);

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let (x, form) = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |dy| B::activate_backward(x, dy, form));
            }
        }

        match Activate.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let x = x.into_primitive();
                prep.finish((x.clone(), form), B::activate(x, form))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::activate(x.into_primitive(), form)),
        }
    }

    fn gate(x: FloatTensor<Self>, up: FloatTensor<Self>, form: Activation) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Gate;

        impl<B: FusedOps> Backward<B, 2> for Gate {
            type State = ([FloatTensor<B>; 2], Activation);

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
                let dy = grads.consume::<B>(&ops.node);
                let ([x, up], form) = ops.state;
                let (dx, dup) = B::gate_backward(x, up, dy, form);
                let [x, up] = ops.parents;
                give!(grads, x, dx);
                give!(grads, up, dup);
            }
        }

        let nodes = [x.node(), up.node()];
        let (x, up) = (x.into_primitive(), up.into_primitive());
        match Gate.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::gate(x.clone(), up.clone(), form);
                prep.finish(([x, up], form), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::gate(x, up, form)),
        }
    }

    fn feed_forward(
        x: FloatTensor<Self>,
        up: FloatTensor<Self>,
        up_bias: FloatTensor<Self>,
        down: FloatTensor<Self>,
        down_bias: FloatTensor<Self>,
        how: (FeedForwardOptions, Precision),
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct FeedForward;

        impl<B: FusedOps> Backward<B, 5> for FeedForward {
            /// Input, first map, second map, and what the forward pass saved.
            type State = ([FloatTensor<B>; 4], (FeedForwardOptions, Precision));

            fn backward(self, ops: Ops<Self::State, 5>, grads: &mut Gradients, _: &mut Checkpointer) {
                let dy = grads.consume::<B>(&ops.node);
                let ([x, up, down, saved], how) = ops.state;
                let (dx, dup, dup_bias, ddown, ddown_bias) =
                    B::feed_forward_backward(x, up, down, saved, dy, how);
                for (parent, gradient) in ops.parents.into_iter().zip([dx, dup, dup_bias, ddown, ddown_bias])
                {
                    give!(grads, parent, gradient);
                }
            }
        }

        let nodes = [x.node(), up.node(), up_bias.node(), down.node(), down_bias.node()];
        let [x, up, up_bias, down, down_bias] =
            [x, up, up_bias, down, down_bias].map(|tensor| tensor.into_primitive());
        match FeedForward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (y, saved) =
                    B::feed_forward_with_saved(x.clone(), up.clone(), up_bias, down.clone(), down_bias, how);
                prep.finish(([x, up, down, saved], how), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::feed_forward(x, up, up_bias, down, down_bias, how)),
        }
    }

    fn gated_feed_forward(
        x: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        how: (FeedForwardOptions, Precision),
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct GatedFeedForward;

        impl<B: FusedOps> Backward<B, 4> for GatedFeedForward {
            /// Input and maps, and what the forward pass saved.
            type State = ([FloatTensor<B>; 4], [FloatTensor<B>; 2], (FeedForwardOptions, Precision));

            fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
                let dy = grads.consume::<B>(&ops.node);
                let ([x, gate, up, down], [gate_saved, up_saved], how) = ops.state;
                let (dx, dgate, dup, ddown) =
                    B::gated_feed_forward_backward(x, gate, up, down, gate_saved, up_saved, dy, how);
                for (parent, gradient) in ops.parents.into_iter().zip([dx, dgate, dup, ddown]) {
                    give!(grads, parent, gradient);
                }
            }
        }

        let nodes = [x.node(), gate.node(), up.node(), down.node()];
        let inputs = [x, gate, up, down].map(|tensor| tensor.into_primitive());
        let [x, gate, up, down] = inputs.clone();
        match GatedFeedForward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (y, gate_saved, up_saved) = B::gated_feed_forward_with_saved(x, gate, up, down, how);
                prep.finish((inputs, [gate_saved, up_saved], how), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::gated_feed_forward(x, gate, up, down, how)),
        }
    }

    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        way: Turn,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Rotate;

        impl<B: FusedOps> Backward<B, 1> for Rotate {
            /// Cosines, sines, and the way back.
            type State = ([FloatTensor<B>; 2], Turn);

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let ([cos, sin], back) = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |dy| B::rotate(dy, cos, sin, back));
            }
        }

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

    fn attention_heads(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Attention;

        impl<B: FusedOps> Backward<B, 3> for Attention {
            /// Queries, keys, values, output, log denominators.
            type State = ([FloatTensor<B>; 5], (AttentionOptions, Precision));

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
                let dout = grads.consume::<B>(&ops.node);
                let ([q, k, v, out, lse], how) = ops.state;
                let (dq, dk, dv) = B::attention_backward(q, k, v, out, lse, dout, how);
                let [q, k, v] = ops.parents;
                give!(grads, q, dq);
                give!(grads, k, dk);
                give!(grads, v, dv);
            }
        }

        let nodes = [q.node(), k.node(), v.node()];
        let (q, k, v) = (q.into_primitive(), k.into_primitive(), v.into_primitive());
        match Attention.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (out, lse) =
                    B::attention_with_lse(q.clone(), k.clone(), v.clone(), options.clone(), precision);
                prep.finish(([q, k, v, out.clone(), lse], (options, precision)), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::attention_heads(q, k, v, options, precision)),
        }
    }

    fn attention_biased(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: AttentionOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Biased;

        impl<B: FusedOps> Backward<B, 4> for Biased {
            /// Queries, keys, values, biases, output, log denominators.
            type State = ([FloatTensor<B>; 6], (AttentionOptions, Precision));

            fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
                let dout = grads.consume::<B>(&ops.node);
                let ([q, k, v, bias, out, lse], how) = ops.state;
                let (dq, dk, dv, dbias) = B::attention_biased_backward(q, k, v, bias, out, lse, dout, how);
                let [q, k, v, bias] = ops.parents;
                give!(grads, q, dq);
                give!(grads, k, dk);
                give!(grads, v, dv);
                give!(grads, bias, dbias);
            }
        }

        let nodes = [q.node(), k.node(), v.node(), bias.node()];
        let [q, k, v, bias] = [q, k, v, bias].map(|x| x.into_primitive());
        match Biased.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let inputs = [q, k, v, bias].map(|x| (x.clone(), x));
                let [(q, q_kept), (k, k_kept), (v, v_kept), (bias, bias_kept)] = inputs;
                let (out, lse) = B::attention_biased_with_lse(q, k, v, bias, options.clone(), precision);
                let state = [q_kept, k_kept, v_kept, bias_kept, out.clone(), lse];
                prep.finish((state, (options, precision)), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::attention_biased(q, k, v, bias, options, precision)),
        }
    }

    fn attention_packed(
        qkv: FloatTensor<Self>,
        heads: usize,
        options: AttentionOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Packed;

        impl<B: FusedOps> Backward<B, 1> for Packed {
            /// Queries, keys and values in one, output, log denominators.
            type State = ([FloatTensor<B>; 3], AttentionOptions, Precision);

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let ([qkv, out, lse], options, precision) = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |dout| {
                    B::attention_packed_backward(qkv, out, lse, dout, options, precision)
                });
            }
        }

        match Packed.prepare::<C>([qkv.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let qkv = qkv.into_primitive();
                let (out, lse) = B::attention_packed_with_lse(qkv.clone(), heads, options.clone(), precision);
                prep.finish(([qkv, out.clone(), lse], options, precision), out)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::attention_packed(qkv.into_primitive(), heads, options, precision))
            }
        }
    }

    fn embedding_rows(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct EmbeddingRows;

        impl<B: FusedOps> Backward<B, 1> for EmbeddingRows {
            type State = (FloatTensor<B>, IntTensor<B>);

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let (table, ids) = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |dy| B::embedding_rows_backward(table, dy, ids));
            }
        }

        match EmbeddingRows.prepare::<C>([table.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let table = table.into_primitive();
                prep.finish((table.clone(), ids.clone()), B::embedding_rows(table, ids))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::embedding_rows(table.into_primitive(), ids)),
        }
    }

    fn head_cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct HeadCrossEntropy;

        impl<B: FusedOps> Backward<B, 2> for HeadCrossEntropy {
            /// Gradients of hidden states and head for an upstream gradient of one.
            type State = [FloatTensor<B>; 2];

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
                let upstream = grads.consume::<B>(&ops.node);
                let upstream = B::float_reshape(upstream, [1, 1].into());
                for (parent, gradient) in ops.parents.into_iter().zip(ops.state) {
                    give!(grads, parent, B::float_mul(gradient, upstream.clone()));
                }
            }
        }

        let nodes = [hidden.node(), head.node()];
        let (hidden, head) = (hidden.into_primitive(), head.into_primitive());
        let weights = weights.into_primitive();
        match HeadCrossEntropy.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (loss, dhidden, dhead) =
                    B::head_cross_entropy_with_grad(hidden, head, targets, weights, precision);
                prep.finish([dhidden, dhead], loss)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::head_cross_entropy(hidden, head, targets, weights, precision))
            }
        }
    }

    fn dropout(x: FloatTensor<Self>, probability: f32, seed: u64) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Dropout;

        impl<B: FusedOps> Backward<B, 1> for Dropout {
            type State = (f32, u64);

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let (probability, seed) = ops.state;
                unary::<B, _>(ops.parents, ops.node, grads, |dy| B::dropout(dy, probability, seed));
            }
        }

        let prep = Dropout.prepare::<C>([x.node()]).compute_bound().stateful();
        let y = B::dropout(x.into_primitive(), probability, seed);
        match prep {
            OpsKind::Tracked(prep) => prep.finish((probability, seed), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}
