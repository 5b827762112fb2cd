//! Activation functions through `andiron-kernels`.

use andiron_kernels::activation;
use andiron_kernels::memory::unspecified as output;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{Activation, ActivationOps, composed};
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::ops::{OpKind, OptionalTensor};

impl<B: HostTensors> ActivationOps for B {
    fn activate(x: FloatTensor<Self>, up: OptionalTensor<Self>, form: Activation) -> FloatTensor<Self> {
        let _time = OpKind::Activations.timer();
        if !are_f32::<B>([&x].into_iter().chain(up.as_option())) {
            return composed::activate::<B>(x, up.into_option(), form);
        }
        let shape = x.shape();
        let mut y = output(shape.num_elements());
        match up.as_option() {
            Some(up) => activation::gate(cpu(), form, &B::floats(&x), &B::floats(up), &mut y),
            None => activation::forward(cpu(), form, &B::floats(&x), &mut y),
        }
        B::from_vec(y, &shape)
    }

    fn activate_backward(
        x: FloatTensor<Self>,
        up: OptionalTensor<Self>,
        dy: FloatTensor<Self>,
        form: Activation,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        let _time = OpKind::Activations.timer();
        if !are_f32::<B>([&x, &dy].into_iter().chain(up.as_option())) {
            return composed::activate_backward::<B>(x, up.into_option(), dy, form);
        }
        let shape = x.shape();
        let mut dx = output(shape.num_elements());
        let dup = up.as_option().map(|up| {
            let mut dup = output(shape.num_elements());
            let inputs = (&*B::floats(&x), &*B::floats(up));
            activation::gate_backward(cpu(), form, inputs, &B::floats(&dy), (&mut dx, &mut dup));
            B::from_vec(dup, &shape)
        });
        if dup.is_none() {
            activation::backward(cpu(), form, &B::floats(&x), &B::floats(&dy), &mut dx);
        }
        (B::from_vec(dx, &shape), dup)
    }
}
