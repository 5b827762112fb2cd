use andiron_core::ParamRole;
use andiron_core::precision::Precision;
use andiron_core::quant::{Format, QuantMatrix};
use andiron_core::weight::{self, AdapterConfig};
use andiron_data::batch::{HostBatch, Sequences};
use andiron_kernels::random::Seed;
use andiron_models::DecoderModel;
use andiron_models::weights::{adapt, describe, freeze, names};
use burn::module::ModuleVisitor;
use burn::tensor::TensorData;
use safetensors::SafeTensors;

use super::*;
use crate::config::TrainConfig;
use crate::objective::Causal;
use crate::step::compute;
use crate::testing::{CONFIG, decoder, device};

const KINDS: [OptimizerKind; 4] =
    [OptimizerKind::Adamw, OptimizerKind::Muon, OptimizerKind::Adafactor, OptimizerKind::Lion];

fn config() -> TrainConfig {
    TrainConfig::parse(CONFIG, &[]).unwrap()
}

pub(super) fn model() -> DecoderModel {
    decoder(&config()).init(Seed::new(3), &device()).train()
}

pub(super) fn optimizer(model: &DecoderModel, kind: OptimizerKind) -> Optimizer {
    Optimizer::new(model, &config().optimizer.with_kind(kind), &device()).unwrap()
}

/// The parameters after a step with these settings.
fn moved(model: &DecoderModel, settings: &OptimizerConfig) -> Vec<Vec<f32>> {
    let mut optimizer = Optimizer::new(model, settings, &device()).unwrap();
    parameters(&optimizer.update(model.clone(), gradients(model, 1), settings.lr, 1.0))
}

pub(super) fn parameters(model: &DecoderModel) -> Vec<Vec<f32>> {
    struct Read(Vec<Vec<f32>>);
    impl ModuleVisitor for Read {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            assert!(param.val().is_require_grad(), "parameters stay leaves that want gradients");
            self.0.push(param.val().into_data().try_into_vec::<f32>().unwrap());
        }
    }
    let mut read = Read(Vec::new());
    model.visit(&mut read);
    read.0
}

pub(super) fn gradients(model: &DecoderModel, step: u64) -> Vec<Option<Tensor<1>>> {
    let of = |(name, shape): (String, Vec<usize>)| {
        let (seed, n) = (Seed::new(step).derive(&name), shape.iter().product::<usize>());
        let values: Vec<f32> = (0..n as u64).map(|i| seed.normal(i)).collect();
        Some(Tensor::from_data(TensorData::new(values, [n]), &device()))
    };
    names(model).into_iter().map(of).collect()
}

#[test]
fn what_decays_shrinks_by_its_rate_and_the_rest_does_not() {
    let model = model();
    let before = parameters(&model);
    for kind in KINDS {
        let settings = OptimizerConfig { weight_decay: 0.5, ..config().optimizer.with_kind(kind) };
        let with = moved(&model, &settings);
        let without = moved(&model, &OptimizerConfig { weight_decay: 0.0, ..settings.clone() });
        for (at, parameter) in describe(&model).iter().enumerate() {
            let rate = if decays(parameter.role, false) { settings.lr * 0.5 } else { 0.0 };
            for (i, before) in before[at].iter().enumerate() {
                let shrunk = f64::from(without[at][i] - with[at][i]);
                let close = (shrunk - rate * f64::from(*before)).abs() < 1e-6;
                assert!(close, "{kind:?}: {}: {shrunk} of {before}", parameter.name);
            }
        }
    }
}

/// By how much the step of each parameter grows with these settings, the same for all its elements.
#[track_caller]
fn growth(base: &OptimizerConfig, changed: &OptimizerConfig) -> Vec<(String, f64)> {
    let model = model();
    let before = parameters(&model);
    let (base, changed) = (moved(&model, base), moved(&model, changed));
    let of = |(at, (name, _)): (usize, (String, Vec<usize>))| {
        let far = |after: &[f32]| {
            let apart = after.iter().zip(&before[at]).map(|(after, before)| f64::from(after - before));
            apart.collect::<Vec<f64>>()
        };
        let (one, other) = (far(&base[at]), far(&changed[at]));
        let factor = other.iter().map(|x| x.abs()).sum::<f64>() / one.iter().map(|x| x.abs()).sum::<f64>();
        for (one, other) in one.iter().zip(&other) {
            assert!((other - factor * one).abs() < 1e-6, "{name}: {one} {other}, not {factor} times");
        }
        (name, factor)
    };
    names(&model).into_iter().enumerate().map(of).collect()
}

