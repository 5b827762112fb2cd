//! Our numbers against those of `transformers`, on the fixtures that `golden/make.py` made.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use andiron_core::Forward;
use andiron_core::ops;
use andiron_models::generate::{BeamOptions, Decoding, GenerateOptions, SamplingParams, beam_search};
use andiron_models::weights::LoadError;
use andiron_models::{Decoder, DecoderBundle};

use burn::tensor::Tensor;
use common::{assert_close, by_name, device, fixture, floats, ids};
use serde::Deserialize;

/// Logits and losses, in f32 on both sides.
const LOGITS: f32 = 1e-4;
/// Gradients of the mean loss.
const GRADIENTS: f32 = 1e-3;

#[derive(Deserialize)]
struct Expected {
    ids: Vec<Vec<u32>>,
    logits: Vec<f32>,
    loss: f32,
    grads: BTreeMap<String, Vec<f32>>,
    greedy: Greedy,
    /// What four beams find, to the same length.
    beam_ids: Vec<u32>,
    beam_score: f32,
    /// The same where an id ends a text.
    beam_eos: Ending,
}

#[derive(Deserialize)]
struct Ending {
    eos_id: u32,
    ids: Vec<u32>,
    score: f32,
}

#[derive(Deserialize)]
struct Greedy {
    prompt: Vec<u32>,
    continuation: Vec<u32>,
}

