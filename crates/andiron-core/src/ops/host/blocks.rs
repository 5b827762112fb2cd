//! Attention over the blocks of a cache, where they lie.
#![allow(deprecated)] // `NdArray` is deprecated in Burn 0.22; it stays a supported choice here.

use std::borrow::Cow;

use andiron_kernels::attention::{BlockAttention, BlockRow, forward_blocks};
use andiron_kernels::memory::unspecified as output;
use burn::backend::tensor::FloatTensor;
use burn::backend::{BackendTensor, DispatchTensor, DispatchTensorKind, TensorMetadata};
use burn::tensor::Tensor;

use super::HostTensors;
use super::kernels::{are_f32, cpu};
use crate::cache::Blocks;
use crate::ops::OpKind;
use crate::precision;

/// [`attention_blocks`](crate::ops::blocks::attention_blocks) of tensors in this process's memory; `None` if they are not.
pub(in crate::ops) fn attention_blocks(
    q_bthk: &Tensor<4>,
    blocks: &Blocks,
    bias_hr: Option<&Tensor<2>>,
    scoring: (f32, Option<usize>),
) -> Option<Tensor<4>> {
    let _time = OpKind::Attention.timer();
    /// With the tensors of one backend.
    macro_rules! on {
        ($backend:ty, $kind:ident) => {{
            let own = |tensor: DispatchTensor| match tensor.kind {
                DispatchTensorKind::$kind(BackendTensor::Float(tensor)) => Some(tensor),
                _ => None,
            };
            let rows = blocks.rows.iter().map(|row| {
                row.blocks.iter().map(|block| own(block.clone().into_dispatch())).collect::<Option<Vec<_>>>()
            });
            let q = q_bthk.clone().into_dispatch();
            let autodiff = q.autodiff;
            let bias = bias_hr.map(|bias_hr| own(bias_hr.clone().into_dispatch()));
            if let (Some(q), Some(rows), None | Some(Some(_))) =
                (own(q), rows.collect::<Option<Vec<_>>>(), &bias)
                && let Some(out) = run::<$backend>(&q, &rows, bias.flatten().as_ref(), blocks, scoring)
            {
                let kind = DispatchTensorKind::$kind(BackendTensor::Float(out));
                return Some(Tensor::from_dispatch(DispatchTensor { kind, autodiff }));
            }
        }};
    }
    #[cfg(feature = "flex")]
    on!(burn_flex::Flex, Flex);
    #[cfg(feature = "ndarray")]
    on!(burn_ndarray::NdArray, NdArray);
    None
}

/// `None` if the tensors are not f32.
fn run<B: HostTensors>(
    q: &FloatTensor<B>,
    rows: &[Vec<FloatTensor<B>>],
    bias: Option<&FloatTensor<B>>,
    blocks: &Blocks,
    (scale, reach): (f32, Option<usize>),
) -> Option<FloatTensor<B>> {
    let first = rows.iter().flatten().next()?;
    let tensors: Vec<_> = rows.iter().flatten().chain([q]).chain(bias).collect();
    if !are_f32::<B>(&tensors) {
        return None;
    }
    let [_, columns, heads, head_dim] = q.shape().dims();
    let [_, block_len, kv_heads, _] = first.shape().dims();
    let memory: Vec<Vec<Cow<'_, [f32]>>> =
        rows.iter().map(|blocks| blocks.iter().map(B::floats).collect()).collect();
    let slices: Vec<Vec<&[f32]>> =
        memory.iter().map(|blocks| blocks.iter().map(|block| &**block).collect()).collect();
    let rows = blocks.rows.iter().zip(&slices);
    let rows: Vec<_> =
        rows.map(|(row, blocks)| BlockRow { blocks, keys: row.keys, queries: row.new }).collect();
    let bias = bias.map_or(Cow::Borrowed(&[][..]), |bias| B::floats(bias));
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
    forward_blocks(cpu().at(precision::current()), attention, &B::floats(q), &mut out);
    Some(B::from_vec(out, &q.shape()))
}
