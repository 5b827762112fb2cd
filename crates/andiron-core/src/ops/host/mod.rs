//! Host tensors as slices, for `andiron-kernels`.
//!
//! Through [`HostTensors`] a CPU backend lends the memory of a tensor, and takes ownership of a new one, without a copy.
//! Each family of operations is implemented once for all such backends, in its `host` module. Tensors that are not f32
//! run the composed bodies.

mod elements;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "ndarray")]
mod ndarray;

use std::borrow::Cow;

use andiron_kernels::Cpu;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::DType;

pub(crate) use elements::with_elements;

use crate::kernel_choice;

/// A backend whose tensors are in host memory.
pub(super) trait HostTensors: Backend {
    /// The elements in row-major order: borrowed if the tensor is contiguous, else copied.
    ///
    /// # Panics
    /// If the elements are not f32.
    fn floats(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]>;

    /// The ids of an integer tensor of any width, in row-major order.
    ///
    /// # Panics
    /// If one is negative or does not fit 32 bits.
    fn ids(tensor: &IntTensor<Self>) -> Vec<u32>;

    /// A tensor that owns `values`, in row-major order.
    fn from_vec(values: Vec<f32>, shape: &[usize]) -> FloatTensor<Self>;

    /// The tensor's memory, in row-major order: moved if unshared, else copied.
    ///
    /// # Panics
    /// If the elements are not f32.
    fn into_vec(tensor: FloatTensor<Self>) -> Vec<f32>;
}

/// The processor, with as many threads as the pool this call runs in and the current choice of kernels.
pub(super) fn cpu() -> Cpu {
    Cpu::detect(rayon::current_num_threads()).with_kernels(kernel_choice::current())
}

pub(super) fn are_f32<'a, B: HostTensors>(tensors: impl IntoIterator<Item = &'a FloatTensor<B>>) -> bool {
    tensors.into_iter().all(|tensor| tensor.dtype() == DType::F32)
}
