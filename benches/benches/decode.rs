//! Decoding of one sequence, token by token, with a KV cache.
#![allow(missing_docs)] // What criterion's macros make.

use andiron_benches::{nano, random};
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::generate::{CausalLm as _, Logits};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const PROMPT: usize = 16;
const TOKENS: u32 = 32;

fn decode_model(c: &mut Criterion, name: &str, config: Gpt2Config) {
    let bundle = random(config);
    let prompt: Vec<u32> = (0..PROMPT as u32).collect();
    let mut read = bundle.begin();
    bundle.forward(&mut read, &prompt, Logits::Last);
    let mut group = c.benchmark_group("decode");
    group.sample_size(10).throughput(Throughput::Elements(TOKENS.into()));
    group.bench_function(name, |b| {
        b.iter_batched_ref(
            || read.clone(),
            |cache| {
                for id in 0..TOKENS {
                    bundle.decode(cache, &[id], Logits::Last);
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn decode(c: &mut Criterion) {
    decode_model(c, "nano", nano());
    decode_model(c, "gpt2_small", Gpt2Config::small());
}

criterion_group!(benches, decode);
criterion_main!(benches);
