//! Every fused operation as a chain of Burn's own: portable, and the oracle of the kernels.

mod optimizer;

use andiron_kernels::Cpu;
use andiron_kernels::dropout::{self as masks, Dropout};
use andiron_kernels::random::Seed;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Scalar, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Shape, Slice, TensorData};

use super::{Activation, AttentionOptions, FeedForwardOptions, Turn, WeightLayout, distances};
use crate::Rows;
use crate::attention::Sight;
use crate::quant::QuantMatrix;

pub(super) use optimizer::{adamw, descend, muon_direction};

/// Elements of the largest block of logits that exists at a time: 64 MiB of f32, half of what the smallest GPUs
/// let one buffer be.
const LOGITS_BLOCK: usize = 16 << 20;

pub(super) fn affine<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    layout: WeightLayout,
) -> FloatTensor<B> {
    let weight = match layout {
        WeightLayout::InOut => weight,
        WeightLayout::OutIn => B::float_transpose(weight),
    };
    B::float_matmul(x, weight)
}

/// The numbers of a matrix in blocks, where `x` is.
pub(super) fn dequantized<B: Backend>(x: &FloatTensor<B>, weight: &QuantMatrix) -> FloatTensor<B> {
    let [rows, cols] = weight.dims();
    B::float_from_data(TensorData::new(weight.dequantize(0..rows), [rows, cols]), &x.device())
}

pub(super) fn affine_bias<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    layout: WeightLayout,
) -> FloatTensor<B> {
    let width = bias.shape()[0];
    B::float_add(affine::<B>(x, weight, layout), reshape::<B>(bias, [1, width]))
}

pub(super) fn affine_weight_grad<B: Backend>(
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
    layout: WeightLayout,
) -> FloatTensor<B> {
    match layout {
        WeightLayout::InOut => B::float_matmul(B::float_transpose(x), dy),
        WeightLayout::OutIn => B::float_matmul(B::float_transpose(dy), x),
    }
}

pub(super) fn column_sum<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let width = x.shape()[1];
    reshape::<B>(B::float_sum_dim(x, 0), [width])
}

/// The last axis as rows, `[n, d]`.
fn rows<B: Backend>(x: FloatTensor<B>) -> (FloatTensor<B>, [usize; 2]) {
    let shape = x.shape();
    let d = shape[shape.num_dims() - 1];
    let n = shape.num_elements() / d.max(1);
    (reshape::<B>(x, [n, d]), [n, d])
}

pub(super) fn layer_norm_with_moments<B: Backend>(
    x: FloatTensor<B>,
    gain: FloatTensor<B>,
    offset: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let (x, [n, d]) = rows::<B>(x);
    let mean = B::float_mean_dim(x.clone(), 1);
    let centred = B::float_sub(x, mean.clone());
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 1);
    let rstd = B::float_recip(B::float_sqrt(B::float_add_scalar(variance, scalar(eps))));
    let scaled = B::float_mul(B::float_mul(centred, rstd.clone()), reshape::<B>(gain, [1, d]));
    let y = B::float_add(scaled, reshape::<B>(offset, [1, d]));
    (B::float_reshape(y, shape), reshape::<B>(mean, [n]), reshape::<B>(rstd, [n]))
}

pub(super) fn layer_norm_backward<B: Backend>(
    x: FloatTensor<B>,
    gain: FloatTensor<B>,
    mean: FloatTensor<B>,
    rstd: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let ((x, [n, d]), (dy, _)) = (rows::<B>(x), rows::<B>(dy));
    let (mean, rstd) = (reshape::<B>(mean, [n, 1]), reshape::<B>(rstd, [n, 1]));
    let normal = B::float_mul(B::float_sub(x, mean), rstd.clone());
    let dgain = column_sum::<B>(B::float_mul(dy.clone(), normal.clone()));
    let doffset = column_sum::<B>(dy.clone());
    let dnormal = B::float_mul(dy, reshape::<B>(gain, [1, d]));
    let along = B::float_mean_dim(B::float_mul(dnormal.clone(), normal.clone()), 1);
    let centred = B::float_sub(dnormal.clone(), B::float_mean_dim(dnormal, 1));
    let dx = B::float_mul(B::float_sub(centred, B::float_mul(normal, along)), rstd);
    (B::float_reshape(dx, shape), dgain, doffset)
}