#[test]
fn groups_set_rates_by_name() {
    for kind in KINDS {
        let base = OptimizerConfig { weight_decay: 0.0, ..config().optimizer.with_kind(kind) };
        let groups = vec![
            GroupConfig { lr_scale: Some(0.5), ..GroupConfig::new("*.c_attn.weight") },
            GroupConfig { lr: Some(3.0 * base.lr), ..GroupConfig::new("transformer.h.1.*") },
        ];
        for (name, factor) in growth(&base, &OptimizerConfig { groups, ..base.clone() }) {
            let expected = match &name[..] {
                name if name.ends_with("c_attn.weight") => 0.5,
                name if name.starts_with("transformer.h.1.") => 3.0,
                _ => 1.0,
            };
            assert!((factor - expected).abs() < 1e-3, "{kind:?}: {name}: {factor}");
        }
    }
}

#[test]
fn a_rate_of_a_group_stands_for_that_of_muon_as_well() {
    let mut base = OptimizerConfig { weight_decay: 0.0, ..config().optimizer.with_kind(OptimizerKind::Muon) };
    base.muon = Some(MuonConfig { lr: Some(4.0 * base.lr), ..MuonConfig::default() });
    for (group, expected) in [
        (GroupConfig { lr: Some(2.0 * base.lr), ..GroupConfig::new("*.c_attn.weight") }, 0.5),
        (GroupConfig { lr_scale: Some(2.0), ..GroupConfig::new("*.c_attn.weight") }, 2.0),
    ] {
        for (name, factor) in growth(&base, &OptimizerConfig { groups: vec![group.clone()], ..base.clone() })
        {
            let expected = if name.ends_with("c_attn.weight") { expected } else { 1.0 };
            assert!((factor - expected).abs() < 1e-3, "{name}: {factor}");
        }
    }
}

#[test]
fn rates_decay_from_layer_to_layer() {
    let base = OptimizerConfig { weight_decay: 0.0, ..config().optimizer };
    for (name, factor) in growth(&base, &OptimizerConfig { layer_decay: Some(0.5), ..base.clone() }) {
        let expected = match &name[..] {
            name if name.starts_with("transformer.h.0.") => 0.25,
            name if name.starts_with("transformer.h.1.") => 0.5,
            name if name.starts_with("transformer.ln_f.") => 1.0,
            _ => 0.125,
        };
        assert!((factor - expected).abs() < 1e-3, "{name}: {factor}");
    }
}

#[test]
fn a_group_decays_whatever_its_roles() {
    let model = model();
    let before = parameters(&model);
    let group = GroupConfig { weight_decay: Some(0.5), ..GroupConfig::new("*.ln_1.*") };
    let without = OptimizerConfig { weight_decay: 0.0, ..config().optimizer };
    let with = moved(&model, &OptimizerConfig { groups: vec![group], ..without.clone() });
    let without = moved(&model, &without);
    let gain = 2;
    assert_eq!(names(&model)[gain].0, "transformer.h.0.ln_1.weight");
    for ((with, without), before) in with[gain].iter().zip(&without[gain]).zip(&before[gain]) {
        assert!((without - with - 0.5 * 0.01 * before).abs() < 1e-6, "{with} {without}");
    }
    for at in (0..before.len()).filter(|&at| !names(&model)[at].0.contains(".ln_1.")) {
        assert_eq!(with[at], without[at]);
    }
}

#[test]
fn a_group_that_freezes_leaves_neither_moments_nor_gradients() {
    let settings = OptimizerConfig {
        groups: vec![
            GroupConfig { lr_scale: Some(0.5), ..GroupConfig::new("*.wpe.*") },
            GroupConfig { freeze: true, ..GroupConfig::new("transformer.w?e.*") },
            GroupConfig { freeze: true, ..GroupConfig::new("transformer.h.0.*") },
        ],
        ..config().optimizer
    };
    let model = settings.freeze(without_dropout()).unwrap().train();
    let optimizer = Optimizer::new(&model, &settings, &device()).unwrap();
    let is_frozen = |name: &str| name.contains(".wte.") || name.contains(".h.0.");
    let kept = names(&model).into_iter().filter(|(name, _)| !is_frozen(name)).map(|(name, _)| name);
    assert_eq!(
        optimizer.slots.iter().map(|slot| slot.name.clone()).collect::<Vec<_>>(),
        kept.collect::<Vec<_>>()
    );
    let computed = compute(&model, &Causal, &[batch()], Seed::new(0), Precision::F32);
    assert_eq!(computed.gradients.len(), optimizer.slots.len());
}

