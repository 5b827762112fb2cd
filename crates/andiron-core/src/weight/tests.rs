use burn::module::ParamGroup;

use super::*;
use crate::linear::LinearConfig;
use crate::quant::Format;
use crate::{DeviceSpec, init};

/// f32 sums in another order.
const SUMS: f32 = 1e-5;

const RANK: AdapterConfig = AdapterConfig { rank: 3, alpha: 6.0 };

fn device() -> Device {
    DeviceSpec::parse("ndarray").and_then(DeviceSpec::open).expect("tests are built with ndarray")
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("f32")
}

fn random<const D: usize>(shape: [usize; D], label: &str, device: &Device) -> Tensor<D> {
    init::normal(shape, 1.0, Seed::new(1).derive(label), device).val()
}

#[track_caller]
fn assert_close(ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len());
    for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= SUMS * (1.0 + b.abs()), "{at}: {a} is not {b}");
    }
}

/// Weights of 64 inputs and 96 outputs: dense and quantized, outputs as rows, then inputs as rows.
fn weights(device: &Device) -> Vec<Weight> {
    let of = |layout| {
        let dense = LinearConfig { d_input: 64, d_output: 96, bias: false, layout };
        let dense = dense.init(0.3, Seed::new(7), device).weight;
        let values = match layout {
            WeightLayout::OutIn => dense.val(),
            WeightLayout::InOut => dense.val().transpose(),
        };
        let matrix = QuantMatrix::quantize(Format::Q8_0, &floats(values), 64);
        let quantized = Weight::quantized(matrix, dense.kind(), device);
        [dense, quantized]
    };
    [WeightLayout::OutIn, WeightLayout::InOut].map(of).concat()
}

/// An adapter whose second factor is no longer zero.
fn adapted(weight: Weight) -> Weight {
    struct Train;
    impl ModuleMapper for Train {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let dims: [usize; D] = param.lazy_shape().dims();
            match dims[0] {
                3 => param.map(|value| random(dims, "trained", &value.device())),
                _ => param,
            }
        }
    }
    weight.adapt(RANK, Seed::new(9)).map(&mut Train)
}

/// Path segments and shapes that a visitor sees, and whether the values are there.
fn seen(weight: &Weight) -> Vec<(String, Vec<usize>, bool)> {
    #[derive(Default)]
    struct See(Vec<String>, Vec<(String, Vec<usize>, bool)>);
    impl ModuleVisitor for See {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.push((self.0.join("."), param.lazy_shape().to_vec(), param.is_initialized()));
        }
    }
    let mut see = See::default();
    weight.visit(&mut see);
    see.1
}

#[test]
fn every_form_projects_by_its_effective_matrix() {
    let device = device();
    let (x, bias) = (random([2, 5, 64], "x", &device), random([96], "bias", &device));
    for weight in weights(&device).into_iter().flat_map(|weight| [weight.clone(), adapted(weight)]) {
        let expected = ops::linear(x.clone(), weight.val(), Some(bias.clone()), weight.kind().layout);
        let merged = weight.clone().merge();
        assert!(merged.is_dense());
        for found in [weight, merged].map(|weight| weight.project(x.clone(), Some(bias.clone()))) {
            assert_close(&floats(found), &floats(expected.clone()));
        }
    }
}

#[test]
fn an_adapter_adds_nothing_at_first() {
    let device = device();
    let x = random([5, 64], "x", &device);
    for weight in weights(&device) {
        let before = floats(weight.project(x.clone(), None));
        assert_eq!(floats(weight.adapt(RANK, Seed::new(9)).project(x.clone(), None)), before);
    }
}

#[test]
fn rows_of_an_adapted_weight_are_those_of_its_effective_matrix() {
    let device = device();
    let ids: Tensor<2, Int> = Tensor::from_data([[3, 95, 0], [3, 7, 8]], &device);
    for weight in weights(&device).into_iter().take(2).map(adapted) {
        let expected = ops::embedding(weight.val(), ids.clone());
        assert_close(&floats(weight.lookup(ids.clone())), &floats(expected));
    }
}

#[test]
fn a_visitor_sees_the_same_parameter_in_every_form() {
    let device = device();
    for weight in weights(&device) {
        let shape = weight.dims().to_vec();
        assert_eq!(seen(&weight), [("Weight".to_owned(), shape, weight.is_dense())]);
        let names: Vec<_> = seen(&weight.adapt(RANK, Seed::new(9))).into_iter().map(|seen| seen.0).collect();
        assert_eq!(names, ["Weight", "lora_a", "lora_b"]);
    }
}

#[test]
fn a_quantized_weight_stays_so_unless_its_values_are_asked_for() {
    struct Double;
    impl ModuleMapper for Double {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| value * 2.0)
        }
    }
    let device = device();
    for weight in weights(&device).into_iter().filter(|weight| !weight.is_dense()) {
        let values = floats(weight.val());
        let frozen = weight.clone().set_require_grad_group(ParamGroup::all(), true).no_grad().train().valid();
        assert!(frozen.quant_matrix().is_some());
        let doubled = weight.map(&mut Double);
        assert!(doubled.is_dense());
        assert_eq!(floats(doubled.val()), values.iter().map(|value| 2.0 * value).collect::<Vec<_>>());
    }
}

#[test]
fn gradients_through_a_quantized_weight_are_those_of_the_dense_one() {
    let device = device().autodiff();
    let all = weights(&device.clone().inner());
    let weight = &all[1];
    for rows in [3, 40] {
        let run = |dense: bool| {
            let x = random([rows, 64], "x", &device).require_grad();
            let bias = random([96], "bias", &device).require_grad();
            let dy = random([rows, 96], "dy", &device);
            let y = match dense {
                true => ops::linear(
                    x.clone(),
                    Tensor::from_inner(weight.val()),
                    Some(bias.clone()),
                    weight.kind().layout,
                ),
                false => weight.project(x.clone(), Some(bias.clone())),
            };
            let gradients = (y * dy).sum().backward();
            [
                floats(x.grad(&gradients).expect("x takes part")),
                floats(bias.grad(&gradients).expect("the bias takes part")),
            ]
        };
        for (quantized, dense) in run(false).iter().zip(run(true)) {
            let largest = dense.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            for (a, b) in quantized.iter().zip(dense) {
                assert!((a - b).abs() <= SUMS * largest, "{a} is not {b}");
            }
        }
    }
}

#[test]
fn only_the_factors_of_an_adapted_weight_have_gradients() {
    #[derive(Default)]
    struct Trainable(Vec<bool>);
    impl ModuleVisitor for Trainable {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.is_initialized() && param.val().is_require_grad());
        }
    }
    for weight in weights(&device()) {
        // Thawing a whole model does not thaw what adapters are added to.
        let weight = weight.adapt(RANK, Seed::new(9)).train().set_require_grad(true);
        let mut trainable = Trainable::default();
        weight.visit(&mut trainable);
        assert_eq!(trainable.0, [false, true, true]);
    }
}
