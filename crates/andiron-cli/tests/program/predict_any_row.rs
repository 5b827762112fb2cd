//! `andiron predict`: whatever a row says, it is answered or gets an error, and the rows around it are answered.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Place, rows};
use crate::predict_encoder::tokenizer_json;

/// Rows that no task can take well. Whether one is refused or answered is not the point here.
fn odd_rows() -> Vec<String> {
    let long_text = "the cat sat ".repeat(2000);
    let ids = |n: usize| vec![5; n];
    let mut odd: Vec<String> = [
        json!({}),
        json!({ "ids": [] }),
        json!({ "ids": [0] }),
        json!({ "ids": [0, 0, 0] }),
        json!({ "ids": [1_000_000] }),
        json!({ "ids": [52, 53] }),
        json!({ "ids": [u32::MAX, 2] }),
        json!({ "ids": [u64::MAX] }),
        json!({ "ids": [9_007_199_254_740_993_u64] }),
        json!({ "ids": [-1] }),
        json!({ "ids": [1.5] }),
        json!({ "ids": [null] }),
        json!({ "ids": ["2"] }),
        json!({ "ids": [[2]] }),
        json!({ "ids": { "0": 2 } }),
        json!({ "ids": null }),
        json!({ "ids": 2 }),
        json!({ "ids": ids(20) }),
        json!({ "ids": ids(5000) }),
        json!({ "ids": [2, 5, 3], "type_ids": [0, 5, 0] }),
        json!({ "ids": [2, 5, 3], "type_ids": [0, 1, 1] }),
        json!({ "ids": [2, 5, 3], "type_ids": [1, 1, 1] }),
        json!({ "ids": [2, 5, 3], "type_ids": [2, 2, 2] }),
        json!({ "ids": [2, 5, 3], "type_ids": [0, u32::MAX, 0] }),
        json!({ "ids": [2, 5, 3], "type_ids": [0, u64::MAX, 0] }),
        json!({ "ids": [2, 5, 3], "type_ids": [0, -1, 0] }),
        json!({ "ids": [2, 5, 3], "type_ids": [0] }),
        json!({ "ids": [2, 5, 3], "type_ids": [] }),
        json!({ "ids": [2, 5, 3], "type_ids": [0, 0, 0, 0] }),
        json!({ "ids": [2, 5, 3], "type_ids": null }),
        json!({ "ids": [2, 5, 3], "type_ids": "000" }),
        json!({ "type_ids": [0] }),
        json!({ "ids": [2, 5, 3], "mask_positions": [] }),
        json!({ "ids": [2, 5, 3], "mask_positions": [3] }),
        json!({ "ids": [2, 5, 3], "mask_positions": [u64::MAX] }),
        json!({ "ids": [2, 5, 3], "mask_positions": [-1] }),
        json!({ "ids": [2, 5, 3], "mask_positions": [1, 1, 1] }),
        json!({ "ids": [2, 5, 3], "mask_positions": ids(5000) }),
        json!({ "ids": [2, 5, 3], "mask_positions": [2, 0, 1] }),
        json!({ "ids": [2, 5, 3], "mask_positions": null }),
        json!({ "ids": [], "mask_positions": [0] }),
        json!({ "text": "the [MASK] sat", "mask_positions": [99] }),
        json!({ "text": "" }),
        json!({ "text": " " }),
        json!({ "text": "\0" }),
        json!({ "text": "\u{feff}" }),
        json!({ "text": "\u{200d}\u{202e}\u{e0001}\u{10ffff}" }),
        json!({ "text": "e\u{301}\u{301}\u{301} ﷺ ẞ İ" }),
        json!({ "text": "[PAD][CLS][SEP][MASK][UNK]<s></s><unk><pad>" }),
        json!({ "text": long_text }),
        json!({ "text": "a".repeat(20_000) }),
        json!({ "text": "[MASK] ".repeat(500) }),
        json!({ "text": null }),
        json!({ "text": 3 }),
        json!({ "text": ["the"] }),
        json!({ "text": "the", "text_pair": "" }),
        json!({ "text": "the", "text_pair": long_text }),
        json!({ "text": "", "text_pair": "" }),
        json!({ "text": "the", "text_pair": 3 }),
        json!({ "text_pair": "the" }),
        json!({ "question": "", "context": "" }),
        json!({ "question": "where", "context": "" }),
        json!({ "question": "", "context": "the cat" }),
        json!({ "question": long_text, "context": "the cat" }),
        json!({ "question": "where", "context": long_text }),
        json!({ "question": "where", "context": "\u{301}\u{301}" }),
        json!({ "question": null, "context": "the cat" }),
        json!({ "question": "where" }),
        json!({ "query": "", "documents": [] }),
        json!({ "query": "", "documents": [""] }),
        json!({ "query": "the", "documents": ["", long_text, "\0", "cat"] }),
        json!({ "query": long_text, "documents": [long_text] }),
        json!({ "query": "the", "documents": vec!["cat"; 40] }),
        json!({ "query": "the", "documents": [null] }),
        json!({ "query": "the", "documents": "cat" }),
        json!({ "query": null, "documents": ["cat"] }),
        json!({ "prompt": "" }),
        json!({ "prompt": "the", "max_tokens": 0 }),
        json!({ "prompt": "the", "max_tokens": u64::MAX }),
        json!({ "prompt": "the", "max_tokens": -1 }),
        json!({ "prompt": "the", "max_tokens": 1.5 }),
        json!({ "prompt": "the", "seed": u64::MAX, "max_tokens": 1 }),
        json!({ "prompt": "the", "seed": -1 }),
        json!({ "prompt": "the", "stop": "" }),
        json!({ "prompt": "the", "stop": [] , "max_tokens": 1 }),
        json!({ "prompt": "the", "stop": vec!["x"; 100], "max_tokens": 1 }),
        json!({ "prompt": "the", "choice": [] }),
        json!({ "prompt": "the", "choice": [""], "max_tokens": 1 }),
        json!({ "prompt": "the", "regex": "(" }),
        json!({ "prompt": "the", "regex": "", "max_tokens": 1 }),
        json!({ "prompt": "the", "json_schema": { "type": "nothing" } }),
        json!({ "prompt": "the", "json_schema": [] }),
        json!({ "prompt": "the", "regex": "a", "choice": ["a"] }),
        json!({ "prompt": long_text }),
        json!({ "prompt_ids": [] }),
        json!({ "prompt_ids": [u32::MAX] }),
        json!({ "prompt_ids": ids(5000) }),
        json!({ "prompt_ids": [1], "max_tokens": u64::MAX }),
        json!({ "source": "the", "target": "" }),
        json!({ "source": "", "target": "the" }),
        json!({ "source_ids": [], "target_ids": [] }),
        json!({ "source_ids": [5], "target_ids": [] }),
        json!({ "source_ids": [5], "target_ids": [u32::MAX] }),
        json!({ "source_ids": [u32::MAX], "target_ids": [5] }),
        json!({ "source_ids": ids(5000), "target_ids": [5] }),
        json!({ "source_ids": [5], "target_ids": ids(5000) }),
        json!({ "text": "the", "max_tokens": 0 }),
        json!({ "text": "the", "max_tokens": u64::MAX }),
        json!({ "ids": [5], "max_tokens": 0 }),
        json!([]),
        json!(null),
        json!(1),
        json!("the"),
    ]
    .iter()
    .map(Value::to_string)
    .collect();
    odd.extend(
        [
            r#"{"ids":[1e400]}"#,
            r#"{"ids":[1e3]}"#,
            r#"{"ids":[NaN]}"#,
            r#"{"ids":[18446744073709551616]}"#,
            r#"{"text":"\ud800"}"#,
            r#"{"text":"the","text":"cat"}"#,
            r#"{"id":"#,
            "{",
            "\u{feff}{}",
        ]
        .map(str::to_owned),
    );
    odd.push(format!("{{\"ids\":{}{}}}", "[".repeat(200), "]".repeat(200)));
    odd
}

