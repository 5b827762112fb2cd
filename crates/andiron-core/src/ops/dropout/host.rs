//! Dropout through `andiron-kernels`.

use andiron_kernels::dropout as masks;
use andiron_kernels::memory::unspecified as output;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{Dropout, DropoutOps, composed};
use crate::ops::OpKind;
use crate::ops::host::{HostTensors, are_f32, cpu};

impl<B: HostTensors> DropoutOps for B {
    fn dropout(x: FloatTensor<Self>, rule: Dropout) -> FloatTensor<Self> {
        let _time = OpKind::Dropout.timer();
        if !are_f32::<B>([&x]) {
            return composed::dropout::<B>(x, rule);
        }
        let shape = x.shape();
        let mut y = output(shape.num_elements());
        masks::apply(cpu(), rule, &B::floats(&x), &mut y);
        B::from_vec(y, &shape)
    }
}
