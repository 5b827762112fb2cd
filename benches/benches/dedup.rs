//! MinHash: signatures of texts, and the clusters that follow from them.
#![allow(missing_docs)] // What criterion's macros make.

use std::path::Path;

use andiron_benches::SHAKESPEARE;
use andiron_corpus::dedup::{
    DecideOptions, MinHashConfig, ParagraphConfig, RepeatedParagraphs, SignatureWriter, Signer,
    SignerScratch, decide,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Documents whose signatures are compared.
const DOCUMENTS: usize = 20_000;

fn dedup(c: &mut Criterion) {
    let mut group = c.benchmark_group("dedup");
    group.sample_size(10).throughput(Throughput::Bytes(SHAKESPEARE.len() as u64));
    let config = MinHashConfig::default();
    let signer = Signer::new(&config).expect("the defaults are in range");
    let mut scratch = SignerScratch::default();
    group.bench_function("sign_14x8", |b| b.iter(|| signer.sign(SHAKESPEARE, &mut scratch)));
    let paragraphs = ParagraphConfig { expected_paragraphs: 100_000, ..ParagraphConfig::default() };
    group.bench_function("repeated_paragraphs", |b| {
        b.iter_batched(
            || RepeatedParagraphs::new(&paragraphs).expect("the settings are in range"),
            |mut seen| seen.remove(&mut SHAKESPEARE.to_owned()),
            BatchSize::LargeInput,
        );
    });
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let signatures = directory.path().join("signatures");
    write_signatures(&signatures, &config, &signer, &mut scratch);
    group.throughput(Throughput::Elements(DOCUMENTS as u64));
    for (name, memory_bytes) in [("decide_in_memory", 256 << 20), ("decide_spilling", 1 << 20)] {
        let output = directory.path().join(name);
        group.bench_function(name, |b| {
            b.iter(|| decide(std::slice::from_ref(&signatures), &output, &DecideOptions { memory_bytes }));
        });
    }
    group.finish();
}

/// Signatures of overlapping pieces of the text.
fn write_signatures(path: &Path, config: &MinHashConfig, signer: &Signer, scratch: &mut SignerScratch) {
    let mut writer = SignatureWriter::begin(path, config).expect("the directory can be written");
    let words: Vec<&str> = SHAKESPEARE.split_whitespace().collect();
    for document in 0..DOCUMENTS {
        let from = document * 37 % (words.len() - 60);
        let text = words[from..from + 60].join(" ");
        let signature = signer.sign(&text, scratch);
        writer.push(&document.to_string(), signature.as_ref()).expect("the file can be written");
    }
    writer.finish().expect("the file can be written");
}

criterion_group!(benches, dedup);
criterion_main!(benches);
