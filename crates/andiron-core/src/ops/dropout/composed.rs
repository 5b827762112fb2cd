//! Dropout composed of Burn's own operations; the mask is drawn on the host.

use andiron_kernels::Cpu;
use andiron_kernels::dropout::{self as masks, Dropout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::TensorData;

pub(super) fn dropout<B: Backend>(x: FloatTensor<B>, rule: Dropout) -> FloatTensor<B> {
    let shape = x.shape();
    let mut mask = vec![0.0; shape.num_elements()];
    masks::apply(Cpu::detect(rayon::current_num_threads()), rule, &vec![1.0; mask.len()], &mut mask);
    let mask = B::float_from_data(TensorData::new(mask, shape), &x.device());
    B::float_mul(x, mask)
}
