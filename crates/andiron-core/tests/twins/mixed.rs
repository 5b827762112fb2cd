//! Mixed precision, in which CPU kernels keep activations in bf16 for the backward pass: near the passes in f32.

use andiron_core::ops::{
    self, Activation, AttentionMask, AttentionOptions, FeedForwardOptions, FrozenWeight, LowRank,
    WeightLayout,
};
use andiron_core::precision::{Precision, with_precision};
use burn::tensor::Tensor;

use crate::{cpu_devices, floats, passes, random};

/// What rounding operands to 8 bits may change: the length of the difference over that of the tensor. Each gradient goes
/// through up to four roundings of a relative error of 2⁻⁹.
const ROUNDED: f32 = 0.02;

#[track_caller]
fn assert_near<const D: usize>(what: &str, mixed: Tensor<D>, exact: Tensor<D>) {
    let (mixed, exact) = (floats(mixed), floats(exact));
    let length = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    let apart = length(&mut mixed.iter().zip(&exact).map(|(a, b)| a - b));
    let size = length(&mut exact.iter().copied());
    assert!(apart <= ROUNDED * size, "{what}: {apart} of {size}");
}

#[track_caller]
fn check<const D: usize, const N: usize>(
    name: &str,
    shapes: [[usize; D]; N],
    operation: impl Fn([Tensor<D>; N]) -> Tensor<D>,
) {
    for device in cpu_devices() {
        let exact = passes(name, shapes, &operation, &device);
        let mixed = with_precision(Precision::Mixed, || passes(name, shapes, &operation, &device));
        assert_near(name, mixed.output, exact.output);
        for (at, (mixed, exact)) in mixed.grads.into_iter().zip(exact.grads).enumerate() {
            assert_near(&format!("gradient of {name} in input {at}"), mixed, exact);
        }
    }
}

#[test]
fn projections_come_near() {
    // Odd widths are kept as they are.
    for (rows, d_in, d_out) in [(40, 64, 48), (33, 30, 17), (40, 33, 20), (3, 64, 48)] {
        for layout in [WeightLayout::InOut, WeightLayout::OutIn] {
            let weight = if layout == WeightLayout::InOut { [d_in, d_out] } else { [d_out, d_in] };
            check("linear", [[rows, d_in], weight, [1, d_out]], |[x, w, b]| {
                ops::linear(x, w, Some(b.reshape([d_out])), layout)
            });
        }
    }
}

#[test]
fn feed_forward_layers_come_near() {
    for (rows, d, f) in [(40, 32, 64), (300, 24, 96), (40, 32, 50)] {
        let options =
            FeedForwardOptions { activation: Activation::GeluTanh, layouts: [WeightLayout::InOut; 2] };
        check(
            "feed-forward",
            [[rows, d], [d, f], [1, f], [f, d], [1, d]],
            |[x, up, up_bias, down, down_bias]| {
                // Scaled, so that activations are not all 0 or 1.
                let [up, down] = [up / (d as f32).sqrt(), down / (f as f32).sqrt()];
                ops::feed_forward(x, [up, down], [up_bias.reshape([f]), down_bias.reshape([d])], options)
            },
        );
        check("gated feed-forward", [[rows, d], [d, f], [d, f], [f, d]], |[x, gate, up, down]| {
            let [gate, up] = [gate, up].map(|weight| weight / (d as f32).sqrt());
            ops::gated_feed_forward(x, [gate, up, down], options)
        });
    }
}

#[test]
fn attention_comes_near() {
    let options = |t| AttentionOptions {
        scale: 0.3,
        mask: AttentionMask::CAUSAL,
        n_keys: t,
        rows: None,
        documents: None,
        dropout: None,
    };
    for (t, k) in [(40, 16), (37, 9)] {
        check("attention", [[2, t, 4, k], [2, t, 2, k], [2, t, 2, k]], |[q, key, value]| {
            ops::attention(q, key, value, options(t))
        });
        check("packed attention", [[2, t, 3 * 4 * k]], |[qkv]| ops::attention_packed(qkv, 4, options(t)));
    }
}

#[test]
fn a_weight_without_a_gradient_leaves_that_of_the_input() {
    for device in cpu_devices() {
        for precision in [Precision::F32, Precision::Mixed] {
            let dx = |learns: bool| {
                let device = device.clone().autodiff();
                let x: Tensor<2> = random([40, 64], "x", &device).require_grad();
                let weight: Tensor<2> = random([64, 48], "weight", &device);
                let weight = if learns { weight.require_grad() } else { weight };
                let y =
                    with_precision(precision, || ops::linear(x.clone(), weight, None, WeightLayout::InOut));
                let grads = (y.clone() * random([40, 48], "towards", &device)).sum().backward();
                floats(x.grad(&grads).unwrap())
            };
            assert_eq!(dx(true), dx(false), "{precision} on {device:?}");
        }
    }
}

#[test]
fn adapters_come_near() {
    check("low rank", [[40, 64], [64, 4], [4, 48]], |[x, a, b]| {
        let weight = random([64, 48], "weight", &x.device());
        let frozen = FrozenWeight::Dense(weight, WeightLayout::InOut);
        ops::low_rank(x, None, frozen, None, LowRank { a, b, scale: 1.0, dropout: None })
    });
}

#[test]
fn activations_come_near() {
    for form in [Activation::Silu, Activation::GeluErf, Activation::Relu] {
        check("activation", [[40, 48]], |[x]| ops::activate(x, form));
        check("gate", [[40, 48], [40, 48]], |[x, up]| ops::gate(x, up, form));
    }
}