pub(super) fn rms_norm_with_rstd<B: Backend>(
    x: FloatTensor<B>,
    gain: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let (x, [n, d]) = rows::<B>(x);
    let square = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1);
    let rstd = B::float_recip(B::float_sqrt(B::float_add_scalar(square, scalar(eps))));
    let y = B::float_mul(B::float_mul(x, rstd.clone()), reshape::<B>(gain, [1, d]));
    (B::float_reshape(y, shape), reshape::<B>(rstd, [n]))
}

pub(super) fn rms_norm_backward<B: Backend>(
    x: FloatTensor<B>,
    gain: FloatTensor<B>,
    rstd: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let ((x, [n, d]), (dy, _)) = (rows::<B>(x), rows::<B>(dy));
    let rstd = reshape::<B>(rstd, [n, 1]);
    let normal = B::float_mul(x, rstd.clone());
    let dgain = column_sum::<B>(B::float_mul(dy.clone(), normal.clone()));
    let dnormal = B::float_mul(dy, reshape::<B>(gain, [1, d]));
    let along = B::float_mean_dim(B::float_mul(dnormal.clone(), normal.clone()), 1);
    let dx = B::float_mul(B::float_sub(dnormal, B::float_mul(normal, along)), rstd);
    (B::float_reshape(dx, shape), dgain)
}

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044_715;

/// `tanh(√(2/π)(x + 0.044715 x³))`.
fn gelu_tanh_part<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let square = B::float_mul(x.clone(), x.clone());
    let inner = B::float_add_scalar(B::float_mul_scalar(square, scalar(CUBIC)), scalar(1.0));
    B::float_tanh(B::float_mul_scalar(B::float_mul(x, inner), scalar(SQRT_2_OVER_PI)))
}

/// `Φ(x) = (1 + erf(x/√2)) / 2`.
fn normal_cdf<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let erf = B::float_erf(B::float_mul_scalar(x, scalar(std::f64::consts::FRAC_1_SQRT_2)));
    B::float_mul_scalar(B::float_add_scalar(erf, scalar(1.0)), scalar(0.5))
}

pub(super) fn feed_forward_with_saved<B: Backend>(
    x: FloatTensor<B>,
    [up, down]: [FloatTensor<B>; 2],
    [up_bias, down_bias]: [FloatTensor<B>; 2],
    FeedForwardOptions { activation, layouts }: FeedForwardOptions,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let before = affine_bias::<B>(x, up, up_bias, layouts[0]);
    let inner = activate::<B>(before.clone(), activation);
    (affine_bias::<B>(inner, down, down_bias, layouts[1]), before)
}

/// Gradients of input, first map, its bias, second map, its bias.
#[allow(clippy::type_complexity)]
pub(super) fn feed_forward_backward<B: Backend>(
    x: FloatTensor<B>,
    [up, down]: [FloatTensor<B>; 2],
    before: FloatTensor<B>,
    dy: FloatTensor<B>,
    FeedForwardOptions { activation, layouts }: FeedForwardOptions,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let inner = activate::<B>(before.clone(), activation);
    let ddown = affine_weight_grad::<B>(inner, dy.clone(), layouts[1]);
    let dinner = affine::<B>(dy.clone(), down, layouts[1].transposed());
    let slopes = activate_backward::<B>(before, dinner, activation);
    let dup = affine_weight_grad::<B>(x, slopes.clone(), layouts[0]);
    let dup_bias = column_sum::<B>(slopes.clone());
    let dx = affine::<B>(slopes, up, layouts[0].transposed());
    (dx, dup, dup_bias, ddown, column_sum::<B>(dy))
}

/// The output, and what the first two maps make.
pub(super) fn gated_feed_forward_with_saved<B: Backend>(
    x: FloatTensor<B>,
    [gate, up, down]: [FloatTensor<B>; 3],
    FeedForwardOptions { activation, layouts }: FeedForwardOptions,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let gate = affine::<B>(x.clone(), gate, layouts[0]);
    let up = affine::<B>(x, up, layouts[0]);
    let inner = B::float_mul(activate::<B>(gate.clone(), activation), up.clone());
    (affine::<B>(inner, down, layouts[1]), gate, up)
}

