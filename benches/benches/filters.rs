//! The filters of documents, on the example corpus in pieces of 4,000 characters.
#![allow(missing_docs)] // What criterion's macros make.

use andiron_benches::SHAKESPEARE;
use andiron_corpus::clean::{
    C4Quality, FilterSettings, FineWebQuality, GopherQuality, GopherRepetition, Language,
};
use andiron_data::Document;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

fn filters(c: &mut Criterion) {
    let characters: Vec<char> = SHAKESPEARE.chars().collect();
    let documents: Vec<Document> =
        characters.chunks(4000).map(|chunk| Document::new("", chunk.iter().collect::<String>())).collect();
    let mut group = c.benchmark_group("filters");
    group.sample_size(10).throughput(Throughput::Bytes(SHAKESPEARE.len() as u64));
    for settings in [
        FilterSettings::Language(Language::default()),
        FilterSettings::GopherQuality(GopherQuality::default()),
        FilterSettings::GopherRepetition(GopherRepetition::default()),
        FilterSettings::C4Quality(C4Quality::default()),
        FilterSettings::FineWebQuality(FineWebQuality::default()),
    ] {
        let filter = settings.build().expect("the defaults are in range");
        group.bench_function(settings.name(), |b| {
            let apply = |mut documents: Vec<Document>| {
                for document in &mut documents {
                    std::hint::black_box(filter.apply(document));
                }
                documents
            };
            b.iter_batched(|| documents.clone(), apply, BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, filters);
criterion_main!(benches);
