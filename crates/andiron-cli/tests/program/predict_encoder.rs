//! `andiron predict` with models that read: one tiny encoder for each head.

use andiron_core::DeviceSpec;
use andiron_kernels::random::Seed;
use andiron_models::encoder::bert::BertConfig;
use andiron_models::encoder::{EmbedPipeline, Problem};
use andiron_models::{EncoderBundle, EncoderConfig, EncoderHead};
use serde_json::{Value, json};

use crate::common::{Place, check_failure, keys, rows};

const WORDS: &[&str] = &[
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "café", "was", "where", "on",
    "mat",
];

/// A model `name` with random weights, and a tokenizer of a few words in BERT's frame.
fn model(place: &Place, name: &str, head: EncoderHead, labels: &[&str], tokenizer: bool) {
    let small = BertConfig {
        hidden_size: 16,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 24,
        initializer_range: 0.6,
        ..BertConfig::tiny(WORDS.len())
    };
    let labels = labels.iter().map(|&label| label.to_owned()).collect();
    let config = EncoderConfig::Bert(small).with_head(head, labels).unwrap();
    let device = DeviceSpec::first_compiled().unwrap().open().unwrap();
    let mut bundle = EncoderBundle::init(config, Seed::new(5), &device);
    if head == EncoderHead::None {
        bundle.embedding =
            Some(EmbedPipeline { normalize: true, max_tokens: Some(8), ..EmbedPipeline::default() });
    }
    bundle.save(&place.path(name)).unwrap();
    if tokenizer {
        place.write(&format!("{name}/tokenizer.json"), tokenizer_json().to_string());
        place.write(
            &format!("{name}/tokenizer_config.json"),
            r#"{"mask_token":"[MASK]","unk_token":"[UNK]"}"#,
        );
    }
}

/// A tokenizer of a few words in BERT's frame.
pub fn tokenizer_json() -> Value {
    let added = |id: u64, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    let vocab: Value = WORDS.iter().enumerate().map(|(id, &word)| (word.to_owned(), json!(id))).collect();
    let special = |token: &str, id: u64| json!({ "id": token, "ids": [id], "tokens": [token] });
    let sequence = |id: &str, type_id: u64| json!({ "Sequence": { "id": id, "type_id": type_id } });
    let token = |id: &str, type_id: u64| json!({ "SpecialToken": { "id": id, "type_id": type_id } });
    let (cls, a, sep) = (token("[CLS]", 0), sequence("A", 0), token("[SEP]", 0));
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "[PAD]"), added(2, "[CLS]"), added(3, "[SEP]"), added(4, "[MASK]")],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                        "strip_accents": false, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "TemplateProcessing", "single": [cls, a, sep],
            "pair": [cls, a, sep, sequence("B", 1), token("[SEP]", 1)],
            "special_tokens": { "[CLS]": special("[CLS]", 2), "[SEP]": special("[SEP]", 3) } },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": false },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                   "max_input_chars_per_word": 100, "vocab": vocab },
    })
}

/// The answers to `input`, all of which must succeed.
#[track_caller]
fn answers(place: &Place, args: &[&str], input: &[Value]) -> Vec<Value> {
    let text: String = input.iter().map(|row| format!("{row}\n")).collect();
    let ran = place.run_with_input(&[&["predict", "--model", "model"], args].concat(), &text);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    let answers = rows(&ran.out);
    assert_eq!(answers.len(), input.len());
    answers
}