/// Gradients of input, gate's map, the other first map, last map.
#[allow(clippy::type_complexity)]
pub(super) fn gated_feed_forward_backward<B: Backend>(
    x: FloatTensor<B>,
    [gate, up, down]: [FloatTensor<B>; 3],
    [gate_saved, up_saved]: [FloatTensor<B>; 2],
    dy: FloatTensor<B>,
    FeedForwardOptions { activation, layouts }: FeedForwardOptions,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let value = activate::<B>(gate_saved.clone(), activation);
    let inner = B::float_mul(value.clone(), up_saved.clone());
    let ddown = affine_weight_grad::<B>(inner, dy.clone(), layouts[1]);
    let dinner = affine::<B>(dy, down, layouts[1].transposed());
    let slopes = B::float_mul(value, dinner.clone());
    let gate_slopes = activate_backward::<B>(gate_saved, B::float_mul(dinner, up_saved), activation);
    let dgate = affine_weight_grad::<B>(x.clone(), gate_slopes.clone(), layouts[0]);
    let dup = affine_weight_grad::<B>(x, slopes.clone(), layouts[0]);
    let back = |slopes, map| affine::<B>(slopes, map, layouts[0].transposed());
    (B::float_add(back(gate_slopes, gate), back(slopes, up)), dgate, dup, ddown)
}

pub(super) fn rotate<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    way: Turn,
) -> FloatTensor<B> {
    let [b, t, h, k] = x.shape().dims();
    let pairs = cos.shape()[3];
    let part = |from: usize, to: usize| {
        let slices = [0..b, 0..t, 0..h, from..to].map(Slice::from);
        B::float_slice(x.clone(), &slices)
    };
    let (first, second) = (part(0, pairs), part(pairs, 2 * pairs));
    let sin = match way {
        Turn::Forth => sin,
        Turn::Back => B::float_neg(sin),
    };
    let times = |x: &FloatTensor<B>, by: &FloatTensor<B>| B::float_mul(x.clone(), by.clone());
    let mut turned = vec![
        B::float_sub(times(&first, &cos), times(&second, &sin)),
        B::float_add(times(&second, &cos), times(&first, &sin)),
    ];
    if 2 * pairs < k {
        turned.push(part(2 * pairs, k));
    }
    B::float_cat(turned, 3)
}

pub(super) fn activate<B: Backend>(x: FloatTensor<B>, form: Activation) -> FloatTensor<B> {
    let gate = match form {
        Activation::GeluErf => normal_cdf::<B>(x.clone()),
        Activation::GeluTanh => {
            let t = gelu_tanh_part::<B>(x.clone());
            B::float_mul_scalar(B::float_add_scalar(t, scalar(1.0)), scalar(0.5))
        }
        Activation::Silu => B::sigmoid(x.clone()),
        Activation::Relu => return B::relu(x),
    };
    B::float_mul(x, gate)
}

pub(super) fn activate_backward<B: Backend>(
    x: FloatTensor<B>,
    dy: FloatTensor<B>,
    form: Activation,
) -> FloatTensor<B> {
    let square = B::float_mul(x.clone(), x.clone());
    let slope = match form {
        Activation::Relu => return B::relu_backward(x, dy),
        Activation::Silu => {
            let gate = B::sigmoid(x.clone());
            let fall = B::float_add_scalar(B::float_neg(gate.clone()), scalar(1.0));
            let inner = B::float_add_scalar(B::float_mul(x, fall), scalar(1.0));
            B::float_mul(gate, inner)
        }
        Activation::GeluErf => {
            let density = B::float_exp(B::float_mul_scalar(square, scalar(-0.5)));
            let density = B::float_mul_scalar(
                density,
                scalar(0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2),
            );
            B::float_add(normal_cdf::<B>(x.clone()), B::float_mul(x, density))
        }
        Activation::GeluTanh => {
            let t = gelu_tanh_part::<B>(x.clone());
            let gate = B::float_mul_scalar(B::float_add_scalar(t.clone(), scalar(1.0)), scalar(0.5));
            let sech2 = B::float_add_scalar(B::float_neg(B::float_mul(t.clone(), t)), scalar(1.0));
            let inner = B::float_add_scalar(B::float_mul_scalar(square, scalar(3.0 * CUBIC)), scalar(1.0));
            let inner = B::float_mul_scalar(inner, scalar(0.5 * SQRT_2_OVER_PI));
            B::float_add(gate, B::float_mul(B::float_mul(x, sech2), inner))
        }
    };
    B::float_mul(dy, slope)
}

