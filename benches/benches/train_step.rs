//! A whole optimizer step: forward, backward, clip, update.
#![allow(missing_docs)] // What criterion's macros make.

use andiron_benches::{baby, device, nano, random};
use andiron_core::Precision;
use andiron_core::precision::with_precision;
use andiron_data::batch::{HostBatch, Sequences};
use andiron_kernels::random::Seed;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_training::objective::Causal;
use andiron_training::optimizer::{Optimizer, OptimizerConfig, OptimizerKind, clip_scale};
use andiron_training::step::compute;
use burn::module::Module as _;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn step(
    c: &mut Criterion,
    name: &str,
    (config, rows): (Gpt2Config, usize),
    precision: Precision,
    kind: OptimizerKind,
) {
    let columns = config.n_positions;
    let vocabulary = config.vocab_size as u64;
    let ids = |label| {
        let seed = Seed::new(1).derive(label);
        (0..(rows * columns) as u64).map(|at| seed.below(at, vocabulary) as u32).collect()
    };
    let (ids, targets) = (ids("ids"), ids("targets"));
    let batch = HostBatch::tokens(Sequences::full(ids, [rows, columns]), targets, vec![1.0; rows * columns]);
    let settings = OptimizerConfig { beta2: Some(0.95), ..OptimizerConfig::constant(1e-3) }.with_kind(kind);
    let bundle = random(config);
    let model = bundle.model.train();
    let mut optimizer = Optimizer::new(&model, &settings, &device()).expect("there are no groups");
    let mut model = Some(model);
    let mut group = c.benchmark_group("train_step");
    group.sample_size(10).throughput(Throughput::Elements((rows * columns) as u64));
    group.bench_function(format!("{name}/{precision}"), |b| {
        b.iter(|| {
            let before = model.take().expect("each step gives a model back");
            let computed = compute(&before, &Causal, std::slice::from_ref(&batch), Seed::new(0), precision);
            let scale = clip_scale(computed.grad_norm, settings.clip_norm);
            model = Some(with_precision(precision, || {
                optimizer.update(before, computed.gradients, settings.lr, scale)
            }));
        });
    });
    group.finish();
}

fn train_step(c: &mut Criterion) {
    for precision in [Precision::F32, Precision::Mixed] {
        step(c, "nano_12x64", (nano(), 12), precision, OptimizerKind::Adamw);
        step(c, "baby_8x256", (baby(), 8), precision, OptimizerKind::Adamw);
        step(c, "baby_8x256_muon", (baby(), 8), precision, OptimizerKind::Muon);
    }
}

criterion_group!(benches, train_step);
criterion_main!(benches);
