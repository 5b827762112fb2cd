//! `andiron predict` with models that read a text and write another: a tiny BART, and beams of a decoder.

use andiron_core::DeviceSpec;
use andiron_kernels::random::Seed;
use andiron_models::{Seq2SeqBundle, Seq2SeqConfig};
use serde_json::{Value, json};

use crate::common::{Place, check_failure, keys, rows};

/// A BART `model` with random weights; its tokenizer, if wanted, is one of characters.
fn model(place: &Place, tokenizer: bool) {
    let config = json!({
        "model_type": "bart", "vocab_size": 64, "d_model": 16, "max_position_embeddings": 24,
        "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "init_std": 0.6,
    });
    let config: Seq2SeqConfig = serde_json::from_value(config).unwrap();
    let device = DeviceSpec::first_compiled().unwrap().open().unwrap();
    Seq2SeqBundle::init(config, Seed::new(5), &device).save(&place.path("model")).unwrap();
    if tokenizer {
        place.ok(&["tokenizer", "train", "corpus.txt", "--kind", "char", "-o", "characters"]);
        place.write("model/tokenizer.json", place.read("characters/tokenizer.json"));
        place.write("model/tokenizer_config.json", place.read("characters/tokenizer_config.json"));
    }
}

#[track_caller]
fn answers(place: &Place, args: &[&str], input: &[Value]) -> Vec<Value> {
    let text: String = input.iter().map(|row| format!("{row}\n")).collect();
    let ran = place.run_with_input(&[&["predict"], args].concat(), &text);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    rows(&ran.out)
}

const TRANSLATE: &[&str] = &["--model", "model", "--task", "translate"];

