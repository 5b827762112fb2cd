//! The same work on every backend of this build gives the same numbers.
//!
//! `cargo xtask test --backend wgpu` builds this with `ndarray`, `flex` and `wgpu`; a build with one backend has
//! nothing to compare and leaves it out.

#![allow(clippy::unwrap_used)] // A test fails where it panics.
#![cfg(all(feature = "ndarray", feature = "flex"))]

use std::ops::ControlFlow;
use std::path::Path;

use andiron_core::{Backend, DeviceSpec, Forward, PaddingMask, Precision};
use andiron_data::batch::HostBatch;
use andiron_kernels::random::Seed;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::encoder_decoder::Seq2SeqGenerator;
use andiron_models::generate::{CausalLm, Decoding, GenerateOptions, SamplingParams, generate_batch};
use andiron_models::{
    AnyBundle, Decoder as _, DecoderBundle, DecoderConfig, Encoder as _, EncoderDecoder as _,
};
use andiron_training::objective::Causal;
use andiron_training::optimizer::{Optimizer, OptimizerConfig, OptimizerKind, clip_scale};
use andiron_training::step::compute;
use burn::module::Module as _;
use burn::tensor::{Tensor, TensorData};

const STEPS: u64 = 20;
const LOSSES: f32 = 1e-3;
/// Hidden states and logits, relative where they are above 1.
const VALUES: f32 = 1e-3;
const ROWS: usize = 4;
const COLUMNS: usize = 32;
const VOCABULARY: usize = 40;

/// A sequence with something to learn: each id is followed by a fixed other one, most of the time.
fn batch(step: u64) -> HostBatch {
    let seed = Seed::new(9).at(step);
    let ids: Vec<u32> = (0..(ROWS * COLUMNS) as u64 + 1)
        .scan(0, |id, at| {
            *id = if seed.uniform(at) < 0.2 {
                seed.below(at, VOCABULARY as u64) as u32
            } else {
                (*id * 7 + 3) % VOCABULARY as u32
            };
            Some(*id)
        })
        .collect();
    HostBatch {
        ids: ids[..ROWS * COLUMNS].to_vec(),
        targets: ids[1..].to_vec(),
        weights: vec![1.0; ROWS * COLUMNS],
        rows: ROWS,
        columns: COLUMNS,
    }
}

/// Losses of the first steps and what the model then says.
fn train(backend: Backend, kind: OptimizerKind) -> (Vec<f32>, Vec<u32>) {
    let device = DeviceSpec { backend, index: None }.open().unwrap();
    let config = Gpt2Config {
        n_positions: COLUMNS,
        n_embd: 64,
        n_layer: 2,
        n_head: 4,
        resid_pdrop: 0.1,
        ..Gpt2Config::nano(VOCABULARY)
    };
    let mut bundle = DecoderBundle::init(DecoderConfig::Gpt2(config), Seed::new(3), &device);
    let settings = OptimizerConfig { kind, ..OptimizerConfig::constant(3e-3) };
    let mut model = bundle.model.train();
    let mut optimizer = Optimizer::new(&model, &settings, &device);
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let computed = compute(&model, &Causal, &[batch(step)], Seed::new(4).at(step), Precision::F32);
        losses.push(computed.loss);
        let scale = clip_scale(computed.grad_norm, settings.clip_norm);
        model = optimizer.update(model, computed.gradients, settings.lr, scale);
    }
    bundle.model = model.valid();
    (losses, greedy(&bundle, &[3, 24, 11, 0]))
}

#[track_caller]
fn check_training(kind: OptimizerKind) {
    let backends = Backend::compiled();
    assert!(backends.len() >= 2, "nothing to compare");
    let (losses, text) = train(backends[0], kind);
    assert!(losses[0] - losses.last().unwrap() > 0.5, "nothing was learnt: {losses:?}");
    for &backend in &backends[1..] {
        let (others, other_text) = train(backend, kind);
        for (step, (a, b)) in losses.iter().zip(&others).enumerate() {
            assert!((a - b).abs() <= LOSSES, "step {step}: {} says {a}, {backend} says {b}", backends[0]);
        }
        assert_eq!(text, other_text, "greedy text on {} and on {backend}", backends[0]);
    }
}

#[test]
fn training_and_greedy_text_are_the_same_on_every_backend() {
    check_training(OptimizerKind::Adamw);
}

#[test]
fn training_by_muon_is_the_same_on_every_backend() {
    check_training(OptimizerKind::Muon);
}

/// Texts of two lengths.
const TEXTS: [&[u32]; 2] = [&[5, 9, 14, 3, 8, 12, 7], &[11, 4, 6]];