/// Runs a task over the odd rows, a good one around each, `together` at a time.
#[track_caller]
fn check(place: &Place, args: &[&str], together: usize, good: &Value) {
    let odd = odd_rows();
    let mut input = String::new();
    for (number, row) in odd.iter().enumerate() {
        input.push_str(&format!("{good}\n"));
        match row.strip_prefix('{').filter(|_| number % 2 == 0) {
            Some(rest) if rest != "}" && rest.ends_with('}') => {
                input.push_str(&format!("{{\"id\":{number},{rest}\n"));
            }
            _ => input.push_str(&format!("{row}\n")),
        }
    }
    input.push_str(&format!("{good}\n"));
    place.write("rows.jsonl", input);
    let together = together.to_string();
    let args = [&["predict", "--input", "rows.jsonl", "--batch-size", &together], args].concat();
    let ran = place.run(&args);
    // A panic would be said there.
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), ""), "{args:?}");
    let answers = rows(&ran.out);
    assert_eq!(answers.len(), 2 * odd.len() + 1, "{args:?}");
    for (number, answer) in answers.iter().enumerate() {
        let of = || format!("{args:?}: {answer} to {}", odd[(number / 2).min(odd.len() - 1)]);
        if number % 2 == 0 {
            assert_eq!(answer, &answers[0], "{}", of());
            assert!(answer["error"].is_null(), "{}", of());
        } else if !answer["error"].is_null() {
            let code = answer["error"]["code"].as_str().unwrap();
            assert!(["invalid_row", "cannot_answer"].contains(&code), "{}", of());
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.starts_with(&format!("line {}: ", number + 1)), "{}", of());
            assert!(message.len() < 1000, "{}", of());
        }
    }
}