#[test]
fn groups_that_do_not_fit_the_model_are_refused() {
    let settings = |group: GroupConfig| OptimizerConfig { groups: vec![group], ..config().optimizer };
    let scaled = |pattern: &str| GroupConfig { lr_scale: Some(0.5), ..GroupConfig::new(pattern) };
    let frozen = |pattern: &str| GroupConfig { freeze: true, ..GroupConfig::new(pattern) };
    for group in [scaled("bert.*"), frozen("bert.*")] {
        let error = settings(group).freeze(without_dropout()).unwrap_err();
        assert!(matches!(&error, GroupError::NoMatch { pattern, .. } if pattern == "bert.*"), "{error}");
        assert!(error.to_string().contains("transformer.wte.weight"), "{error}");
    }
    let everything = settings(frozen("*"));
    let model = everything.freeze(without_dropout()).unwrap().train();
    let error = Optimizer::new(&model, &everything, &device()).unwrap_err();
    assert!(matches!(error, GroupError::AllFrozen), "{error}");
    let model = freeze(without_dropout(), |parameter| parameter.role == ParamRole::Embedding).train();
    let error = Optimizer::new(&model, &settings(scaled("*.wte.*")), &device()).unwrap_err();
    assert!(matches!(error, GroupError::Untrained { .. }), "{error}");
}

#[test]
fn a_parameter_without_a_gradient_stays() {
    // A gain of a norm, and a matrix.
    for (kind, left_out) in KINDS.into_iter().flat_map(|kind| [2, 4].map(|at| (kind, at))) {
        let model = model();
        let before = parameters(&model);
        let mut optimizer = optimizer(&model, kind);
        let mut gradients = gradients(&model, 1);
        gradients[left_out] = None;
        let after = parameters(&optimizer.update(model, gradients, 0.01, 1.0));
        for (at, (before, after)) in before.iter().zip(&after).enumerate() {
            assert_eq!(before == after, at == left_out, "{kind:?}: parameter {at}");
        }
    }
}

#[test]
fn muon_moves_the_matrices_of_layers_and_adamw_the_rest() {
    let model = model();
    let [adamw, muon] = [OptimizerKind::Adamw, OptimizerKind::Muon].map(|kind| {
        parameters(&optimizer(&model, kind).update(model.clone(), gradients(&model, 1), 0.01, 1.0))
    });
    let mut hidden = 0;
    for ((name, shape), (adamw, muon)) in names(&model).into_iter().zip(adamw.iter().zip(&muon)) {
        let moved = name.contains(".h.") && shape.len() == 2;
        assert_eq!(adamw != muon, moved, "{name}");
        hidden += usize::from(moved);
    }
    assert_eq!(hidden, 2 * 4);
}

#[test]
fn muon_has_a_learning_rate_of_its_own() {
    let model = model();
    let step = |largest: Option<f64>| {
        let muon = Some(MuonConfig { lr: largest, ..MuonConfig::default() });
        let config = OptimizerConfig { kind: OptimizerKind::Muon, muon, ..config().optimizer };
        // Half of the largest learning rate, as in the middle of a schedule.
        let mut optimizer = Optimizer::new(&model, &config, &device()).unwrap();
        parameters(&optimizer.update(model.clone(), gradients(&model, 1), 0.5 * config.lr, 1.0))
    };
    let (before, one, three) = (parameters(&model), step(None), step(Some(3.0 * config().optimizer.lr)));
    for (at, parameter) in describe(&model).iter().enumerate() {
        let factor = if is_hidden_matrix(parameter) { 3.0 } else { 1.0 };
        let name = &parameter.name;
        for (i, before) in before[at].iter().enumerate() {
            let (one, three) = (one[at][i] - before, three[at][i] - before);
            assert!((three - factor * one).abs() < 1e-6, "{name}: {one} {three}");
        }
    }
}

#[test]
fn a_saved_state_goes_on_bit_for_bit() {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.safetensors");
        let mut first = optimizer(&model(), kind);
        let model = first.update(model(), gradients(&model(), 1), 0.01, 1.0);
        first.save(&path).unwrap();
        let mut second = optimizer(&model, kind);
        second.load(&path, first.updates(), &device()).unwrap();
        let one = first.update(model.clone(), gradients(&model, 2), 0.01, 1.0);
        let other = second.update(model.clone(), gradients(&model, 2), 0.01, 1.0);
        assert_eq!(parameters(&one), parameters(&other), "{kind:?}");
        assert_ne!(parameters(&one), parameters(&model));
        // The moments count, too.
        let mut anew = optimizer(&model, kind);
        anew.updates = first.updates() - 1;
        let without = anew.update(model.clone(), gradients(&model, 2), 0.01, 1.0);
        assert_ne!(parameters(&one), parameters(&without), "{kind:?}");
    }
}

