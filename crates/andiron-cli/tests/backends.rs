//! The same work on every backend of this build gives the same numbers.
//!
//! `cargo xtask test --backend wgpu` builds this with `ndarray`, `flex` and `wgpu`; a build with one backend has
//! nothing to compare and leaves it out.

#![allow(clippy::unwrap_used)] // A test fails where it panics.
#![cfg(all(feature = "ndarray", feature = "flex"))]

use andiron_core::{Backend, DeviceSpec};
use andiron_data::batch::HostBatch;
use andiron_kernels::random::Seed;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::generate::{Decoding, GenerateOptions, SamplingParams};
use andiron_models::{DecoderBundle, DecoderConfig};
use andiron_training::objective::Causal;
use andiron_training::optimizer::{AdamW, OptimizerConfig, clip_scale};
use andiron_training::step::compute;
use burn::module::Module as _;

const STEPS: u64 = 20;
const LOSSES: f32 = 1e-3;
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
fn train(backend: Backend) -> (Vec<f32>, Vec<u32>) {
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
    let optimizer = OptimizerConfig::constant(3e-3);
    let mut adamw = AdamW::new(&bundle.model, &optimizer, &device);
    let mut model = bundle.model.train();
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let computed = compute(&model, &Causal, &[batch(step)], Seed::new(4).at(step));
        losses.push(computed.loss);
        let scale = clip_scale(computed.grad_norm, optimizer.clip_norm);
        model = adamw.update(model, computed.gradients, optimizer.lr, scale);
    }
    bundle.model = model.valid();
    let options = GenerateOptions {
        sampling: SamplingParams::greedy(),
        max_new_tokens: 12,
        ..GenerateOptions::default()
    };
    let mut decoding = Decoding::new(&bundle, &[3, 24, 11, 0], options).unwrap();
    while decoding.next_token(&bundle).unwrap().is_some() {}
    (losses, decoding.generated().to_vec())
}

#[test]
fn training_and_greedy_text_are_the_same_on_every_backend() {
    let backends = Backend::compiled();
    assert!(backends.len() >= 2, "nothing to compare");
    let (losses, text) = train(backends[0]);
    assert!(losses[0] - losses.last().unwrap() > 0.5, "nothing was learnt: {losses:?}");
    for &backend in &backends[1..] {
        let (others, other_text) = train(backend);
        for (step, (a, b)) in losses.iter().zip(&others).enumerate() {
            assert!((a - b).abs() <= LOSSES, "step {step}: {} says {a}, {backend} says {b}", backends[0]);
        }
        assert_eq!(text, other_text, "greedy text on {} and on {backend}", backends[0]);
    }
}
