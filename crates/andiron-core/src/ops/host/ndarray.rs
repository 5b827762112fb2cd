//! The `ndarray` backend's tensors as memory.
#![allow(deprecated)] // The backend is deprecated in Burn 0.22; it stays a supported choice here.

use std::borrow::Cow;

use burn_ndarray::{NdArray, NdArrayTensor};
use ndarray::{ArrayD, IxDyn};

use super::HostTensors;

impl HostTensors for NdArray {
    fn floats(tensor: &NdArrayTensor) -> Cow<'_, [f32]> {
        let NdArrayTensor::F32(storage) = tensor else { not_f32(tensor) };
        let view = storage.view();
        match view.to_slice() {
            Some(slice) => Cow::Borrowed(slice),
            None => Cow::Owned(view.iter().copied().collect()),
        }
    }

    fn ids(tensor: &NdArrayTensor) -> Vec<u32> {
        // The storage's type is private to its crate, so this cannot be a generic function.
        macro_rules! gather {
            ($storage:expr) => {{
                let id = |&id| u32::try_from(id).unwrap_or_else(|_| panic!("an id is negative or too large"));
                $storage.view().iter().map(id).collect()
            }};
        }
        match tensor {
            NdArrayTensor::I64(storage) => gather!(storage),
            NdArrayTensor::I32(storage) => gather!(storage),
            NdArrayTensor::I16(storage) => gather!(storage),
            NdArrayTensor::I8(storage) => gather!(storage),
            NdArrayTensor::U64(storage) => gather!(storage),
            NdArrayTensor::U32(storage) => gather!(storage),
            NdArrayTensor::U16(storage) => gather!(storage),
            NdArrayTensor::U8(storage) => gather!(storage),
            other => panic!("ids are integers, not {:?}", burn::backend::TensorMetadata::dtype(other)),
        }
    }

    fn from_vec(values: Vec<f32>, shape: &[usize]) -> NdArrayTensor {
        let array = ArrayD::from_shape_vec(IxDyn(shape), values).expect("one value for each element");
        array.into_shared().into()
    }

    fn into_vec(tensor: NdArrayTensor) -> Vec<f32> {
        let NdArrayTensor::F32(storage) = tensor else { not_f32(&tensor) };
        let array = storage.into_shared();
        if !array.is_standard_layout() {
            return array.iter().copied().collect();
        }
        let len = array.len();
        let (mut values, offset) = array.into_owned().into_raw_vec_and_offset();
        let start = offset.unwrap_or(0);
        values.truncate(start + len);
        values.drain(..start);
        values
    }
}

fn not_f32(tensor: &NdArrayTensor) -> ! {
    panic!("a kernel for f32 was given {:?}", burn::backend::TensorMetadata::dtype(tensor))
}
