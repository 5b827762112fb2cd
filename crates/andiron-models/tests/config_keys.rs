//! Which keys a `config.json` may have: those that matter are honoured or refused by name, the others open.

#![allow(clippy::unwrap_used)] // A test fails where it panics.

mod common;

use std::path::Path;

use andiron_models::hf_config::ConfigError;
use andiron_models::{AnyConfig, ConfigFile, DecoderConfig, EncoderConfig, Seq2SeqConfig};
use serde_json::{Map, Value, json};

use crate::common::{device, fixture};

/// A fixture of each `model_type`.
const FIXTURES: &[(&str, &str)] = &[
    ("gpt2", "gpt2"),
    ("llama", "llama"),
    ("mistral", "mistral"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("gpt_neox", "neox"),
    ("gemma3_text", "gemma3"),
    ("bert", "bert"),
    ("roberta", "roberta-masked-lm"),
    ("xlm-roberta", "xlm-roberta-token-classify"),
    ("distilbert", "distilbert-masked-lm"),
    ("modernbert", "modernbert"),
    ("bart", "bart"),
    ("marian", "marian"),
    ("t5", "t5"),
];

/// The fields of the `config.json` of a `model_type`'s fixture.
fn fields(model_type: &str) -> Map<String, Value> {
    let (_, name) = FIXTURES.iter().find(|(of, _)| *of == model_type).expect("a fixture");
    let text = std::fs::read(fixture(name).join("config.json")).unwrap();
    let Value::Object(fields) = serde_json::from_slice(&text).unwrap() else { panic!("an object") };
    fields
}

fn read(fields: &Map<String, Value>) -> Result<ConfigFile<AnyConfig>, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, serde_json::to_string(fields).unwrap()).unwrap();
    AnyConfig::read_file(&path)
}

/// The fixture's fields with those of `more`.
fn with(model_type: &str, more: &Value) -> Map<String, Value> {
    let mut fields = fields(model_type);
    fields.extend(more.as_object().expect("an object").clone());
    fields
}

/// Opens as it does without `more`, and warns of `unknown`.
#[track_caller]
fn check_opens(model_type: &str, more: Value, unknown: &[&str]) {
    let plain = read(&fields(model_type)).unwrap();
    assert!(plain.unknown_keys.is_empty(), "{model_type}: {}", plain.unknown_keys);
    let read = read(&with(model_type, &more)).unwrap_or_else(|error| panic!("{model_type} {more}: {error}"));
    assert_eq!(read.config, plain.config, "{model_type} {more}");
    assert_eq!(read.unknown_keys.names(), unknown, "{model_type} {more}");
}

/// Is refused by the name of `key`.
#[track_caller]
fn check_refused(model_type: &str, key: &str, more: Value) {
    let error = read(&with(model_type, &more)).expect_err(&format!("{model_type} {more}"));
    let text = match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    assert!(text.contains(key), "{model_type} {more}: {text}");
}

#[test]
fn gpt2_files_of_all_years_open() {
    check_opens("gpt2", json!({"n_special": 0, "predict_special_tokens": true, "n_ctx": 32}), &[]);
    check_opens("gpt2", json!({"output_past": true, "_num_labels": 1}), &[]);
    let old = json!({"finetuning_task": null, "is_decoder": false, "num_labels": 2, "pruned_heads": {},
        "torchscript": false, "use_bfloat16": false, "afn": "gelu"});
    check_opens("gpt2", old, &["afn"]);
}

#[test]
fn a_bart_that_names_several_classes_opens() {
    let classes = ["BartModel", "BartForConditionalGeneration", "BartForSequenceClassification"];
    check_opens("bart", json!({"architectures": classes}), &[]);
    check_refused("bart", "BartForSequenceClassification", json!({"architectures": [classes[2]]}));
}

#[test]
fn modernbert_with_the_epsilon_that_it_never_reads_opens() {
    check_opens("modernbert", json!({"layer_norm_eps": 1e-5}), &["layer_norm_eps"]);
}

#[test]
fn encoders_and_t5_of_the_second_generation_open() {
    let old = json!({"_num_labels": 9, "pruned_heads": {}, "tokenizer_class": "BertTokenizer",
        "output_past": true, "torchscript": false, "xla_device": null, "is_encoder_decoder": null});
    for model_type in ["bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "t5", "bart", "marian"] {
        check_opens(model_type, old.clone(), &[]);
    }
    check_opens("bert", json!({"language": "english", "name": "Bert"}), &["language", "name"]);
}

