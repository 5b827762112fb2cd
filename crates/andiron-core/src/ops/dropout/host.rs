//! Dropout through `andiron-kernels`.

use andiron_kernels::dropout::{self as masks, Dropout};
use andiron_kernels::memory::unspecified as output;
use andiron_kernels::random::Seed;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{DropoutOps, composed};
use crate::ops::OpKind;
use crate::ops::host::{HostTensors, are_f32, cpu};

impl<B: HostTensors> DropoutOps for B {
    fn dropout(x: FloatTensor<Self>, probability: f32, seed: u64) -> FloatTensor<Self> {
        let _time = OpKind::Dropout.timer();
        if !are_f32::<B>([&x]) {
            return composed::dropout::<B>(x, probability, seed);
        }
        let shape = x.shape();
        let mut y = output(shape.num_elements());
        masks::apply(cpu(), Dropout { probability, seed: Seed::new(seed) }, &B::floats(&x), &mut y);
        B::from_vec(y, &shape)
    }
}
