//! Access to the elements of host tensors, for the KV cache.

use std::borrow::Cow;

use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::Tensor;

use super::{HostTensors, are_f32};

/// Calls `read` with the elements of two tensors, row-major; `None` if they are not f32 in this process's memory.
pub(crate) fn with_elements<T>(x: [&Tensor<4>; 2], read: impl FnOnce([&[f32]; 2]) -> T) -> Option<T> {
    let [a, b] = x.map(|x| x.clone().into_dispatch().kind);
    /// With the tensors of one backend.
    macro_rules! on {
        ($backend:ty, $kind:ident) => {
            if let (
                DispatchTensorKind::$kind(BackendTensor::Float(a)),
                DispatchTensorKind::$kind(BackendTensor::Float(b)),
            ) = (&a, &b)
                && are_f32::<$backend>([a, b])
            {
                let [a, b]: [Cow<'_, [f32]>; 2] = [a, b].map(<$backend>::floats);
                return Some(read([&a, &b]));
            }
        };
    }
    #[cfg(feature = "flex")]
    on!(burn_flex::Flex, Flex);
    #[cfg(feature = "ndarray")]
    on!(burn_ndarray::NdArray, NdArray);
    None
}