/// Queries `[b, t, h, k]` as `[b, h, t, k]`; keys or values cut to their filled part and repeated for the groups.
struct Heads<B: Backend> {
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    group: usize,
}

fn heads<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>, v: FloatTensor<B>, n_keys: usize) -> Heads<B> {
    let group = q.shape()[2] / k.shape()[2];
    let spread = |x: FloatTensor<B>| {
        let [b, capacity, h, w] = x.shape().dims();
        let filled = n_keys;
        let x = if filled < capacity {
            let full = |n: usize| Slice::new(0, Some(n as isize), 1);
            B::float_slice(x, &[full(b), full(filled), full(h), full(w)])
        } else {
            x
        };
        let x = B::float_permute(x, &[0, 2, 1, 3]);
        if group == 1 {
            return x;
        }
        let x = B::float_expand(reshape::<B>(x, [b, h, 1, filled, w]), Shape::new([b, h, group, filled, w]));
        reshape::<B>(x, [b, h * group, filled, w])
    };
    Heads { q: B::float_permute(q, &[0, 2, 1, 3]), k: spread(k), v: spread(v), group }
}

fn scores<B: Backend>(
    heads: &Heads<B>,
    bias: Option<&FloatTensor<B>>,
    options: &AttentionOptions,
) -> FloatTensor<B> {
    let keys = B::float_swap_dims(heads.k.clone(), 2, 3);
    let scores = B::float_mul_scalar(B::float_matmul(heads.q.clone(), keys), scalar(options.scale.into()));
    let (t, s) = (heads.q.shape()[2], options.n_keys);
    let scores = match bias {
        Some(bias) => B::float_add(scores, distances::spread::<B>(bias.clone(), t, s)),
        None => scores,
    };
    let sight = Sight { causal: options.causal && t > 1, reach: options.reach };
    if !sight.causal && sight.reaches_all(s) && options.rows.is_none() {
        return scores;
    }
    let everything = Rows::padded_left([0]);
    let rows = options.rows.as_ref().unwrap_or(&everything);
    let mask = rows.mask([t, s], |i, j| sight.reaches((s + i) as isize - t as isize, j));
    let mask = B::float_from_data(mask, &scores.device());
    B::float_add(scores, mask)
}

/// `bias` is that of each head and distance.
pub(super) fn attention_with_lse<B: Backend>(
    [q, k, v]: [FloatTensor<B>; 3],
    bias: Option<FloatTensor<B>>,
    options: AttentionOptions,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let heads = heads::<B>(q, k, v, options.n_keys);
    let scores = scores::<B>(&heads, bias.as_ref(), &options);
    let [b, h, t, _] = scores.shape().dims();
    let max = B::float_max_dim(scores.clone(), 3);
    let exp = B::float_exp(B::float_sub(scores, max.clone()));
    let sum = B::float_sum_dim(exp.clone(), 3);
    let lse = reshape::<B>(B::float_add(max, B::float_log(sum.clone())), [b, h, t]);
    let out = B::float_matmul(B::float_div(exp, sum), heads.v);
    (B::float_permute(out, &[0, 2, 1, 3]), lse)
}

type Three<B> = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>);

