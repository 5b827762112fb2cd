//! GGUF files written here, read again.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use andiron_core::Forward;
use andiron_models::bundle::GgufOptions;
use andiron_models::weights::gguf::{
    self, GgufError, GgufFile, GgufModel, GgufWeights, TensorToWrite, chat_template, config_json,
    tokenizer_json,
};
use andiron_models::{Decoder, DecoderBundle, DecoderConfig};
use common::{assert_close, device, fixture, floats, ids};
use serde_json::{Value, json};

/// What rounding to f16 does to the logits of the fixture.
const HALF: f32 = 2e-2;

fn logits(bundle: &DecoderBundle) -> Vec<f32> {
    let ids = ids(&[vec![1, 2, 3, 50, 7]], &device());
    floats(bundle.model.logits(bundle.model.hidden(ids, &mut Forward::evaluation())))
}

#[test]
fn a_gpt2_goes_there_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = DecoderBundle::open(&fixture("gpt2"), &device()).unwrap();
    for (half, tolerance) in [(false, 0.0), (true, HALF)] {
        let path = dir.path().join("model.gguf");
        bundle.save_gguf(&path, GgufOptions { half, ..GgufOptions::default() }).unwrap();
        let again = DecoderBundle::open(&path, &device()).unwrap();
        assert_close("logits", &logits(&again), &logits(&bundle), tolerance);
        assert_eq!(again.config.sizes(), bundle.config.sizes().without_ends());
        let file = GgufFile::open(&path).unwrap();
        assert_eq!(file.metadata("tokenizer.ggml.model").unwrap().as_str(), Some("none"));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "files left behind");
}

trait WithoutEnds {
    fn without_ends(self) -> Self;
}

impl WithoutEnds for andiron_models::catalog::Sizes {
    /// Ids are written with a vocabulary only.
    fn without_ends(self) -> Self {
        Self { bos_token_id: None, eos_token_id: None, ..self }
    }
}

/// The tensors of the Llama fixture, to be written.
fn llama() -> (Value, GgufWeights) {
    let file = GgufFile::open(&fixture("gguf/llama.gguf")).unwrap();
    (config_json(&file).unwrap(), GgufWeights::new(file).unwrap())
}

fn to_write(weights: &GgufWeights) -> Vec<TensorToWrite<'_>> {
    let tensor = |(name, shape): (&str, Vec<usize>)| {
        let key = name.to_owned();
        TensorToWrite { name: key.clone(), shape, read: Box::new(move || weights.read_f32(&key).unwrap()) }
    };
    weights.tensors().map(tensor).collect()
}

/// The configuration in the object of a `config.json`.
fn read(config: &Value) -> DecoderConfig {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, config.to_string()).unwrap();
    DecoderConfig::read(&path).unwrap()
}

fn model<'a>(config: &'a DecoderConfig, tokenizer: Option<&'a Value>) -> GgufModel<'a> {
    GgufModel { config, tokenizer, chat_template: None, half: false }
}

#[test]
fn a_llama_is_written_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let (config, weights) = llama();
    let config = read(&config);
    let half = GgufModel { half: true, ..model(&config, None) };
    gguf::write(&path, &half, &to_write(&weights)).unwrap();
    let written = GgufFile::open(&path).unwrap();
    let theirs = weights.file();
    assert_eq!(written.tensors().count(), theirs.tensors().count());
    for tensor in theirs.tensors() {
        let ours = written.tensor(&tensor.name).unwrap();
        assert_eq!((&ours.shape, ours.element), (&tensor.shape, tensor.element), "{}", tensor.name);
        let bytes = [&written, theirs].map(|file| file.read_bytes(&tensor.name).unwrap());
        assert!(bytes[0] == bytes[1], "{}", tensor.name);
    }
    for (key, value) in theirs.all_metadata().filter(|(key, _)| key.starts_with("llama.")) {
        assert_eq!(written.metadata(key), Some(value), "{key}");
    }
}

#[test]
fn rotary_scaling_goes_there_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let llama3 = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    for scaling in [llama3, json!({ "rope_type": "linear", "factor": 4.0 })] {
        let (mut config, weights) = llama();
        config["rope_scaling"] = scaling;
        config["head_dim"] = 64.into();
        gguf::write(&path, &model(&read(&config), None), &to_write(&weights)).unwrap();
        let again = config_json(&GgufFile::open(&path).unwrap()).unwrap();
        assert_eq!(again["rope_scaling"], config["rope_scaling"]);
    }
}

fn byte_level(pre_tokenizer: &Value) -> Value {
    json!({
        "version": "1.0",
        "added_tokens": [
            { "id": 4, "content": "<s>", "special": true },
            { "id": 5, "content": "<think>", "special": false },
        ],
        "normalizer": null,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": { "type": "TemplateProcessing", "single": [{ "SpecialToken": { "id": "<s>" } }] },
        "decoder": { "type": "ByteLevel" },
        "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2, "abb": 3 }, "merges": [["a", "b"], "ab b"] },
    })
}

