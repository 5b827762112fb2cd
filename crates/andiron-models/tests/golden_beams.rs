//! Beam search: our sequences and scores against those of `transformers`.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use andiron_models::bundle::Ids;
use andiron_models::encoder_decoder::{Seq2SeqBatch, Seq2SeqGenerator};
use andiron_models::generate::{BeamOptions, Hypothesis, beam_search, beam_search_batch, beam_search_while};
use andiron_models::{DecoderBundle, Seq2SeqBundle};
use common::{device, fixture};
use serde::Deserialize;
use serde_json::Value;

const SCORES: f32 = 1e-4;

/// Encoder-decoders whose `expected.json` has beams.
const ENCODER_DECODERS: &[&str] = &[
    "bart",
    "bart-scaled",
    "bart-untied",
    "marian",
    "marian-separate",
    "marian-untied",
    "t5",
    "t5-gated",
    "t5-silu",
    "t5-tied",
];

#[derive(Deserialize)]
struct Expected {
    ids: Vec<Vec<u32>>,
    lengths: Vec<usize>,
    beams: Vec<Beams>,
}

#[derive(Deserialize)]
struct Beams {
    settings: serde_json::Map<String, Value>,
    #[serde(default)]
    prompt: Vec<u32>,
    beam_ids: Vec<Vec<Vec<u32>>>,
    beam_score: Vec<Vec<f32>>,
}

/// The options that settings in Hugging Face's names mean; those that are none are left to the caller.
fn apply(settings: &serde_json::Map<String, Value>, options: &mut BeamOptions) {
    let count = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let number = |value: &Value| value.as_f64().unwrap() as f32;
    for (key, value) in settings {
        match key.as_str() {
            "num_beams" => options.num_beams = count(value),
            "num_return_sequences" => options.num_return_sequences = count(value),
            "length_penalty" => options.length_penalty = number(value),
            "early_stopping" => options.early_stopping = serde_json::from_value(value.clone()).unwrap(),
            "no_repeat_ngram_size" => options.no_repeat_ngram_size = count(value),
            "repetition_penalty" => options.repetition_penalty = number(value),
            "num_beam_groups" => options.num_beam_groups = count(value),
            "diversity_penalty" => options.diversity_penalty = number(value),
            "renormalize_logits" => options.renormalize = value.as_bool().unwrap(),
            "max_new_tokens" => options.max_new_tokens = count(value),
            "min_new_tokens" => options.min_new_tokens = count(value),
            "eos_token_id" => {
                let ids: Ids = serde_json::from_value(value.clone()).unwrap();
                options.stop_ids = ids.as_slice().to_vec();
            }
            "max_length" | "min_length" | "forced_bos_token_id" | "forced_eos_token_id" => {}
            other => panic!("{other} is not known to this test"),
        }
    }
}

#[track_caller]
fn check(found: &[Hypothesis], start: &[u32], ids: &[Vec<u32>], scores: &[f32], what: &str) {
    let found_ids: Vec<Vec<u32>> = found.iter().map(|found| [start, &found.ids].concat()).collect();
    assert_eq!(found_ids, ids, "{what}");
    for (found, score) in found.iter().zip(scores) {
        let near = (found.score - score).abs() < SCORES * score.abs().max(1.0);
        assert!(near, "{what}: {} is not {score}", found.score);
    }
}

#[test]
fn targets_are_those_of_transformers() {
    for name in ENCODER_DECODERS {
        let expected: Expected =
            serde_json::from_slice(&std::fs::read(fixture(name).join("expected.json")).unwrap()).unwrap();
        assert!(expected.beams.len() >= 10, "{name}");
        let bundle = Seq2SeqBundle::open(&fixture(name), &device()).unwrap();
        for beams in &expected.beams {
            let mut bundle = bundle.clone();
            let generation = &mut bundle.generation;
            for (key, value) in &beams.settings {
                let value = value.clone();
                match key.as_str() {
                    "min_length" => generation.min_length = serde_json::from_value(value).unwrap(),
                    "forced_bos_token_id" => {
                        generation.forced_bos_token_id = serde_json::from_value(value).unwrap()
                    }
                    "forced_eos_token_id" => {
                        generation.forced_eos_token_id = serde_json::from_value(value).unwrap()
                    }
                    _ => {}
                }
            }
            let limit = beams.settings["max_length"].as_u64().unwrap() as usize;
            let mut options = BeamOptions { max_new_tokens: limit - 1, ..bundle.generation.beam_options() };
            apply(&beams.settings, &mut options);
            let rows = beams.beam_ids.len();
            let sources: Vec<&[u32]> =
                (0..rows).map(|row| &expected.ids[row][..expected.lengths[row]]).collect();
            let batch = Seq2SeqBatch::new(&bundle, &sources).with_length_limit(limit);
            let start = [bundle.start_id()];
            let together = beam_search_batch(&batch, &vec![&start[..]; rows], &options, || true).unwrap();
            for (row, (ids, scores)) in beams.beam_ids.iter().zip(&beams.beam_score).enumerate() {
                let source = sources[row];
                let model = Seq2SeqGenerator::new(&bundle, source).with_length_limit(limit);
                let found = beam_search(&model, &[model.start()], &options).unwrap();
                check(
                    &found,
                    &[model.start()],
                    ids,
                    scores,
                    &format!("{name} {:?}, row {row}", beams.settings),
                );
                assert_eq!(together[row].as_ref().unwrap(), &found, "{name}: row {row} in a batch");
            }
        }
    }
}

#[test]
fn continuations_are_those_of_transformers() {
    check_continuations("beams.json", 30);
}

#[test]
fn groups_find_what_those_of_transformers_4_find() {
    check_continuations("beam_groups.json", 20);
}

#[track_caller]
fn check_continuations(file: &str, at_least: usize) {
    let bundle = DecoderBundle::open(&fixture("gpt2"), &device()).unwrap();
    let all: Vec<Beams> =
        serde_json::from_slice(&std::fs::read(fixture("gpt2").join(file)).unwrap()).unwrap();
    assert!(all.len() >= at_least);
    for beams in &all {
        let mut options = BeamOptions::default();
        apply(&beams.settings, &mut options);
        let found = beam_search(&bundle, &beams.prompt, &options).unwrap();
        let what = format!("{:?} after {:?}", beams.settings, beams.prompt);
        check(&found, &beams.prompt, &beams.beam_ids[0], &beams.beam_score[0], &what);
    }
}

#[test]
fn a_search_ends_when_it_is_told_to() {
    let bundle = Seq2SeqBundle::open(&fixture("bart"), &device()).unwrap();
    let model = Seq2SeqGenerator::new(&bundle, &[3, 4, 5]);
    let options = BeamOptions { num_beams: 3, max_new_tokens: 8, ..BeamOptions::default() };
    let mut asked = 0;
    let found = beam_search_while(&model, &[model.start()], &options, || {
        asked += 1;
        asked < 3
    });
    assert_eq!((found.unwrap(), asked), (Vec::new(), 3));
}