#[test]
fn what_scaled_positions_do_not_read_is_named_and_opens() {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
    let mut more = yarn.clone();
    more["attn_factor"] = json!(0.878);
    more["finetuned"] = json!(true);
    let plain = read(&with("qwen3", &json!({"rope_scaling": yarn, "rope_parameters": null}))).unwrap();
    let given = read(&with("qwen3", &json!({"rope_scaling": more, "rope_parameters": null}))).unwrap();
    assert_eq!(given.config, plain.config);
    assert_eq!(given.unknown_keys.names(), ["rope_scaling.attn_factor", "rope_scaling.finetuned"]);
    let default = json!({"rope_type": "default", "mrope_section": [2, 1, 1]});
    check_opens("llama", json!({"rope_scaling": default}), &["rope_scaling.mrope_section"]);
}

#[test]
fn copies_of_llama_open_with_the_keys_of_their_makers() {
    let known = json!({"_attn_implementation": "sdpa", "auto_map": {"AutoConfig": "a.B"}, "quantization_config": null,
        "tie_encoder_decoder": false, "sliding_window": null, "_flash_attn_2_enabled": true,
        "partial_rotary_factor": 1.0, "is_encoder_decoder": false});
    check_opens("llama", known, &[]);
    let unread = ["unsloth_fixed", "unsloth_version", "max_sequence_length"];
    let more = json!({"unsloth_fixed": true, "unsloth_version": "2025.1", "max_sequence_length": 2048});
    check_opens("llama", more, &unread);
    let layers = fields("llama")["num_hidden_layers"].as_u64().unwrap() as usize;
    check_opens("llama", json!({"layer_types": vec!["full_attention"; layers]}), &[]);
    check_opens("mistral", json!({"attention_bias": false}), &["attention_bias"]);
    check_opens("qwen2", json!({"use_mrope": false, "seq_length": 32768}), &["seq_length"]);
}

