//! Adapters: our numbers and files against those of `peft` 0.21.2 (transformers 5.24.0, torch 2.15.0) on the fixtures that
//! `golden/adapters.py` made.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use andiron_core::Forward;
use andiron_kernels::random::Seed;
use andiron_models::adapter::Targets;
use andiron_models::decoder::gpt2::Gpt2Config;
use andiron_models::encoder::{EncoderHead, Head, Problem};
use andiron_models::{
    AdapterError, AdapterFiles, AnyBundle, Decoder, DecoderBundle, DecoderConfig, Encoder as _,
    EncoderBundle, EncoderDecoder as _, LoraConfig, RunPrecision,
};
use burn::tensor::{Device, Tensor, TensorData};
use common::{assert_close, by_name, device, fixture, floats, ids};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::{Value, json};

const VALUES: f32 = 1e-4;
const GRADIENTS: f32 = 1e-4;

const FIXTURES: &[&str] = &[
    "llama-all-linear",
    "llama-dora",
    "llama-tied",
    "gpt2-dora",
    "gpt2-layers",
    "neox",
    "bert-classify",
    "bert",
    "distilbert-classify",
    "t5",
];

#[derive(Deserialize)]
struct Expected {
    base: String,
    ids: Vec<Vec<u32>>,
    outputs: Vec<f32>,
    grads: BTreeMap<String, Vec<f32>>,
}

fn adapter(name: &str) -> PathBuf {
    fixture("adapters").join(name)
}

fn expected(name: &str) -> Expected {
    serde_json::from_slice(&fs::read(adapter(name).join("expected.json")).unwrap()).unwrap()
}

/// Logits of every position, logits of labels, or hidden states.
fn outputs(bundle: &AnyBundle, rows: &[Vec<u32>], device: &Device) -> Tensor<1> {
    let ids_bt = ids(rows, device);
    let mut cx = Forward::evaluation();
    match bundle {
        AnyBundle::Decoder(bundle) => {
            let hidden_btd = bundle.model.hidden(ids_bt, &mut cx);
            bundle.model.logits(hidden_btd).reshape([-1])
        }
        AnyBundle::Encoder(bundle) => {
            let hidden_btd = bundle.model.hidden(ids_bt, None, &mut cx);
            match bundle.model.head() {
                Head::SequenceClassification(head) => head.forward(hidden_btd, &mut cx).reshape([-1]),
                _ => hidden_btd.reshape([-1]),
            }
        }
        AnyBundle::EncoderDecoder(bundle) => {
            let targets: Vec<Vec<u32>> = rows.iter().rev().cloned().collect();
            let cross_cache = bundle.model.encode(ids_bt, &mut cx);
            let mut cx = Forward::evaluation();
            let hidden_btd = bundle.model.hidden(ids(&targets, device), &cross_cache, &mut cx);
            bundle.model.logits(hidden_btd).reshape([-1])
        }
        AnyBundle::Classifier(_) => panic!("no fixture"),
    }
}

