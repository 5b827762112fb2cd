//! `prepare`: JSON Lines with exact duplicates to shards, from the example corpus.
#![allow(missing_docs)] // What criterion's macros make.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use andiron_benches::SHAKESPEARE;
use andiron_corpus::prepare::{Existing, PrepareConfig, PrepareOptions, TokenizerChoice, prepare};
use andiron_data::tokenizer::{BpeOptions, SpecialTokens, train_bpe};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Documents of 20 lines, each eight times, one JSON object a line: 9 MB.
fn corpus(dir: &Path) -> PathBuf {
    let lines: Vec<&str> = SHAKESPEARE.split_inclusive('\n').collect();
    let mut rows = String::new();
    for (number, text) in (0..8).flat_map(|_| lines.chunks(20).enumerate()) {
        let text = serde_json::to_string(&text.concat()).expect("text can be written as JSON");
        rows += &format!("{{\"id\":{number},\"text\":{text}}}\n");
    }
    let path = dir.join("rows.jsonl");
    std::fs::write(&path, rows).expect("a temporary file can be written");
    path
}

fn prepared(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let input = corpus(dir.path());
    let tokenizer = dir.path().join("tokenizer");
    let trained = train_bpe([SHAKESPEARE], &BpeOptions::new(4096)).expect("the text is fit for a vocabulary");
    trained.save(&tokenizer).expect("a temporary directory can be written");
    let bytes = std::fs::metadata(&input).map_or(0, |found| found.len());
    let mut group = c.benchmark_group("prepare");
    group.sample_size(10).throughput(Throughput::Bytes(bytes));
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    for (name, choice) in [
        ("characters", TokenizerChoice::Characters(SpecialTokens::default())),
        ("bpe_4096", TokenizerChoice::Load { path: tokenizer.clone() }),
    ] {
        let mut config = PrepareConfig::new(vec![input.clone()], dir.path().join("out"), choice);
        let options = PrepareOptions { existing: Existing::Replace, threads };
        group.bench_function(name, |b| {
            b.iter(|| {
                // Other documents are held out, so that all of it is done again.
                config.seed += 1;
                std::fs::remove_dir_all(dir.path().join("out")).unwrap_or_default();
                prepare(&config, &options, &mut |_| ()).expect("the corpus can be prepared")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, prepared);
criterion_main!(benches);
