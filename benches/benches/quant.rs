//! Matmuls with weights in each format, without the rest of a model, in the shapes of decoding and prefill.
#![allow(missing_docs)] // What criterion's macros make.

use std::thread::available_parallelism;

use andiron_kernels::quant::{self, Format, QuantRef};
use andiron_kernels::random::Seed;
use andiron_kernels::{Cpu, Precision};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

// The first matrix of GPT-2 small's feed-forward layer, in the caches of most machines.
const OUTPUTS: usize = 3072;
const INPUTS: usize = 768;

fn normal(stream: u64, count: usize) -> Vec<f32> {
    let seed = Seed::new(1).at(stream);
    (0..count as u64).map(|index| seed.normal(index)).collect()
}

fn products(c: &mut Criterion) {
    let cpu = Cpu::detect(available_parallelism().map_or(1, usize::from));
    let weights = normal(0, OUTPUTS * INPUTS);
    for precision in [Precision::F32, Precision::Mixed] {
        for m in [1, 4, 16, 128] {
            let x = normal(1, m * INPUTS);
            let mut y = vec![0.0; m * OUTPUTS];
            let mut group = c.benchmark_group(format!("quant_{precision}_{m}"));
            group.throughput(Throughput::Elements(weights.len() as u64));
            for format in Format::ALL {
                let data = quant::quantize(cpu, format, &weights, INPUTS);
                let matrix = QuantRef::new(format, OUTPUTS, INPUTS, &data);
                group.bench_function(BenchmarkId::from_parameter(format), |b| {
                    b.iter(|| quant::matmul(cpu.at(precision), &x, matrix, None, &mut y));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, products);
criterion_main!(benches);
