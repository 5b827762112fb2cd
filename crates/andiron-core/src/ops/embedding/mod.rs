//! Embedding lookups.

mod autodiff;
mod extension;
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(super) mod host;

use burn::tensor::{Int, Tensor, TensorData};

pub use extension::EmbeddingOps;

use super::{Dispatch, OpKind};
use crate::quant::QuantMatrix;

/// Looks up rows of a table.
///
/// # Shape
/// `[entries, d]` and `[batch, time]` → `[batch, time, d]`.
///
/// # Panics
/// On the CPU backends, if an id is not below the number of entries.
pub fn embedding(table_vd: Tensor<2>, ids_bt: Tensor<2, Int>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::embedding_rows(table_vd.into_dispatch(), ids_bt.into_dispatch()))
}

/// [`embedding`] in a block-quantized table, `[entries, d]`.
///
/// # Shape
/// `[batch, time]` → `[batch, time, d]`.
///
/// # Panics
/// If an id is not below the number of entries.
pub fn embedding_quantized(table: &QuantMatrix, ids_bt: Tensor<2, Int>) -> Tensor<3> {
    let _time = OpKind::Embedding.timer();
    let ([b, t], [entries, d], device) = (ids_bt.dims(), table.dims(), ids_bt.device());
    let ids: Vec<u32> =
        ids_bt.into_data().iter::<i64>().map(|id| id.try_into().unwrap_or(u32::MAX)).collect();
    if let Some(id) = ids.iter().find(|&&id| id as usize >= entries) {
        panic!("id {id} is outside a table of {entries} entries");
    }
    Tensor::from_data(TensorData::new(table.gather(&ids), [b, t, d]), &device)
}
