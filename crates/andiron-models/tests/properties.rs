//! What must hold for every decoder whatever its weights.

mod common;

use andiron_core::Forward;
use andiron_kernels::random::Seed;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::generate::{Logits, NextToken};
use andiron_models::{Decoder, DecoderBundle, DecoderConfig};
use common::{assert_close, device, floats, ids};
use proptest::prelude::*;

const VOCABULARY: usize = 23;
const CONTEXT: usize = 70;
const TOLERANCE: f32 = 1e-4;

fn bundle() -> DecoderBundle {
    let config = Gpt2Config {
        n_positions: CONTEXT,
        n_embd: 24,
        n_head: 3,
        n_layer: 2,
        initializer_range: 0.3,
        ..Gpt2Config::nano(VOCABULARY)
    };
    DecoderBundle::init(DecoderConfig::Gpt2(config), Seed::new(5), &device())
}

/// Logits of every position, computed at once.
fn whole(bundle: &DecoderBundle, rows: &[Vec<u32>]) -> Vec<f32> {
    let hidden_btd = bundle.model.hidden(ids(rows, &device()), &mut Forward::evaluation());
    floats(bundle.model.logits(hidden_btd))
}

fn sequence(len: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..VOCABULARY as u32, len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn cached_equals_uncached(ids in sequence(2..CONTEXT), cuts in prop::collection::vec(1..9usize, 1..CONTEXT)) {
        let bundle = bundle();
        let mut cache = bundle.begin();
        let mut piecewise = Vec::new();
        let mut rest = ids.as_slice();
        for cut in cuts.into_iter().chain([CONTEXT]) {
            if rest.is_empty() {
                break;
            }
            let (piece, left) = rest.split_at(cut.min(rest.len()));
            piecewise.extend(bundle.extend(&mut cache, piece, Logits::All));
            rest = left;
        }
        assert_close("logits", &piecewise, &whole(&bundle, std::slice::from_ref(&ids)), TOLERANCE);
    }

    #[test]
    fn a_row_of_a_batch_equals_the_row_alone(a in sequence(12), b in sequence(12)) {
        let bundle = bundle();
        let both = whole(&bundle, &[a.clone(), b.clone()]);
        let (first, second) = both.split_at(12 * VOCABULARY);
        assert_close("first row", first, &whole(&bundle, &[a]), TOLERANCE);
        assert_close("second row", second, &whole(&bundle, &[b]), TOLERANCE);
    }

    #[test]
    fn logits_do_not_see_the_future(mut ids in sequence(10), at in 1..10usize, other in 0..VOCABULARY as u32) {
        let bundle = bundle();
        let before = whole(&bundle, std::slice::from_ref(&ids));
        ids[at] = other;
        let after = whole(&bundle, &[ids]);
        prop_assert_eq!(&before[..at * VOCABULARY], &after[..at * VOCABULARY]);
    }
}

#[test]
fn the_last_row_of_logits_is_the_last_of_all() {
    let bundle = bundle();
    let all = bundle.extend(&mut bundle.begin(), &[3, 1, 4], Logits::All);
    let last = bundle.extend(&mut bundle.begin(), &[3, 1, 4], Logits::Last);
    assert_close("last", &last, &all[2 * VOCABULARY..], 1e-6);
}

#[test]
fn weights_are_a_function_of_the_seed() {
    let config = DecoderConfig::Gpt2(Gpt2Config::nano(VOCABULARY));
    let logits =
        |seed| whole(&DecoderBundle::init(config.clone(), Seed::new(seed), &device()), &[vec![1, 2]]);
    assert_eq!(logits(1), logits(1));
    assert_ne!(logits(1), logits(2));
}