/// `tensors`: queries, keys, values, output, log denominators, gradient of the output. Beside the gradients of the first
/// three, that of the bias if there is one.
pub(super) fn attention_backward<B: Backend>(
    tensors: [FloatTensor<B>; 6],
    bias: Option<FloatTensor<B>>,
    options: AttentionOptions,
) -> (Three<B>, Option<FloatTensor<B>>) {
    let [q, k, v, out, lse, dout] = tensors;
    let capacity = k.shape()[1];
    assert_eq!(capacity, options.n_keys, "gradients flow only through keys without spare capacity");
    let heads = heads::<B>(q, k, v, options.n_keys);
    let [b, h, t] = lse.shape().dims();
    let scores = scores::<B>(&heads, bias.as_ref(), &options);
    let p = B::float_exp(B::float_sub(scores, reshape::<B>(lse, [b, h, t, 1])));
    let (out, dout) = (B::float_permute(out, &[0, 2, 1, 3]), B::float_permute(dout, &[0, 2, 1, 3]));
    let dv = B::float_matmul(B::float_swap_dims(p.clone(), 2, 3), dout.clone());
    let dp = B::float_matmul(dout.clone(), B::float_swap_dims(heads.v, 2, 3));
    let delta = B::float_sum_dim(B::float_mul(dout, out), 3);
    let ds = B::float_mul(p, B::float_sub(dp, delta));
    let dbias = bias.map(|_| {
        let of_pairs = B::float_sum_dim(ds.clone(), 0);
        distances::gathered::<B>(reshape::<B>(of_pairs, [h, t, options.n_keys]))
    });
    let ds = B::float_mul_scalar(ds, scalar(options.scale.into()));
    let dq = B::float_matmul(ds.clone(), heads.k);
    let dk = B::float_matmul(B::float_swap_dims(ds, 2, 3), heads.q);
    let gather = |x: FloatTensor<B>| {
        let [b, h, s, w] = x.shape().dims();
        let x = if heads.group == 1 {
            x
        } else {
            let key_heads = h / heads.group;
            let x = reshape::<B>(x, [b, key_heads, heads.group, s, w]);
            reshape::<B>(B::float_sum_dim(x, 2), [b, key_heads, s, w])
        };
        B::float_permute(x, &[0, 2, 1, 3])
    };
    ((B::float_permute(dq, &[0, 2, 1, 3]), gather(dk), gather(dv)), dbias)
}

/// The queries, keys and values that lie side by side in `[batch, t, 3 · heads · width]`, `[batch, t, heads, width]` each.
fn unpacked<B: Backend>(qkv: FloatTensor<B>, heads: usize) -> [FloatTensor<B>; 3] {
    let [b, t, width] = qkv.shape().dims();
    let width = width / 3;
    [0, 1, 2].map(|part| {
        let range = |start: usize, len: usize| Slice::new(start as isize, Some((start + len) as isize), 1);
        let part = B::float_slice(qkv.clone(), &[range(0, b), range(0, t), range(part * width, width)]);
        reshape::<B>(part, [b, t, heads, width / heads])
    })
}

pub(super) fn attention_packed_with_lse<B: Backend>(
    qkv: FloatTensor<B>,
    heads: usize,
    options: AttentionOptions,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [b, t, width] = qkv.shape().dims();
    let [q, k, v] = unpacked::<B>(qkv, heads);
    let (out, lse) = attention_with_lse::<B>([q, k, v], None, options);
    (reshape::<B>(out, [b, t, width / 3]), lse)
}

/// `tensors`: queries, keys and values in one, output, log denominators, gradient of the output.
pub(super) fn attention_packed_backward<B: Backend>(
    tensors: [FloatTensor<B>; 4],
    options: AttentionOptions,
) -> FloatTensor<B> {
    let [qkv, out, lse, dout] = tensors;
    let [b, t, width] = qkv.shape().dims();
    let heads = lse.shape()[1];
    let [q, k, v] = unpacked::<B>(qkv, heads);
    let [out, dout] = [out, dout].map(|x| reshape::<B>(x, [b, t, heads, width / 3 / heads]));
    let ((dq, dk, dv), _) = attention_backward::<B>([q, k, v, out, lse, dout], None, options);
    B::float_cat([dq, dk, dv].map(|x| reshape::<B>(x, [b, t, width / 3])).to_vec(), 2)
}

/// Logits of one block of rows, with their log denominators `[rows, 1]` and losses `[rows, 1]`.
struct LogitsBlock<B: Backend> {
    logits: FloatTensor<B>,
    lse: FloatTensor<B>,
    losses: FloatTensor<B>,
}

fn logits_block<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
) -> LogitsBlock<B> {
    let logits = B::float_matmul(hidden, B::float_transpose(head));
    let max = B::float_max_dim(logits.clone(), 1);
    let sum = B::float_sum_dim(B::float_exp(B::float_sub(logits.clone(), max.clone())), 1);
    let lse = B::float_add(max, B::float_log(sum));
    let losses = B::float_sub(lse.clone(), B::float_gather(1, logits.clone(), targets));
    LogitsBlock { logits, lse, losses }
}

