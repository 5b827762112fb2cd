//! Ids on their way to a device.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Uploads `ids` as a table of `rows` equal rows.
///
/// # Panics
/// If an id does not fit `i32`, or the rows are not equal.
pub(super) fn upload_rows(ids: &[u32], rows: usize, device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(signed(ids), [rows, ids.len() / rows]), device)
}

/// Uploads `ids` as a list.
pub(super) fn upload(ids: &[u32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(signed(ids), [ids.len()]), device)
}

fn signed(ids: &[u32]) -> Vec<i32> {
    ids.iter().map(|&id| i32::try_from(id).expect("vocabularies have fewer than 2^31 entries")).collect()
}
