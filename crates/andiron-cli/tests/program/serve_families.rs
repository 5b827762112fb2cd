//! `andiron serve` of models of every family at once: it answers as `predict` does.

use std::fs;
use std::path::Path;

use andiron_core::DeviceSpec;
use andiron_kernels::random::Seed;
use andiron_models::encoder::Problem;
use andiron_models::encoder::bert::BertConfig;
use andiron_models::{EncoderBundle, EncoderConfig, EncoderHead, LoraConfig, Seq2SeqBundle, Seq2SeqConfig};
use serde_json::{Value, json};

use crate::adapter::train;
use crate::common::{Place, rows};
use crate::serve::Server;

/// An encoder with a tokenizer, `vectors`: a golden one of sentence-transformers.
fn encoder(place: &Place) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sentence");
    fs::create_dir_all(place.path("vectors/1_Pooling")).unwrap();
    for file in
        ["config.json", "modules.json", "pytorch_model.bin", "tokenizer.json", "tokenizer_config.json"]
    {
        fs::copy(golden.join(file), place.path("vectors").join(file)).unwrap();
    }
    fs::copy(golden.join("1_Pooling/config.json"), place.path("vectors/1_Pooling/config.json")).unwrap();
}

/// A BART `writer` with random weights, and two beams if wanted.
fn encoder_decoder(place: &Place, beams: usize) {
    let config = json!({
        "model_type": "bart", "vocab_size": 64, "d_model": 16, "max_position_embeddings": 24,
        "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "init_std": 0.6,
    });
    let config: Seq2SeqConfig = serde_json::from_value(config).unwrap();
    let device = DeviceSpec::first_compiled().unwrap().open().unwrap();
    let mut bundle = Seq2SeqBundle::init(config, Seed::new(5), &device);
    bundle.generation.num_beams = Some(beams);
    bundle.generation.max_length = Some(9);
    bundle.save(&place.path("writer")).unwrap();
    place.ok(&["tokenizer", "train", "corpus.txt", "--kind", "char", "-o", "characters"]);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        place.write(&format!("writer/{file}"), place.read(&format!("characters/{file}")));
    }
}

#[track_caller]
fn predict(place: &Place, model: &str, task: &str, input: &[Value]) -> Vec<Value> {
    let text: String = input.iter().map(|row| format!("{row}\n")).collect();
    let ran = place.run_with_input(&["predict", "--model", model, "--task", task], &text);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    rows(&ran.out)
}

/// Numbers as both sides computed them: one writes those of an `f32`, the other its digits as an `f64`.
fn vector(values: &Value) -> Vec<f32> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

/// Labels with their scores.
fn labels(found: &Value) -> Vec<(String, f32)> {
    let label = |found: &Value| (found["label"].to_string(), found["score"].as_f64().unwrap() as f32);
    found["labels"].as_array().unwrap().iter().map(label).collect()
}

#[test]
fn every_family_answers_as_predict_does() {
    let place = Place::new();
    encoder(&place);
    encoder_decoder(&place, 1);
    let server =
        Server::start_with(&place, &["--model", "vectors", "--model", "w=writer", "--languages", "en-de"]);
    let texts = ["the king", "the queen and the king", "a"];
    let asked: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();

    let embedded = server.post("/v1/embeddings", &json!({ "input": texts }));
    let wanted = predict(&place, "vectors", "embed", &asked);
    for (found, wanted) in embedded["data"].as_array().unwrap().iter().zip(&wanted) {
        assert_eq!(vector(&found["embedding"]), vector(&wanted["embedding"]));
    }

    let translated =
        server.post("/translate", &json!({ "q": texts, "source": "en", "target": "de", "model": "w" }));
    let wanted: Vec<Value> =
        predict(&place, "writer", "translate", &asked).iter().map(|row| row["text"].clone()).collect();
    assert_eq!(translated["translatedText"], json!(wanted));
    assert_eq!(
        server.get("/languages"),
        json!([
            { "code": "de", "name": "German", "targets": [] },
            { "code": "en", "name": "English", "targets": ["de"] },
        ])
    );
    let summary = server.post("/summarize", &json!({ "input": texts[0] }));
    assert_eq!((&summary["results"][0]["summary"], &summary["model"]), (&wanted[0], &json!("w")));
    let (status, refusal) = server.request(
        "POST",
        "/v1/completions",
        "Content-Type: application/json\r\n",
        r#"{"prompt":"a","model":"w"}"#,
    );
    assert!(
        status == 400 && refusal.contains("it can translate (/translate), summarize (/summarize)"),
        "{refusal}"
    );
    server.stop();
}

