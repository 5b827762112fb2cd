//! Activation functions and gates.

use andiron_core::ops::{self, Activation};
use burn::tensor::Tensor;

use crate::check;

pub const ALL: [Activation; 4] =
    [Activation::GeluErf, Activation::GeluTanh, Activation::Silu, Activation::Relu];

/// The function by its formula.
pub fn reference<const D: usize>(x: Tensor<D>, form: Activation) -> Tensor<D> {
    match form {
        Activation::GeluErf => x.clone() * ((x / 2f32.sqrt()).erf() * 0.5 + 0.5),
        Activation::GeluTanh => {
            let inner = (x.clone() + x.clone() * x.clone() * x.clone() * 0.044715) * 0.797_884_6;
            x * (inner.tanh() + 1.0) * 0.5
        }
        Activation::Silu => x.clone() / ((-x).exp() + 1.0),
        Activation::Relu => (x.clone() + x.abs()) * 0.5,
    }
}

#[test]
fn activations_are_their_formulas() {
    for form in ALL {
        for shape in [[1, 1], [3, 17], [64, 65]] {
            let name = format!("{form:?}");
            check(&name, [shape], |[x]| ops::activate(x, form), |[x]| reference(x, form));
        }
    }
}

#[test]
fn gates_multiply_by_an_activation() {
    for form in ALL {
        for shape in [[7, 19], [40, 70]] {
            check(
                &format!("gate by {form:?}"),
                [shape, shape],
                |[x, up]| ops::gate(x, up, form),
                |[x, up]| reference(x, form) * up,
            );
        }
    }
}
