//! Models whose weights are kept in few bits say nearly what they say in f32.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use andiron_kernels::random::Seed;
use andiron_models::encoder::{EncoderHead, EncoderInput};
use andiron_models::encoder_decoder::Seq2SeqGenerator;
use andiron_models::generate::{BatchedLm as _, CausalLm, Logits};
use andiron_models::{
    AnyBundle, ClassifierBundle, DecoderBundle, EncoderBundle, EncoderConfig, RunPrecision, Seq2SeqBundle,
    Seq2SeqConfig,
};
use common::{device, fixture, widen};

const PROMPT: [u32; 12] = [5, 9, 14, 3, 8, 12, 7, 11, 4, 6, 2, 10];
/// The second is padded where they are read together.
const TEXTS: [&[u32]; 2] = [&PROMPT, &[7, 11, 4, 6, 2]];

/// Half of a step of each format over numbers that are about normal, through two layers. With blocks what is multiplied
/// is rounded to 8 bits, too.
const ALLOWED: [(RunPrecision, f32); 4] = [
    (RunPrecision::Mixed, 0.02),
    (RunPrecision::Bf16, 0.02),
    (RunPrecision::Int8, 0.045),
    (RunPrecision::Int4, 0.35),
];

/// Logits of every token of the prompt, prefilled as a whole and, behind them, the same decoded one by one.
fn logits<M: CausalLm>(model: &M) -> Vec<Vec<f32>> {
    let whole = model.forward(&mut model.begin(), &PROMPT, Logits::All);
    let mut cache = model.begin();
    let single = PROMPT.iter().flat_map(|&id| model.decode(&mut cache, &[id], Logits::Last)).collect();
    vec![whole, single]
}

/// The root of the mean square of the differences, as a part of that of the numbers.
fn difference(found: &[f32], wanted: &[f32]) -> f32 {
    let square = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| x * x).sum::<f32>();
    let differences = square(&mut found.iter().zip(wanted).map(|(x, y)| x - y));
    (differences / square(&mut wanted.iter().copied())).sqrt()
}

/// Fails unless each list that `run` gives is near what it is in f32, and another where weights are stored.
#[track_caller]
fn check(name: &str, run: impl Fn(RunPrecision) -> Vec<Vec<f32>>) {
    let exact = run(RunPrecision::F32);
    for (precision, allowed) in ALLOWED {
        let found = run(precision);
        assert_eq!(found.len(), exact.len(), "{name} {precision}");
        for (found, exact) in found.iter().zip(&exact) {
            let difference = difference(found, exact);
            // T5 does not divide scores by the root of a head's width: rounding moves its attention further.
            let allowed = if name.starts_with("t5") { 1.5 * allowed } else { allowed };
            assert!(difference <= allowed, "{name} {precision}: {difference}");
            if precision.is_stored() {
                assert!(difference > 0.0, "{name} {precision}: nothing was stored in fewer bits");
            }
        }
    }
}

/// What an encoder with any head says about two texts.
fn answers(bundle: &EncoderBundle) -> Vec<Vec<f32>> {
    let mut answers = bundle.embed(&TEXTS);
    match bundle.config.head() {
        EncoderHead::Classify { .. } => answers.extend(bundle.classify(&TEXTS.map(EncoderInput::from))),
        EncoderHead::MaskedLm => {
            let mut guesses = bundle
                .fill(&[EncoderInput::from(TEXTS[0])], &[&[3]], bundle.config.vocab_size())
                .remove(0)
                .remove(0);
            guesses.sort_by_key(|(id, _)| *id);
            answers.push(guesses.into_iter().map(|(_, probability)| probability).collect());
        }
        _ => {}
    }
    answers
}

/// What an encoder-decoder says about two targets of one source.
fn continuations(bundle: &Seq2SeqBundle) -> Vec<Vec<f32>> {
    let model = Seq2SeqGenerator::new(bundle, &PROMPT[3..]).without_rules();
    let mut found = logits(&model);
    let (_, batch) = model.prefill(&TEXTS);
    found.push(batch);
    found
}