#[test]
fn a_target_has_text_ids_and_score() {
    let place = Place::new();
    model(&place, true);
    let long = "the ".repeat(20);
    let input = [
        json!({ "id": "a", "text": "Hamlet", "max_tokens": 6 }),
        json!({ "text": long, "max_tokens": 6 }),
        json!({ "text": &long[..24], "max_tokens": 6 }),
    ];
    let greedy = answers(&place, TRANSLATE, &input);
    assert_eq!(keys(&greedy[0]), ["id", "text", "ids", "score"]);
    assert_eq!(keys(&greedy[1]), ["text", "ids", "score", "truncated"]);
    assert_eq!((&greedy[1]["ids"], &greedy[1]["score"]), (&greedy[2]["ids"], &greedy[2]["score"]));
    assert!((1..=6).contains(&greedy[0]["ids"].as_array().unwrap().len()));
    // The default task of a BART.
    assert_eq!(answers(&place, &["--model", "model", "--task", "summarize"], &input)[0], greedy[0]);
    assert_eq!(answers(&place, &["--model", "model"], &input)[0], greedy[0]);

    // Beams find what is at least as likely, by the same measure, and `score` agrees with what they say.
    let beams =
        answers(&place, &[TRANSLATE, &["--num-beams", "5", "--length-penalty", "0"]].concat(), &input[..1]);
    let alone = answers(&place, &[TRANSLATE, &["--length-penalty", "0"]].concat(), &input[..1]);
    let score = |row: &Value| row["score"].as_f64().unwrap();
    assert!(score(&beams[0]) >= score(&alone[0]) - 1e-5, "{beams:?} {alone:?}");
    let other = answers(&place, &[TRANSLATE, &["--prefix", "to Danish: "]].concat(), &input[..1]);
    assert_ne!(other[0]["score"], greedy[0]["score"]);
    let unique = answers(
        &place,
        &[TRANSLATE, &["--no-repeat-ngram-size", "1", "--max-tokens", "9"]].concat(),
        &[json!({ "text": "Hamlet" })],
    );
    let mut ids: Vec<u64> =
        unique[0]["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    let n = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), n);
}

#[test]
fn scores_are_those_of_the_search() {
    let place = Place::new();
    model(&place, false);
    // Without forced ends, the search says the model's own probabilities.
    let config = place.read("model/generation_config.json");
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config.as_object_mut().unwrap().remove("forced_eos_token_id");
    place.write("model/generation_config.json", config.to_string());
    let source = json!([5, 6, 7, 2]);
    let args = [TRANSLATE, &["--num-beams", "3", "--length-penalty", "0", "--max-tokens", "5"]].concat();
    let found = &answers(&place, &args, &[json!({ "ids": source })])[0];
    assert_eq!(found["text"], Value::Null);
    let row = json!({ "source_ids": source, "target_ids": found["ids"] });
    let scored = &answers(&place, &["--model", "model", "--task", "score"], &[row])[0];
    assert_eq!(keys(scored), ["ids", "logprobs", "sum_logprob", "bytes", "is_greedy"]);
    assert_eq!(scored["ids"], found["ids"]);
    assert!(scored["logprobs"].as_array().unwrap().iter().all(Value::is_number));
    let (sum, score) = (scored["sum_logprob"].as_f64().unwrap(), found["score"].as_f64().unwrap());
    assert!((sum - score).abs() < 1e-4, "{sum} {score}");
}

#[test]
fn precisions_change_scores_a_little() {
    let place = Place::new();
    model(&place, false);
    let row = json!({ "source_ids": [5, 6, 7, 8, 9, 2], "target_ids": [9, 8, 7, 6, 5, 2] });
    let score = |precision: &str| {
        let args = ["--model", "model", "--task", "score", "--precision", precision];
        answers(&place, &args, std::slice::from_ref(&row))[0]["sum_logprob"].as_f64().unwrap()
    };
    let exact = score("f32");
    for precision in ["mixed", "bf16", "int8", "int4"] {
        let (found, ids) = (score(precision), |row: &Value| row["ids"].as_array().unwrap().len());
        assert!(found != exact && (found / exact - 1.0).abs() < 0.05, "{precision}: {found} {exact}");
        let args = [TRANSLATE, &["--precision", precision, "--max-tokens", "3"]].concat();
        assert!(ids(&answers(&place, &args, &[json!({ "ids": [5, 6, 7, 2] })])[0]) > 0);
    }
}

#[test]
fn a_reader_that_writes_can_draw_too() {
    let place = Place::new();
    model(&place, true);
    let input = [
        json!({ "prompt": "Ham", "max_tokens": 5, "seed": 3 }),
        json!({ "prompt": "Ham", "max_tokens": 5, "seed": 3 }),
        json!({ "prompt": "Ham", "max_tokens": 5, "seed": 4 }),
    ];
    let found = answers(&place, &["--model", "model", "--task", "generate"], &input);
    assert_eq!(keys(&found[0]), ["text", "ids", "finish_reason", "sum_logprob"]);
    assert_eq!(found[0], found[1]);
    assert_ne!(found[0]["ids"], found[2]["ids"]);
}

#[test]
fn stop_strings_of_the_generation_config_end_a_target() {
    let place = Place::new();
    model(&place, true);
    let row = [json!({ "text": "Hamlet", "max_tokens": 9 })];
    let config = place.read("model/generation_config.json");
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config.as_object_mut().unwrap().remove("forced_eos_token_id");
    place.write("model/generation_config.json", config.to_string());
    let whole = answers(&place, TRANSLATE, &row)[0]["text"].as_str().unwrap().to_owned();
    let stop: String = whole.chars().skip(2).take(2).collect();
    config["stop_strings"] = json!(stop);
    place.write("model/generation_config.json", config.to_string());
    assert_eq!(answers(&place, TRANSLATE, &row)[0]["text"], whole[..whole.find(&stop).unwrap()]);
    let drawn = [json!({ "prompt": "Hamlet", "max_tokens": 9 })];
    let greedy = ["--model", "model", "--task", "generate", "--temperature", "0"];
    assert_eq!(answers(&place, &greedy, &drawn)[0]["text"], whole[..whole.find(&stop).unwrap()]);
    let input = format!("{}\n", row[0]);
    let ran = place.run_with_input(&[&["predict", "--num-beams", "2"], TRANSLATE].concat(), &input);
    assert!(ran.code == Some(1) && ran.out.contains("stop_strings"), "{ran:?}");
}

#[test]
fn bad_rows_and_settings_are_said() {
    let place = Place::new();
    model(&place, false);
    let input =
        [json!({ "ids": [] }), json!({ "ids": [64] }), json!({ "text": "a" }), json!({ "ids": vec![5; 25] })];
    let text: String = input.iter().map(|row| format!("{row}\n")).collect();
    let ran = place.run_with_input(&[&["predict"], TRANSLATE].concat(), &text);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let said: Vec<_> = rows(&ran.out).iter().map(|row| row["error"]["message"].to_string()).collect();
    for (said, part) in said.iter().zip(["no token to read", "no token 64", "no tokenizer", "at most 24"]) {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let run = |args: &[&str]| place.run(&[&["predict"], TRANSLATE, args].concat());
    check_failure(&run(&["--num-beams", "0"]), 2, &["num_beams"]);
    check_failure(&run(&["--early-stopping", "soon"]), 2, &["early"]);
    check_failure(&place.run(&["predict", "--model", "model", "--task", "embed"]), 1, &["encoder-decoder"]);
    check_failure(&place.run(&["chat", "--model", "model"]), 1, &["decoder"]);
    let shown = place.json(&["inspect", "--model", "model"]);
    assert_eq!(shown["family"], "encoder-decoder");
}

#[test]
fn a_decoder_searches_with_beams() {
    let place = Place::with_model();
    let args = ["--model", "run/model", "--task", "generate"];
    let row = [json!({ "prompt": "Ham", "max_tokens": 5 })];
    let beams =
        &answers(&place, &[&args[..], &["--num-beams", "4", "--length-penalty", "0"]].concat(), &row)[0];
    let greedy = &answers(&place, &[&args[..], &["--temperature", "0"]].concat(), &row)[0];
    assert_eq!(
        (keys(beams), keys(greedy)),
        (keys(greedy), vec!["text", "ids", "finish_reason", "sum_logprob"])
    );
    let sum = |row: &Value| row["sum_logprob"].as_f64().unwrap();
    assert!(sum(beams) >= sum(greedy) - 1e-5, "{beams} {greedy}");
    assert_eq!(beams["text"].as_str().unwrap().chars().count(), 5);
}

#[test]
fn rows_get_together_what_each_gets_alone() {
    let place = Place::new();
    model(&place, true);
    let row = |(number, max_tokens): (usize, i32)| {
        let text = "a king in a wood".repeat(number + 1);
        json!({ "id": number, "text": text, "max_tokens": max_tokens })
    };
    let mut input: Vec<Value> = [6, 3, 9, 3, 0].into_iter().enumerate().map(row).collect();
    input.push(json!({ "text": 7 }));
    let text: String = input.iter().map(|row| format!("{row}\n")).collect();
    for beams in ["1", "3"] {
        let run = |batch: &str| {
            let options = ["--num-beams", beams, "--batch-size", batch];
            let ran = place.run_with_input(&[&["predict"], TRANSLATE, &options].concat(), &text);
            assert_eq!(rows(&ran.out).len(), input.len(), "{ran:?}");
            ran.out
        };
        assert_eq!(run("1"), run("4"), "{beams} beams");
        assert_eq!(run("1"), run("64"), "{beams} beams");
    }
}

#[test]
fn a_reader_that_writes_searches_when_told_to() {
    let place = Place::new();
    model(&place, true);
    let input = [json!({ "prompt": "Hamlet", "max_tokens": 6 })];
    let beams = ["--model", "model", "--num-beams", "4"];
    let found = &answers(&place, &[&beams[..], &["--task", "generate"]].concat(), &input)[0];
    assert_eq!(keys(found), ["text", "ids", "finish_reason", "sum_logprob"]);
    let row = [json!({ "text": "Hamlet", "max_tokens": 6 })];
    let summary = &answers(&place, &[&beams[..], &["--task", "summarize"]].concat(), &row)[0];
    assert_eq!((&found["ids"], &found["text"]), (&summary["ids"], &summary["text"]));
    // No seed changes what a search finds.
    let seeded = [&beams[..], &["--task", "generate", "--seed", "9"]].concat();
    assert_eq!(&answers(&place, &seeded, &input)[0], found);
}

#[test]
fn the_model_may_say_that_targets_are_drawn() {
    let place = Place::new();
    model(&place, true);
    let config = place.read("model/generation_config.json");
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    (config["do_sample"], config["temperature"]) = (true.into(), 20.0.into());
    place.write("model/generation_config.json", config.to_string());
    let row = [json!({ "text": "Hamlet", "max_tokens": 9 })];
    let ids = |more: &[&str]| answers(&place, &[TRANSLATE, more].concat(), &row)[0]["ids"].clone();
    assert_eq!(ids(&["--seed", "1"]), ids(&["--seed", "1"]));
    assert_ne!(ids(&["--seed", "1"]), ids(&["--seed", "2"]));
    assert_eq!(ids(&["--seed", "1", "--temperature", "0"]), ids(&["--seed", "2", "--temperature", "0"]));
    let refused = place.run(&[&["predict"], TRANSLATE, &["--num-beams", "2"]].concat());
    check_failure(&refused, 1, &["do_sample", "--num-beams 1", "--temperature 0"]);
}