#[test]
fn beams_of_the_files_and_alternatives_are_searched() {
    let place = Place::new();
    encoder_decoder(&place, 2);
    let server = Server::start_with(&place, &["--model", "writer"]);
    let asked = |more: Value| {
        let mut body = json!({ "q": "the king", "source": "xx", "target": "yy" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/translate", &body)
    };
    let wanted = predict(&place, "writer", "translate", &[json!({ "text": "the king" })]);
    assert_eq!(asked(json!({})), json!({ "translatedText": wanted[0]["text"] }));
    let found = asked(json!({ "alternatives": 3 }));
    let alternatives = found["alternatives"].as_array().unwrap();
    assert!(!alternatives.is_empty() && alternatives.len() <= 3, "{found}");
    assert!(!alternatives.contains(&found["translatedText"]), "{found}");
    server.stop();
}

#[test]
fn an_adapter_with_a_name_is_a_model_with_its_own_head() {
    let place = Place::new();
    let device = DeviceSpec::first_compiled().unwrap().open().unwrap();
    let small = BertConfig {
        hidden_size: 32,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 24,
        initializer_range: 0.6,
        ..BertConfig::tiny(30)
    };
    let config = EncoderConfig::Bert(small).with_head(EncoderHead::None, Vec::new()).unwrap();
    let base = EncoderBundle::init(config, Seed::new(3), &device);
    base.save(&place.path("base")).unwrap();
    let classes = vec!["ham".to_owned(), "spam".to_owned()];
    let head = EncoderHead::Classify { problem: Problem::SingleLabel };
    let adapted = base.with_head(head, classes, Seed::new(4)).unwrap();
    let lora = LoraConfig { modules_to_save: adapted.head_modules(), ..LoraConfig::new(2, 2.0) };
    let adapted = adapted.with_lora(&lora, Seed::new(5)).unwrap();
    adapted.save_adapter(&lora, &place.path("lora")).unwrap();
    train(&place, "lora");
    let server = Server::start_with(&place, &["--model", "base", "--adapter", "spam=lora"]);
    let models = server.get("/v1/models");
    let cards = models["data"].as_array().unwrap();
    assert_eq!(
        (&cards[0]["id"], &cards[0]["capabilities"]),
        (&json!("base"), &json!(["embed", "rerank", "attention"]))
    );
    assert_eq!((&cards[1]["id"], &cards[1]["parent"]), (&json!("spam"), &json!("base")));
    let found = server.post("/classify", &json!({ "input": [[3, 14, 15, 9]], "model": "spam" }));
    let row = r#"{"ids": [3, 14, 15, 9]}"#;
    let ran =
        place.run_with_input(&["predict", "--model", "base", "--adapter", "lora", "--task", "classify"], row);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(labels(&found["results"][0]), labels(&rows(&ran.out)[0]));
    // The base is as it was.
    let plain = server.post("/v1/embeddings", &json!({ "input": [3, 14, 15, 9], "model": "base" }));
    let ran = place.run_with_input(&["predict", "--model", "base", "--task", "embed"], row);
    assert_eq!(vector(&plain["data"][0]["embedding"]), vector(&rows(&ran.out)[0]["embedding"]));
    server.stop();
}

#[test]
fn what_cannot_be_served_is_told_by_name() {
    let place = Place::new();
    place.fails(&["serve"], 2, &["--model", "--models-dir"]);
    place.fails(&["serve", "--model", "a", "--model", "b", "--name", "x"], 2, &["NAME=DIR"]);
    place.fails(&["serve", "--models-dir", "nowhere"], 1, &["nowhere"]);
    place.fails(&["serve", "--model", "nowhere"], 1, &["nowhere"]);
}
