//! Optimizer steps.

use andiron_core::ops::{
    self, Adafactor, AdafactorStep, AdamWStep, LionStep, Matrices, Moments, Momentum, MuonStep,
    SquaredGradients,
};
use burn::tensor::{Device, FloatDType, Tensor};

use crate::{assert_close, cpu_devices, devices, random, reference_device};

/// The gradients of five steps of four parameters.
const GRADS: [[f32; 4]; 5] = [
    [0.3, -0.02, 0.001, -4.0],
    [0.1, 0.05, -0.002, 2.0],
    [-0.7, 0.0, 0.004, 1.0],
    [0.2, 0.01, 0.0, -0.5],
    [0.0, -0.3, 0.002, 8.0],
];
const START: [f32; 4] = [1.0, -0.5, 0.02, 3.0];
/// The parameters after each step of PyTorch 2.15's `torch.optim.AdamW` in f64, with gradients halved. The smallest ones
/// are of the size of `eps`.
const VALUES: [[f32; 4]; 5] = [
    [0.989_066_2, -0.490_409_1, 0.016_646_667, 3.006_995],
    [0.979_428_2, -0.494_113_68, 0.018_245_603, 3.006_653_3],
    [0.981_478_5, -0.496_833_2, 0.015_841_441, 3.004_262],
    [0.981_445_7, -0.499_900_27, 0.013_990_985, 3.002_394],
    [0.981_267_5, -0.494_721, 0.011_419_094, 2.995_162_5],
];
/// Its running means of gradients and of their squares after the last.
const MEAN: [f32; 4] = [-0.005_863_5, -0.013_383_6, 0.000_221_905, 0.359_68];
const SQUARE: [f32; 4] = [0.001_540_014, 0.000_232_272_47, 6.130_8e-8, 0.211_195_83];

#[test]
fn adamw_is_that_of_pytorch() {
    let step = AdamWStep {
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-3,
        weight_decay: 0.1,
        step: 1,
        grad_scale: 0.5,
    };
    let expected = |values| Tensor::<1>::from_floats(values, &reference_device());
    for device in devices() {
        let of = |values| Tensor::<1>::from_floats(values, &device);
        let mut at = Moments { value: of(START), mean: of([0.0; 4]), square: of([0.0; 4]) };
        for (number, (grads, values)) in (1..).zip(GRADS.into_iter().zip(VALUES)) {
            at = ops::adamw(at, of(grads), AdamWStep { step: number, ..step });
            assert_close(&format!("value after {number}"), at.value.clone(), expected(values));
        }
        assert_close("mean", at.mean, expected(MEAN));
        // In parts of what PyTorch has: the squares are small.
        assert_close("square", at.square / of(SQUARE), expected([1.0; 4]));
    }
}

/// Where and how to compute: every device in f32, which on a CPU is the kernel, and the CPUs in f64 as well, which is the
/// composed body.
fn devices_and_types() -> Vec<(Device, FloatDType)> {
    let single = devices().into_iter().map(|device| (device, FloatDType::F32));
    single.chain(cpu_devices().into_iter().map(|device| (device, FloatDType::F64))).collect()
}

/// The parameters after the fifth step of `Adafactor` of transformers 5.24 in f64, with gradients halved: as a matrix of
/// two rows, and as a vector; then its running means of updates.
const ADAFACTOR: [([f32; 4], [f32; 4]); 2] = [
    (
        [0.981_386_64, -0.495_567_66, 0.019_837_42, 2.974_723_6],
        [0.002_341_054_4, -0.000_595_552_6, 4.831_555e-6, 0.001_410_020_5],
    ),
    (
        [0.988_999_69, -0.496_394_2, 0.016_600_11, 2.976_374_7],
        [0.000_600_030_3, -0.000_309_484_84, 0.001_179_336_7, 0.000_805_539_4],
    ),
];
/// Its running means of squares: of rows, of columns, and of the elements of the vector.
const ADAFACTOR_SQUARES: [&[f32]; 3] = [
    &[0.018_261_482, 2.563_233_2],
    &[0.015_097_779, 2.566_397],
    &[0.030_194_283, 0.006_328_680_5, 1.275_01e-6, 5.126_465_3],
];

#[test]
fn adafactor_is_that_of_transformers() {
    let step = AdafactorStep {
        lr: 0.01,
        scale_parameter: true,
        min_rms: 1e-3,
        eps: 1e-30,
        clip_threshold: 0.5,
        decay_rate: -0.8,
        beta1: 0.9,
        weight_decay: 0.1,
        step: 1,
        grad_scale: 0.5,
    };
    for (device, dtype) in devices_and_types() {
        let of = |values: &[f32]| Tensor::<1>::from_floats(values, &device).cast(dtype);
        let check = |what: &str, found: Tensor<1>, values: &[f32]| {
            let found = found.cast(FloatDType::F32);
            assert_close(
                &format!("{what} {dtype:?}"),
                found,
                Tensor::from_floats(values, &reference_device()),
            );
        };
        let matrix = SquaredGradients::Factored { rows: of(&[0.0; 2]), columns: of(&[0.0; 2]) };
        let vector = SquaredGradients::Whole(of(&[0.0; 4]));
        for (squares, (values, mean)) in [matrix, vector].into_iter().zip(ADAFACTOR) {
            let mut at = Adafactor { value: of(&START), squares, mean: Some(of(&[0.0; 4])) };
            for (number, grads) in (1..).zip(GRADS) {
                at = ops::adafactor(at, of(&grads), AdafactorStep { step: number, ..step });
            }
            check("value", at.value, &values);
            // In parts of what the reference has: the means are small.
            check("mean", at.mean.unwrap() / of(&mean), &[1.0; 4]);
            let [rows, columns, whole] = ADAFACTOR_SQUARES;
            match at.squares {
                SquaredGradients::Factored { rows: found, columns: of_columns } => {
                    check("rows", found / of(rows), &[1.0; 2]);
                    check("columns", of_columns / of(columns), &[1.0; 2]);
                }
                SquaredGradients::Whole(found) => check("squares", found / of(whole), &[1.0; 4]),
            }
        }
    }
}

