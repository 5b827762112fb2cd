//! Settings of `generation_config.json`: our ids against those of `transformers`, on every way that ids are generated.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use std::ops::ControlFlow;
use std::path::Path;

use andiron_models::encoder_decoder::Seq2SeqGenerator;
use andiron_models::generate::{
    BatchedLm, BeamOptions, CausalLm, Decoding, GenerateOptions, GenerationConfig, Progress, SamplingParams,
    beam_search, generate_batch,
};
use andiron_models::{DecoderBundle, Seq2SeqBundle};
use common::{device, fixture};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Expected {
    /// What `generation_config.json` says beside the settings.
    file: Map<String, Value>,
    prompt: Vec<u32>,
    max_new_tokens: usize,
    found: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    settings: Map<String, Value>,
    greedy: Vec<u32>,
    beams: Vec<u32>,
}

fn expected(name: &str) -> Expected {
    serde_json::from_slice(&std::fs::read(fixture(name).join("generation.json")).unwrap()).unwrap()
}

/// A copy of a fixture whose `generation_config.json` has the settings.
fn with_settings(name: &str, expected: &Expected, settings: &Map<String, Value>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture(name).join(file), dir.path().join(file)).unwrap();
    }
    let mut fields = expected.file.clone();
    fields.extend(settings.clone());
    std::fs::write(dir.path().join("generation_config.json"), Value::Object(fields).to_string()).unwrap();
    dir
}

/// What a user of the library asks for who leaves all to the files.
fn options(files: &GenerationConfig, max_new_tokens: usize) -> GenerateOptions {
    let sampling = SamplingParams { temperature: 0.0, ..files.sampling().into() };
    let stop_ids = files.eos_token_id.as_slice().to_vec();
    GenerateOptions { sampling, max_new_tokens, stop_ids, ..GenerateOptions::default() }
}

fn alone<M: CausalLm>(model: &M, prompt: &[u32], options: GenerateOptions) -> Vec<u32> {
    let mut decoding = Decoding::new(model, prompt, options).unwrap();
    while decoding.next_token(model).unwrap().is_some() {}
    [decoding.prompt(), decoding.generated()].concat()
}

fn in_batch<M: BatchedLm>(model: &M, prompt: &[u32], options: GenerateOptions) -> Vec<Vec<u32>> {
    let requests = vec![(prompt.to_vec(), options.clone()), (prompt.to_vec(), options)];
    let done = generate_batch(model, requests, |_, _| ControlFlow::Continue(()));
    let ids = |done: andiron_models::generate::Generated| {
        done.tokens.iter().map(|token| token.id).collect::<Vec<_>>()
    };
    done.into_iter().map(|done| [prompt, &ids(done.unwrap())].concat()).collect()
}

/// Two of the same that go through the model together.
fn together<M: CausalLm>(model: &M, prompt: &[u32], options: GenerateOptions) -> Vec<Vec<u32>> {
    let begin = || Decoding::new(model, prompt, options.clone()).unwrap();
    let mut decodings = [begin(), begin()];
    for decoding in &mut decodings {
        while !decoding.is_decoding() && decoding.finish_reason().is_none() {
            decoding.step(model).unwrap();
        }
    }
    while decodings.iter().all(|decoding| decoding.finish_reason().is_none()) {
        let mut all: Vec<_> = decodings.iter_mut().collect();
        let progress = Decoding::decode_step_batch(model, &mut all).unwrap();
        assert!(progress.into_iter().all(|progress| matches!(progress, Ok(Progress::Token(_)))));
    }
    decodings.iter().map(|decoding| [decoding.prompt(), decoding.generated()].concat()).collect()
}

fn searched<M: BatchedLm>(
    model: &M,
    prompt: &[u32],
    files: &GenerationConfig,
    max_new_tokens: usize,
) -> Vec<u32> {
    let options = BeamOptions { num_beams: 3, max_new_tokens, ..files.beam_options() };
    let found = beam_search(model, prompt, &options).unwrap();
    [prompt, &found[0].ids].concat()
}

fn check_decoder(name: &str) {
    let expected = expected(name);
    assert!(expected.found.len() > 20);
    for found in &expected.found {
        let dir = with_settings(name, &expected, &found.settings);
        let bundle = DecoderBundle::open(dir.path(), &device()).unwrap();
        let (prompt, files, most) = (&expected.prompt, &bundle.generation, expected.max_new_tokens);
        let what = format!("{name} {:?}", found.settings);
        let options = options(files, most);
        assert_eq!(alone(&bundle, prompt, options.clone()), found.greedy, "{what}");
        let guessed = GenerateOptions { prompt_lookup: 4, ..options.clone() };
        assert_eq!(alone(&bundle, prompt, guessed), found.greedy, "{what}, with lookup");
        assert_eq!(
            in_batch(&bundle, prompt, options.clone()),
            [found.greedy.as_slice(); 2],
            "{what}, in a batch"
        );
        assert_eq!(together(&bundle, prompt, options), [found.greedy.as_slice(); 2], "{what}, together");
        assert_eq!(searched(&bundle, prompt, files, most), found.beams, "{what}, with beams");
        check_saved(
            &bundle.generation,
            |copy| bundle.save(copy).unwrap(),
            |copy| DecoderBundle::open(copy, &device()).unwrap().generation,
        );
    }
}

fn check_reader(name: &str) {
    let expected = expected(name);
    assert!(expected.found.len() > 20);
    for found in &expected.found {
        let dir = with_settings(name, &expected, &found.settings);
        let bundle = Seq2SeqBundle::open(dir.path(), &device()).unwrap();
        let (files, most) = (&bundle.generation, expected.max_new_tokens);
        let model = Seq2SeqGenerator::new(&bundle, &expected.prompt).with_length_limit(most + 1);
        let (start, what) = (&[model.start()], format!("{name} {:?}", found.settings));
        let options = options(files, most);
        assert_eq!(alone(&model, start, options.clone()), found.greedy, "{what}");
        assert_eq!(in_batch(&model, start, options), [found.greedy.as_slice(); 2], "{what}, in a batch");
        assert_eq!(searched(&model, start, files, most), found.beams, "{what}, with beams");
        check_saved(
            &bundle.generation,
            |copy| bundle.save(copy).unwrap(),
            |copy| Seq2SeqBundle::open(copy, &device()).unwrap().generation,
        );
    }
}

/// What is saved says the same again.
fn check_saved(
    files: &GenerationConfig,
    save: impl FnOnce(&Path),
    open: impl FnOnce(&Path) -> GenerationConfig,
) {
    let copy = tempfile::tempdir().unwrap();
    save(copy.path());
    assert_eq!(&open(copy.path()), files);
}

#[test]
fn decoders_generate_what_transformers_does_with_the_same_file() {
    ["llama", "gpt2"].into_iter().for_each(check_decoder);
}

#[test]
fn encoder_decoders_generate_what_transformers_does_with_the_same_file() {
    ["bart", "marian", "t5"].into_iter().for_each(check_reader);
}

#[test]
fn a_file_with_ids_that_no_token_can_have_opens() {
    let expected = expected("llama");
    let found = &expected.found[0];
    let settings =
        serde_json::json!({ "pad_token_id": -1, "bos_token_id": -1, "eos_token_id": [7, 9, -1, 1_000_000] });
    let dir = with_settings("llama", &expected, settings.as_object().unwrap());
    let bundle = DecoderBundle::open(dir.path(), &device()).unwrap();
    let options = options(&bundle.generation, expected.max_new_tokens);
    assert_eq!(alone(&bundle, &expected.prompt, options), found.greedy);
}
