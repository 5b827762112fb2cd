//! Models whose weights are kept in few bits say nearly what they say in f32.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use andiron_models::generate::{Logits, NextToken as _};
use andiron_models::{DecoderBundle, RunPrecision};
use common::{device, fixture};

const PROMPT: [u32; 12] = [5, 9, 14, 3, 8, 12, 7, 11, 4, 6, 2, 10];

/// Logits of every token of the prompt, read as a whole and, behind them, the same read one by one.
fn logits(name: &str, precision: RunPrecision) -> [Vec<f32>; 2] {
    let bundle = DecoderBundle::open_at(&fixture(name), precision, &device()).unwrap();
    assert_eq!(bundle.precision(), precision);
    let whole = bundle.extend(&mut bundle.begin(), &PROMPT, Logits::All);
    let mut cache = bundle.begin();
    let single = PROMPT.iter().flat_map(|&id| bundle.extend(&mut cache, &[id], Logits::Last)).collect();
    [whole, single]
}

/// The root of the mean square of the differences, as a part of that of the numbers.
fn difference(found: &[f32], wanted: &[f32]) -> f32 {
    let square = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| x * x).sum::<f32>();
    let differences = square(&mut found.iter().zip(wanted).map(|(x, y)| x - y));
    (differences / square(&mut wanted.iter().copied())).sqrt()
}

#[test]
fn fewer_bits_change_little() {
    // A half of a step of each format over numbers that are about normal, through two layers.
    let allowed = [
        (RunPrecision::Mixed, 0.02),
        (RunPrecision::Bf16, 0.02),
        (RunPrecision::Int8, 0.03),
        (RunPrecision::Int4, 0.35),
    ];
    for name in ["gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma3", "neox"] {
        let [exact, _] = logits(name, RunPrecision::F32);
        for (precision, allowed) in allowed {
            for found in logits(name, precision) {
                let difference = difference(&found, &exact);
                assert!(difference <= allowed, "{name} {precision}: {difference}");
                if precision.is_stored() {
                    assert!(difference > 0.0, "{name} {precision}: nothing was stored in fewer bits");
                }
            }
        }
    }
}

#[test]
fn saved_weights_are_the_numbers_they_stand_for() {
    for (name, precision) in [("gpt2", RunPrecision::Bf16), ("llama", RunPrecision::Int8)] {
        let stored = DecoderBundle::open_at(&fixture(name), precision, &device()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        stored.save(dir.path()).unwrap();
        // Its products are those of the stored one, which with so few rows rounds in attention only.
        let plain = DecoderBundle::open_at(dir.path(), RunPrecision::Mixed, &device()).unwrap();
        let read = |bundle: &DecoderBundle| bundle.extend(&mut bundle.begin(), &PROMPT[..4], Logits::All);
        let difference = difference(&read(&plain), &read(&stored));
        assert!(difference <= 1e-5, "{name} {precision}: {difference}");
    }
}
