use burn::module::ParamGroup;

use super::*;
use crate::linear::LinearConfig;
use crate::ops::Dropout;
use crate::quant::Format;
use crate::{DeviceSpec, init};

/// f32 sums in another order.
const SUMS: f32 = 1e-5;

const PLAIN: AdapterConfig = AdapterConfig { rank: 3, alpha: 6.0, rslora: false, dora: false, dropout: 0.0 };
const DORA: AdapterConfig = AdapterConfig { rslora: true, dora: true, ..PLAIN };

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

/// An adapter that has been trained: no factor is zero.
fn adapted(weight: Weight, config: AdapterConfig) -> Weight {
    trained(weight.adapt(config, Seed::new(9)), "trained")
}

/// The same weight with other values in its adapter.
fn trained(weight: Weight, label: &'static str) -> Weight {
    struct Train(String, &'static str);
    impl ModuleMapper for Train {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0 = name.to_owned();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let dims: [usize; D] = param.lazy_shape().dims();
            match self.0.starts_with("lora_") {
                // As large as they begin, so that sums are not much larger than their parts.
                true => {
                    let size = if self.0.ends_with("_a") { 0.125 } else { 1.0 };
                    let values = random(dims, &format!("{} {}", self.1, self.0), &param.lazy_device());
                    Param::from_tensor((values * size).detach())
                }
                false => param,
            }
        }
    }
    weight.map(&mut Train(String::new(), label))
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
    for weight in weights(&device)
        .into_iter()
        .flat_map(|weight| [weight.clone(), adapted(weight.clone(), PLAIN), adapted(weight, DORA)])
    {
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
        assert_eq!(floats(weight.clone().adapt(PLAIN, Seed::new(9)).project(x.clone(), None)), before);
        assert_close(&floats(weight.adapt(DORA, Seed::new(9)).project(x.clone(), None)), &before);
    }
}

#[test]
fn rows_of_adapted_embeddings_are_those_of_their_effective_matrix() {
    let device = device();
    let ids: Tensor<2, Int> = Tensor::from_data([[3, 95, 0], [3, 7, 8]], &device);
    for (weight, config) in
        weights(&device).into_iter().take(2).flat_map(|weight| [(weight.clone(), PLAIN), (weight, DORA)])
    {
        let before = weight.clone();
        let weight = adapted(weight.with_role(ParamRole::Embedding), config);
        let expected = ops::embedding(weight.lookup_val(), ids.clone());
        assert_close(&floats(weight.lookup(ids.clone())), &floats(expected.clone()));
        assert_close(&floats(weight.clone().merge().lookup(ids.clone())), &floats(expected));
        // A head that is tied to the embeddings is what it was.
        let x = random([5, 64], "x", &device);
        assert_eq!(floats(weight.project(x.clone(), None)), floats(before.project(x, None)));
        assert_eq!(floats(weight.val()), floats(before.val()));
    }
}

#[test]
fn embeddings_and_a_head_tied_to_them_have_an_adapter_each() {
    let device = device();
    let ids: Tensor<2, Int> = Tensor::from_data([[3, 95, 0]], &device);
    let x = random([5, 64], "x", &device);
    let base = weights(&device).swap_remove(0).with_role(ParamRole::Embedding);
    let site = AdapterSite::new("adapter");
    let new = |usage| NewAdapter { config: PLAIN, usage, seed: Seed::new(2), site };
    let both = base.clone().with_adapter(new(AdapterUse::Lookup)).with_adapter(new(AdapterUse::Projection));
    let names: Vec<_> = seen(&both).into_iter().map(|seen| seen.0).collect();
    assert_eq!(names, ["Weight", "lora_a", "lora_b", "lora_embedding_a", "lora_embedding_b"]);
    assert_eq!(floats(both.lookup(ids.clone())), floats(base.lookup(ids)));
    assert_eq!(floats(both.project(x.clone(), None)), floats(base.project(x, None)));
}

#[test]
fn each_output_has_the_magnitude_of_its_vector_whatever_the_factors_are() {
    let device = device();
    let x = random([5, 64], "x", &device);
    for weight in weights(&device) {
        let mut weight = adapted(weight, DORA);
        for label in ["once", "again"] {
            // A pass with the earlier values leaves nothing behind.
            drop(weight.project(x.clone(), None));
            weight = trained(weight, label);
            let Stored::Adapted(parts) = &weight.stored else { panic!("it has an adapter") };
            let (_, _, magnitude) = parts.projection.as_ref().expect("of projections").parts();
            let inputs = if weight.kind().layout == WeightLayout::InOut { 0 } else { 1 };
            let norms = (weight.val() * weight.val()).sum_dim(inputs).sqrt();
            assert_close(&floats(norms), &floats(magnitude.abs()));
        }
    }
}