/// The same of `Lion` of lion-pytorch 0.2.5.
const LION: [f32; 4] = [0.985_069_9, -0.507_485, -0.010_059_84, 2.975_03];
const LION_MEAN: [f32; 4] = [-0.000_514_306_5, -0.001_303_984_9, 2.470_199e-5, 0.032_916_57];

#[test]
fn lion_is_that_of_lion_pytorch() {
    let step = LionStep { lr: 0.01, beta1: 0.9, beta2: 0.99, weight_decay: 0.1, grad_scale: 0.5 };
    let expected = |values| Tensor::<1>::from_floats(values, &reference_device());
    for (device, dtype) in devices_and_types() {
        let of = |values| Tensor::<1>::from_floats(values, &device).cast(dtype);
        let (mut value, mut mean) = (of(START), of([0.0; 4]));
        for grads in GRADS {
            (value, mean) = ops::lion(value, of(grads), mean, step);
        }
        assert_close(&format!("value {dtype:?}"), value.cast(FloatDType::F32), expected(LION));
        let ratio = mean / of(LION_MEAN);
        assert_close(&format!("mean {dtype:?}"), ratio.cast(FloatDType::F32), expected([1.0; 4]));
    }
}

#[test]
fn an_average_takes_a_share_of_what_enters() {
    let inputs = |device: &Device| (random([30, 20], "mean", device), random([30, 20], "x", device));
    let (mean, x) = inputs(&reference_device());
    let expected = mean * 0.75 + x * 0.25;
    for (device, dtype) in devices_and_types() {
        let (mean, x) = inputs(&device);
        let found = ops::lerp(mean.cast(dtype), x.cast(dtype), 0.25);
        assert_close(&format!("lerp {dtype:?}"), found.cast(FloatDType::F32), expected.clone());
    }
}

/// The direction of one matrix's step, by its definition.
fn orthogonal(mixed: Tensor<2>, step: MuonStep) -> Tensor<2> {
    let [a, b, c] = step.ns_coefficients;
    let mut x = mixed.clone() / (mixed.clone() * mixed).sum().sqrt().reshape([1, 1]);
    for _ in 0..step.ns_steps {
        let gram = x.clone().matmul(x.clone().transpose());
        let factor = gram.clone() * b + gram.clone().matmul(gram) * c;
        x = x.clone() * a + factor.matmul(x);
    }
    x
}

#[test]
fn muon_makes_each_matrix_orthogonal_by_itself() {
    let step = MuonStep {
        momentum: 0.9,
        nesterov: true,
        ns_steps: 2,
        ns_coefficients: [3.4445, -4.7750, 2.0315],
        eps: 1e-7,
        grad_scale: 0.5,
    };
    // Alone, wide and tall; three in turn by two rows each; three side by side in each row.
    let side_by_side = Matrices { count: 3, rows: 4, cols: 5, run: 5 };
    let in_turn = Matrices { count: 3, rows: 6, cols: 4, run: 8 };
    let all = [Matrices::one(7, 40), Matrices::one(40, 7), in_turn, side_by_side];
    let tensor = |label: &str, Matrices { count, rows, cols, .. }: Matrices, device: &Device| {
        random([count * rows * cols], &format!("{label} {rows}"), device)
    };
    for device in devices() {
        let parameter = |matrices: Matrices| Momentum {
            grad: tensor("grad", matrices, &device),
            momentum: tensor("momentum", matrices, &device),
            matrices,
        };
        let found = ops::muon_directions(all.map(parameter).to_vec(), step);
        assert_eq!(found.len(), all.len());
        for ((direction, momentum), matrices) in found.into_iter().zip(all) {
            let grad = tensor("grad", matrices, &reference_device()) * 0.5;
            let mean = tensor("momentum", matrices, &reference_device()) * 0.9 + grad.clone() * 0.1;
            assert_close("momentum", momentum, mean.clone());
            let Matrices { count, rows, cols, run } = matrices;
            let turns = rows * cols / run;
            let of = |list: Tensor<1>, at: usize| -> Tensor<2> {
                list.reshape([turns, count, run]).slice([0..turns, at..at + 1, 0..run]).reshape([rows, cols])
            };
            for at in 0..count {
                let expected = orthogonal(of(mean.clone() * 0.9 + grad.clone() * 0.1, at), step);
                assert_close(&format!("{matrices:?}, {at}"), of(direction.clone(), at), expected);
            }
        }
        assert!(ops::muon_directions(Vec::new(), step).is_empty());
    }
}

#[test]
fn descending_shortens_and_steps() {
    let inputs = |device: &Device| (random([30, 20], "value", device), random([30, 20], "step", device));
    let (value, direction) = inputs(&reference_device());
    let expected = value * 0.9 - direction * 0.2;
    for device in devices() {
        let (value, direction) = inputs(&device);
        assert_close("sgd_step", ops::sgd_step(value, direction, 0.9, 0.2), expected.clone());
    }
}

#[test]
fn square_sum_of_a_view() {
    let x = random([30, 20], "x", &reference_device());
    let expected = (x.clone() * x).sum();
    for device in devices() {
        let x = random([30, 20], "x", &device);
        assert_close("square sum", ops::square_sum(x.transpose()), expected.clone());
    }
}