/// The errors of rows that cannot be answered.
#[track_caller]
fn errors(place: &Place, input: &[Value]) -> Vec<String> {
    let text: String = input.iter().map(|row| format!("{row}\n")).collect();
    let ran = place.run_with_input(&["predict", "--model", "model"], &text);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let said = |row: &Value| row["error"]["message"].as_str().unwrap_or_else(|| panic!("{row}")).to_owned();
    rows(&ran.out).iter().map(said).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

#[test]
fn masks_are_filled_by_text_and_by_ids() {
    let place = Place::new();
    model(&place, "model", EncoderHead::MaskedLm, &[], true);
    let input = [
        json!({ "id": 7, "text": "the [MASK] sat" }),
        json!({ "ids": [2, 5, 4, 8, 3], "mask_positions": [2] }),
        json!({ "ids": [2, 5, 4, 8, 3] }),
        json!({ "ids": [2, 5, 4, 8, 3], "mask_positions": [2, 1] }),
    ];
    let found = answers(&place, &["--top", "14"], &input);
    assert_eq!((keys(&found[0]), &found[0]["id"]), (vec!["id", "masks"], &7.into()));
    assert_eq!(found[0]["masks"], found[1]["masks"]);
    assert_eq!(found[1]["masks"], found[2]["masks"]);
    let mask = &found[0]["masks"][0];
    assert_eq!((keys(mask), &mask["position"]), (vec!["position", "top"], &2.into()));
    let top = mask["top"].as_array().unwrap();
    assert_eq!((top.len(), keys(&top[0])), (14, vec!["token", "id", "prob"]));
    let probabilities: Vec<f64> = top.iter().map(|guess| guess["prob"].as_f64().unwrap()).collect();
    assert!(probabilities.windows(2).all(|pair| pair[0] >= pair[1]), "{probabilities:?}");
    assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5);
    let cat = top.iter().find(|guess| guess["id"] == 6).unwrap();
    assert_eq!(cat["token"], "cat");
    assert_eq!(found[3]["masks"].as_array().unwrap().len(), 2);
    assert_eq!(found[3]["masks"][0]["top"][0]["id"], found[0]["masks"][0]["top"][0]["id"]);

    let said = errors(
        &place,
        &[
            json!({ "text": "the cat" }),
            json!({ "text": "[MASK] [SEP]" }),
            json!({ "ids": [2, 99], "mask_positions": [1] }),
            json!({ "ids": [2, 3], "mask_positions": [2] }),
            json!({ "text": "the [MASK]", "ids": [2] }),
            json!({ "text": "the ".repeat(30) + "[MASK]" }),
            json!({ "text": "[MASK]", "top": 3 }),
        ],
    );
    let parts =
        ["write [MASK]", "\"[SEP]\"", "no token 99", "no position 2", "not both", "24 tokens", "field top"];
    for (said, part) in said.iter().zip(parts) {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[test]
fn embeddings_follow_the_files_and_the_flags() {
    let place = Place::new();
    model(&place, "model", EncoderHead::None, &[], true);
    let input = [
        json!({ "text": "the cat" }),
        json!({ "ids": [2, 5, 6, 3] }),
        json!({ "text": "the cat sat on the mat was where" }),
        json!({ "text": "the cat sat on the mat" }),
    ];
    let found = answers(&place, &[], &input);
    assert_eq!((keys(&found[0]), keys(&found[2])), (vec!["embedding"], vec!["embedding", "truncated"]));
    assert_eq!(found[0], found[1]);
    assert_eq!(found[2]["embedding"], found[3]["embedding"]);
    let length = |value: &Value| floats(value).iter().map(|x| x * x).sum::<f64>().sqrt();
    assert_eq!(floats(&found[0]["embedding"]).len(), 16);
    assert!((length(&found[0]["embedding"]) - 1.0).abs() < 1e-5);
    let raw = answers(&place, &["--normalize=false", "--pooling", "cls"], &input[..1]);
    assert!((length(&raw[0]["embedding"]) - 1.0).abs() > 1e-3);
    assert_ne!(raw[0], answers(&place, &["--normalize=false"], &input[..1])[0]);

    let row = json!({ "query": "the cat sat", "documents": ["on", "the cat sat", "where"] });
    let ranked = answers(&place, &["--task", "rerank"], &[row]);
    let results = ranked[0]["results"].as_array().unwrap();
    assert_eq!(
        (results.len(), keys(&results[0]), &results[0]["index"]),
        (3, vec!["index", "score"], &1.into())
    );
    assert!((results[0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{results:?}");
    let said = errors(
        &place,
        &[json!({ "ids": [] }), json!({ "text": 3 }), json!({ "text": "a", "text_pair": "b" })],
    );
    assert!(
        said[0].contains("no token") && said[1].contains("string") && said[2].contains("text_pair"),
        "{said:?}"
    );
}

#[test]
fn precisions_change_embeddings_a_little() {
    let place = Place::new();
    model(&place, "model", EncoderHead::None, &[], true);
    let input = [json!({ "text": "the cat sat on the mat" })];
    let embedding = |args: &[&str]| floats(&answers(&place, args, &input).remove(0)["embedding"]).into_iter();
    assert!(embedding(&[]).eq(embedding(&["--precision", "f32"])));
    for precision in ["mixed", "bf16", "int8", "int4"] {
        let pairs = embedding(&[]).zip(embedding(&["--precision", precision]));
        let cosine: f64 = pairs.map(|(a, b)| a * b).sum();
        // Both have length 1.
        assert!((0.999..1.0 - 1e-9).contains(&cosine), "{precision}: {cosine}");
    }
}

#[test]
fn labels_come_best_first_and_add_up() {
    let place = Place::new();
    let head = EncoderHead::Classify { problem: Problem::SingleLabel };
    model(&place, "model", head, &["bad", "good", "unsure"], true);
    let input = [
        json!({ "text": "the cat", "text_pair": "sat on" }),
        json!({ "ids": [2, 5, 6, 3, 8, 12, 3], "type_ids": [0, 0, 0, 0, 1, 1, 1] }),
        json!({ "ids": [2, 5, 6, 3, 8, 12, 3] }),
    ];
    let found = answers(&place, &[], &input);
    assert_eq!(found[0], found[1]);
    assert_ne!(found[0], found[2]);
    let labels = found[0]["labels"].as_array().unwrap();
    assert_eq!((labels.len(), keys(&labels[0])), (3, vec!["label", "score"]));
    let scores: Vec<f64> = labels.iter().map(|label| label["score"].as_f64().unwrap()).collect();
    assert!(
        (scores.iter().sum::<f64>() - 1.0).abs() < 1e-5 && scores.windows(2).all(|pair| pair[0] >= pair[1])
    );
    let ran = place.run(&["predict", "--model", "model", "--task", "embed"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = place.run(&["predict", "--model", "model", "--task", "answer"]);
    check_failure(&ran, 1, &["answer", "BertForSequenceClassification"]);
    let ran = place.run(&["predict", "--model", "model", "--task", "rerank"]);
    check_failure(&ran, 1, &["one label", "3"]);
    let ran = place.run(&["predict", "--model", "model", "--task", "generate"]);
    check_failure(&ran, 1, &["encoder"]);
    let said = errors(&place, &[json!({ "ids": [2, 3], "type_ids": [0] }), json!({ "id": 1 })]);
    assert!(said[0].contains("1 type_ids for 2 ids") && said[1].contains("text"), "{said:?}");
}

#[test]
fn labels_are_measured_beside_the_fields_that_are_kept() {
    let place = Place::new();
    let head = EncoderHead::Classify { problem: Problem::SingleLabel };
    model(&place, "model", head, &["low", "high"], true);
    let input = [
        json!({ "text": "the cat", "label": 1, "name": "low", "more": [] }),
        json!({ "text": "the mat", "label": 0, "name": "high", "more": null }),
    ];
    let keep = ["--keep", "label=name", "--keep", "input=text"];
    let found = answers(&place, &keep, &input);
    assert_eq!(keys(&found[0]), ["label", "input", "labels"]);
    assert_eq!((&found[1]["label"], &found[1]["input"]), (&json!("high"), &json!("the mat")));
    let right = found.iter().filter(|row| row["labels"][0]["label"] == row["label"]).count();
    place.write("found.jsonl", found.iter().map(|row| format!("{row}\n")).collect::<String>());
    let report = place.json(&["metric", "accuracy", "--rows", "found.jsonl"]);
    assert_eq!(report["value"].as_f64().unwrap(), right as f64 / 2.0);

    let refused = |keep: &str, part: &str| {
        let text = format!("{}\n", input[0]);
        let ran = place.run_with_input(&["predict", "--model", "model", "--keep", keep], &text);
        let said = rows(&ran.out)[0]["error"]["message"].as_str().unwrap().to_owned();
        assert!(ran.code == Some(1) && said.contains(part), "{said}");
    };
    refused("labels", "line 1: there is no labels to keep");
    refused("labels=label", "the answer has a labels of its own");
    let ran = place.run_with_input(&["predict", "--model", "model", "--keep", "=text"], "");
    check_failure(&ran, 2, &["the name of a field is empty"]);
}

#[test]
fn a_decoder_labels_texts_too() {
    let place = Place::new();
    let fixture = "../andiron-models/tests/golden/llama-classify";
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(fixture);
    for file in ["config.json", "model.safetensors"] {
        std::fs::create_dir_all(place.path("model")).unwrap();
        std::fs::copy(fixture.join(file), place.path("model").join(file)).unwrap();
    }
    place.write("model/tokenizer.json", tokenizer_json().to_string());
    let input =
        [json!({ "text": "the cat sat" }), json!({ "ids": [2, 5, 6, 8, 3] }), json!({ "ids": [2, 5, 6, 8] })];
    let all = answers(&place, &[], &input);
    // The id 3 fills rows up: what stands before it is the text.
    assert_eq!(all[0], all[1]);
    let best = |answer: &Value| answer["labels"][0]["score"].as_f64().unwrap();
    assert!((best(&all[1]) - best(&all[2])).abs() < 1e-6, "{all:?}");
    let labels = all[0]["labels"].as_array().unwrap();
    let sum: f64 = labels.iter().map(|label| label["score"].as_f64().unwrap()).sum();
    assert!(labels.len() == 3 && (sum - 1.0).abs() < 1e-5, "{labels:?}");
    for (task, said) in [("generate", "use the task classify"), ("embed", "encoder")] {
        check_failure(&place.run(&["predict", "--model", "model", "--task", task]), 1, &[said]);
    }
}

#[test]
fn a_cross_encoder_reranks() {
    let place = Place::new();
    model(&place, "model", EncoderHead::Classify { problem: Problem::Regression }, &["fit"], true);
    let documents: Vec<&str> = WORDS[5..].iter().copied().cycle().take(20).collect();
    let row = json!({ "query": "where", "documents": documents });
    let found = answers(&place, &["--task", "rerank"], &[row, json!({ "query": "where", "documents": [] })]);
    let results = found[0]["results"].as_array().unwrap();
    let scores: Vec<f64> = results.iter().map(|result| result["score"].as_f64().unwrap()).collect();
    assert!(scores.windows(2).all(|pair| pair[0] >= pair[1]) && scores.len() == 20);
    assert_eq!(found[1]["results"], json!([]));
    // Each as when it is read alone.
    let logit = answers(&place, &[], &[json!({ "text": "where", "text_pair": documents[2] })])[0]["labels"]
        [0]["score"]
        .as_f64()
        .unwrap();
    let score = results.iter().find(|result| result["index"] == 2).unwrap()["score"].as_f64().unwrap();
    assert!((score - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-5, "{score} {logit}");
}

#[test]
fn entities_stand_at_characters() {
    let place = Place::new();
    model(&place, "model", EncoderHead::TokenClassify, &["B-PLACE", "I-PLACE"], true);
    let text = "the café  cats sat";
    let found = answers(&place, &[], &[json!({ "text": text }), json!({ "ids": [2, 5, 9, 6, 7, 8, 3] })]);
    let entities = found[0]["entities"].as_array().unwrap();
    assert_eq!(keys(&entities[0]), ["label", "start", "end", "text", "score"]);
    let characters: Vec<char> = text.chars().collect();
    for entity in entities {
        let at = |key: &str| entity[key].as_u64().unwrap() as usize;
        let there: String = characters[at("start")..at("end")].iter().collect();
        assert_eq!((&entity["text"], &entity["label"]), (&there.into(), &"PLACE".into()));
    }
    // Every token has the one kind of label: nothing of the text is left out.
    assert_eq!((&entities[0]["start"], &entities.last().unwrap()["end"]), (&0.into(), &18.into()));
    assert_eq!(found[1]["entities"][0]["text"], Value::Null);
}

#[test]
fn an_answer_is_a_part_of_the_context() {
    let place = Place::new();
    model(&place, "model", EncoderHead::Span, &[], true);
    let context = "the café cats sat on the mat ".repeat(9);
    let row = json!({ "question": "where was the cat", "context": context });
    let found = answers(&place, &["--max-answer-tokens", "3"], &[row]);
    assert_eq!(keys(&found[0]), ["answer", "start", "end", "score"]);
    let at = |key: &str| found[0][key].as_u64().unwrap() as usize;
    let there: String = context.chars().skip(at("start")).take(at("end") - at("start")).collect();
    assert_eq!((&found[0]["answer"], there.is_empty()), (&there.clone().into(), false));
    assert!((1..=3).contains(&there.split_whitespace().count()), "{there}");
    let by_ids =
        answers(&place, &[], &[json!({ "ids": [2, 11, 3, 5, 6, 3], "type_ids": [0, 0, 0, 1, 1, 1] })]);
    assert!(by_ids[0]["start"].as_u64().unwrap() >= 3, "{by_ids:?}");
    let said = errors(
        &place,
        &[
            json!({ "question": "where" }),
            json!({ "question": "the ".repeat(30), "context": "the cat" }),
            json!({ "question": "where", "context": "" }),
        ],
    );
    assert!(
        said[0].contains("context") && said[1].contains("no room") && said[2].contains("no token"),
        "{said:?}"
    );
}

#[test]
fn a_model_without_tokenizer_takes_ids_only() {
    let place = Place::new();
    model(&place, "model", EncoderHead::MaskedLm, &[], false);
    let found = answers(&place, &["--top", "2"], &[json!({ "ids": [2, 5, 3], "mask_positions": [1] })]);
    assert_eq!(found[0]["masks"][0]["top"][0]["token"], Value::Null);
    let said = errors(&place, &[json!({ "text": "the [MASK]" }), json!({ "ids": [2, 5, 3] })]);
    assert!(said[0].contains("no tokenizer") && said[1].contains("mask_positions"), "{said:?}");
}

#[test]
fn inspect_shows_an_encoder() {
    let place = Place::new();
    model(&place, "model", EncoderHead::MaskedLm, &[], false);
    let shown = place.json(&["inspect", "--model", "model"]);
    assert_eq!((&shown["family"], &shown["class"]), (&"encoder".into(), &"BertForMaskedLM".into()));
    assert!(shown["parameters"].as_u64().unwrap() > 1000);
}

#[test]
fn inspect_shows_the_attention_of_a_text() {
    let place = Place::with_model();
    let args = ["inspect", "--model", "run/model", "--attention", "Ham"];
    let shown = place.json(&args);
    let texts: Vec<&str> =
        shown["tokens"].as_array().unwrap().iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!(texts.concat(), "Ham");
    let layers = shown["attention"].as_array().unwrap();
    assert_eq!(layers.len() as u64, shown["n_layers"].as_u64().unwrap());
    assert_eq!(layers[0]["probabilities"][0][0][0], 1.0);
    let one = place.json(&[&args[..], &["--layer", "0", "--head", "1"]].concat());
    assert_eq!(one["attention"].as_array().unwrap().len(), 1);
    assert_eq!(one["attention"][0]["probabilities"][0], layers[0]["probabilities"][1]);
    assert!(place.ok(&args).contains("mean of all heads, text to text"));
    place.fails(&[&args[..], &["--layer", "99"]].concat(), 1, &["no layer 99"]);
    place.fails(&[&args[..], &["--head", "99"]].concat(), 2, &["no head 99"]);
    place.fails(&[&args[..], &["--target", "x"]].concat(), 1, &["no encoder-decoder"]);
    place.fails(&["inspect", "--model", "run/model", "--layer", "0"], 2, &["--attention"]);
}
