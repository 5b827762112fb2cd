//! `andiron predict` over the files of sentence-transformers and PyTorch, with the numbers of `golden/sentence.py`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{Place, check_failure, rows};

/// Numbers of both sides are f32.
const TOLERANCE: f64 = 2e-5;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn expected(name: &str) -> Value {
    let all: Value = serde_json::from_slice(&fs::read(golden("expected.json")).unwrap()).unwrap();
    assert!(!all[name].is_null(), "{name}");
    all[name].clone()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, to).unwrap();
        }
    }
}

/// A place with the golden model `name` as `model`.
fn place(name: &str) -> Place {
    let place = Place::new();
    copy(&golden(name), &place.path("model"));
    place
}

fn write(place: &Place, name: &str, content: &Value) {
    place.write(&format!("model/{name}"), content.to_string());
}

/// Changes keys of a JSON file.
fn edit(place: &Place, name: &str, keys: &Value) {
    let mut content: Value = serde_json::from_slice(&place.read(&format!("model/{name}"))).unwrap();
    for (key, value) in keys.as_object().unwrap() {
        content[key] = value.clone();
    }
    write(place, name, &content);
}

/// `modules.json` with a Transformer, a Pooling and what else is given.
fn modules(place: &Place, more: &[&str]) {
    let kinds = ["Transformer", "Pooling"].iter().chain(more).enumerate();
    let step = |(index, kind): (usize, &&str)| {
        let path = if index == 0 { String::new() } else { format!("{index}_{kind}") };
        json!({ "idx": index, "name": index.to_string(), "path": path,
                "type": format!("sentence_transformers.models.{kind}") })
    };
    write(place, "modules.json", &kinds.map(step).collect());
}

#[track_caller]
fn answer(place: &Place, args: &[&str], row: &Value) -> Value {
    let ran = place.run_with_input(&[&["predict", "--model", "model"], args].concat(), &format!("{row}\n"));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    rows(&ran.out).remove(0)
}

#[track_caller]
fn check_vector(place: &Place, args: &[&str], text: &str, name: &str) {
    let found = answer(place, args, &json!({ "text": text }));
    let wanted = expected(name);
    let (found, wanted) = (found["embedding"].as_array().unwrap(), wanted.as_array().unwrap());
    assert_eq!(found.len(), wanted.len(), "{name}");
    for (found, wanted) in found.iter().zip(wanted) {
        let difference = (found.as_f64().unwrap() - wanted.as_f64().unwrap()).abs();
        assert!(difference < TOLERANCE, "{name}: {found} {wanted}");
    }
}

fn long() -> String {
    "a b hello ! ".repeat(20)
}

fn no_limit(place: &Place) {
    edit(place, "tokenizer_config.json", &json!({ "model_max_length": null }));
}

#[test]
fn texts_are_read_as_far_as_the_files_say() {
    let place = place("sentence");
    check_vector(&place, &[], &long(), "long");
    let with_limit = answer(&place, &[], &json!({ "text": long() }));
    assert_eq!(with_limit["truncated"], true);
    write(&place, "sentence_bert_config.json", &json!({ "max_seq_length": 20 }));
    check_vector(&place, &[], &long(), "own limit first");
    write(&place, "sentence_bert_config.json", &json!({ "max_seq_length": null }));
    check_vector(&place, &[], &long(), "long");
    fs::remove_file(place.path("model/sentence_bert_config.json")).unwrap();
    no_limit(&place);
    check_vector(&place, &[], &long(), "whole");
    write(&place, "sentence_roberta_config.json", &json!({ "max_seq_length": 12 }));
    check_vector(&place, &[], &long(), "old name");
    write(&place, "sentence_bert_config.json", &json!({ "processor_kwargs": { "model_max_length": 16 } }));
    check_vector(&place, &[], &long(), "long");
}

#[test]
fn a_model_in_the_folder_that_modules_json_names_is_read_as_beside_it() {
    let place = place("sentence");
    fs::create_dir(place.path("model/0_Transformer")).unwrap();
    for name in ["config.json", "pytorch_model.bin", "tokenizer.json", "tokenizer_config.json"] {
        fs::rename(place.path("model").join(name), place.path("model/0_Transformer").join(name)).unwrap();
    }
    // Without the folder's name there is no model here.
    let ran = place.run_with_input(&["predict", "--model", "model"], "");
    check_failure(&ran, 1, &["model/config.json"]);
    let mut list: Value = serde_json::from_slice(&place.read("model/modules.json")).unwrap();
    list[0]["path"] = "0_Transformer".into();
    write(&place, "modules.json", &list);
    check_vector(&place, &[], &long(), "long");
    write(&place, "0_Transformer/sentence_bert_config.json", &json!({ "max_seq_length": 20 }));
    check_vector(&place, &[], &long(), "own limit first");
    // The folder is one of the model's own.
    list[0]["path"] = "../model/0_Transformer".into();
    write(&place, "modules.json", &list);
    check_failure(
        &place.run_with_input(&["predict", "--model", "model"], ""),
        1,
        &["modules.json", "../model"],
    );
    list[0]["path"] = "0_Other".into();
    write(&place, "modules.json", &list);
    check_failure(&place.run_with_input(&["predict", "--model", "model"], ""), 1, &["0_Other/config.json"]);
}