fn expected(name: &str) -> Expected {
    let text = std::fs::read(fixture(name).join("expected.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[track_caller]
fn check_golden(name: &str) {
    let device = device();
    let expected = expected(name);
    let bundle = DecoderBundle::open(&fixture(name), &device).unwrap();

    let hidden_btd = bundle.model.hidden(ids(&expected.ids, &device), &mut Forward::evaluation());
    assert_close("logits", &floats(bundle.model.logits(hidden_btd)), &expected.logits, LOGITS);

    let learner = DecoderBundle::open(&fixture(name), &device.clone().autodiff()).unwrap();
    let (rows, t) = (expected.ids.len(), expected.ids[0].len());
    let targets: Vec<Vec<u32>> = expected.ids.iter().map(|row| row[1..].to_vec()).collect();
    let device = device.autodiff();
    // The last position is read too: some positions depend on the length of the text.
    let hidden_btd = learner.model.hidden(ids(&expected.ids, &device), &mut Forward::evaluation());
    let d = hidden_btd.dims()[2];
    let hidden_btd = hidden_btd.slice([0..rows, 0..t - 1, 0..d]);
    let n = rows * (t - 1);
    let weights_n = Tensor::full([n], 1.0 / n as f32, &device);
    let targets_n = ids(&targets, &device).reshape([n]);
    let loss =
        ops::head_cross_entropy(hidden_btd.reshape([n, d]), learner.model.head().val(), targets_n, weights_n);
    assert_close("loss", &floats(loss.clone()), &[expected.loss], LOGITS);
    let gradients = loss.backward();
    let found = by_name(&learner.model, &gradients);
    assert!(!expected.grads.is_empty());
    for (parameter, theirs) in &expected.grads {
        assert_close(parameter, &found[parameter], theirs, GRADIENTS);
    }

    let options = GenerateOptions {
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        max_new_tokens: expected.greedy.continuation.len(),
        ..GenerateOptions::default()
    };
    let mut decoding = Decoding::new(&bundle, &expected.greedy.prompt, options).unwrap();
    while decoding.finish_reason().is_none() {
        decoding.step(&bundle).unwrap();
    }
    assert_eq!(decoding.generated(), expected.greedy.continuation, "greedy continuation of {name}");

    let options = BeamOptions { max_new_tokens: expected.beam_ids.len(), ..BeamOptions::default() };
    let ending = BeamOptions { stop_ids: vec![expected.beam_eos.eos_id], ..options.clone() };
    let (ids, score) = (expected.beam_ids, expected.beam_score);
    for (options, ids, score) in
        [(options, ids, score), (ending, expected.beam_eos.ids, expected.beam_eos.score)]
    {
        let found = beam_search(&bundle, &expected.greedy.prompt, &options).unwrap().remove(0);
        assert_eq!(found.ids, ids, "beams of {name} with stop ids {:?}", options.stop_ids);
        assert_close("score", &[found.score], &[score], LOGITS);
    }
}

#[test]
fn gpt2_equals_transformers() {
    check_golden("gpt2");
}

#[test]
fn llama_equals_transformers() {
    ["llama", "llama-tied", "llama-llama3", "llama-yarn"].into_iter().for_each(check_golden);
}

#[test]
fn dynamic_positions_equal_those_of_transformers() {
    check_golden("llama-dynamic");
}

#[test]
fn mistral_equals_transformers() {
    ["mistral", "mistral-full"].into_iter().for_each(check_golden);
}

#[test]
fn qwen_equals_transformers() {
    ["qwen2", "qwen2-full", "qwen3", "qwen3-sliding"].into_iter().for_each(check_golden);
}

#[test]
fn gpt_neox_equals_transformers() {
    ["neox", "neox-serial", "neox-tied"].into_iter().for_each(check_golden);
}

#[test]
fn gemma3_equals_transformers() {
    ["gemma3", "gemma3-linear"].into_iter().for_each(check_golden);
}

#[test]
fn a_saved_model_opens_with_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = DecoderBundle::open(&fixture("gpt2"), &device()).unwrap();
    bundle.save(dir.path()).unwrap();
    let again = DecoderBundle::open(dir.path(), &device()).unwrap();
    assert_eq!(again.config, bundle.config);
    let [ours, theirs] = [&again, &bundle].map(|bundle| {
        let ids = ids(&[vec![1, 2, 3]], &device());
        floats(bundle.model.logits(bundle.model.hidden(ids, &mut Forward::evaluation())))
    });
    assert_eq!(ours, theirs);
    let access = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions();
    assert_eq!(access("model.safetensors"), access("config.json"), "who may read the weights");
}

/// A copy of the fixture whose `config.json` and weights can be edited.
fn edited(edit: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = std::fs::read(fixture("gpt2").join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    edit(&mut config);
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(fixture("gpt2").join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    dir
}

#[track_caller]
fn check_refused(dir: &Path, needles: &[&str]) {
    let error = DecoderBundle::open(dir, &device()).unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    for needle in needles {
        assert!(text.contains(needle), "{text:?} does not mention {needle:?}");
    }
}

#[test]
fn a_config_key_that_changes_results_is_an_error() {
    check_refused(
        edited(|config| config["sliding_window"] = 4096.into()).path(),
        &["configuration", "sliding_window is 4096"],
    );
}

#[test]
fn a_config_key_that_nothing_reads_is_returned() {
    let dir = edited(|config| config["colour"] = "red".into());
    let bundle = DecoderBundle::open(dir.path(), &device()).unwrap();
    assert_eq!(bundle.unknown_keys.names(), ["colour"]);
}

#[test]
fn a_config_that_asks_for_cross_attention_is_an_error() {
    check_refused(
        edited(|config| config["add_cross_attention"] = true.into()).path(),
        &["add_cross_attention"],
    );
}

#[test]
fn an_unknown_architecture_is_an_error() {
    check_refused(edited(|config| config["model_type"] = "mamba".into()).path(), &["mamba", "gpt2"]);
}

#[test]
fn more_layers_than_the_file_has_are_missing_tensors() {
    let dir = edited(|config| config["n_layer"] = 3.into());
    check_refused(dir.path(), &["12 tensors are missing", "transformer.h.2.ln_1.weight"]);
}

#[test]
fn fewer_layers_than_the_file_has_are_unused_tensors() {
    let dir = edited(|config| config["n_layer"] = 1.into());
    check_refused(dir.path(), &["12 tensors", "no place", "transformer.h.1."]);
}

#[test]
fn another_width_is_a_shape_error() {
    let dir = edited(|config| config["vocab_size"] = 62.into());
    check_refused(dir.path(), &["transformer.wte.weight", "[61, 24]", "[62, 24]"]);
}

#[test]
fn a_file_cut_anywhere_is_an_error_and_never_a_panic() {
    let whole = std::fs::read(fixture("gpt2").join("model.safetensors")).unwrap();
    for len in (0..whole.len()).step_by(997).chain([whole.len() - 1]) {
        let dir = edited(|_| ());
        std::fs::write(dir.path().join("model.safetensors"), &whole[..len]).unwrap();
        check_refused(dir.path(), &["model.safetensors"]);
    }
}

#[test]
fn a_header_longer_than_the_file_allocates_nothing() {
    for claim in [u64::MAX, 1 << 63, 1 << 31, 100_000_001, 65] {
        let dir = edited(|_| ());
        let mut file = claim.to_le_bytes().to_vec();
        file.extend([b' '; 64]);
        std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
        check_refused(dir.path(), &["model.safetensors", "header"]);
    }
}

#[test]
fn a_missing_directory_is_named() {
    let error = DecoderBundle::open(Path::new("no/such/model"), &device()).unwrap_err();
    assert!(matches!(error, LoadError::NotADirectory { .. }));
    assert!(error.to_string().contains("no/such/model"));
}

#[test]
fn a_file_without_the_prefix_and_with_mask_buffers_opens() {
    // What `openai-community/gpt2` on the hub looks like.
    let dir = edited(|_| ());
    let bytes = std::fs::read(fixture("gpt2").join("model.safetensors")).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mask = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).unwrap();
    let tensors =
        stored.iter().map(|(name, view)| (name.trim_start_matches("transformer.").to_owned(), view));
    let tensors: Vec<_> = tensors.chain([("h.0.attn.bias".to_owned(), mask)]).collect();
    safetensors::serialize_to_file(tensors, None, &dir.path().join("model.safetensors")).unwrap();
    DecoderBundle::open(dir.path(), &device()).unwrap();
}
