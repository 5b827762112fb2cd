//! What must hold for every encoder-decoder whatever its weights: tried on all of the fixtures.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use std::path::Path;
use std::sync::LazyLock;

use andiron_core::cache::CrossAttentionCache;
use andiron_core::{Forward, PaddingMask};
use andiron_kernels::random::Seed;
use andiron_models::encoder_decoder::{Seq2SeqBatch, Seq2SeqGenerator};
use andiron_models::generate::{CausalLm, Decoding, GenerateOptions, Logits, SamplingParams, generate_batch};
use andiron_models::{EncoderDecoder, Seq2SeqBundle};
use common::{assert_close, device, floats, ids};
use proptest::prelude::*;

const TOLERANCE: f32 = 1e-4;
/// Longest source and target here; every fixture reads as much.
const LONGEST: usize = 12;

/// All fixtures that are encoder-decoders, by name.
fn bundles() -> &'static [(String, Seq2SeqBundle)] {
    static BUNDLES: LazyLock<Vec<(String, Seq2SeqBundle)>> = LazyLock::new(|| {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let folders = std::fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path());
        let is_one = |dir: &std::path::PathBuf| {
            let config = std::fs::read(dir.join("config.json")).unwrap_or_default();
            let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
            config["is_encoder_decoder"] == true
        };
        let open = |dir: std::path::PathBuf| {
            let name = dir.file_name().unwrap().to_string_lossy().into_owned();
            (name, Seq2SeqBundle::open(&dir, &device()).unwrap())
        };
        folders.filter(is_one).map(open).collect()
    });
    assert!(BUNDLES.len() >= 6);
    &BUNDLES
}

/// Any numbers as ids below `vocab_size`.
fn below(vocab_size: usize, numbers: &[u32]) -> Vec<u32> {
    numbers.iter().map(|number| number % vocab_size as u32).collect()
}

fn source(bundle: &Seq2SeqBundle, numbers: &[u32]) -> Vec<u32> {
    below(bundle.config.vocab_size(), numbers)
}

fn target(bundle: &Seq2SeqBundle, numbers: &[u32]) -> Vec<u32> {
    below(bundle.config.target_vocab_size(), numbers)
}

/// Logits of every position of targets, computed at once.
fn whole(bundle: &Seq2SeqBundle, cross_cache: &CrossAttentionCache, targets: &[Vec<u32>]) -> Vec<f32> {
    let hidden_btd = bundle.model.hidden(ids(targets, &device()), cross_cache, &mut Forward::evaluation());
    floats(bundle.model.logits(hidden_btd))
}

