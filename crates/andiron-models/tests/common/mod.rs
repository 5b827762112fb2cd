//! What the tests of all architectures share.

use andiron_core::DeviceSpec;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// The default CPU device.
pub fn device() -> Device {
    DeviceSpec::parse("ndarray").and_then(DeviceSpec::open).expect("tests are built with ndarray")
}

/// Ids `[rows, columns]` on `device`.
pub fn ids(rows: &[Vec<u32>], device: &Device) -> Tensor<2, Int> {
    let columns = rows[0].len();
    let flat: Vec<i64> = rows.iter().flatten().map(|&id| i64::from(id)).collect();
    Tensor::from_data(TensorData::new(flat, [rows.len(), columns]), device)
}

/// The elements of a tensor, row-major.
pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("f32")
}

/// Fails if two lists differ anywhere by more than `tolerance`.
#[track_caller]
pub fn assert_close(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}: number of elements");
    for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}[{at}]: {a} is not {b} within {tolerance}");
    }
}
