//! Encoding with and training of byte-level BPE, on the example corpus.
#![allow(missing_docs)] // What criterion's macros make.

use andiron_benches::SHAKESPEARE;
use andiron_data::tokenizer::{BpeOptions, Special, train_bpe};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn tokenizer(c: &mut Criterion) {
    let mut group = c.benchmark_group("tokenizer");
    group.sample_size(10).throughput(Throughput::Bytes(SHAKESPEARE.len() as u64));
    let options = BpeOptions::new(4096);
    let tokenizer = train_bpe([SHAKESPEARE], &options).expect("the text is fit for a vocabulary");
    let ids = tokenizer.encode(SHAKESPEARE).expect("every byte is a token");
    group.bench_function("encode_bpe_4096", |b| b.iter(|| tokenizer.encode(SHAKESPEARE)));
    let speeches: Vec<&str> = SHAKESPEARE.split_inclusive("\n\n").collect();
    group.bench_function("encode_batch_bpe_4096", |b| b.iter(|| tokenizer.encode_batch(&speeches)));
    group.bench_function("decode_bpe_4096", |b| b.iter(|| tokenizer.decode(&ids, Special::Keep)));
    group.bench_function("train_bpe_4096", |b| b.iter(|| train_bpe([SHAKESPEARE], &options)));
    group.finish();
}

criterion_group!(benches, tokenizer);
criterion_main!(benches);