fn bytes(use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "use_regex": use_regex })
}

#[test]
fn a_tokenizer_goes_there_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let (mut config, weights) = llama();
    config["bos_token_id"] = 4.into();
    let config = read(&config);
    let digits = json!({ "type": "Digits", "individual_digits": true });
    let smollm = json!({ "type": "Sequence", "pretokenizers": [digits, bytes(true)] });
    for (name, pre_tokenizer) in [("gpt-2", bytes(true)), ("smollm", smollm)] {
        let tokenizer = byte_level(&pre_tokenizer);
        let chat = GgufModel { chat_template: Some("{{ messages }}"), ..model(&config, Some(&tokenizer)) };
        gguf::write(&path, &chat, &to_write(&weights)).unwrap();
        let file = GgufFile::open(&path).unwrap();
        assert_eq!(file.metadata("tokenizer.ggml.pre").unwrap().as_str(), Some(name));
        assert_eq!(file.metadata("tokenizer.ggml.tokens").unwrap().as_strings().unwrap().len(), 11);
        assert_eq!(chat_template(&file).unwrap(), Some("{{ messages }}"));
        let again = tokenizer_json(&file).unwrap();
        let vocab = json!({ "a": 0, "b": 1, "ab": 2, "abb": 3, "<s>": 4, "<think>": 5 });
        assert_eq!(again["model"]["vocab"], vocab);
        assert_eq!(again["model"]["merges"], json!([["a", "b"], ["ab", "b"]]));
        let special: Vec<_> =
            again["added_tokens"].as_array().unwrap().iter().map(|t| &t["special"]).collect();
        assert_eq!(special, [true, false]);
        assert_eq!(again["post_processor"]["processors"][1]["single"][0]["SpecialToken"]["id"], "<s>");
        gguf::write(&path, &model(&config, Some(&again)), &to_write(&weights)).unwrap();
        assert_eq!(tokenizer_json(&GgufFile::open(&path).unwrap()).unwrap(), again);
    }
}

#[track_caller]
fn check_refused(config: &Value, tokenizer: Option<&Value>, needle: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (_, weights) = llama();
    let error: GgufError =
        gguf::write(&dir.path().join("model.gguf"), &model(&read(config), tokenizer), &to_write(&weights))
            .unwrap_err();
    let text = error.to_string();
    assert!(text.contains(needle), "{text:?} does not mention {needle:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "files left behind");
}

#[test]
fn what_llama_cpp_does_not_do_is_refused() {
    let (config, _) = llama();
    let edited = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        config
    };
    check_refused(&edited("model_type", "mistral".into()), None, "\"mistral\" is not supported");
    check_refused(&edited("hidden_act", "relu".into()), None, "hidden_act");
    check_refused(&edited("num_attention_heads", 6.into()), None, "number of heads");
    check_refused(
        &edited("rope_scaling", json!({ "type": "dynamic", "factor": 2.0 })),
        None,
        "dynamic is not written",
    );
    let mut windowed = edited("model_type", "qwen2".into());
    for (key, value) in [("use_sliding_window", json!(true)), ("max_window_layers", json!(0))] {
        windowed[key] = value;
    }
    for key in ["head_dim", "attention_bias", "mlp_bias"] {
        windowed.as_object_mut().unwrap().shift_remove(key);
    }
    check_refused(&windowed, None, "use_sliding_window");
}

#[test]
fn tokenizers_that_gguf_cannot_say_are_refused() {
    let (config, _) = llama();
    let edited = |pointer: &str, value: Value| {
        let mut tokenizer = byte_level(&bytes(true));
        *tokenizer.pointer_mut(pointer).unwrap() = value;
        tokenizer
    };
    check_refused(&config, Some(&edited("/model/type", "Unigram".into())), "only byte-level BPE");
    check_refused(&config, Some(&edited("/pre_tokenizer", json!({ "type": "Whitespace" }))), "pre_tokenizer");
    check_refused(&config, Some(&edited("/normalizer", json!({ "type": "Lowercase" }))), "pre_tokenizer");
    check_refused(&config, Some(&edited("/model/vocab/abb", 11.into())), "vocab");
    check_refused(&config, Some(&edited("/model/vocab/abb", 2.into())), "vocab");
    check_refused(&config, Some(&edited("/model/merges/0", 7.into())), "merges");
}

#[test]
fn a_value_too_large_for_f16_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let config = read(&llama().0);
    let name = "model.layers.0.mlp.up_proj.weight";
    let tensor = |value| TensorToWrite {
        name: name.to_owned(),
        shape: vec![1, 1],
        read: Box::new(move || vec![value]),
    };
    let half = GgufModel { half: true, ..model(&config, None) };
    let error = gguf::write(&path, &half, &[tensor(1e5)]).unwrap_err().to_string();
    assert!(error.contains("blk.0.ffn_up.weight") && error.contains("too large for f16"), "{error}");
    assert!(!path.exists());
    gguf::write(&path, &half, &[tensor(1e4)]).unwrap();
}