#[test]
fn muon_saves_one_moment_of_what_it_moves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.safetensors");
    optimizer(&model(), OptimizerKind::Muon).save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let matrix = "transformer.h.0.attn.c_attn.weight";
    assert_eq!(file.tensor(&format!("{matrix}.momentum")).unwrap().shape(), [16, 48]);
    assert!(file.tensor(&format!("{matrix}.mean")).is_err());
    for moment in ["mean", "square"] {
        assert!(file.tensor(&format!("transformer.wte.weight.{moment}")).is_ok());
    }
    assert_eq!(file.len(), 2 * names(&model()).len() - 8);
    // It is no state of AdamW.
    let error = optimizer(&model(), OptimizerKind::Adamw).load(&path, 1, &device()).unwrap_err();
    assert!(matches!(error, OptimizerError::Count { .. }), "{error}");
}

#[test]
fn adafactor_saves_a_moment_for_each_row_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.safetensors");
    let mut settings = config().optimizer.with_kind(OptimizerKind::Adafactor);
    let save = |settings: &OptimizerConfig| {
        Optimizer::new(&model(), settings, &device()).unwrap().save(&path).unwrap();
        std::fs::read(&path).unwrap()
    };
    let bytes = save(&settings);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let matrix = "transformer.h.0.attn.c_attn.weight";
    assert_eq!(file.tensor(&format!("{matrix}.square_rows")).unwrap().shape(), [16]);
    assert_eq!(file.tensor(&format!("{matrix}.square_columns")).unwrap().shape(), [48]);
    assert_eq!(file.tensor("transformer.ln_f.bias.square").unwrap().shape(), [16]);
    let (matrices, vectors) = (2 + 2 * 4, 2 * 8 + 2);
    assert_eq!(file.len(), 2 * matrices + vectors);
    settings.adafactor = Some(AdafactorConfig { beta1: Some(0.9), ..AdafactorConfig::default() });
    let bytes = save(&settings);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor(&format!("{matrix}.mean")).unwrap().shape(), [16, 48]);
    assert_eq!(file.len(), 3 * matrices + 2 * vectors);
}

#[test]
fn a_state_of_another_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.safetensors");
    optimizer(&model(), OptimizerKind::Adamw).save(&path).unwrap();
    for (set, count) in [("model.n_layer=1", true), ("model.n_embd=8", false)] {
        let other = decoder(&TrainConfig::parse(CONFIG, &[set.to_owned()]).unwrap())
            .init(Seed::new(1), &device())
            .train();
        let mut optimizer = optimizer(&other, OptimizerKind::Adamw);
        let error = optimizer.load(&path, 1, &device()).unwrap_err();
        assert_eq!(matches!(error, OptimizerError::Count { .. }), count, "{error}");
        assert_eq!(matches!(error, OptimizerError::Tensor { .. }), !count, "{error}");
    }
    std::fs::write(&path, b"no tensors").unwrap();
    let mut optimizer = optimizer(&model(), OptimizerKind::Adamw);
    assert!(matches!(optimizer.load(&path, 1, &device()), Err(OptimizerError::Malformed { .. })));
}

/// Rows in which each id is its predecessor plus 3.
fn batch() -> HostBatch {
    let ids: Vec<u32> = (0..24).map(|at| (at / 8 + at % 8 * 3) % 13).collect();
    let targets = ids.iter().map(|id| (id + 3) % 13).collect();
    HostBatch::tokens(Sequences::full(ids, [3, 8]), targets, vec![1.0; 24])
}

fn without_dropout() -> DecoderModel {
    let set = ["model.resid_pdrop=0.0", "model.embd_pdrop=0.0"].map(str::to_owned);
    decoder(&TrainConfig::parse(CONFIG, &set).unwrap()).init(Seed::new(3), &device())
}

/// Parameters by name, with their bits; those of quantized weights are dequantized.
fn bits(model: &DecoderModel) -> Vec<(String, Vec<u32>)> {
    #[derive(Default)]
    struct Read(Vec<Vec<u32>>);
    impl ModuleVisitor for Read {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.val().into_data().try_into_vec::<f32>().unwrap();
            self.0.push(values.into_iter().map(f32::to_bits).collect());
        }
    }
    let mut read = Read::default();
    model.visit(&mut read);
    names(model).into_iter().map(|(name, _)| name).zip(read.0).collect()
}

