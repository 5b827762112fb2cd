//! Attention over a paged KV cache through `andiron-kernels`: blocks are read where they are.

use std::borrow::Cow;

use andiron_kernels::attention::{BlockAttention, BlockRow, forward_blocks};
use andiron_kernels::memory::unspecified as output;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{PagedAttentionOps, PagedAttentionOptions, PagedKeyValues, composed};
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::ops::{OpKind, OptionalTensor};
use crate::precision::Precision;

impl<B: HostTensors> PagedAttentionOps for B {
    fn paged_attention(
        q: FloatTensor<Self>,
        cache: PagedKeyValues<Self>,
        bias: OptionalTensor<Self>,
        options: PagedAttentionOptions,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let _time = OpKind::Attention.timer();
        if !are_f32::<B>(cache.blocks.0.iter().chain([&q]).chain(bias.as_option())) {
            return composed::paged_attention::<B>(q, cache, bias, options, precision);
        }
        let [_, columns, heads, head_dim] = q.shape().dims();
        let first = cache.blocks.0.first().expect("a row holds something");
        let [_, block_len, kv_heads, _] = first.shape().dims();
        let memory: Vec<Cow<'_, [f32]>> = cache.blocks.0.iter().map(B::floats).collect();
        let slices: Vec<&[f32]> = memory.iter().map(|block| &**block).collect();
        let mut rest = &slices[..];
        let rows = cache.rows.iter().map(|row| {
            let (blocks, later) = rest.split_at(row.n_blocks);
            rest = later;
            BlockRow { blocks, keys: row.keys, queries: row.new }
        });
        let rows: Vec<_> = rows.collect();
        let bias = bias.as_option().map_or(Cow::Borrowed(&[][..]), B::floats);
        let PagedAttentionOptions { scale, reach } = options;
        let attention = BlockAttention {
            rows: &rows,
            columns,
            heads,
            kv_heads,
            head_dim,
            block_len,
            reach,
            scale,
            bias: &bias,
        };
        let mut out = output(q.shape().num_elements());
        forward_blocks(cpu().at(precision), attention, &B::floats(&q), &mut out);
        B::from_vec(out, &q.shape())
    }
}
