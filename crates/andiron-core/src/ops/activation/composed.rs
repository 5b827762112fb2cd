//! Activation functions composed of Burn's own operations.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::Activation;
use crate::ops::composed::scalar;

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044_715;

/// `tanh(√(2/π)(x + 0.044715 x³))`.
fn gelu_tanh_part<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let square = B::float_mul(x.clone(), x.clone());
    let inner = B::float_add_scalar(B::float_mul_scalar(square, scalar(CUBIC)), scalar(1.0));
    B::float_tanh(B::float_mul_scalar(B::float_mul(x, inner), scalar(SQRT_2_OVER_PI)))
}

/// `Φ(x) = (1 + erf(x/√2)) / 2`.
fn normal_cdf<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let erf = B::float_erf(B::float_mul_scalar(x, scalar(std::f64::consts::FRAC_1_SQRT_2)));
    B::float_mul_scalar(B::float_add_scalar(erf, scalar(1.0)), scalar(0.5))
}

pub(in crate::ops) fn activate<B: Backend>(
    x: FloatTensor<B>,
    up: Option<FloatTensor<B>>,
    form: Activation,
) -> FloatTensor<B> {
    let y = function::<B>(x, form);
    match up {
        Some(up) => B::float_mul(y, up),
        None => y,
    }
}

fn function<B: Backend>(x: FloatTensor<B>, form: Activation) -> FloatTensor<B> {
    let gate = match form {
        Activation::GeluErf => normal_cdf::<B>(x.clone()),
        Activation::GeluTanh => {
            let t = gelu_tanh_part::<B>(x.clone());
            B::float_mul_scalar(B::float_add_scalar(t, scalar(1.0)), scalar(0.5))
        }
        Activation::Silu => B::sigmoid(x.clone()),
        Activation::Relu => return B::relu(x),
    };
    B::float_mul(x, gate)
}

pub(in crate::ops) fn activate_backward<B: Backend>(
    x: FloatTensor<B>,
    up: Option<FloatTensor<B>>,
    dy: FloatTensor<B>,
    form: Activation,
) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    match up {
        Some(up) => {
            let dx = function_backward::<B>(x.clone(), B::float_mul(dy.clone(), up), form);
            (dx, Some(activate::<B>(x, Some(dy), form)))
        }
        None => (function_backward::<B>(x, dy, form), None),
    }
}

fn function_backward<B: Backend>(x: FloatTensor<B>, dy: FloatTensor<B>, form: Activation) -> FloatTensor<B> {
    let square = B::float_mul(x.clone(), x.clone());
    let slope = match form {
        Activation::Relu => return B::relu_backward(x, dy),
        Activation::Silu => {
            let gate = B::sigmoid(x.clone());
            let fall = B::float_add_scalar(B::float_neg(gate.clone()), scalar(1.0));
            let inner = B::float_add_scalar(B::float_mul(x, fall), scalar(1.0));
            B::float_mul(gate, inner)
        }
        Activation::GeluErf => {
            let density = B::float_exp(B::float_mul_scalar(square, scalar(-0.5)));
            let density = B::float_mul_scalar(
                density,
                scalar(0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2),
            );
            B::float_add(normal_cdf::<B>(x.clone()), B::float_mul(x, density))
        }
        Activation::GeluTanh => {
            let t = gelu_tanh_part::<B>(x.clone());
            let gate = B::float_mul_scalar(B::float_add_scalar(t.clone(), scalar(1.0)), scalar(0.5));
            let sech2 = B::float_add_scalar(B::float_neg(B::float_mul(t.clone(), t)), scalar(1.0));
            let inner = B::float_add_scalar(B::float_mul_scalar(square, scalar(3.0 * CUBIC)), scalar(1.0));
            let inner = B::float_mul_scalar(inner, scalar(0.5 * SQRT_2_OVER_PI));
            B::float_add(gate, B::float_mul(B::float_mul(x, sech2), inner))
        }
    };
    B::float_mul(dy, slope)
}