#[test]
fn texts_are_read_in_lower_case_if_the_files_say_so() {
    let place = place("sentence");
    let tokenizer = String::from_utf8(place.read("model/tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&tokenizer).unwrap();
    tokenizer["normalizer"]["lowercase"] = false.into();
    tokenizer["normalizer"]["strip_accents"] = false.into();
    write(&place, "tokenizer.json", &tokenizer);
    check_vector(&place, &[], "HELLO A", "cased");
    write(&place, "sentence_bert_config.json", &json!({ "max_seq_length": null, "do_lower_case": true }));
    check_vector(&place, &[], "HELLO A", "lower case");
}

#[test]
fn prompts_stand_before_texts() {
    let place = place("sentence");
    no_limit(&place);
    let prompts = json!({ "prompts": { "query": "hello b ", "s": "! " }, "default_prompt_name": "query" });
    write(&place, "config_sentence_transformers.json", &prompts);
    check_vector(&place, &[], "a", "prompt");
    check_vector(&place, &["--prompt-name", "s"], "a", "prompt s");
    check_vector(&place, &["--prompt", "b b "], "a", "prompt given");
    check_vector(&place, &["--prompt", ""], "hello b a", "prompt");
    let wrong = place.run(&["predict", "--model", "model", "--prompt-name", "passage"]);
    check_failure(&wrong, 2, &["passage", "query, s"]);
    let pooling =
        |mode: &str| json!({ "embedding_dimension": 8, "pooling_mode": mode, "include_prompt": false });
    write(&place, "1_Pooling/config.json", &pooling("mean"));
    check_vector(&place, &[], "a", "prompt left out");
    write(&place, "1_Pooling/config.json", &pooling("cls"));
    check_vector(&place, &[], "a", "prompt left out, cls");
    // Of a prompt that leaves no room the closing token is left, as in the reference.
    let filled = answer(&place, &["--prompt", &long()], &json!({ "text": "a" }));
    assert_eq!((filled["embedding"].as_array().unwrap().len(), &filled["truncated"]), (8, &true.into()));
    write(&place, "config_sentence_transformers.json", &json!({ "default_prompt_name": "s" }));
    check_failure(&place.run(&["predict", "--model", "model"]), 1, &["default_prompt_name", "\"s\""]);
}

#[test]
fn a_dense_module_maps_the_vector() {
    let place = place("sentence");
    no_limit(&place);
    modules(&place, &["Dense", "Normalize"]);
    copy(&golden("dense"), &place.path("model/2_Dense"));
    check_vector(&place, &[], "hello a", "dense tanh");
    edit(
        &place,
        "2_Dense/config.json",
        &json!({ "activation_function": "torch.nn.modules.activation.GELU" }),
    );
    check_vector(&place, &[], "hello a", "dense gelu");
    copy(&golden("residual"), &place.path("model/2_Dense"));
    check_vector(&place, &[], "hello a", "dense mapped residual");
    // What cannot be followed is refused by name.
    for (key, value) in [
        ("activation_function", json!("custom.Swish")),
        ("module_input_name", json!("token_embeddings")),
        ("in_features", json!(7)),
        ("use_residual", json!(1)),
    ] {
        copy(&golden("residual"), &place.path("model/2_Dense"));
        edit(&place, "2_Dense/config.json", &json!({ key: value }));
        let name = if key == "in_features" { "linear.weight" } else { key };
        check_failure(&place.run(&["predict", "--model", "model"]), 1, &[name]);
    }
    modules(&place, &["WordWeights"]);
    check_failure(&place.run(&["predict", "--model", "model"]), 1, &["WordWeights", "not supported"]);
}

#[test]
fn a_key_that_says_nothing_is_warned_of_and_one_that_does_is_refused() {
    let place = place("sentence");
    write(&place, "sentence_bert_config.json", &json!({ "colour": "red", "max_seq_length": 16 }));
    let row = format!("{}\n", json!({ "text": long() }));
    let ran = place.run_with_input(&["predict", "--model", "model"], &row);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("colour"), "{ran:?}");
    write(&place, "sentence_bert_config.json", &json!({ "model_args": { "num_hidden_layers": 1 } }));
    check_failure(&place.run(&["predict", "--model", "model"]), 1, &["model_args", "num_hidden_layers"]);
    write(&place, "sentence_bert_config.json", &json!({ "transformer_task": "fill-mask" }));
    check_failure(&place.run(&["predict", "--model", "model"]), 1, &["transformer_task"]);
}

#[test]
fn weights_of_pytorch_are_read_in_one_file_and_in_shards() {
    let place = place("sentence");
    fs::remove_file(place.path("model/pytorch_model.bin")).unwrap();
    copy(&golden("shards"), &place.path("model"));
    check_vector(&place, &[], &long(), "long");
    fs::remove_file(place.path("model/pytorch_model.bin.index.json")).unwrap();
    place.write("model/tf_model.h5", "");
    let ran = place.run(&["predict", "--model", "model"]);
    check_failure(&ran, 1, &["tf_model.h5", "TensorFlow", "pytorch_model.bin"]);
}

/// Score of a document, or of a label.
#[track_caller]
fn check_score(found: &Value, wanted: &Value) {
    let difference = (found.as_f64().unwrap() - wanted.as_f64().unwrap()).abs();
    assert!(difference < TOLERANCE, "{found} {wanted}");
}

#[test]
fn a_cross_encoder_reads_as_the_reference_does() {
    let place = place("cross");
    let row = json!({ "query": "hello a", "documents": ["hello hello a b ! ".repeat(6)] });
    let score = || answer(&place, &["--task", "rerank"], &row)["results"][0]["score"].clone();
    check_score(&score(), &expected("rerank"));
    let names = json!({ "model_input_names": ["input_ids", "token_type_ids", "attention_mask"] });
    edit(&place, "tokenizer_config.json", &names);
    check_score(&score(), &expected("rerank typed"));
    edit(&place, "tokenizer_config.json", &json!({ "model_input_names": null }));
    copy(&golden("cross-saved"), &place.path("model"));
    check_score(&score(), &expected("rerank saved"));
}

#[test]
fn one_label_has_a_probability_unless_it_is_a_number() {
    let place = place("cross");
    let score = || answer(&place, &[], &json!({ "text": "hello a" }))["labels"][0]["score"].clone();
    check_score(&score(), &expected("one label")["LABEL_0"]);
    edit(&place, "config.json", &json!({ "problem_type": "single_label_classification" }));
    check_score(&score(), &expected("one label")["LABEL_0"]);
    edit(&place, "config.json", &json!({ "problem_type": "regression" }));
    check_score(&score(), &expected("one number")["LABEL_0"]);
}

#[test]
fn a_pair_is_read_by_a_model_that_tells_no_texts_apart() {
    let place = place("untyped");
    let row = json!({ "text": "hello a", "text_pair": "b" });
    for keys in [json!({}), json!({ "model_input_names": ["input_ids", "token_type_ids", "attention_mask"] })]
    {
        edit(&place, "tokenizer_config.json", &keys);
        let found = answer(&place, &[], &row);
        assert_eq!(found["labels"][0]["label"], "LABEL_1");
        check_score(&found["labels"][0]["score"], &expected("untyped pair")["LABEL_1"]);
    }
}

#[test]
fn a_type_that_the_model_has_not_is_the_rows_error() {
    let place = place("cross");
    let input: String = [
        json!({ "id": 1, "ids": [2, 5, 3] }),
        json!({ "id": 2, "ids": [2, 5, 3], "type_ids": [0, 5, 0] }),
        json!({ "id": 3, "ids": [2, 5, 3], "type_ids": [0, 1, 1] }),
        json!({ "id": 4, "ids": [2, 5, 3] }),
    ]
    .iter()
    .map(|row| format!("{row}\n"))
    .collect();
    let ran = place.run_with_input(&["predict", "--model", "model"], &input);
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), ""), "{ran:?}");
    let found = rows(&ran.out);
    assert_eq!(found[1]["error"]["code"], "invalid_row");
    let message = found[1]["error"]["message"].as_str().unwrap();
    assert!(message.contains("type_ids has 5 at position 1"), "{message}");
    assert_eq!((&found[0]["labels"], found[2]["labels"].is_array()), (&found[3]["labels"], true));
}
