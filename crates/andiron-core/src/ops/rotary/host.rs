//! Rotary positions through `andiron-kernels`.

use andiron_kernels::memory::unspecified as output;
use andiron_kernels::rotary::{self, RotaryShape};
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{RotaryOps, Rotation, composed};
use crate::ops::OpKind;
use crate::ops::host::{HostTensors, are_f32, cpu};

impl<B: HostTensors> RotaryOps for B {
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        rotation: Rotation,
    ) -> FloatTensor<Self> {
        let _time = OpKind::Rotary.timer();
        if !are_f32::<B>([&x, &cos, &sin]) {
            return composed::rotate::<B>(x, cos, sin, rotation);
        }
        let [batch, time, heads, width] = x.shape().dims();
        let shape = RotaryShape { batch, time, heads, width, pairs: cos.shape()[3] };
        let mut y = output(batch * time * heads * width);
        rotary::rotate(
            cpu(),
            shape,
            (&B::floats(&x), rotation),
            (&B::floats(&cos), &B::floats(&sin)),
            &mut y,
        );
        B::from_vec(y, &[batch, time, heads, width])
    }
}