/// Calls `visit` with hidden states, targets `[rows, 1]` and weights `[rows, 1]` of successive blocks of rows.
fn for_row_blocks<B: Backend>(
    hidden: &FloatTensor<B>,
    vocabulary: usize,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    mut visit: impl FnMut(FloatTensor<B>, IntTensor<B>, FloatTensor<B>),
) {
    let [n, d] = hidden.shape().dims();
    let rows = (LOGITS_BLOCK / vocabulary).clamp(1, n.max(1));
    let targets = B::int_reshape(targets, Shape::new([n, 1]));
    let weights = reshape::<B>(weights, [n, 1]);
    for start in (0..n).step_by(rows) {
        let range = Slice::new(start as isize, Some((start + rows).min(n) as isize), 1);
        let column = Slice::new(0, Some(1), 1);
        visit(
            B::float_slice(hidden.clone(), &[range, Slice::new(0, Some(d as isize), 1)]),
            B::int_slice(targets.clone(), &[range, column]),
            B::float_slice(weights.clone(), &[range, column]),
        );
    }
}

/// Sum of `losses · weights`.
fn weighted_sum<B: Backend>(losses: FloatTensor<B>, weights: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sum(B::float_mul(losses, weights))
}

pub(super) fn head_cross_entropy<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
) -> FloatTensor<B> {
    let vocabulary = head.shape()[0];
    let mut total: Option<FloatTensor<B>> = None;
    for_row_blocks::<B>(&hidden, vocabulary, targets, weights, |hidden, targets, weights| {
        let block = logits_block::<B>(hidden, head.clone(), targets);
        add_to::<B>(&mut total, weighted_sum::<B>(block.losses, weights));
    });
    total.unwrap_or_else(|| zero::<B>(&head))
}

pub(super) fn head_cross_entropy_with_grad<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let vocabulary = head.shape()[0];
    let (mut total, mut dhead) = (None, None);
    let mut dhidden = Vec::new();
    for_row_blocks::<B>(&hidden, vocabulary, targets, weights, |hidden, targets, weights| {
        let LogitsBlock { logits, lse, losses } =
            logits_block::<B>(hidden.clone(), head.clone(), targets.clone());
        add_to::<B>(&mut total, weighted_sum::<B>(losses, weights.clone()));
        let p = B::float_mul(B::float_exp(B::float_sub(logits, lse)), weights.clone());
        let dlogits = B::float_scatter(1, p, targets, B::float_neg(weights), IndexingUpdateOp::Add);
        add_to::<B>(&mut dhead, B::float_matmul(B::float_transpose(dlogits.clone()), hidden));
        dhidden.push(B::float_matmul(dlogits, head.clone()));
    });
    match (total, dhead) {
        (Some(total), Some(dhead)) => (total, B::float_cat(dhidden, 0), dhead),
        _ => {
            let total = zero::<B>(&head);
            (total, hidden, B::float_mul_scalar(head, scalar(0.0)))
        }
    }
}

pub(super) fn dropout<B: Backend>(x: FloatTensor<B>, probability: f32, seed: u64) -> FloatTensor<B> {
    let shape = x.shape();
    let mut mask = vec![0.0; shape.num_elements()];
    let rule = Dropout { probability, seed: Seed::new(seed) };
    masks::apply(Cpu::detect(rayon::current_num_threads()), rule, &vec![1.0; mask.len()], &mut mask);
    let mask = B::float_from_data(TensorData::new(mask, shape), &x.device());
    B::float_mul(x, mask)
}

pub(super) fn square_sum<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sum(B::float_mul(x.clone(), x))
}

fn add_to<B: Backend>(total: &mut Option<FloatTensor<B>>, part: FloatTensor<B>) {
    *total = Some(match total.take() {
        Some(total) => B::float_add(total, part),
        None => part,
    });
}

fn zero<B: Backend>(like: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_from_data(TensorData::new(vec![0.0f32], [1]), &like.device())
}

fn reshape<B: Backend>(x: FloatTensor<B>, shape: impl Into<Shape>) -> FloatTensor<B> {
    B::float_reshape(x, shape.into())
}

fn scalar(value: f64) -> Scalar {
    Scalar::Float(value)
}