fn open(name: &str, device: &Device) -> AnyBundle {
    let base = AnyBundle::open(&fixture(&expected(name).base), device).unwrap();
    base.with_adapter(&adapter(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn save_adapter(bundle: &AnyBundle, config: &LoraConfig, dir: &Path) -> Result<(), AdapterError> {
    match bundle {
        AnyBundle::Decoder(bundle) => bundle.save_adapter(config, dir),
        AnyBundle::Classifier(bundle) => bundle.save_adapter(config, dir),
        AnyBundle::Encoder(bundle) => bundle.save_adapter(config, dir),
        AnyBundle::EncoderDecoder(bundle) => bundle.save_adapter(config, dir),
    }
}

fn json_of(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("adapter_config.json")).unwrap()).unwrap()
}

/// Name, shape and bytes of the tensors of an adapter, but for the tables below adapters.
fn tensors_of(dir: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(dir.join("adapter_model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let of = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        (name, (view.shape().to_vec(), view.data().to_vec()))
    };
    tensors.tensors().into_iter().map(of).filter(|(name, _)| !name.contains(".base_layer.")).collect()
}

#[test]
fn outputs_and_gradients_equal_those_of_peft() {
    for name in FIXTURES {
        let expected = expected(name);
        let device = device().autodiff();
        let bundle = open(name, &device);
        let outputs = outputs(&bundle, &expected.ids, &device);
        assert_close(name, &floats(outputs.clone()), &expected.outputs, VALUES);
        if expected.grads.is_empty() {
            continue;
        }
        let n = expected.outputs.len();
        let weights: Vec<f32> = (0..n).map(|at| (at as f32).cos() / n as f32).collect();
        let weights = Tensor::from_data(TensorData::new(weights, [n]), &device);
        let gradients = (outputs * weights).sum().backward();
        let AnyBundle::Decoder(bundle) = &bundle else { panic!("gradients of decoders") };
        let found = by_name(&bundle.model, &gradients);
        assert!(found.keys().all(|param| param.contains(".lora_")), "what is adapted is frozen");
        for (param, theirs) in &expected.grads {
            assert_close(&format!("{name}: {param}"), &found[param], theirs, GRADIENTS);
        }
    }
}

#[test]
fn an_adapter_is_written_as_peft_writes_it() {
    for name in FIXTURES {
        let bundle = open(name, &device());
        let files = AdapterFiles::open(&adapter(name)).unwrap();
        assert!(files.unknown_keys().is_empty(), "{name}: {}", files.unknown_keys());
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        save_adapter(&bundle, files.config(), &copy).unwrap();
        let (ours, theirs) = (tensors_of(&copy), tensors_of(&adapter(name)));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{name}");
        assert!(ours == theirs, "{name}: the values are the same");
        let (mut ours, theirs) = (json_of(&copy), json_of(&adapter(name)));
        // The task may be left open.
        if theirs["task_type"].is_null() {
            ours["task_type"] = Value::Null;
            ours["auto_mapping"] = theirs["auto_mapping"].clone();
        }
        // A name and a list of one are the same to `peft`.
        if theirs["layers_pattern"].is_string() {
            ours["layers_pattern"] = ours["layers_pattern"][0].clone();
        }
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn all_linear_is_what_peft_takes_it_for() {
    let modules = |value: &Value| -> BTreeSet<String> { serde_json::from_value(value.clone()).unwrap() };
    let check = |name: &str, heads: &[&str]| {
        let base = AnyBundle::open(&fixture(&expected(name).base), &device()).unwrap();
        let config = LoraConfig {
            modules_to_save: heads.iter().map(|&head| head.to_owned()).collect(),
            ..LoraConfig::new(2, 2.0)
        };
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        let bundle = match base {
            AnyBundle::Decoder(bundle) => {
                AnyBundle::Decoder(bundle.with_lora(&config, Seed::new(1)).unwrap())
            }
            AnyBundle::Encoder(bundle) => {
                AnyBundle::Encoder(bundle.with_lora(&config, Seed::new(1)).unwrap())
            }
            _ => panic!("no fixture"),
        };
        save_adapter(&bundle, &config, &copy).unwrap();
        let (ours, theirs) = (json_of(&copy), json_of(&adapter(name)));
        assert_eq!(modules(&ours["target_modules"]), modules(&theirs["target_modules"]), "{name}");
        assert_eq!(ours["task_type"], theirs["task_type"], "{name}");
    };
    check("llama-all-linear", &[]);
    check("bert-classify", &["classifier"]);
}

#[test]
fn a_merged_model_computes_the_same() {
    let device = device();
    for name in FIXTURES {
        let bundle = open(name, &device);
        let dir = tempfile::tempdir().unwrap();
        match &bundle {
            AnyBundle::Decoder(bundle) => bundle.save(dir.path()),
            AnyBundle::Classifier(bundle) => bundle.save(dir.path()),
            AnyBundle::Encoder(bundle) => bundle.save(dir.path()),
            AnyBundle::EncoderDecoder(bundle) => bundle.save(dir.path()),
        }
        .unwrap();
        let merged = AnyBundle::open(dir.path(), &device).unwrap();
        let expected = expected(name);
        assert_close(name, &floats(outputs(&merged, &expected.ids, &device)), &expected.outputs, VALUES);
    }
    // One matrix cannot be the embeddings with their adapter and the head without: each gets its own.
    for name in ["llama-tied", "gpt2-dora"] {
        let AnyBundle::Decoder(bundle) = open(name, &device) else { panic!("a decoder") };
        assert_eq!(bundle.split_by_adapter().unwrap().tied, "lm_head.weight");
        let dir = tempfile::tempdir().unwrap();
        bundle.save(dir.path()).unwrap();
        let config = fs::read_to_string(dir.path().join("config.json")).unwrap();
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["tie_word_embeddings"], json!(false));
    }
    // The other families keep their ties.
    let targets = Targets::Names(vec!["lm_head".to_owned()]);
    let bundle = andiron_models::Seq2SeqBundle::open(&fixture("t5"), &device).unwrap();
    if let Ok(bundle) = bundle.with_lora(&LoraConfig { targets, ..LoraConfig::new(2, 2.0) }, Seed::new(1)) {
        let error = bundle.save(tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
        assert!(error.contains("shared.weight") && error.contains("tie_word_embeddings"), "{error}");
    }
}

/// More rows than those for which activations are rounded.
#[test]
fn an_adapter_opens_over_a_quantized_model() {
    let device = device();
    let rows: Vec<Vec<u32>> = (0..6).map(|row| (0..7).map(|at| 4 + (row * 7 + at) % 35).collect()).collect();
    for precision in [RunPrecision::Bf16, RunPrecision::Int8, RunPrecision::Int4] {
        for name in ["llama-all-linear", "llama-dora", "bert-classify", "t5"] {
            // `llama-dora` stores the dense tables below its adapters.
            let base = AnyBundle::open_at(&fixture(&expected(name).base), precision, &device).unwrap();
            let bundle = base.with_adapter(&adapter(name)).unwrap();
            let dir = tempfile::tempdir().unwrap();
            match &bundle {
                AnyBundle::Decoder(bundle) => bundle.save(dir.path()),
                AnyBundle::Classifier(bundle) => bundle.save(dir.path()),
                AnyBundle::Encoder(bundle) => bundle.save(dir.path()),
                AnyBundle::EncoderDecoder(bundle) => bundle.save(dir.path()),
            }
            .unwrap();
            let merged = AnyBundle::open(dir.path(), &device).unwrap();
            let wanted = floats(outputs(&merged, &rows, &device));
            assert_close(name, &floats(outputs(&bundle, &rows, &device)), &wanted, 1e-3);
        }
    }
}

#[test]
fn over_a_quantized_model_factors_and_saved_modules_have_gradients() {
    let device = device().autodiff();
    for precision in [RunPrecision::Bf16, RunPrecision::Int4] {
        let bundle = DecoderBundle::open_at(&fixture("llama"), precision, &device).unwrap();
        let config =
            LoraConfig { modules_to_save: vec!["lm_head".to_owned()], dora: true, ..LoraConfig::new(2, 2.0) };
        let mut wanted = bundle.lora_parameters(&config).unwrap();
        let bundle = bundle.with_lora(&config, Seed::new(1)).unwrap();
        let gradients = outputs(&AnyBundle::Decoder(bundle.clone()), &expected("llama-dora").ids, &device)
            .powi_scalar(2)
            .sum()
            .backward();
        wanted.sort();
        assert_eq!(by_name(&bundle.model, &gradients).into_keys().collect::<Vec<_>>(), wanted);
    }
}

fn llama(device: &Device) -> DecoderBundle {
    DecoderBundle::open(&fixture("llama"), device).unwrap()
}

#[test]
fn a_new_adapter_changes_nothing_and_trains_what_its_configuration_says() {
    let device = device();
    let rows = expected("llama-dora").ids;
    let before = floats(outputs(&AnyBundle::Decoder(llama(&device)), &rows, &device));
    let config = LoraConfig {
        dora: true,
        targets: Targets::Names(vec!["q_proj".to_owned(), "embed_tokens".to_owned()]),
        modules_to_save: vec!["lm_head".to_owned()],
        layers: vec![1],
        ..LoraConfig::new(4, 8.0)
    };
    let layer = "model.layers.1.self_attn.q_proj.weight";
    // `embed_tokens` is in no block.
    let wanted = [
        format!("{layer}.lora_a"),
        format!("{layer}.lora_b"),
        format!("{layer}.lora_magnitude"),
        "lm_head.weight".to_owned(),
    ];
    let bundle = llama(&device);
    assert_eq!(bundle.lora_parameters(&config).unwrap(), wanted);
    let bundle = bundle.with_lora(&config, Seed::new(3)).unwrap();
    let same = |bundle: &DecoderBundle| {
        let found = floats(outputs(&AnyBundle::Decoder(bundle.clone()), &rows, &device));
        assert_close("a new adapter", &found, &before, 1e-5);
    };
    same(&bundle);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter");
    bundle.save_adapter(&config, &path).unwrap();
    // Once more, in the place of the first.
    bundle.save_adapter(&config, &path).unwrap();
    same(&llama(&device).with_adapter(&path).unwrap());
    assert!(matches!(bundle.with_adapter(&path), Err(AdapterError::HasAdapter)));
    fs::write(path.join("notes.txt"), "mine").unwrap();
    let error = llama(&device).with_lora(&config, Seed::new(3)).unwrap().save_adapter(&config, &path);
    assert!(error.unwrap_err().to_string().contains("notes.txt would be lost"));
}

#[test]
fn a_new_head_is_saved_in_the_adapter() {
    let device = device();
    let base = || EncoderBundle::open(&fixture("bert"), &device).unwrap();
    let labels = || vec!["a".to_owned(), "b".to_owned()];
    let head = EncoderHead::Classify { problem: Problem::SingleLabel };
    let bundle = base().with_head(head, labels(), Seed::new(5)).unwrap();
    assert_eq!(bundle.head_modules(), ["classifier"]);
    let config = LoraConfig { modules_to_save: bundle.head_modules(), ..LoraConfig::new(2, 2.0) };
    let bundle = bundle.with_lora(&config, Seed::new(1)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter");
    bundle.save_adapter(&config, &path).unwrap();
    assert_eq!(json_of(&path)["task_type"], "SEQ_CLS");
    let rows = expected("bert").ids;
    // Another new head, which the adapter's replaces.
    let other = base().with_head(head, labels(), Seed::new(6)).unwrap().with_adapter(&path).unwrap();
    let outputs = |bundle: AnyBundle| floats(outputs(&bundle, &rows, &device));
    let wanted = outputs(AnyBundle::Encoder(bundle));
    assert_close("the head", &outputs(AnyBundle::Encoder(other)), &wanted, 1e-6);
    // A base without a head gets that of `config.json` beside the adapter.
    let bare = AnyBundle::Encoder(base()).with_adapter(&path).unwrap();
    let AnyBundle::Encoder(bundle) = &bare else { panic!("an encoder") };
    assert_eq!(bundle.config.labels(), labels());
    assert_close("the head", &outputs(bare), &wanted, 1e-6);
    // The adapter must hold all of it.
    let mut object = json_of(&path);
    object["modules_to_save"] = Value::Null;
    fs::write(path.join("adapter_config.json"), object.to_string()).unwrap();
    let error = AnyBundle::Encoder(base()).with_adapter(&path).unwrap_err().to_string();
    assert!(error.contains("classifier") && error.contains("missing"), "{error}");
}

/// Opens a copy of a fixture whose configuration is changed, over the base of that fixture.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let weights = "adapter_model.safetensors";
    fs::copy(adapter(name).join(weights), dir.path().join(weights)).unwrap();
    let mut object = json_of(&adapter(name));
    change(&mut object);
    fs::write(dir.path().join("adapter_config.json"), object.to_string()).unwrap();
    let base = AnyBundle::open(&fixture(&expected(name).base), &device()).unwrap();
    let error = base.with_adapter(dir.path()).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}

#[test]
fn what_does_not_fit_is_named() {
    let q = "base_model.model.model.layers.0.self_attn.q_proj";
    for (found, parts) in [
        (
            changed("llama-dora", |config| config["r"] = json!(4)),
            vec!["lora_embedding_A", "[2, 61]", "[4, 61]"],
        ),
        (
            changed("llama-dora", |config| config["target_modules"] = json!(["q_proj", "up_proj"])),
            vec!["up_proj.lora_A.weight is missing"],
        ),
        (
            changed("llama-dora", |config| config["target_modules"] = json!(["q_proj"])),
            vec!["neither target_modules"],
        ),
        (
            changed("llama-dora", |config| config["target_modules"] = json!(["nothing"])),
            vec!["matches nothing", "q_proj"],
        ),
        (changed("llama-dora", |config| config["use_dora"] = json!(false)), vec!["lora_magnitude_vector"]),
        (changed("llama-dora", |config| config["bias"] = json!("all")), vec!["bias", "adapter_config.json"]),
        (changed("bert-classify", |config| config["modules_to_save"] = json!(null)), vec!["classifier"]),
        (
            changed("llama-tied", |config| config["modules_to_save"] = json!(["lm_head"])),
            vec!["lm_head cannot be trained in full", "model.embed_tokens"],
        ),
    ] {
        assert!(parts.iter().all(|part| found.contains(part)), "{found}");
    }

    // An adapter of more blocks, of another architecture, of none.
    let DecoderConfig::Llama(mut config) = llama(&device()).config else { panic!("a Llama") };
    config.num_hidden_layers = 1;
    let smaller = || DecoderBundle::init(DecoderConfig::Llama(config.clone()), Seed::new(1), &device());
    let error = smaller().with_adapter(&adapter("llama-all-linear")).unwrap_err().to_string();
    assert!(error.contains("layers.1.") && error.contains("has no place"), "{error}");
    let gpt2 = DecoderBundle::init(DecoderConfig::Gpt2(Gpt2Config::nano(61)), Seed::new(1), &device());
    let error = gpt2.with_adapter(&adapter("llama-dora")).unwrap_err().to_string();
    assert!(error.contains("is it an adapter of this model"), "{error}");
    for path in [fixture("llama"), PathBuf::from("/no such place")] {
        let error = llama(&device()).with_adapter(&path).unwrap_err().to_string();
        assert!(error.contains("is not an adapter"), "{error}");
    }
    assert!(AdapterFiles::open(&adapter("llama-dora")).unwrap().modules().contains(&q[17..].to_owned()));
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let refused =
        |config: LoraConfig| llama(&device()).with_lora(&config, Seed::new(1)).unwrap_err().to_string();
    let plain = LoraConfig::new(2, 2.0);
    assert!(refused(LoraConfig { dropout: 1.0, ..plain.clone() }).contains("dropout is 1"));
    assert!(refused(LoraConfig { dropout: 0.1, dora: true, ..plain.clone() }).contains("dropout is 0.1"));
    let head = Targets::Names(vec!["lm_head".to_owned()]);
    let error = refused(LoraConfig { dropout: 0.1, targets: head, ..plain.clone() });
    assert!(error.starts_with("lm_head:"), "{error}");
    assert!(llama(&device()).with_lora(&LoraConfig { dropout: 0.1, ..plain.clone() }, Seed::new(1)).is_ok());
    assert!(refused(LoraConfig { rank: 0, ..plain.clone() }).contains("rank is 0"));
    let other = vec!["classifier".to_owned()];
    assert!(refused(LoraConfig { modules_to_save: other, ..plain.clone() }).contains("\"classifier\""));
    // Encoder and decoder look up in one table; in `transformers` each has a module of its own.
    let bundle = andiron_models::Seq2SeqBundle::open(&fixture("t5"), &device()).unwrap();
    let targets = Targets::Names(vec!["shared".to_owned()]);
    let error = bundle.with_lora(&LoraConfig { targets, ..plain }, Seed::new(1)).unwrap_err().to_string();
    assert!(error.starts_with("shared:"), "{error}");
}