/// A copy of a model that the library is tested with, and a tokenizer of a few words in BERT's frame.
fn copy(place: &Place, name: &str) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../andiron-models/tests/golden").join(name);
    fs::create_dir_all(place.path("model")).unwrap();
    for file in ["config.json", "model.safetensors", "generation_config.json"] {
        let to = place.path("model").join(file);
        let _ = fs::remove_file(&to);
        if fixture.join(file).exists() {
            fs::copy(fixture.join(file), to).unwrap();
        }
    }
    place.write("model/tokenizer.json", tokenizer_json().to_string());
    place.write("model/tokenizer_config.json", r#"{"mask_token":"[MASK]","unk_token":"[UNK]"}"#);
}

#[track_caller]
fn check_fixtures(names: &[&str], tasks: &[(&str, Value)], together: &[usize]) {
    let place = Place::new();
    for name in names {
        copy(&place, name);
        for (task, good) in tasks {
            for &together in together {
                check(&place, &["--model", "model", "--task", task], together, good);
            }
        }
    }
}

#[test]
fn no_row_ends_embedding_or_comparing() {
    let embed = json!({ "text": "the cat" });
    let rerank = json!({ "query": "the", "documents": ["cat", "sat"] });
    let names =
        ["bert", "distilbert-masked-lm", "modernbert", "roberta-masked-lm", "xlm-roberta-token-classify"];
    check_fixtures(&names, &[("embed", embed), ("rerank", rerank)], &[1, 4]);
}

#[test]
fn no_row_ends_classification() {
    let good = json!({ "text": "the cat", "text_pair": "sat" });
    let encoders = ["bert-classify", "distilbert-classify", "modernbert-classify", "roberta-classify"];
    check_fixtures(&encoders, &[("classify", good.clone())], &[1, 4]);
    let decoders = ["gpt2-classify", "llama-classify", "qwen3-classify", "neox-classify", "gemma3-classify"];
    check_fixtures(&decoders, &[("classify", good)], &[4]);
}

#[test]
fn no_row_ends_the_other_tasks_of_encoders() {
    let masked = json!({ "text": "the [MASK] sat" });
    let names = ["bert-masked-lm", "distilbert-masked-lm", "modernbert-masked-lm", "roberta-masked-lm"];
    check_fixtures(&names, &[("fill-mask", masked)], &[1, 4]);
    let question = json!({ "question": "where", "context": "the cat sat" });
    check_fixtures(&["bert-span", "distilbert-span", "modernbert-span"], &[("answer", question)], &[1, 4]);
    let names = ["bert-token-classify", "modernbert-token-classify", "xlm-roberta-token-classify"];
    check_fixtures(&names, &[("token-classify", json!({ "text": "the cat" }))], &[1, 4]);
    let row = json!({ "query": "the", "documents": ["cat", "sat"] });
    check_fixtures(&["roberta-classify"], &[("rerank", row)], &[1]);
}

#[test]
fn no_row_ends_scoring_or_generating() {
    let score = json!({ "text": "the cat" });
    let generate = json!({ "prompt": "the cat", "max_tokens": 3, "seed": 1 });
    let names = ["gpt2", "llama", "mistral", "qwen2", "qwen3", "neox", "gemma3"];
    check_fixtures(&names, &[("score", score), ("generate", generate.clone())], &[1]);
    check_fixtures(&["llama"], &[("generate", generate)], &[4]);
}

#[test]
fn no_row_ends_translating() {
    let translate = json!({ "text": "the cat", "max_tokens": 3 });
    let score = json!({ "source": "the cat", "target": "sat" });
    let generate = json!({ "prompt": "the cat", "max_tokens": 3, "seed": 1 });
    let tasks = [
        ("translate", translate.clone()),
        ("summarize", translate),
        ("score", score),
        ("generate", generate),
    ];
    check_fixtures(&["bart", "t5", "marian"], &tasks, &[1, 4]);
}
