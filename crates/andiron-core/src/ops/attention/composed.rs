//! Attention composed of Burn's own operations, with the full score matrix.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Slice};

use super::{AttentionMask, AttentionOptions, Qkv, SavedAttention, distances};
use crate::ops::DropoutOps;
use crate::ops::composed::{reshape, scalar};
use crate::{Documents, PaddingMask};

pub(super) fn attention_saved<B: DropoutOps>(
    qkv: Qkv<B>,
    bias: Option<FloatTensor<B>>,
    options: AttentionOptions,
) -> (FloatTensor<B>, FloatTensor<B>) {
    match qkv {
        Qkv::Separate { q, k, v } => separate::<B>([q, k, v], bias, &options),
        Qkv::Packed { qkv, heads } => {
            let [b, t, width] = qkv.shape().dims();
            let (out, lse) = separate::<B>(unpacked::<B>(qkv, heads), bias, &options);
            (reshape::<B>(out, [b, t, width / 3]), lse)
        }
    }
}

/// # Panics
/// If `saved` is rounded.
pub(super) fn attention_backward<B: DropoutOps>(
    saved: SavedAttention<B>,
    bias: Option<FloatTensor<B>>,
    dout: FloatTensor<B>,
    options: AttentionOptions,
) -> (Qkv<B>, Option<FloatTensor<B>>) {
    let SavedAttention::Exact { qkv, out, lse } = saved else {
        panic!("the operands were not kept as they were")
    };
    let saved = [out, lse, dout];
    match qkv {
        Qkv::Separate { q, k, v } => {
            let ([q, k, v], dbias) = separate_backward::<B>([q, k, v], bias, saved, &options);
            (Qkv::Separate { q, k, v }, dbias)
        }
        Qkv::Packed { qkv, heads } => {
            let [b, t, width] = qkv.shape().dims();
            let [out, lse, dout] = saved;
            let [out, dout] = [out, dout].map(|x| reshape::<B>(x, [b, t, heads, width / 3 / heads]));
            let unpacked = unpacked::<B>(qkv, heads);
            let (dqkv, dbias) = separate_backward::<B>(unpacked, bias, [out, lse, dout], &options);
            let dqkv = dqkv.map(|x| reshape::<B>(x, [b, t, width / 3]));
            (Qkv::Packed { qkv: B::float_cat(dqkv.to_vec(), 2), heads }, dbias)
        }
    }
}

/// The parts of `[batch, t, 3 · heads · width]`, `[batch, t, heads, width]` each.
fn unpacked<B: Backend>(qkv: FloatTensor<B>, heads: usize) -> [FloatTensor<B>; 3] {
    let [b, t, width] = qkv.shape().dims();
    let width = width / 3;
    [0, 1, 2].map(|part| {
        let range = |start: usize, len: usize| Slice::new(start as isize, Some((start + len) as isize), 1);
        let part = B::float_slice(qkv.clone(), &[range(0, b), range(0, t), range(part * width, width)]);
        reshape::<B>(part, [b, t, heads, width / heads])
    })
}

/// Queries `[b, t, h, k]` as `[b, h, t, k]`; keys and values cut to their filled part, KV heads repeated per group.
struct Heads<B: Backend> {
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    group: usize,
}

fn heads<B: Backend>([q, k, v]: [FloatTensor<B>; 3], n_keys: usize) -> Heads<B> {
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
    let seen = AttentionMask { causal: options.mask.causal && t > 1, ..options.mask };
    if !seen.causal && seen.spans(s) && options.rows.is_none() && options.documents.is_none() {
        return scores;
    }
    let documents = options.documents.as_ref();
    let everything = PaddingMask::padded_left(vec![0; documents.map_or(1, Documents::len)]);
    let rows = options.rows.as_ref().unwrap_or(&everything);
    let of_row = |documents: &Documents| (0..documents.len()).map(|row| documents.indices(row, s)).collect();
    let indices: Option<Vec<Vec<usize>>> = documents.map(of_row);
    let alike = |row: usize, i, j| indices.as_ref().is_none_or(|of: &Vec<_>| of[row][i] == of[row][j]);
    let mask = rows.mask([t, s], |row, i, j| alike(row, i, j) && seen.sees((s + i) as isize - t as isize, j));
    let mask = B::float_from_data(mask, &scores.device());
    B::float_add(scores, mask)
}

/// Probabilities, `[b, h, t, s]`, or their gradients, after dropout.
fn dropped<B: DropoutOps>(p: FloatTensor<B>, options: &AttentionOptions) -> FloatTensor<B> {
    match options.dropout {
        Some(rule) => B::dropout(p, rule),
        None => p,
    }
}

/// Probabilities of each query's keys, `[b, h, t, s]`, before dropout.
pub(super) fn probabilities<B: Backend>(
    qkv: [FloatTensor<B>; 3],
    bias: Option<FloatTensor<B>>,
    options: &AttentionOptions,
) -> FloatTensor<B> {
    softmax::<B>(scores::<B>(&heads::<B>(qkv, options.n_keys), bias.as_ref(), options)).0
}

/// Softmax over the keys, and the log-sum-exp, `[b, h, t]`.
fn softmax<B: Backend>(scores: FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
    let [b, h, t, _] = scores.shape().dims();
    let max = B::float_max_dim(scores.clone(), 3);
    let exp = B::float_exp(B::float_sub(scores, max.clone()));
    let sum = B::float_sum_dim(exp.clone(), 3);
    let lse = reshape::<B>(B::float_add(max, B::float_log(sum.clone())), [b, h, t]);
    (B::float_div(exp, sum), lse)
}

fn separate<B: DropoutOps>(
    qkv: [FloatTensor<B>; 3],
    bias: Option<FloatTensor<B>>,
    options: &AttentionOptions,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let heads = heads::<B>(qkv, options.n_keys);
    let (p, lse) = softmax::<B>(scores::<B>(&heads, bias.as_ref(), options));
    let out = B::float_matmul(dropped::<B>(p, options), heads.v);
    (B::float_permute(out, &[0, 2, 1, 3]), lse)
}

/// As [`attention_backward`].
fn separate_backward<B: DropoutOps>(
    qkv: [FloatTensor<B>; 3],
    bias: Option<FloatTensor<B>>,
    [out, lse, dout]: [FloatTensor<B>; 3],
    options: &AttentionOptions,
) -> ([FloatTensor<B>; 3], Option<FloatTensor<B>>) {
    let capacity = qkv[1].shape()[1];
    assert_eq!(capacity, options.n_keys, "gradients flow only through keys without spare capacity");
    let heads = heads::<B>(qkv, options.n_keys);
    let [b, h, t] = lse.shape().dims();
    let scores = scores::<B>(&heads, bias.as_ref(), options);
    let p = B::float_exp(B::float_sub(scores, reshape::<B>(lse, [b, h, t, 1])));
    let (out, dout) = (B::float_permute(out, &[0, 2, 1, 3]), B::float_permute(dout, &[0, 2, 1, 3]));
    let kept = dropped::<B>(p.clone(), options);
    let dv = B::float_matmul(B::float_swap_dims(kept, 2, 3), dout.clone());
    let dp = dropped::<B>(B::float_matmul(dout.clone(), B::float_swap_dims(heads.v, 2, 3)), options);
    // `Σ dp · p` over the keys, with or without dropout, since the output is the sum of the kept `p · v`.
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
    ([B::float_permute(dq, &[0, 2, 1, 3]), gather(dk), gather(dv)], dbias)
}
