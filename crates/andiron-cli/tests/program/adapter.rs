//! `--adapter`: a model with an adapter, in every verb that opens one.

use std::fs;

use andiron_core::DeviceSpec;
use andiron_kernels::random::Seed;
use andiron_models::adapter::Targets;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::encoder::Problem;
use andiron_models::encoder::bert::BertConfig;
use andiron_models::weights::{names, write_tensors};
use andiron_models::{DecoderBundle, DecoderConfig, EncoderBundle, EncoderConfig, EncoderHead, LoraConfig};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::common::{Place, rows};

/// Factors that are zero at first get values, so that the adapter matters.
pub fn train(place: &Place, name: &str) {
    let path = place.path(name).join("adapter_model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = |len: usize| -> Vec<u8> {
        (0..len / 4).flat_map(|at| (0.5 * (at as f32 * 1.7).sin()).to_le_bytes()).collect()
    };
    let trained: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.shape().to_vec(), values(view.data().len())))
        .collect();
    let views = trained.iter().map(|(name, shape, bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    write_tensors(&path, views.collect(), None).unwrap();
}

/// A GPT-2 `base` with random weights, without a tokenizer, and an adapter `lora`.
fn decoder(place: &Place, config: &LoraConfig) {
    let device = DeviceSpec::first_compiled().unwrap().open().unwrap();
    let sizes = Gpt2Config { n_embd: 32, n_head: 2, n_layer: 2, n_positions: 32, ..Gpt2Config::nano(70) };
    let model = DecoderConfig::Gpt2(Gpt2Config { initializer_range: 0.3, ..sizes });
    let bundle = DecoderBundle::init(model, Seed::new(1), &device);
    bundle.save(&place.path("base")).unwrap();
    let bundle = bundle.with_lora(config, Seed::new(2)).unwrap();
    bundle.save_adapter(config, &place.path("lora")).unwrap();
    train(place, "lora");
}

const OPEN: [&str; 4] = ["--model", "base", "--adapter", "lora"];
const BASE: [&str; 2] = ["--model", "base"];

fn score(place: &Place, options: &[&str]) -> Vec<f64> {
    let row = r#"{"id": 1, "ids": [3, 14, 15, 9, 26, 5, 35]}"#;
    let ran = place.run_with_input(&[&["predict", "--task", "score"], options].concat(), row);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let answer = rows(&ran.out).swap_remove(0);
    serde_json::from_value(answer["logprobs"].as_array().unwrap()[1..].to_vec().into()).unwrap()
}

#[track_caller]
fn assert_close(found: &[f64], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len());
    assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < tolerance), "{found:?} {wanted:?}");
}