#[test]
fn decoders_change_little_in_fewer_bits() {
    for name in ["gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma3", "neox"] {
        check(name, |precision| {
            let bundle = DecoderBundle::open_at(&fixture(name), precision, &device()).unwrap();
            assert_eq!(bundle.precision(), precision);
            logits(&bundle)
        });
    }
    check("llama-classify", |precision| {
        ClassifierBundle::open_at(&fixture("llama-classify"), precision, &device()).unwrap().classify(&TEXTS)
    });
}

#[test]
fn encoders_change_little_in_fewer_bits() {
    let names = ["bert", "bert-masked-lm", "distilbert-classify", "modernbert-classify", "roberta-classify"];
    for name in names {
        let wide = tempfile::tempdir().unwrap();
        widen(name, wide.path());
        let config = EncoderConfig::read(&wide.path().join("config.json")).unwrap();
        EncoderBundle::init(config, Seed::new(1), &device()).save(wide.path()).unwrap();
        for dir in [fixture(name).as_path(), wide.path()] {
            check(name, |precision| {
                let bundle = EncoderBundle::open_at(dir, precision, &device()).unwrap();
                assert_eq!(bundle.precision(), precision);
                answers(&bundle)
            });
        }
    }
}

#[test]
fn encoder_decoders_change_little_in_fewer_bits() {
    for name in ["bart", "marian", "marian-separate", "t5", "t5-gated"] {
        let wide = tempfile::tempdir().unwrap();
        widen(name, wide.path());
        let config = Seq2SeqConfig::read(&wide.path().join("config.json")).unwrap();
        Seq2SeqBundle::init(config, Seed::new(1), &device()).save(wide.path()).unwrap();
        for dir in [fixture(name).as_path(), wide.path()] {
            check(name, |precision| {
                let bundle = Seq2SeqBundle::open_at(dir, precision, &device()).unwrap();
                assert_eq!(bundle.precision(), precision);
                continuations(&bundle)
            });
        }
    }
}

#[test]
fn saved_weights_are_the_numbers_they_stand_for() {
    for (name, precision) in [("gpt2", RunPrecision::Bf16), ("llama", RunPrecision::Int8)] {
        let stored = DecoderBundle::open_at(&fixture(name), precision, &device()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        stored.save(dir.path()).unwrap();
        // Decode steps round nothing that is not in blocks.
        let plain = DecoderBundle::open_at(dir.path(), RunPrecision::Mixed, &device()).unwrap();
        let read = |bundle: &DecoderBundle| bundle.decode(&mut bundle.begin(), &PROMPT[..4], Logits::All);
        let difference = difference(&read(&plain), &read(&stored));
        assert!(difference <= 1e-5, "{name} {precision}: {difference}");
    }
    for name in ["bert", "bart", "llama-classify"] {
        let dir = tempfile::tempdir().unwrap();
        let read = |bundle: &AnyBundle| match bundle {
            AnyBundle::Classifier(bundle) => bundle.classify(&[&PROMPT[..4]]).concat(),
            AnyBundle::Encoder(bundle) => bundle.embed(&[&PROMPT[..4]]).concat(),
            AnyBundle::EncoderDecoder(bundle) => {
                let model = Seq2SeqGenerator::new(bundle, &PROMPT[..4]).without_rules();
                model.forward(&mut model.begin(), &PROMPT[..4], Logits::All)
            }
            AnyBundle::Decoder(_) => unreachable!("none of these"),
        };
        let stored = AnyBundle::open_at(&fixture(name), RunPrecision::Bf16, &device()).unwrap();
        match &stored {
            AnyBundle::Classifier(bundle) => bundle.save(dir.path()),
            AnyBundle::Encoder(bundle) => bundle.save(dir.path()),
            AnyBundle::EncoderDecoder(bundle) => bundle.save(dir.path()),
            AnyBundle::Decoder(_) => unreachable!("none of these"),
        }
        .unwrap();
        let plain = AnyBundle::open_at(dir.path(), RunPrecision::Mixed, &device()).unwrap();
        let difference = difference(&read(&plain), &read(&stored));
        assert!(difference <= 1e-5, "{name}: {difference}");
    }
}