fn numbers(len: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..1000u32, len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn cached_equals_uncached(
        read in numbers(1..LONGEST),
        said in numbers(1..LONGEST),
        cuts in prop::collection::vec(1..5usize, LONGEST),
    ) {
        for (name, bundle) in bundles() {
            let said = target(bundle, &said);
            let generator = Seq2SeqGenerator::new(bundle, &source(bundle, &read)).without_rules();
            let mut state = generator.begin();
            let mut piecewise = Vec::new();
            let mut rest = said.as_slice();
            for cut in &cuts {
                if rest.is_empty() {
                    break;
                }
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                piecewise.extend(generator.forward(&mut state, piece, Logits::All));
                rest = left;
            }
            let cross_cache = bundle.encode(&[source(bundle, &read)]);
            assert_close(name, &piecewise, &whole(bundle, &cross_cache, &[said]), TOLERANCE);
        }
    }

    #[test]
    fn a_row_of_a_batch_equals_the_row_alone(
        a in numbers(1..LONGEST),
        b in numbers(1..LONGEST),
        said in (numbers(5), numbers(5)),
        filling in 0..1000u32,
        more in 0..3usize,
    ) {
        for (name, bundle) in bundles() {
            let [a, b] = [&a, &b].map(|numbers| source(bundle, numbers));
            let [first, second] = [&said.0, &said.1].map(|numbers| target(bundle, numbers));
            let filling = source(bundle, &[filling])[0];
            let columns = a.len().max(b.len()) + more;
            let padded = [&a, &b].map(|row| {
                row.iter().copied().chain(std::iter::repeat(filling)).take(columns).collect::<Vec<_>>()
            });
            let mut cx = Forward::evaluation().with_padding_mask(PaddingMask::padded_right([a.len(), b.len()]));
            let cross_cache = bundle.model.encode(ids(&padded, &device()), &mut cx);
            let together = whole(bundle, &cross_cache, &[first.clone(), second.clone()]);
            let alone = [(a, first), (b, second)].map(|(row, said)| {
                let cross_cache = bundle.model.encode(ids(&[row], &device()), &mut Forward::evaluation());
                whole(bundle, &cross_cache, &[said])
            });
            assert_close(name, &together, &alone.concat(), TOLERANCE);
        }
    }

    #[test]
    fn logits_do_not_see_the_future(
        read in numbers(1..LONGEST),
        said in numbers(10),
        at in 1..10usize,
        other in 0..1000u32,
    ) {
        for (name, bundle) in bundles() {
            let cross_cache = bundle.encode(&[source(bundle, &read)]);
            let mut said = target(bundle, &said);
            let before = whole(bundle, &cross_cache, std::slice::from_ref(&said));
            said[at] = target(bundle, &[other])[0];
            let after = whole(bundle, &cross_cache, &[said]);
            let seen = at * bundle.config.target_vocab_size();
            prop_assert_eq!(&before[..seen], &after[..seen], "{}", name);
        }
    }

    #[test]
    fn rows_go_on_in_another_order(
        read in (numbers(1..LONGEST), numbers(1..LONGEST)),
        begun in (numbers(4), numbers(4)),
        order in prop::collection::vec(0..2usize, 1..5),
        next in 0..1000u32,
    ) {
        for (name, bundle) in bundles() {
            let sources = [source(bundle, &read.0), source(bundle, &read.1)];
            let begun = [target(bundle, &begun.0), target(bundle, &begun.1)];
            let next = target(bundle, &[next])[0];
            let mut cross_cache = bundle.encode(&sources);
            let mut cache = bundle.model.new_cache();
            bundle.model.hidden(ids(&begun, &device()), &cross_cache, &mut Forward::cached(&mut cache));
            cross_cache.select(&order);
            cache.select(&order);
            let column = ids(&vec![vec![next]; order.len()], &device());
            let hidden_btd = bundle.model.hidden(column, &cross_cache, &mut Forward::cached(&mut cache));
            let ours = floats(bundle.model.logits(hidden_btd));
            let vocab_size = bundle.config.target_vocab_size();
            for (row, logits) in order.iter().zip(ours.chunks_exact(vocab_size)) {
                let said = [begun[*row].as_slice(), &[next]].concat();
                let alone = whole(bundle, &bundle.encode(&[&sources[*row]]), &[said]);
                assert_close(name, logits, &alone[4 * vocab_size..], TOLERANCE);
            }
        }
    }
}

#[test]
fn the_last_row_of_logits_is_the_last_of_all() {
    for (name, bundle) in bundles() {
        let generator = Seq2SeqGenerator::new(bundle, &source(bundle, &[5, 6, 7]));
        let said = target(bundle, &[3, 1, 4]);
        let all = generator.forward(&mut generator.begin(), &said, Logits::All);
        let last = generator.forward(&mut generator.begin(), &said, Logits::Last);
        let of_all = &all[2 * generator.vocab_size()..];
        assert_eq!(last.len(), generator.vocab_size());
        for (id, (a, b)) in last.iter().zip(of_all).enumerate() {
            assert!(a == b || (a - b).abs() < 1e-5, "{name}[{id}]: {a} and {b}");
        }
    }
}

#[test]
fn another_source_gives_other_logits() {
    for (name, bundle) in bundles() {
        let said = [target(bundle, &[3, 1, 4])];
        let logits = |last: u32| {
            let cross_cache = bundle.encode(&[source(bundle, &[5, 6, last])]);
            whole(bundle, &cross_cache, &said)
        };
        assert_ne!(logits(7), logits(8), "{name}");
    }
}