/// Trains for some steps; returns the model, the names of moments in the state file, and the first and the last loss.
fn train_steps(
    model: DecoderModel,
    kind: OptimizerKind,
    steps: u64,
) -> (DecoderModel, Vec<String>, [f32; 2]) {
    let lr = if kind == OptimizerKind::Lion { 0.004 } else { 0.02 };
    let mut model = model.train();
    let mut optimizer = optimizer(&model, kind);
    let mut losses = Vec::new();
    for step in 0..steps {
        let computed = compute(&model, &Causal, &[batch()], Seed::new(step), Precision::F32);
        losses.push(computed.loss);
        model = optimizer.update(model, computed.gradients, lr, clip_scale(computed.grad_norm, 1.0));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.safetensors");
    optimizer.save(&path).unwrap();
    let file = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let names = file.names().into_iter().map(str::to_owned).collect();
    (model, names, [losses[0], losses[losses.len() - 1]])
}

#[test]
fn a_frozen_embedding_has_no_moments_and_stays() {
    for kind in KINDS {
        let model = freeze(without_dropout(), |parameter| parameter.role == ParamRole::Embedding);
        let before = bits(&model);
        let (model, moments, [first, last]) = train_steps(model, kind, 6);
        assert!(last < first, "{kind:?}: {first} {last}");
        assert!(!moments.iter().any(|name| name.contains("wte")), "{moments:?}");
        assert!(moments.iter().any(|name| name.contains("wpe")), "{moments:?}");
        for ((name, before), (_, after)) in before.iter().zip(bits(&model)) {
            assert_eq!(*before == after, name.contains("wte"), "{kind:?}: {name}");
        }
    }
}

#[test]
fn a_frozen_parameter_does_not_count_in_the_norm() {
    let norm = |model: DecoderModel| {
        compute(&model.train(), &Causal, &[batch()], Seed::new(0), Precision::F32).grad_norm
    };
    let all = norm(without_dropout());
    let [some, others] = [true, false].map(|embeddings| {
        norm(freeze(without_dropout(), |parameter| (parameter.role == ParamRole::Embedding) == embeddings))
    });
    assert!(some < all && others < all);
    assert!((some.hypot(others) - all).abs() < 1e-5 * all, "{some} {others} {all}");
}

/// The model with the projections of its blocks in bf16.
fn quantized(model: DecoderModel) -> DecoderModel {
    #[derive(Default)]
    struct Quantize(ParamPath);
    impl ModuleMapper for Quantize {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.0.weight().is_none_or(|kind| kind.role != ParamRole::Matrix) {
                return param;
            }
            // GPT-2 has inputs as rows.
            let [inputs, outputs] = param.lazy_shape()[..] else { panic!("matrices have two axes") };
            let value: Tensor<2> = param.val().reshape([inputs, outputs]);
            let values: Vec<f32> = value.transpose().into_data().try_into_vec().unwrap();
            weight::quantized(param, QuantMatrix::quantize(Format::Bf16, &values, inputs))
        }
    }
    model.map(&mut Quantize::default())
}

#[test]
fn adapters_are_trained_and_what_they_are_added_to_is_not() {
    for (kind, base) in
        KINDS.into_iter().flat_map(|kind| [(kind, without_dropout()), (kind, quantized(without_dropout()))])
    {
        let before = bits(&base);
        let config = AdapterConfig { rank: 4, alpha: 8.0, ..AdapterConfig::default() };
        let model = adapt(base, config, Seed::new(5), |parameter| parameter.role == ParamRole::Matrix);
        let infos = describe(&model);
        let (model, moments, [first, last]) = train_steps(model, kind, 8);
        assert!(last < first, "{kind:?}: {first} {last}");
        // 4 projections in each of 2 blocks, 2 factors of each, which AdamW updates beside Muon, too.
        let of_each = if kind == OptimizerKind::Lion { 1 } else { 2 };
        assert_eq!(moments.len(), 4 * 2 * 2 * of_each, "{moments:?}");
        assert!(moments.iter().all(|name| name.contains(".weight.lora_")), "{moments:?}");
        let after = bits(&model);
        let is_factor = |name: &str| name.ends_with("lora_a") || name.ends_with("lora_b");
        assert_eq!(after.len(), infos.len());
        let others: Vec<_> = after.into_iter().filter(|(name, _)| !is_factor(name)).collect();
        assert_eq!(others, before, "{kind:?}");
        // Added up, the model says the same.
        let batch = [batch()];
        let loss = |model: &DecoderModel| compute(model, &Causal, &batch, Seed::new(0), Precision::F32).loss;
        let merged = model.clone().valid().materialize().train();
        assert_eq!(names(&merged).len(), before.len());
        assert!((loss(&merged) - loss(&model)).abs() < 1e-5);
    }
}
