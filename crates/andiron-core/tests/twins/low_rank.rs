//! Projections with adapters: dense and quantized weights, with dropout, sharing what is kept of their input.

use andiron_core::ops::{self, Activation, Dropout, FrozenWeight, LowRank, WeightLayout};
use andiron_core::quant::{Format, QuantMatrix};
use andiron_kernels::random::Seed;
use burn::tensor::{Device, Tensor, TensorData};

use crate::{assert_close, check, devices, floats, random, reference_device};

const DROPOUT: Dropout = Dropout { probability: 0.3, seed: Seed::new(5) };

/// The values of a frozen weight of 64 inputs and `d_out` outputs.
fn weight(d_out: usize, layout: WeightLayout, device: &Device) -> Tensor<2> {
    let values = random([d_out, 64], "weight", device) * 0.1;
    match layout {
        WeightLayout::OutIn => values,
        WeightLayout::InOut => values.transpose(),
    }
}

#[test]
fn the_adapter_is_added_to_the_projection() {
    for (rows, d_out, rank) in [(1, 3, 1), (5, 64, 4), (33, 96, 16)] {
        for layout in [WeightLayout::OutIn, WeightLayout::InOut] {
            for dropout in [None, Some(DROPOUT)] {
                let shapes = [[rows, 64], [64, rank], [rank, d_out], [1, d_out]];
                check(
                    "low rank",
                    shapes,
                    |[x, a, b, bias]| {
                        let [a, b] = [a * 0.2, b * 0.2];
                        let weight = FrozenWeight::Dense(weight(d_out, layout, &x.device()), layout);
                        let low_rank = LowRank { a, b, scale: 1.5, dropout };
                        ops::low_rank(x, None, weight, Some(bias.reshape([d_out])), low_rank)
                    },
                    |[x, a, b, bias]| {
                        let [a, b] = [a * 0.2, b * 0.2];
                        let weight = weight(d_out, WeightLayout::OutIn, &x.device());
                        let read = match dropout {
                            Some(Dropout { probability, seed }) => ops::dropout(x.clone(), probability, seed),
                            None => x.clone(),
                        };
                        x.matmul(weight.transpose()) + read.matmul(a).matmul(b) * 1.5 + bias
                    },
                );
            }
        }
    }
}

#[test]
fn projections_share_what_is_kept_of_their_input() {
    check(
        "shared input",
        [[9, 64], [64, 2], [2, 64], [64, 2]],
        |[x, a, b, gate_a]| {
            let [a, b, gate_a] = [a, b, gate_a].map(|factor| factor * 0.2);
            let device = x.device();
            let kept = ops::keep_input(&x);
            let project = |label, a, b| {
                let frozen = FrozenWeight::Dense(random([64, 64], label, &device) * 0.1, WeightLayout::InOut);
                ops::low_rank(
                    x.clone(),
                    Some(&kept),
                    frozen,
                    None,
                    LowRank { a, b, scale: 0.5, dropout: None },
                )
            };
            let (gate, up) = (project("gate", gate_a, b.clone()), project("up", a.clone(), b.clone()));
            let (inner, kept) = ops::gate_kept(gate, up, Activation::Silu);
            let frozen = FrozenWeight::Dense(random([64, 64], "down", &device) * 0.1, WeightLayout::InOut);
            ops::low_rank(inner, Some(&kept), frozen, None, LowRank { a, b, scale: 0.5, dropout: None })
        },
        |[x, a, b, gate_a]| {
            let [a, b, gate_a] = [a, b, gate_a].map(|factor| factor * 0.2);
            let device = x.device();
            let project = |x: Tensor<2>, label, a: Tensor<2>| {
                x.clone().matmul(random([64, 64], label, &device) * 0.1) + x.matmul(a).matmul(b.clone()) * 0.5
            };
            let (gate, up) = (project(x.clone(), "gate", gate_a), project(x, "up", a.clone()));
            let gate = gate.clone() * burn::tensor::activation::sigmoid(gate);
            project(gate * up, "down", a)
        },
    );
}

#[test]
fn a_quantized_weight_is_not_dequantized_as_a_whole() {
    let values = floats(random([96, 64], "weight", &reference_device()));
    let matrix = QuantMatrix::quantize(Format::Q8_0, &values, 64);
    let dense = TensorData::new(matrix.dequantize(0..96), [96, 64]);
    for device in devices() {
        let device = device.autodiff();
        let passes = |quantized: bool| {
            let [x, a, b] = [([20, 64], "x"), ([64, 4], "a"), ([4, 96], "b")]
                .map(|(shape, label)| random(shape, label, &device).require_grad());
            let frozen = match quantized {
                true => FrozenWeight::Quantized(&matrix),
                false => FrozenWeight::Dense(Tensor::from_data(dense.clone(), &device), WeightLayout::OutIn),
            };
            let low_rank = LowRank { a: a.clone(), b: b.clone(), scale: 2.0, dropout: None };
            let y = ops::low_rank(x.clone(), None, frozen, None, low_rank);
            let towards = random([20, 96], "towards", &device);
            let grads = (y * towards).sum().backward();
            [x, a, b].map(|input| input.grad(&grads).unwrap())
        };
        for (name, (found, expected)) in
            ["x", "a", "b"].iter().zip(passes(true).into_iter().zip(passes(false)))
        {
            assert_close(name, found, expected);
        }
    }
}