#[test]
fn dropout_is_drawn_from_the_seed() {
    for (name, bundle) in bundles() {
        let said = [target(bundle, &[3, 1, 4])];
        let logits = |seed: Option<u64>| {
            let mut cx = seed.map_or_else(Forward::evaluation, |seed| Forward::training(Seed::new(seed)));
            let cross_cache = bundle.model.encode(ids(&[source(bundle, &[5, 6, 7])], &device()), &mut cx);
            let hidden_btd = bundle.model.hidden(ids(&said, &device()), &cross_cache, &mut cx);
            floats(bundle.model.logits(hidden_btd))
        };
        assert_eq!(logits(Some(1)), logits(Some(1)), "{name}");
        assert_ne!(logits(Some(1)), logits(Some(2)), "{name}");
        assert_ne!(logits(Some(1)), logits(None), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn targets_of_one_source_get_together_what_each_gets_alone(
        numbers in prop::collection::vec(0..1000u32, 1..LONGEST),
        prefixes in prop::collection::vec((prop::collection::vec(0..1000u32, 0..5), any::<u64>(), 1..8usize), 1..5),
    ) {
        for (name, bundle) in bundles() {
            let model = Seq2SeqGenerator::new(bundle, &source(bundle, &numbers));
            let request = |(prefix, seed, max_new_tokens): &(Vec<u32>, u64, usize)| {
                let prompt = [vec![model.start()], target(bundle, prefix)].concat();
                let sampling = SamplingParams { seed: *seed, ..SamplingParams::default() };
                (prompt, GenerateOptions { sampling, max_new_tokens: *max_new_tokens, ..GenerateOptions::default() })
            };
            let requests: Vec<_> = prefixes.iter().map(request).collect();
            let together = generate_batch(&model, requests.clone(), |_, _| std::ops::ControlFlow::Continue(()));
            for ((prompt, options), together) in requests.into_iter().zip(together) {
                let mut decoding = Decoding::new(&model, &prompt, options).unwrap();
                while decoding.next_token(&model).unwrap().is_some() {}
                let ids: Vec<u32> = together.unwrap().tokens.iter().map(|token| token.id).collect();
                prop_assert_eq!(ids.as_slice(), decoding.generated(), "{}", name);
            }
        }
    }

    #[test]
    fn sources_get_together_the_targets_that_each_gets_alone(
        sources in prop::collection::vec(
            (prop::collection::vec(0..1000u32, 1..LONGEST), any::<u64>(), 1..8usize),
            1..5,
        ),
    ) {
        for (name, bundle) in bundles() {
            let read: Vec<Vec<u32>> = sources.iter().map(|(numbers, ..)| source(bundle, numbers)).collect();
            let request = |(_, seed, max_new_tokens): &(Vec<u32>, u64, usize)| {
                let sampling = SamplingParams { seed: *seed, ..SamplingParams::default() };
                let stop_ids = bundle.generation.eos_token_id.as_slice().to_vec();
                let max_new_tokens = *max_new_tokens;
                let options = GenerateOptions { sampling, max_new_tokens, stop_ids, ..GenerateOptions::default() };
                (vec![bundle.start_id()], options)
            };
            let requests: Vec<_> = sources.iter().map(request).collect();
            let batch = Seq2SeqBatch::new(bundle, &read);
            let together = generate_batch(&batch, requests.clone(), |_, _| std::ops::ControlFlow::Continue(()));
            for ((read, (prompt, options)), together) in read.iter().zip(requests).zip(together) {
                let model = Seq2SeqGenerator::new(bundle, read);
                let mut decoding = Decoding::new(&model, &prompt, options).unwrap();
                while decoding.next_token(&model).unwrap().is_some() {}
                let ids: Vec<u32> = together.unwrap().tokens.iter().map(|token| token.id).collect();
                prop_assert_eq!(ids.as_slice(), decoding.generated(), "{}", name);
            }
        }
    }
}
