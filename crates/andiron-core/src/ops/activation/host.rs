//! Activation functions through `andiron-kernels`.

use std::borrow::Cow;

use andiron_kernels::activation;
use andiron_kernels::memory::unspecified as output;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;

use super::{Activation, ActivationOps, composed};
use crate::ops::host::{HostTensors, are_f32, cpu};
use crate::ops::low_rank::host::{rounded, widened};
use crate::ops::{OpKind, OptionalTensor, SavedInput};
use crate::precision::Precision;

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

    /// Matmuls that round their operands read the output of the function, so that its arguments are kept rounded as well.
    fn kept_activation(
        x: FloatTensor<Self>,
        up: OptionalTensor<Self>,
        form: Activation,
        precision: Precision,
    ) -> SavedInput<Self> {
        let _time = OpKind::Activations.timer();
        let words = rounded::<B>(&x, precision);
        let up_words = up.as_option().map(|up| rounded::<B>(up, precision));
        match (words, up_words) {
            (Some(x), None) => SavedInput::Activated { x, up, form, in_bf16: true },
            (Some(x), Some(Some(up))) => {
                SavedInput::Activated { x, up: OptionalTensor::Present(up), form, in_bf16: true }
            }
            _ => SavedInput::Activated { x, up, form, in_bf16: false },
        }
    }

    fn activate_kept_backward(
        kept: SavedInput<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        let SavedInput::Activated { x, up, form, in_bf16 } = kept else {
            panic!("the arguments were not kept")
        };
        if !in_bf16 {
            return Self::activate_backward(x, up, dy, form);
        }
        let shape = dy.shape();
        let wide = |words: &FloatTensor<B>| B::from_vec(widened::<B>(words), &shape);
        let (x, up) = (wide(&x), OptionalTensor::new(up.as_option().map(wide)));
        Self::activate_backward(x, up, dy, form)
    }
}

/// The function's value, from what was kept of its arguments.
pub(in crate::ops) fn activated<B: HostTensors>(
    x: &FloatTensor<B>,
    up: Option<&FloatTensor<B>>,
    form: Activation,
    in_bf16: bool,
) -> Vec<f32> {
    let values = |tensor| match in_bf16 {
        true => Cow::Owned(widened::<B>(tensor)),
        false => B::floats(tensor),
    };
    let x = values(x);
    let mut y = output(x.len());
    match up {
        Some(up) => activation::gate(cpu(), form, &x, &values(up), &mut y),
        None => activation::forward(cpu(), form, &x, &mut y),
    }
    y
}
