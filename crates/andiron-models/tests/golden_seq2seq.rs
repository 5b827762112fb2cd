//! Encoder-decoders: our numbers against those of `transformers` on the fixtures that `golden/seq2seq.py` and
//! `golden/t5.py` made.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;
#[path = "common/seq2seq.rs"]
mod seq2seq;

use std::path::Path;

use andiron_models::bundle::Ids;
use andiron_models::encoder_decoder::Seq2SeqGenerator;
use andiron_models::generate::{Decoding, EarlyStopping, GenerateOptions, SamplingParams};
use andiron_models::weights::names;
use andiron_models::{EncoderDecoder, Seq2SeqBundle};

use burn::tensor::{Tensor, TensorData};
use common::{assert_close, by_name, device, fixture, floats};
use seq2seq::{Greedy, VALUES, check_refused, edited, expected, open, own, run, same};

/// Gradients of a weighted mean of the logits.
const GRADIENTS: f32 = 1e-3;

/// All fixtures: each architecture with what changes its mathematics.
const FIXTURES: &[&str] = &[
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

#[track_caller]
fn check_values(name: &str) {
    let expected = expected(name);
    let (hidden_bsd, logits) = run(&open(name), &expected, &device());
    let hidden = floats(own(hidden_bsd, &expected.lengths));
    assert_close(&format!("{name}: encoder"), &hidden, &expected.encoder_hidden, VALUES);
    assert_close(&format!("{name}: logits"), &floats(logits), &expected.logits, VALUES);
}

#[test]
fn encoder_decoders_equal_transformers() {
    FIXTURES.iter().for_each(|name| check_values(name));
}

#[test]
fn gradients_equal_those_of_transformers() {
    let mut checked = 0;
    for name in FIXTURES {
        let expected = expected(name);
        let device = device().autodiff();
        let learner = Seq2SeqBundle::open(&fixture(name), &device).unwrap();
        let (_, logits) = run(&learner, &expected, &device);
        let shape = logits.dims();
        let n: usize = shape.iter().product();
        let weights: Vec<f32> = (0..n).map(|at| (at as f32).cos() / n as f32).collect();
        let weights = Tensor::from_data(TensorData::new(weights, shape), &device);
        let gradients = (logits * weights).sum().backward();
        let found = by_name(&learner.model, &gradients);
        for (parameter, theirs) in &expected.grads {
            assert_close(&format!("{name}: {parameter}"), &found[parameter], theirs, GRADIENTS);
            checked += 1;
        }
        assert!(!found.contains_key("final_logits_bias"), "{name}: the bias is not trained");
    }
    assert!(checked > 10);
}

/// The target that the model likes best, id by id, its start included.
fn greedy(bundle: &Seq2SeqBundle, source: &[u32], longest: usize) -> Vec<u32> {
    let generator = Seq2SeqGenerator::new(bundle, source).with_length_limit(longest);
    let options = GenerateOptions {
        sampling: SamplingParams { temperature: 0.0, ..SamplingParams::default() },
        max_new_tokens: usize::MAX,
        stop_ids: bundle.generation.eos_token_id.as_slice().to_vec(),
        ..GenerateOptions::default()
    };
    let start = generator.start();
    let mut decoding = Decoding::new(&generator, &[start], options).unwrap();
    while decoding.next_token(&generator).unwrap().is_some() {}
    [decoding.prompt(), decoding.generated()].concat()
}

#[test]
fn greedy_targets_equal_those_of_transformers() {
    for name in FIXTURES {
        let expected = expected(name);
        for Greedy { settings, ids } in &expected.greedy {
            let mut bundle = open(name);
            if let Some(Some(id)) = settings.get("forced_bos_token_id") {
                bundle.generation.forced_bos_token_id = Some(*id as u32);
            }
            if let Some(None) = settings.get("forced_eos_token_id") {
                bundle.generation.forced_eos_token_id = Ids::default();
            }
            for ((source, len), theirs) in expected.ids.iter().zip(&expected.lengths).zip(ids) {
                let ours = greedy(&bundle, &source[..*len], settings["max_length"].unwrap());
                assert_eq!(&ours, theirs, "{name} {settings:?}");
            }
        }
    }
}

#[test]
fn a_saved_encoder_decoder_opens_as_it_was() {
    for name in FIXTURES {
        let dir = tempfile::tempdir().unwrap();
        let bundle = open(name);
        bundle.save(dir.path()).unwrap();
        let again = Seq2SeqBundle::open(dir.path(), &device()).unwrap();
        assert_eq!(again.config, bundle.config);
        assert_eq!(again.generation, bundle.generation);
        let expected = expected(name);
        let [ours, theirs] = [&again, &bundle].map(|bundle| floats(run(bundle, &expected, &device()).1));
        assert_eq!(ours, theirs, "{name}");
        let stored = |dir: &Path| -> Vec<String> {
            let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
            let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let mut names: Vec<String> = stored.names().into_iter().map(str::to_owned).collect();
            names.sort();
            names
        };
        assert_eq!(stored(dir.path()), stored(&fixture(name)), "{name}");
        assert_eq!(names(&again.model).len(), stored(dir.path()).len());
    }
}

const SHARED: &str = "model.shared.weight";
const ENCODER: &str = "model.encoder.embed_tokens.weight";
const DECODER: &str = "model.decoder.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

#[test]
fn a_shared_table_may_have_any_of_its_names() {
    for forms in [&[ENCODER][..], &[HEAD], &[DECODER, ENCODER], &[SHARED, ENCODER, DECODER, HEAD]] {
        for name in ["bart", "marian"] {
            let rename = |stored: &str| match stored == SHARED {
                true => forms.iter().map(|&form| form.to_owned()).collect(),
                false => vec![stored.to_owned()],
            };
            let dir = edited(name, |_| (), rename);
            let bundle = Seq2SeqBundle::open(dir.path(), &device()).unwrap();
            let expected = expected(name);
            let logits = floats(run(&bundle, &expected, &device()).1);
            assert_close(name, &logits, &expected.logits, VALUES);
        }
    }
}

#[test]
fn a_file_of_the_bare_model_opens() {
    for name in ["bart", "marian"] {
        let bare = |stored: &str| match stored.strip_prefix("model.") {
            Some("shared.weight") => {
                vec!["encoder.embed_tokens.weight".to_owned(), "shared.weight".to_owned()]
            }
            Some(rest) => vec![rest.to_owned()],
            None => Vec::new(), // The bias.
        };
        let dir = edited(name, |config| config["architectures"] = serde_json::Value::Null, bare);
        let bundle = Seq2SeqBundle::open(dir.path(), &device()).unwrap();
        let expected = expected(name);
        let (hidden_bsd, logits) = run(&bundle, &expected, &device());
        let hidden = floats(own(hidden_bsd, &expected.lengths));
        assert_close(name, &hidden, &expected.encoder_hidden, VALUES);
        let bias = floats(open(name).model.head_bias().unwrap());
        let ours: Vec<f32> = floats(logits).iter().zip(bias.iter().cycle()).map(|(x, b)| x + b).collect();
        assert_close(name, &ours, &expected.logits, VALUES);
    }
}

#[test]
fn an_old_configuration_opens() {
    let dir = edited(
        "marian",
        |config| {
            for (key, value) in [
                ("_num_labels", serde_json::json!(3)),
                ("add_bias_logits", serde_json::json!(false)),
                ("add_final_layer_norm", serde_json::json!(false)),
                ("bad_words_ids", serde_json::json!([[46]])),
                ("classif_dropout", serde_json::json!(0.0)),
                ("extra_pos_embeddings", serde_json::json!(47)),
                ("force_bos_token_to_be_generated", serde_json::json!(false)),
                ("gradient_checkpointing", serde_json::json!(false)),
                ("max_length", serde_json::json!(16)),
                ("normalize_before", serde_json::json!(false)),
                ("normalize_embedding", serde_json::json!(false)),
                ("num_beams", serde_json::json!(4)),
                ("num_hidden_layers", serde_json::json!(2)),
                ("static_position_embeddings", serde_json::json!(true)),
            ] {
                config[key] = value;
            }
        },
        |stored| {
            let positions = "model.encoder.embed_positions.weight".to_owned();
            // Positions that are kept all the same are not read.
            if stored == "final_logits_bias" { vec![stored.to_owned(), positions] } else { same(stored) }
        },
    );
    let generation = Seq2SeqBundle::open(dir.path(), &device()).unwrap().generation;
    assert_eq!(generation.bad_words_ids, Some(vec![vec![46]]));
    assert_eq!((generation.max_length, generation.num_beams), (Some(16), Some(4)));
    assert_eq!(generation.forced_eos_token_id, Ids::One(0));
    assert_eq!(generation.decoder_start_token_id, Some(46));
    assert_eq!(generation.forced_bos_token_id, None);

    let old = |config: &mut serde_json::Value| {
        for (key, value) in [
            ("_num_labels", serde_json::json!(3)),
            ("add_bias_logits", serde_json::json!(false)),
            ("add_final_layer_norm", serde_json::json!(false)),
            ("classif_dropout", serde_json::json!(0.1)),
            ("early_stopping", serde_json::json!(true)),
            ("force_bos_token_to_be_generated", serde_json::json!(true)),
            ("gradient_checkpointing", serde_json::json!(false)),
            ("length_penalty", serde_json::json!(0.6)),
            ("min_length", serde_json::json!(5)),
            ("no_repeat_ngram_size", serde_json::json!(3)),
            ("normalize_before", serde_json::json!(false)),
            ("normalize_embedding", serde_json::json!(true)),
            ("num_hidden_layers", serde_json::json!(2)),
            ("output_past", serde_json::json!(true)),
            ("prefix", serde_json::json!(" ")),
            ("task_specific_params", serde_json::json!({ "summarization": { "num_beams": 4 } })),
        ] {
            config[key] = value;
        }
    };
    let dir = edited("bart", old, same);
    let bundle = Seq2SeqBundle::open(dir.path(), &device()).unwrap();
    assert_eq!(bundle.generation.forced_bos_token_id, Some(0));
    assert_eq!(bundle.generation.early_stopping, Some(EarlyStopping::Yes));
    assert_eq!(bundle.generation.min_length, Some(5));
    // What `config.json` said has its place in `generation_config.json` now.
    let copy = tempfile::tempdir().unwrap();
    bundle.save(copy.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(copy.path().join(name)).unwrap();
    assert!(read("generation_config.json").contains(r#""length_penalty": 0.6,"#));
    assert!(!read("config.json").contains("length_penalty"));
    assert_eq!(Seq2SeqBundle::open(copy.path(), &device()).unwrap().generation, bundle.generation);
}

#[test]
fn the_generation_config_goes_before_the_configuration() {
    let dir = edited("bart", |config| config["num_beams"] = 7.into(), same);
    let text =
        r#"{"eos_token_id": [2, 3], "max_new_tokens": 9, "early_stopping": "never", "top_h": null, "x": 1}"#;
    std::fs::write(dir.path().join("generation_config.json"), text).unwrap();
    let generation = Seq2SeqBundle::open(dir.path(), &device()).unwrap().generation;
    assert_eq!(generation.eos_token_id, Ids::Many(vec![2, 3]));
    assert_eq!(generation.num_beams, None);
    assert_eq!(generation.forced_eos_token_id, Ids::default());
    assert_eq!(generation.decoder_start_token_id, Some(2));
    assert_eq!(generation.pad_token_id, Some(1));
    assert_eq!(generation.length_limit(), Some(10));
    assert_eq!(generation.rest.len(), 1);
}

#[test]
fn a_start_id_that_another_file_replaces_may_be_any() {
    let dir = edited("bart", |config| config["decoder_start_token_id"] = 47.into(), same);
    check_refused(dir.path(), "decoder_start_token_id names token id 47");
    let generation = dir.path().join("generation_config.json");
    std::fs::write(&generation, r#"{"decoder_start_token_id": 2}"#).unwrap();
    let bundle = Seq2SeqBundle::open(dir.path(), &device()).unwrap();
    assert_eq!(bundle.start_id(), 2);
    std::fs::write(&generation, r#"{"decoder_start_token_id": 48}"#).unwrap();
    check_refused(dir.path(), "decoder_start_token_id names token id 48");
}

#[test]
fn what_cannot_be_built_is_refused_by_name() {
    let check = |name: &str, edit: &dyn Fn(&mut serde_json::Value), needle: &str| {
        check_refused(edited(name, edit, same).path(), needle);
    };
    let class = "BartForSequenceClassification";
    check("bart", &|config| config["architectures"] = vec![class].into(), class);
    check("bart", &|config| config["normalize_before"] = true.into(), "normalize_before");
    check("bart", &|config| config["encoder_attention_heads"] = 5.into(), "5 attention heads");
    check("bart", &|config| config["decoder_attention_heads"] = 0.into(), "decoder_attention_heads");
    for key in ["vocab_size", "encoder_ffn_dim", "max_position_embeddings", "d_model"] {
        check("bart", &|config| config[key] = u64::MAX.into(), key);
        check("bart", &|config| config[key] = (3 << 16).into(), "shape");
    }
    check("bart", &|config| config["encoder_layers"] = u64::MAX.into(), "encoder_layers");
    check("bart", &|config| config["dropout"] = 1.into(), "dropout");
    check("bart", &|config| config["decoder_start_token_id"] = 47.into(), "decoder_start_token_id");
    check("bart", &|config| config["forced_bos_token_id"] = 99.into(), "forced_bos_token_id");
    check("bart", &|config| config["early_stopping"] = "sometimes".into(), "early_stopping");
    check("bart", &|config| config["d_model"] = 48.into(), "shape");
    check("bart-untied", &|config| config["tie_word_embeddings"] = true.into(), "tie_word_embeddings");
    check("marian", &|config| config["normalize_embedding"] = true.into(), "normalize_embedding");
    check("marian-separate", &|config| config["decoder_vocab_size"] = 30.into(), "30");
    check("marian-separate", &|config| config["share_encoder_decoder_embeddings"] = true.into(), "31");

    let dir = edited("bart", |_| (), same);
    let text = r#"{"bad_words_ids": [[3, 47]]}"#;
    std::fs::write(dir.path().join("generation_config.json"), text).unwrap();
    check_refused(dir.path(), "bad_words_ids");
    let dropped =
        |stored: &str| if stored == "model.shared.weight" { Vec::new() } else { vec![stored.to_owned()] };
    check_refused(edited("bart", |_| (), dropped).path(), "model.shared.weight");
}

/// Opens a directory and, if that is possible, says something.
fn try_out(dir: &Path) {
    let Ok(bundle) = Seq2SeqBundle::open(dir, &device()) else { return };
    let generator = Seq2SeqGenerator::new(&bundle, &[5]);
    let options = GenerateOptions { max_new_tokens: 3, ..GenerateOptions::default() };
    if let Ok(mut decoding) = Decoding::new(&generator, &[generator.start()], options) {
        while let Ok(Some(_)) = decoding.next_token(&generator) {}
    }
}

#[test]
fn no_value_of_a_key_makes_it_panic() {
    let values = serde_json::json!([
        null,
        true,
        0,
        1,
        -1,
        46,
        47,
        4_294_967_296u64,
        u64::MAX,
        0.5,
        1e300,
        "never",
        [],
        [3],
        [-1],
        [[47]],
        [[]],
        {}
    ]);
    for name in ["bart-scaled", "marian-separate", "t5-gated"] {
        for file in ["config.json", "generation_config.json"] {
            let dir = edited(name, |_| (), same);
            let path = dir.path().join(file);
            let original: serde_json::Value =
                serde_json::from_slice(&std::fs::read(fixture(name).join(file)).unwrap()).unwrap();
            let mut keys: Vec<String> = original.as_object().unwrap().keys().cloned().collect();
            keys.extend(["bad_words_ids", "max_length", "min_length", "early_stopping"].map(str::to_owned));
            for key in keys {
                for value in values.as_array().unwrap() {
                    let mut changed = original.clone();
                    changed[&key] = value.clone();
                    std::fs::write(&path, changed.to_string()).unwrap();
                    try_out(dir.path());
                }
            }
        }
    }
}
