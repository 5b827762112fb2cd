//! The `flex` backend's tensors as memory.

use std::borrow::Cow;
use std::sync::Arc;

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{Flex, FlexTensor, Layout};

use super::HostTensors;

impl HostTensors for Flex {
    fn floats(tensor: &FlexTensor) -> Cow<'_, [f32]> {
        assert_f32(tensor);
        match tensor.as_slice::<f32>() {
            Some(slice) => Cow::Borrowed(slice),
            None => Cow::Owned(tensor.to_contiguous().as_slice::<f32>().expect("made contiguous").to_vec()),
        }
    }

    fn ids(tensor: &FlexTensor) -> Vec<u32> {
        fn gather<E: burn::tensor::Element + bytemuck::Pod + TryInto<u32>>(tensor: &FlexTensor) -> Vec<u32> {
            let id = |&id: &E| id.try_into().unwrap_or_else(|_| panic!("an id is negative or too large"));
            tensor.as_slice::<E>().expect("made contiguous").iter().map(id).collect()
        }
        let tensor = tensor.to_contiguous();
        match tensor.dtype() {
            DType::I64 => gather::<i64>(&tensor),
            DType::I32 => gather::<i32>(&tensor),
            DType::I16 => gather::<i16>(&tensor),
            DType::I8 => gather::<i8>(&tensor),
            DType::U64 => gather::<u64>(&tensor),
            DType::U32 => gather::<u32>(&tensor),
            DType::U16 => gather::<u16>(&tensor),
            DType::U8 => gather::<u8>(&tensor),
            other => panic!("ids are integers, not {other:?}"),
        }
    }

    fn from_vec(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
        FlexTensor::new(
            Bytes::from_elems(values),
            Layout::contiguous(Shape::from(shape.to_vec())),
            DType::F32,
        )
    }

    fn into_vec(tensor: FlexTensor) -> Vec<f32> {
        assert_f32(&tensor);
        let values = Self::floats(&tensor);
        if !tensor.is_unique() || matches!(values, Cow::Owned(_)) || values.len() * 4 != tensor.bytes().len()
        {
            return values.into_owned();
        }
        drop(values);
        let data = tensor.data_arc();
        drop(tensor);
        match Arc::try_unwrap(data) {
            Ok(bytes) => {
                bytes.try_into_vec::<f32>().unwrap_or_else(|bytes| bytemuck::cast_slice(&bytes).to_vec())
            }
            Err(shared) => bytemuck::cast_slice(&shared).to_vec(),
        }
    }
}

fn assert_f32(tensor: &FlexTensor) {
    assert_eq!(tensor.dtype(), DType::F32, "a kernel for f32 was given another type");
}
