//! Fifty steps of each optimizer against PyTorch's, transformers' and lion-pytorch's; `golden/optimizers.py` makes the
//! fixture.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::collections::BTreeMap;

use andiron_core::linear::LinearConfig;
use andiron_core::ops::WeightLayout;
use andiron_core::{Backend, DeviceSpec, Linear, Weight};
use andiron_kernels::random::Seed;
use andiron_training::optimizer::{Ema, Optimizer, OptimizerConfig};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use serde::Deserialize;

/// f32 against f64.
const EXACT: f64 = 1e-5;

#[derive(Deserialize)]
struct Fixture {
    rows: usize,
    columns: usize,
    scale: f32,
    ema_decay: f64,
    runs: BTreeMap<String, Run>,
}

/// The matrix and then the bias, after the first step and after some others.
#[derive(Deserialize)]
struct Run {
    optimizer: OptimizerConfig,
    after: BTreeMap<u64, Vec<f64>>,
    /// The moving average after the last of them.
    ema: Option<Vec<f64>>,
}

/// A layer in a stack of blocks, so that Muon moves its matrix.
#[derive(Module, Debug)]
struct Stack {
    layers: Vec<Linear>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("golden/optimizers.json")).unwrap()
}

fn device() -> Device {
    DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap()
}

/// The numbers of the script.
fn numbers(step: u64, count: u64, start: u64) -> Vec<f32> {
    let drawn = |i: u64| {
        let drawn = (step * 7919 + (start + i) * 104_729 + 12_345).pow(2) % 2003;
        (drawn as f64 / 1000.0 - 1.0) * [1.0, 0.1, 0.01][(i % 3) as usize]
    };
    (0..count).map(|i| drawn(i) as f32).collect()
}

impl Fixture {
    fn values(&self, step: u64) -> [Vec<f32>; 2] {
        let (rows, elements) = (self.rows as u64, (self.rows * self.columns) as u64);
        [numbers(step, elements, 0), numbers(step, rows, elements)]
    }

    /// The layer before the first step; PyTorch's has outputs as rows.
    fn model(&self, layout: WeightLayout) -> Stack {
        let (d_output, d_input) = (self.rows, self.columns);
        let config = LinearConfig { d_input, d_output, bias: true, layout };
        let mut linear = config.init(0.0, Seed::new(0), &device());
        let [weight, bias] = self.values(0);
        let weight = Param::from_tensor(self.laid(weight, layout));
        linear.weight = Weight::dense(weight, linear.weight.kind());
        linear.bias = Some(Param::from_tensor(Tensor::from_data(&bias[..], &device())));
        Stack { layers: vec![linear] }.train()
    }

    fn laid(&self, weight: Vec<f32>, layout: WeightLayout) -> Tensor<2> {
        let weight = Tensor::from_data(TensorData::new(weight, [self.rows, self.columns]), &device());
        if layout == WeightLayout::InOut { weight.transpose() } else { weight }
    }

    /// The matrix, outputs as rows, and then the bias.
    fn read(model: &Stack, layout: WeightLayout) -> Vec<f64> {
        let Linear { weight, bias, .. } = &model.layers[0];
        let weight = if layout == WeightLayout::InOut { weight.val().transpose() } else { weight.val() };
        let bias = bias.as_ref().unwrap().val();
        weight.into_data().iter::<f64>().chain(bias.into_data().iter::<f64>()).collect()
    }
}

#[track_caller]
fn check(what: &str, found: &[f64], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (at, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert!((found - wanted).abs() <= EXACT, "{what}: element {at}: {found} is not {wanted}");
    }
}

#[test]
fn fifty_steps_are_those_of_the_reference_programs() {
    let fixture = fixture();
    assert_eq!(fixture.runs.len(), 7);
    for (name, Run { optimizer: config, after, ema }) in &fixture.runs {
        let last = *after.keys().last().unwrap();
        assert_eq!(last, 50);
        config.validate(last).unwrap();
        let schedule = config.schedule(last);
        for layout in [WeightLayout::OutIn, WeightLayout::InOut] {
            let mut model = fixture.model(layout);
            let mut optimizer = Optimizer::new(&model, config, &device()).unwrap();
            let mut average = Ema::new(&model, fixture.ema_decay);
            for step in 1..=last {
                let [weight, bias] = fixture.values(step);
                let weight = fixture.laid(weight, layout);
                let weight = weight.reshape([(fixture.rows * fixture.columns) as isize]);
                let gradients = vec![Some(weight), Some(Tensor::from_data(&bias[..], &device()))];
                model = optimizer.update(model, gradients, schedule.at(step - 1), fixture.scale);
                average.update(&model);
                if let Some(wanted) = after.get(&step) {
                    let what = format!("{name}, {layout:?}, step {step}");
                    check(&what, &Fixture::read(&model, layout), wanted);
                }
            }
            if let Some(wanted) = ema {
                let found = Fixture::read(&average.apply(model), layout);
                check(&format!("{name}, {layout:?}, moving average"), &found, wanted);
            }
        }
    }
}