#[test]
fn a_key_that_can_change_a_result_is_refused_by_name() {
    let every = [
        ("add_cross_attention", json!(true)),
        ("attention_chunk_size", json!(8)),
        ("per_layer_config", json!({"0": {}})),
        ("pruned_heads", json!({"0": [1]})),
        ("quantization_config", json!({"quant_method": "gptq"})),
        ("tie_encoder_decoder", json!(true)),
        ("transformers_weights", json!("other.safetensors")),
    ];
    for (model_type, _) in FIXTURES {
        for (key, value) in &every {
            check_refused(model_type, key, json!({*key: value}));
        }
    }
    for model_type in ["gpt2", "llama", "mistral", "qwen2", "qwen3", "gpt_neox", "gemma3_text", "bart", "t5"]
    {
        check_refused(model_type, "is_causal", json!({"is_causal": false}));
    }
    // Every text that is read would be read as a decoder reads it.
    for model_type in ["bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "bart", "marian", "t5"] {
        check_refused(model_type, "is_causal", json!({"is_causal": true}));
    }
    for model_type in ["gpt2", "llama", "gpt_neox", "bart", "marian", "t5"] {
        check_refused(model_type, "sliding_window", json!({"sliding_window": 4}));
        check_refused(model_type, "layer_types", json!({"layer_types": ["sliding_attention"]}));
    }
    for model_type in ["bert", "roberta", "xlm-roberta"] {
        check_refused(model_type, "is_decoder", json!({"is_decoder": true}));
        check_refused(
            model_type,
            "position_embedding_type",
            json!({"position_embedding_type": "relative_key"}),
        );
    }
    for model_type in ["bart", "marian", "t5"] {
        check_refused(model_type, "is_encoder_decoder", json!({"is_encoder_decoder": false}));
    }
    check_refused("llama", "is_encoder_decoder", json!({"is_encoder_decoder": true}));
    check_refused("llama", "partial_rotary_factor", json!({"partial_rotary_factor": 0.5}));
    check_refused("gpt2", "n_special", json!({"n_special": 2}));
    check_refused("gpt_neox", "head_dim", json!({"head_dim": 2}));
    check_refused("modernbert", "head_dim", json!({"head_dim": 2}));
    let local = json!({"sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}});
    for model_type in ["gemma3_text", "modernbert"] {
        let key = "rope_parameters.sliding_attention.rope_type";
        check_refused(model_type, key, json!({"rope_parameters": local}));
    }
}

#[test]
fn another_name_of_a_field_goes_before_the_field() {
    let six = |key: &str| json!({key: 6});
    for (model_type, alias, field) in [
        ("gpt2", "num_hidden_layers", "n_layer"),
        ("distilbert", "num_hidden_layers", "n_layers"),
        ("bart", "num_hidden_layers", "encoder_layers"),
        ("marian", "num_hidden_layers", "encoder_layers"),
        ("t5", "num_hidden_layers", "num_layers"),
    ] {
        let by_alias = read(&with(model_type, &six(alias))).unwrap();
        let by_field = read(&with(model_type, &six(field))).unwrap();
        assert_eq!(by_alias.config, by_field.config, "{model_type}");
        assert_ne!(by_alias.config, read(&fields(model_type)).unwrap().config, "{model_type}");
    }
    // ModernBERT's class has half of its window under the name of a whole one.
    let half = read(&with("modernbert", &json!({"sliding_window": 3}))).unwrap();
    assert_eq!(half.config, read(&with("modernbert", &json!({"local_attention": 6}))).unwrap().config);
}

#[test]
fn an_id_that_no_token_can_have_is_none() {
    for (model_type, _) in FIXTURES {
        for key in ["pad_token_id", "bos_token_id", "eos_token_id"] {
            let none = read(&with(model_type, &json!({key: null}))).unwrap();
            let below = read(&with(model_type, &json!({key: -1}))).unwrap();
            assert_eq!(below.config, none.config, "{model_type} {key}");
        }
    }
    let read = |id: Value| read(&with("llama", &json!({"eos_token_id": id}))).unwrap().config;
    assert_eq!(read(((1_u64 << 53) + 1).into()), read(Value::Null));
}

#[test]
fn several_ids_that_end_a_text_are_read() {
    for (model_type, _) in FIXTURES {
        read(&with(model_type, &json!({"eos_token_id": [2, 3]})))
            .unwrap_or_else(|e| panic!("{model_type}: {e}"));
    }
    let AnyConfig::Decoder(config) = read(&with("gpt2", &json!({"eos_token_id": [2, 3]}))).unwrap().config
    else {
        panic!("a decoder")
    };
    assert_eq!(config.end_ids().as_slice(), [2, 3]);
}

#[test]
fn an_id_beyond_the_vocabulary_begins_no_text() {
    for (model_type, _) in FIXTURES {
        let read = read(&with(model_type, &json!({"bos_token_id": 4_000_000}))).unwrap();
        assert_eq!(read.config.sizes().bos_token_id, None, "{model_type}");
    }
}

#[test]
fn an_encoder_needs_the_id_that_fills_rows_up() {
    for model_type in ["bert", "roberta", "xlm-roberta", "distilbert", "modernbert", "bart", "marian"] {
        check_refused(model_type, "pad_token_id", json!({"pad_token_id": 4_000_000}));
    }
    // T5's class has no row for it: see `a_t5_fills_rows_up_with_any_id`.
    read(&with("t5", &json!({"pad_token_id": 4_000_000}))).unwrap();
}

#[test]
fn a_start_id_below_zero_is_told_as_it_is_written() {
    for model_type in ["bart", "marian", "t5"] {
        check_refused(model_type, "decoder_start_token_id", json!({"decoder_start_token_id": -1}));
        check_refused(model_type, "`-1`", json!({"decoder_start_token_id": -1}));
    }
}

#[test]
fn too_many_heads_are_not_blamed_on_their_width() {
    for model_type in ["llama", "mistral", "qwen2", "qwen3", "gemma3_text"] {
        let heads = json!({"num_attention_heads": 1 << 20, "num_key_value_heads": 1, "head_dim": 8});
        check_refused(model_type, "num_attention_heads is 1048576", heads);
        let wide = json!({"num_attention_heads": 32, "num_key_value_heads": 1, "head_dim": 1 << 16});
        check_refused(model_type, "head_dim is 65536", wide);
    }
    check_refused("t5", "num_heads is 1048576", json!({"num_heads": 1 << 20}));
}

#[test]
fn every_key_that_a_class_reads_is_a_field_or_has_a_rule() {
    let table: Value = serde_json::from_slice(&std::fs::read(fixture("keys.json")).unwrap()).unwrap();
    let names = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    let shared = [names(&table["base"]), names(&table["generation"])].concat();
    let classes = table["classes"].as_object().unwrap();
    assert_eq!(classes.len(), FIXTURES.len());
    for (model_type, class) in classes {
        let aliases: Vec<String> = class["aliases"].as_object().unwrap().keys().cloned().collect();
        for key in [&shared[..], &names(&class["keys"]), &aliases].concat() {
            if key == "model_type" {
                continue;
            }
            // Whatever it says, it is not among the keys that nothing reads.
            for value in [json!("?"), json!(null), json!({"?": 1})] {
                if let Ok(read) = read(&with(model_type, &json!({&key: value}))) {
                    assert!(!read.unknown_keys.names().contains(&key), "{model_type}: {key}");
                }
            }
        }
    }
}

/// What an error says besides the name of its file.
fn reason(error: &ConfigError) -> String {
    match error {
        ConfigError::InFile { reason, .. } => reason.to_string(),
        other => other.to_string(),
    }
}

#[test]
fn a_key_that_is_absent_has_the_value_of_its_class() {
    let table: Value = serde_json::from_slice(&std::fs::read(fixture("keys.json")).unwrap()).unwrap();
    for (model_type, class) in table["classes"].as_object().unwrap() {
        // An id that a file leaves out is none: it does not end a text of another vocabulary.
        let sizes =
            class["defaults"].as_object().unwrap().iter().filter(|(key, _)| !key.ends_with("_token_id"));
        for (key, default) in sizes {
            let (mut absent, said) = (fields(model_type), with(model_type, &json!({ key: default })));
            absent.remove(key);
            match (read(&absent), read(&said)) {
                (Ok(absent), Ok(said)) => assert_eq!(absent.config, said.config, "{model_type}: {key}"),
                // Beside the sizes of a small fixture a value of the class may make no sense.
                (Err(absent), Err(said)) => {
                    assert_eq!(reason(&absent), reason(&said), "{model_type}: {key}")
                }
                (absent, said) => panic!("{model_type}: {key}: {absent:?} {said:?}"),
            }
        }
    }
}

#[test]
fn the_files_of_published_models_open() {
    #[derive(serde::Deserialize)]
    struct Published {
        model: String,
        /// Keys that no release of `transformers` reads.
        unread: Vec<String>,
        config: Map<String, Value>,
    }

    let text = std::fs::read(fixture("published.json")).unwrap();
    let published: Vec<Published> = serde_json::from_slice(&text).unwrap();
    assert!(published.len() >= 60, "{}", published.len());
    for Published { model, unread, config } in published {
        let read = read(&config).unwrap_or_else(|error| panic!("{model}: {error:?}"));
        assert_eq!(read.unknown_keys.names(), unread, "{model}");
        assert!(read.config.summary(&device()).parameters > 1 << 20, "{model}");
    }
}

#[test]
fn strictness_names_all_keys_that_nothing_reads() {
    let read = read(&with("bert", &json!({"colour": 1, "shape": "round"}))).unwrap();
    let error = read.unknown_keys.refuse().unwrap_err();
    assert_eq!(error.to_string(), "the configuration has keys that nothing reads: colour, shape");
    assert!(AnyConfig::open(Path::new(&fixture("bert"))).is_ok());
}

#[test]
fn an_error_names_the_key_and_its_value() {
    check_refused("llama", "key hidden_size is 1e+300", json!({"hidden_size": 1e300}));
    let beyond = (1_u64 << 53) + 1;
    check_refused("llama", "hidden_size is 9007199254740993", json!({"hidden_size": beyond}));
    check_refused("bert", "key vocab_size is \"many\"", json!({"vocab_size": "many"}));
    check_refused("llama", "key rope_scaling is", json!({"rope_scaling": {"rope_type": "longrope"}}));
}

#[test]
fn the_readme_lists_the_catalog() {
    let readme = include_str!("../README.md");
    let rows: Vec<Vec<&str>> = readme
        .lines()
        .filter(|line| line.starts_with("| ") && (line.contains("` | `") || line.contains("` | the same")))
        .map(|line| line.split(" | ").collect())
        .collect();
    let types: Vec<&str> =
        rows.iter().flat_map(|row| row[1].split(", ")).map(|name| name.trim_matches('`')).collect();
    let catalog =
        [DecoderConfig::MODEL_TYPES, EncoderConfig::MODEL_TYPES, Seq2SeqConfig::MODEL_TYPES].concat();
    let mut sorted = [types, catalog];
    sorted.iter_mut().for_each(|names| names.sort_unstable());
    assert_eq!(sorted[0], sorted[1]);
    for (model_type, _) in FIXTURES {
        let config = read(&fields(model_type)).unwrap().config;
        let row = rows.iter().find(|row| row[1].contains(&format!("`{model_type}`"))).unwrap();
        if !matches!(config, AnyConfig::Encoder(_)) {
            assert!(row[2].contains(config.class_name()), "{row:?} names {}", config.class_name());
        }
    }
}