#[test]
fn an_adapter_changes_what_a_model_says_and_merged_it_says_the_same() {
    let place = Place::new();
    let config = LoraConfig { dora: true, ..LoraConfig::new(4, 8.0) };
    decoder(&place, &config);
    let (bare, adapted) = (score(&place, &BASE), score(&place, &OPEN));
    assert!(bare.iter().zip(&adapted).any(|(a, b)| (a - b).abs() > 0.1), "{bare:?} {adapted:?}");
    place.fails(&[&["export"], &OPEN[..], &["-o", "one"]].concat(), 2, &["--merge"]);
    place.fails(&["export", "--model", "base", "--merge", "-o", "one"], 2, &["--adapter"]);
    place.ok(&[&["export"], &OPEN[..], &["--merge", "-o", "one"]].concat());
    assert_close(&score(&place, &["--model", "one"]), &adapted, 1e-4);
    // Over weights of fewer bits it is about the same.
    assert_close(&score(&place, &[&OPEN[..], &["--precision", "bf16"]].concat()), &adapted, 0.3);

    let shown = place.json(&[&["inspect"], &OPEN[..]].concat());
    let n_modules = shown["adapter"]["modules"].as_array().unwrap().len();
    assert_eq!(
        (&shown["adapter"]["rank"], &shown["adapter"]["dora"], n_modules),
        (&json!(4), &json!(true), 8)
    );
    assert!(place.ok(&[&["inspect"], &OPEN[..]].concat()).contains("rank 4, alpha 8, DoRA"));
    assert_eq!(place.json(&[&["inspect"], &BASE[..]].concat())["adapter"], Value::Null);

    let bench = ["bench", "decode", "--tokens", "2", "--steps", "1", "--prompt", "4"];
    assert!(place.json(&[&bench, &OPEN[..]].concat())["tokens_per_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn an_adapter_that_does_not_fit_or_unties_is_named() {
    let place = Place::new();
    let targets = Targets::Names(vec!["wte".to_owned()]);
    decoder(&place, &LoraConfig { targets, ..LoraConfig::new(4, 8.0) });
    // The head is tied to the embeddings, which alone the adapter changes: merged, each has a matrix of its own.
    let merge = [&["export"], &OPEN[..], &["--merge", "-o", "one"]].concat();
    let ran = place.run(&merge);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("transformer.wte.weight and lm_head.weight"), "{ran:?}");
    assert_close(&score(&place, &["--model", "one"]), &score(&place, &OPEN), 1e-3);
    let merge = [&["export"], &OPEN[..], &["--merge", "-o", "one.gguf"]].concat();
    place.fails(&merge, 1, &["transformer.wte.weight", "lm_head.weight", "cannot be merged"]);
    assert!(!place.path("one.gguf").exists());

    let verb = |adapter| ["predict", "--task", "score", "--model", "base", "--adapter", adapter];
    place.fails(&verb("base"), 1, &["cannot use the adapter base", "adapter_config.json"]);
    place.fails(&verb("nowhere"), 1, &["cannot use the adapter nowhere"]);
    let path = place.path("lora/adapter_config.json");
    let mut object: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    object["r"] = json!(5);
    fs::write(&path, object.to_string()).unwrap();
    place.fails(&verb("lora"), 1, &["wte.lora_embedding_A", "[4, 70]", "[5, 70]"]);
    object["r"] = json!(4);
    object["use_qalora"] = json!(true);
    fs::write(&path, object.to_string()).unwrap();
    place.fails(&verb("lora"), 1, &["adapter_config.json", "use_qalora"]);
    object["use_qalora"] = json!(false);
    object["surprise"] = json!(1);
    fs::write(&path, object.to_string()).unwrap();
    for verb in [&["inspect"][..], &["predict", "--task", "score"]] {
        place.fails(&[verb, &OPEN[..], &["--strict"]].concat(), 1, &["surprise"]);
    }
}

#[test]
fn an_encoder_gets_the_head_of_its_adapter() {
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
    let base = EncoderBundle::init(config, Seed::new(5), &device);
    base.save(&place.path("base")).unwrap();
    let head = EncoderHead::Classify { problem: Problem::SingleLabel };
    let labels = ["bad", "good", "neither"].map(str::to_owned).to_vec();
    let bundle = base.with_head(head, labels, Seed::new(6)).unwrap();
    assert!(names(&bundle.model).iter().any(|(name, _)| name == "classifier.weight"));
    let config = LoraConfig { modules_to_save: bundle.head_modules(), ..LoraConfig::new(2, 2.0) };
    let bundle = bundle.with_lora(&config, Seed::new(7)).unwrap();
    bundle.save_adapter(&config, &place.path("lora")).unwrap();
    train(&place, "lora");
    // Without --task it is that of the adapter's head.
    let ran = place.run_with_input(
        &[&["predict"], &OPEN[..]].concat(),
        r#"{"id": 1, "ids": [3, 4, 5], "type_ids": [0, 0, 1]}"#,
    );
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let labels = rows(&ran.out)[0]["labels"].as_array().unwrap().clone();
    let mut found: Vec<&str> = labels.iter().map(|found| found["label"].as_str().unwrap()).collect();
    found.sort();
    assert_eq!(found, ["bad", "good", "neither"]);
    let merge = [&["export"], &OPEN[..], &["--merge", "-o", "one"]].concat();
    place.ok(&merge);
    let ran = place.run_with_input(
        &["predict", "--model", "one"],
        r#"{"id": 1, "ids": [3, 4, 5], "type_ids": [0, 0, 1]}"#,
    );
    let merged = rows(&ran.out)[0]["labels"].as_array().unwrap().clone();
    let scores = |labels: &[Value]| -> Vec<f64> {
        labels.iter().map(|found| found["score"].as_f64().unwrap()).collect()
    };
    assert_close(&scores(&merged), &scores(&labels), 1e-4);
}
