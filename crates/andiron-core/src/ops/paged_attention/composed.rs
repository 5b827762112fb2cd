//! Attention over a paged KV cache, composed of Burn's own operations: the blocks are gathered first.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Slice};

use super::{PagedKeyValues, held};
use crate::PaddingMask;
use crate::ops::composed::reshape;
use crate::ops::{AttentionMask, AttentionOps, AttentionOptions, OptionalTensor, Qkv};
use crate::precision::Precision;

pub(super) fn paged_attention<B: AttentionOps>(
    q: FloatTensor<B>,
    cache: PagedKeyValues<B>,
    bias: OptionalTensor<B>,
    scale: f32,
    mask: AttentionMask,
    precision: Precision,
) -> FloatTensor<B> {
    let (t, held) = (q.shape()[1], held(&cache.rows));
    let device = q.device();
    let [k, v] = [0, 1].map(|part| gathered::<B>(&cache, part, [held, t], &device));
    let alike = cache.rows.iter().all(|row| (row.keys, row.new) == (held + t, t));
    let spans = cache.rows.iter().map(|row| held + row.new - row.keys..held + row.new);
    let rows = (!alike).then(|| PaddingMask::of(spans.collect()));
    let options = AttentionOptions { scale, mask, n_keys: held + t, rows, documents: None, dropout: None };
    B::attend(Qkv::Separate { q, k, v }, bias, options, precision)
}

/// The keys or the values of all rows, `[rows, held + t, heads, width]`, new positions in the last `t` columns.
fn gathered<B: Backend>(
    cache: &PagedKeyValues<B>,
    part: usize,
    [held, t]: [usize; 2],
    device: &B::Device,
) -> FloatTensor<B> {
    let mut tensors = cache.tensors.0.iter();
    let rows: Vec<Vec<FloatTensor<B>>> = cache
        .rows
        .iter()
        .map(|row| {
            let host = row.host.iter().map(|block| {
                let x_bhsk = B::float_from_data(block.host_part(part), device);
                B::float_swap_dims(x_bhsk, 1, 2)
            });
            let tensors = tensors.by_ref().take(row.n_tensors).map(|block| {
                let [_, positions, h, w] = block.shape().dims::<4>();
                let slices = [part..part + 1, 0..positions, 0..h, 0..w].map(Slice::from);
                reshape::<B>(B::float_slice(block.clone(), &slices), [1, positions, h, w])
            });
            host.chain(tensors).collect()
        })
        .collect();
    let first = rows.iter().flatten().next().expect("a row holds something");
    let ([_, _, h, w], dtype) = (first.shape().dims::<4>(), first.dtype().into());
    let rows = cache.rows.iter().zip(rows).map(|(row, filled)| {
        let own = || {
            let slices = [0..1, 0..row.keys, 0..h, 0..w].map(Slice::from);
            B::float_slice(B::float_cat(filled, 1), &slices)
        };
        let zeros = |n: usize| (n > 0).then(|| B::float_zeros(Shape::new([1, n, h, w]), device, dtype));
        let (before, behind) = (held + row.new - row.keys, t - row.new);
        let parts = [zeros(before), (row.keys > 0).then(own), zeros(behind)];
        B::float_cat(parts.into_iter().flatten().collect(), 1)
    });
    B::float_cat(rows.collect(), 0)
}
