//! Attention over a paged KV cache through `andiron-kernels`: blocks are read in place.

use std::borrow::Cow;

use andiron_kernels::attention::{Bf16, BlockAttention, BlockRow, KvBlocks, forward_blocks};
use andiron_kernels::memory::unspecified as output;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{PagedAttentionOps, PagedKeyValues, PagedRow, composed};
use crate::cache::Block;
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::ops::{AttentionMask, OpKind, OptionalTensor};
use crate::precision::Precision;

impl<B: HostTensors> PagedAttentionOps for B {
    fn paged_attention(
        q: FloatTensor<Self>,
        cache: PagedKeyValues<Self>,
        bias: OptionalTensor<Self>,
        scale: f32,
        mask: AttentionMask,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let _time = OpKind::Attention.timer();
        let first = cache.rows.iter().flat_map(|row| &row.host).next();
        let (Some(first), true) = (first, are_f32::<B>([&q].into_iter().chain(bias.as_option()))) else {
            return composed::paged_attention::<B>(q, cache, bias, scale, mask, precision);
        };
        let [block_len, kv_heads, _] = first.dims();
        let [_, columns, heads, head_dim] = q.shape().dims();
        let lent: Vec<_> = cache.rows.iter().map(RowBlocks::of).collect();
        let rows = cache.rows.iter().zip(&lent).map(|(row, lent)| BlockRow {
            blocks: lent.as_kernel_blocks(),
            keys: row.keys,
            queries: row.new,
        });
        let rows: Vec<_> = rows.collect();
        let bias = bias.as_option().map_or(Cow::Borrowed(&[][..]), B::floats);
        let attention = BlockAttention {
            rows: &rows,
            columns,
            heads,
            kv_heads,
            head_dim,
            block_len,
            sliding_window: mask.sliding_window,
            scale,
            bias: &bias,
        };
        let mut out = output(q.shape().num_elements());
        forward_blocks(cpu().at(precision), attention, &B::floats(&q), &mut out);
        B::from_vec(out, &q.shape())
    }
}

/// The blocks of one row as kernels take them.
enum RowBlocks<'a> {
    F32(Vec<&'a [f32]>),
    Bf16(Vec<&'a [Bf16]>),
}

impl<'a> RowBlocks<'a> {
    /// The blocks of a row have one element type, that of their cache.
    fn of(row: &'a PagedRow) -> Self {
        let f32 = row.host.iter().filter_map(|block| match block {
            Block::F32(block) => Some(block.elements()),
            _ => None,
        });
        let bf16 = row.host.iter().filter_map(|block| match block {
            Block::Bf16(block) => Some(block.elements()),
            _ => None,
        });
        match row.host.first() {
            Some(Block::Bf16(_)) => Self::Bf16(bf16.collect()),
            _ => Self::F32(f32.collect()),
        }
    }

    fn as_kernel_blocks(&self) -> KvBlocks<'_> {
        match self {
            Self::F32(blocks) => KvBlocks::F32(blocks),
            Self::Bf16(blocks) => KvBlocks::Bf16(blocks),
        }
    }
}
