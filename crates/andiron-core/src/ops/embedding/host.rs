//! Lookups through `andiron-kernels`.

use andiron_kernels::embedding;
use andiron_kernels::memory::unspecified as output;
use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::EmbeddingOps;
use crate::ops::OpKind;
use crate::ops::host::{HostTensors, are_f32, cpu};

impl<B: HostTensors> EmbeddingOps for B {
    fn embedding_rows(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
        let _time = OpKind::Embedding.timer();
        if !are_f32::<B>([&table]) {
            return B::embedding(table, ids);
        }
        let ([entries, width], [b, t]) = (table.shape().dims(), ids.shape().dims());
        let ids = checked_ids::<B>(&ids, entries);
        let mut rows = output(ids.len() * width);
        embedding::gather(cpu(), width, &ids, &B::floats(&table), &mut rows);
        B::from_vec(rows, &[b, t, width])
    }

    fn embedding_rows_backward(
        table: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        ids: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let _time = OpKind::Embedding.timer();
        if !are_f32::<B>([&table, &dy]) {
            return B::embedding_backward(table, dy, ids);
        }
        let [entries, width] = table.shape().dims();
        let mut dtable = vec![0.0; entries * width];
        let ids = checked_ids::<B>(&ids, entries);
        embedding::scatter_add(cpu(), width, &ids, &B::floats(&dy), &mut dtable);
        B::from_vec(dtable, &[entries, width])
    }
}

/// The ids of a table.
///
/// # Panics
/// If one is not below the number of entries.
pub(in crate::ops) fn checked_ids<B: HostTensors>(ids: &IntTensor<B>, entries: usize) -> Vec<u32> {
    let ids = B::ids(ids);
    if let Some(id) = ids.iter().find(|&&id| id as usize >= entries) {
        panic!("id {id} is outside a table of {entries} entries");
    }
    ids
}