/// What a model computes for two texts, padding left out, and the ids that it then writes.
fn read(dir: &Path, backend: Backend) -> (Vec<f32>, Vec<u32>) {
    let device = DeviceSpec { backend, index: None }.open().unwrap();
    let (long, short) = (TEXTS[0].len(), TEXTS[1].len());
    let (values_btd, own, written) = match AnyBundle::open(dir, &device).unwrap() {
        AnyBundle::Decoder(bundle) => {
            let rows = PaddingMask::padded_left([0, long - short]);
            let padded = [TEXTS[0], &vec![0; long - short], TEXTS[1]].concat();
            let padded: Vec<i32> = padded.into_iter().map(|id| id as i32).collect();
            let ids_bt = Tensor::from_data(TensorData::new(padded, [2, long]), &device);
            let hidden_btd = bundle.model.hidden(ids_bt, &mut Forward::evaluation().with_padding_mask(rows));
            let written = [greedy(&bundle, TEXTS[0]), greedy_together(&bundle)].concat();
            (bundle.model.logits(hidden_btd), long - short..long, written)
        }
        AnyBundle::Classifier(bundle) => {
            let ids: Vec<i32> = TEXTS[0].iter().map(|&id| id as i32).collect();
            let ids_bt = Tensor::from_data(TensorData::new(ids, [1, long]), &device);
            let logits_bl = bundle.model.sequence_logits(ids_bt, &[long - 1], &mut Forward::evaluation());
            return (logits_bl.into_data().convert::<f32>().try_into_vec().unwrap(), Vec::new());
        }
        AnyBundle::Encoder(bundle) => {
            let (ids_bt, rows) = bundle.batch(&TEXTS);
            let hidden_btd =
                bundle.model.hidden(ids_bt, None, &mut Forward::evaluation().with_padding_mask(rows));
            (hidden_btd, 0..short, Vec::new())
        }
        AnyBundle::EncoderDecoder(bundle) => {
            let cross_cache = bundle.encode(&TEXTS);
            let (ids_bt, _) = bundle.batch(&[&[2, 7, 5], &[2, 9, 4]]);
            let hidden_btd = bundle.model.hidden(ids_bt, &cross_cache, &mut Forward::evaluation());
            let model = Seq2SeqGenerator::new(&bundle, TEXTS[0]);
            (bundle.model.logits(hidden_btd), 0..3, greedy(&model, &[model.start()]))
        }
    };
    let [_, t, d] = values_btd.dims();
    let floats = |x: Tensor<3>| x.into_data().convert::<f32>().try_into_vec::<f32>().unwrap();
    let whole = values_btd.clone().slice([0..1, 0..t, 0..d]);
    ([floats(whole), floats(values_btd.slice([1..2, own, 0..d]))].concat(), written)
}

/// Both texts over one cache, each from its own length.
fn greedy_together(bundle: &DecoderBundle) -> Vec<u32> {
    let options =
        GenerateOptions { sampling: SamplingParams::greedy(), max_new_tokens: 8, ..Default::default() };
    let texts: Vec<_> = TEXTS.map(|text| (text.to_vec(), options.clone())).to_vec();
    let written = generate_batch(bundle, texts, |_, _| ControlFlow::Continue(()));
    written.into_iter().flat_map(|text| text.unwrap().tokens).map(|token| token.id).collect()
}

fn greedy<M: CausalLm>(model: &M, prompt: &[u32]) -> Vec<u32> {
    let options = GenerateOptions {
        sampling: SamplingParams::greedy(),
        max_new_tokens: 12,
        ..GenerateOptions::default()
    };
    let mut decoding = Decoding::new(model, prompt, options).unwrap();
    while decoding.next_token(model).unwrap().is_some() {}
    decoding.generated().to_vec()
}

#[test]
fn every_architecture_is_the_same_on_every_backend() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../andiron-models/tests/golden");
    let entries = std::fs::read_dir(&fixtures).unwrap().map(|entry| entry.unwrap().path());
    let mut models: Vec<_> = entries.filter(|path| path.join("config.json").exists()).collect();
    models.sort();
    assert!(models.len() > 40, "{models:?}");
    let backends = Backend::compiled();
    for model in &models {
        let name = model.file_name().unwrap().to_string_lossy();
        let (values, text) = read(model, backends[0]);
        for &backend in &backends[1..] {
            let (others, other_text) = read(model, backend);
            assert_eq!(values.len(), others.len());
            for (a, b) in values.iter().zip(&others) {
                let near = (a - b).abs() <= VALUES * a.abs().max(1.0);
                assert!(near, "{name}: {} says {a}, {backend} says {b}", backends[0]);
            }
            assert_eq!(text, other_text, "{name}: greedy text on {} and on {backend}", backends[0]);
        }
    }
}
