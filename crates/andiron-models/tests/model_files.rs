//! The files of a model are read once, whoever asks for what they say.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use andiron_files::Operation;
use andiron_files::fault::{Fault, with_fault};
use andiron_models::weights::gguf;
use andiron_models::{AnyBundle, ModelFiles, ModelMemory, RunPrecision};
use common::{device, fixture};
use serde_json::json;

/// How often each file is opened while a program chooses a task, counts memory and opens the model and its tokenizer.
fn openings(path: &Path) -> BTreeMap<PathBuf, usize> {
    let device = device();
    let (_, seen) = with_fault(Fault::none(), || {
        let mut files = ModelFiles::open(path).unwrap();
        let family = files.config().unwrap().config.family();
        ModelMemory::of_files(&files, RunPrecision::F32).unwrap();
        let bundle = AnyBundle::open_files(&mut files, RunPrecision::F32, &device).unwrap();
        assert_eq!(bundle.family(), family);
        if let Some(file) = files.gguf().filter(|file| file.metadata("tokenizer.ggml.tokens").is_some()) {
            gguf::tokenizer_json(file).unwrap();
        }
    });
    let mut counted = BTreeMap::new();
    for seen in seen.into_iter().filter(|seen| seen.operation == Operation::Open) {
        *counted.entry(seen.path).or_default() += 1;
    }
    counted
}

#[track_caller]
fn check_opened_once(path: &Path, names: &[&str]) {
    let counted = openings(path);
    for name in names {
        let file = if path.is_dir() { path.join(name) } else { path.to_owned() };
        assert_eq!(counted.get(&file), Some(&1), "{}", file.display());
    }
    // Memory is counted from the headers of the weights.
    let is_json = |path: &Path| path.extension().is_some_and(|extension| extension == "json");
    let again = counted.iter().find(|(path, count)| **count > 1 && is_json(path));
    assert_eq!(again, None);
}

#[test]
fn the_files_of_a_directory_are_opened_once() {
    for name in ["gpt2", "t5"] {
        check_opened_once(&fixture(name), &["config.json", "generation_config.json"]);
    }
    for name in ["llama-classify", "bert", "bart"] {
        check_opened_once(&fixture(name), &["config.json"]);
    }
}

#[test]
fn the_files_of_a_cross_encoder_are_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture("bert-classify").join(name), dir.path().join(name)).unwrap();
    }
    let write = |name: &str, content: serde_json::Value| {
        std::fs::write(dir.path().join(name), content.to_string()).unwrap();
    };
    write("modules.json", json!([{ "path": "", "type": "sentence_transformers.models.Transformer" }]));
    write("config_sentence_transformers.json", json!({ "model_type": "CrossEncoder" }));
    let names = ["config.json", "modules.json", "config_sentence_transformers.json"];
    check_opened_once(dir.path(), &names);
}

#[test]
fn a_gguf_file_is_opened_once() {
    for name in ["gguf/llama.gguf", "gguf/bert.gguf"] {
        let path = fixture(name);
        check_opened_once(&path, &[""]);
        assert_eq!(openings(&path).len(), 1, "{name}");
    }
}

#[test]
fn what_is_no_model_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = |path: &Path| {
        let error = ModelFiles::open(path).unwrap_err();
        format!("{error}: {}", std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default())
    };
    assert!(error(&dir.path().join("none")).contains("none is not a model directory"));
    assert!(error(dir.path()).contains("config.json"));
    std::fs::write(dir.path().join("config.json"), "[]").unwrap();
    assert!(error(dir.path()).contains("is not a valid model config"));
    std::fs::write(dir.path().join("m.gguf"), "GGUX").unwrap();
    assert!(error(&dir.path().join("m.gguf")).contains("is not a GGUF file"));
}
