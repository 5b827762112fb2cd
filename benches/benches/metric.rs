//! BLEU, chrF and ROUGE of pairs of texts, on one thread.
#![allow(missing_docs)] // What criterion's macros make.

use andiron_benches::SHAKESPEARE;
use andiron_eval::metric::bleu::{Bleu, BleuStats};
use andiron_eval::metric::chrf::{Chrf, ChrfStats};
use andiron_eval::metric::rouge::Rouge;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Texts of 30 words, each with the words before it half gone.
fn pairs() -> Vec<(String, [String; 1])> {
    let words: Vec<&str> = SHAKESPEARE.split_whitespace().take(30_000).collect();
    let text = |start: usize| words[start..start + 30].join(" ");
    (0..words.len() - 45).step_by(30).map(|start| (text(start), [text(start + 15)])).collect()
}

fn metric(c: &mut Criterion) {
    let pairs = pairs();
    let mut group = c.benchmark_group("metric");
    group.sample_size(10).throughput(Throughput::Elements(pairs.len() as u64));
    let (bleu, chrf, rouge) = (Bleu::default(), Chrf::plus_plus(), Rouge { stemmer: true });
    group.bench_function("bleu", |b| {
        b.iter(|| pairs.iter().map(|(text, references)| bleu.stats(text, references)).sum::<BleuStats>())
    });
    group.bench_function("chrf++", |b| {
        b.iter(|| pairs.iter().map(|(text, references)| chrf.stats(text, references)).sum::<ChrfStats>())
    });
    group.bench_function("rouge_stemmed", |b| {
        b.iter(|| {
            pairs
                .iter()
                .map(|(text, references)| rouge.score(text, references).rouge_lsum.f_measure)
                .sum::<f64>()
        })
    });
    group.finish();
}

criterion_group!(benches, metric);
criterion_main!(benches);