/// The norm is a constant to the gradients, as in `peft` 0.21.2.
#[test]
fn gradients_of_a_magnitude_are_those_of_the_formula_with_a_constant_norm() {
    let device = device().autodiff();
    for layout in [WeightLayout::OutIn, WeightLayout::InOut] {
        let linear = LinearConfig { d_input: 6, d_output: 4, bias: false, layout };
        let weight = adapted(linear.init(0.3, Seed::new(7), &device).weight, DORA);
        let Stored::Adapted(parts) = &weight.stored else { panic!("it has an adapter") };
        let adapter = parts.projection.clone().expect("an adapter of projections");
        let (a, b, m) = adapter.parts();
        let x = random([3, 6], "x", &device).require_grad();
        let dy = random([3, 4], "dy", &device);
        let grads = |y: Tensor<2>| {
            let gradients = (y * dy.clone()).sum().backward();
            [
                floats(x.grad(&gradients).expect("x")),
                floats(a.grad(&gradients).expect("a")),
                floats(b.grad(&gradients).expect("b")),
                floats(m.grad(&gradients).expect("m")),
            ]
        };
        let base = match layout {
            WeightLayout::InOut => parts.base.val(),
            WeightLayout::OutIn => parts.base.val().transpose(),
        };
        let sum = base + a.clone().matmul(b.clone()) * DORA.scale();
        let norms: Tensor<2> = (sum.clone() * sum.clone()).sum_dim(0).sqrt().detach();
        let expected = grads(x.clone().matmul(sum) / norms * m.clone().unsqueeze());
        for (ours, theirs) in grads(weight.project(x.clone(), None)).iter().zip(&expected) {
            assert_close(ours, theirs);
        }
    }
}

#[test]
fn a_visitor_sees_the_same_parameter_in_every_form() {
    let device = device();
    for weight in weights(&device) {
        let shape = weight.dims().to_vec();
        assert_eq!(seen(&weight), [("Weight".to_owned(), shape, weight.is_dense())]);
        let names = |config| -> Vec<String> {
            seen(&weight.clone().adapt(config, Seed::new(9))).into_iter().map(|seen| seen.0).collect()
        };
        assert_eq!(names(PLAIN), ["Weight", "lora_a", "lora_b"]);
        assert_eq!(names(DORA), ["Weight", "lora_a", "lora_b", "lora_magnitude"]);
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
        let weight = weight.adapt(DORA, Seed::new(9)).train().set_require_grad(true);
        let mut trainable = Trainable::default();
        weight.visit(&mut trainable);
        assert_eq!(trainable.0, [false, true, true, true]);
    }
}

#[test]
fn dropout_of_an_adapter_is_drawn_in_a_pass_and_only_there() {
    let device = device();
    let config = AdapterConfig { dropout: 0.4, ..PLAIN };
    for weight in weights(&device) {
        let (without, weight) = (adapted(weight.clone(), PLAIN), adapted(weight, config));
        let x = random([20, 64], "x", &device);
        let plain = floats(without.project(x.clone(), None));
        assert_eq!(floats(weight.project(x.clone(), None)), plain);
        let pass = |seed| {
            let cx = crate::Forward::training(Seed::new(seed));
            floats(cx.with_adapters(|| weight.project(x.clone(), None)))
        };
        assert_eq!(pass(1), pass(1));
        assert_ne!(pass(1), pass(2));
        assert_ne!(pass(1), plain);
        // What is added is that of the dropped input.
        let base = floats(frozen_base(&weight).project(x.clone(), None));
        let Dropout { probability, seed } =
            crate::adapter_dropout::with_adapter_dropout(Some(Seed::new(1)), || {
                AdapterSite::of_seed(Seed::new(9)).dropout(0.4).unwrap()
            });
        let added = without.project(ops::dropout(x.clone(), probability, seed), None)
            - frozen_base(&weight).project(ops::dropout(x.clone(), probability, seed), None);
        let expected: Vec<f32> = base.iter().zip(floats(added)).map(|(base, added)| base + added).collect();
        if weight.quant_matrix().is_none() {
            assert_close(&pass(1), &expected);
        }
    }
}

fn frozen_base(weight: &Weight) -> Weight {
    match &weight.stored {
        Stored::Adapted(adapted) => adapted.base.clone(),
        _ => panic!("an adapter"),
    }
}
