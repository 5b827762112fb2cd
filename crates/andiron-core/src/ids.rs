//! Upload of ids to a device.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Uploads ids: of tokens, positions, rows.
///
/// # Shape
/// `ids` in row-major order → `shape`.
///
/// # Panics
/// If an id does not fit `i32`, which every backend has, or there are not as many ids as the shape has elements.
pub fn upload<const D: usize>(ids: &[u32], shape: [usize; D], device: &Device) -> Tensor<D, Int> {
    let signed = |&id: &u32| i32::try_from(id).unwrap_or_else(|_| panic!("id {id} does not fit 31 bits"));
    let ids: Vec<i32> = ids.iter().map(signed).collect();
    Tensor::from_data(TensorData::new(ids, shape), device)
}

#[cfg(any(feature = "flex", feature = "ndarray"))]
#[cfg(test)]
mod tests {
    use super::upload;
    use crate::DeviceSpec;

    #[test]
    fn ids_arrive_row_by_row() {
        let device = DeviceSpec::first_compiled().unwrap().open().unwrap();
        let ids = upload(&[3, 0, i32::MAX as u32, 5], [2, 2], &device).slice([1..2, 0..2]);
        assert_eq!(ids.into_data().iter::<i64>().collect::<Vec<_>>(), [i64::from(i32::MAX), 5]);
    }

    #[test]
    #[should_panic(expected = "id 2147483648 does not fit 31 bits")]
    fn an_id_of_32_bits_is_refused() {
        let device = DeviceSpec::first_compiled().unwrap().open().unwrap();
        upload(&[1 << 31], [1], &device);
    }
}
