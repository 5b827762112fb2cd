//! `andiron predict`: the contract of its rows.

use serde_json::{Value, json};

use crate::common::{Place, check_failure, keys, rows};

const SCORE: &[&str] = &["predict", "--model", "run/model", "--task", "score"];
const GENERATE: &[&str] = &["predict", "--model", "run/model", "--task", "generate"];

/// The answers to `input`, all of which must succeed.
#[track_caller]
fn answers(place: &Place, args: &[&str], input: &[Value]) -> Vec<Value> {
    let text: String = input.iter().map(|row| format!("{row}\n")).collect();
    let ran = place.run_with_input(args, &text);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    let answers = rows(&ran.out);
    assert_eq!(answers.len(), input.len());
    answers
}

#[test]
fn a_score_has_a_logarithm_for_each_token_but_the_first() {
    let place = Place::with_model();
    let first = &answers(&place, SCORE, &[json!({ "id": "a", "text": "Hamlet" })])[0];
    assert_eq!(keys(first), ["id", "ids", "logprobs", "sum_logprob", "bytes", "is_greedy"]);
    assert_eq!((&first["id"], &first["bytes"]), (&"a".into(), &6.into()));
    let list = |key: &str| first[key].as_array().unwrap().clone();
    let (ids, logprobs, greedy) = (list("ids"), list("logprobs"), list("is_greedy"));
    assert_eq!((ids.len(), logprobs.len(), greedy.len()), (6, 6, 6));
    assert!(logprobs[0].is_null() && greedy[0].is_null());
    let numbers: Vec<f64> = logprobs[1..].iter().map(|value| value.as_f64().unwrap()).collect();
    assert!(numbers.iter().all(|&number| number < 0.0) && greedy[1..].iter().all(Value::is_boolean));
    let sum = first["sum_logprob"].as_f64().unwrap();
    assert!((sum - numbers.iter().sum::<f64>()).abs() < 1e-9, "{sum} {numbers:?}");

    // The same by ids; an id of a row is any JSON; what comes before a token is all that counts.
    let input = [json!({ "ids": ids, "id": { "page": [3] } }), json!({ "text": "Ham", "id": null })];
    let others = answers(&place, SCORE, &input);
    assert_eq!(others[0]["id"], json!({ "page": [3] }));
    assert_eq!((&others[0]["logprobs"], &others[0]["bytes"]), (&first["logprobs"], &6.into()));
    assert_eq!(keys(&others[1])[0], "id");
    for (whole, part) in logprobs.iter().zip(others[1]["logprobs"].as_array().unwrap()).skip(1) {
        assert!((whole.as_f64().unwrap() - part.as_f64().unwrap()).abs() < 1e-5);
    }
    let empty = &answers(&place, SCORE, &[json!({ "text": "" }), json!({ "ids": [] })]);
    assert_eq!(
        empty[0],
        json!({ "ids": [], "logprobs": [], "sum_logprob": 0.0, "bytes": 0, "is_greedy": [] })
    );
    assert_eq!(empty[0], empty[1]);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_row() {
    let place = Place::with_model();
    let ran = place.run_with_input(SCORE, "\u{feff}{\"text\":\"Ham\"}\n{\"text\":\"Ham\"}\n");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    let found = rows(&ran.out);
    assert_eq!((found.len(), &found[0]), (2, &found[1]));
}

#[test]
fn a_tokenizer_may_have_a_token_that_the_model_has_not() {
    let place = Place::with_model();
    let mut tokenizer: Value = serde_json::from_slice(&place.read("run/model/tokenizer.json")).unwrap();
    let own = tokenizer["model"]["vocab"].as_object().unwrap().values();
    let added = tokenizer["added_tokens"].as_array().unwrap().iter().map(|token| &token["id"]);
    let first = own.chain(added).filter_map(|id| id.as_u64()).max().unwrap() + 1;
    let config: Value = serde_json::from_slice(&place.read("run/model/config.json")).unwrap();
    let vocab_size = config["vocab_size"].as_u64().unwrap();
    // The model's table may have entries to spare.
    for id in first..=vocab_size {
        let content = if id == vocab_size { "<image>".to_owned() } else { format!("<spare{id}>") };
        let token = json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                            "normalized": false, "special": true });
        tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
    }
    place.write("run/model/tokenizer.json", tokenizer.to_string());
    let input = "{\"prompt\":\"Ham\"}\n{\"prompt\":\"Ham<image>\"}\n{\"prompt\":\"Ham\"}\n";
    let ran = place.run_with_input(GENERATE, input);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let found = rows(&ran.out);
    assert_eq!(found[0]["text"], found[2]["text"]);
    let message = found[1]["error"]["message"].as_str().unwrap();
    assert!(message.contains("the text has the token \"<image>\""), "{message}");
}

#[test]
fn a_generation_has_text_ids_reason_and_sum() {
    let place = Place::with_model();
    let all = answers(
        &place,
        GENERATE,
        &[
            json!({ "id": 1, "prompt": "Ham", "max_tokens": 6, "seed": 3 }),
            json!({ "id": 2, "prompt": "Ham", "max_tokens": 6, "seed": 3 }),
            json!({ "id": 3, "prompt": "Ham", "max_tokens": 6, "seed": 4 }),
            json!({ "id": 4, "prompt": "Ham", "max_tokens": 0 }),
            json!({ "prompt": "Ham" }),
        ],
    );
    assert_eq!(keys(&all[0]), ["id", "text", "ids", "finish_reason", "sum_logprob"]);
    assert_eq!((&all[0]["finish_reason"], &all[3]["text"]), (&"length".into(), &"".into()));
    let text = all[0]["text"].as_str().unwrap();
    assert_eq!((text.chars().count(), all[0]["ids"].as_array().unwrap().len()), (6, 6));
    assert!(all[0]["sum_logprob"].as_f64().unwrap() < 0.0);
    assert_eq!(all[0]["text"], all[1]["text"]);
    assert_ne!(all[0]["text"], all[2]["text"]);
    // The context of 32 ends what says no end.
    assert_eq!((all[4]["ids"].as_array().unwrap().len(), keys(&all[4])[0]), (29, "text"));

    let ids = answers(&place, SCORE, &[json!({ "text": "Ham" })])[0]["ids"].clone();
    let stop: String = text.chars().skip(3).take(1).collect();
    let before = &text[..text.find(&stop).unwrap()];
    let row = json!({ "prompt_ids": ids, "max_tokens": 6, "seed": 3, "stop": [stop, "zzz"] });
    let stopped = &answers(&place, GENERATE, &[row])[0];
    assert_eq!((&stopped["text"], &stopped["finish_reason"]), (&before.into(), &"stop".into()));
}

#[test]
fn greedy_text_has_the_probability_that_score_gives_it() {
    let place = Place::with_model();
    let greedy = [GENERATE, &["--temperature", "0", "--max-tokens", "8"]].concat();
    let made = &answers(&place, &greedy, &[json!({ "prompt": "Ham" })])[0];
    let text = format!("Ham{}", made["text"].as_str().unwrap());
    let scored = &answers(&place, SCORE, &[json!({ "text": text })])[0];
    let tail = &scored["logprobs"].as_array().unwrap()[3..];
    let sum: f64 = tail.iter().map(|value| value.as_f64().unwrap()).sum();
    assert!((sum - made["sum_logprob"].as_f64().unwrap()).abs() < 1e-3, "{made} {scored}");
    assert!(scored["is_greedy"].as_array().unwrap()[3..].iter().all(|is| *is == true), "{scored}");
}

#[track_caller]
fn check_error(place: &Place, args: &[&str], row: &str, code: &str, names: &[&str]) {
    let good = if args == SCORE { r#"{"ids":[1,2]}"# } else { r#"{"prompt_ids":[1],"max_tokens":1}"# };
    let ran = place.run_with_input(args, &format!("{good}\n{row}\n{good}\n"));
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), ""), "{ran:?}");
    let answers = rows(&ran.out);
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0], answers[2]);
    assert!(answers[0]["ids"].is_array(), "{}", answers[0]);
    let error = &answers[1]["error"];
    assert_eq!((keys(error), &error["code"]), (vec!["code", "message"], &code.into()), "{error}");
    let message = error["message"].as_str().unwrap();
    for name in names.iter().chain(&["line 2: "]) {
        assert!(message.contains(name), "{name:?} is not in: {message}");
    }
    if row.contains("\"id\":7") {
        assert_eq!(answers[1], json!({ "id": 7, "error": error }));
    } else {
        assert_eq!(keys(&answers[1]), ["error"]);
    }
}

#[test]
fn a_row_without_an_answer_leaves_an_error_in_its_place() {
    let place = Place::with_model();
    let long = "a".repeat(100);
    let score = |row: &str, code, names: &[&str]| check_error(&place, SCORE, row, code, names);
    score(&format!(r#"{{"id":7,"text":"{long}"}}"#), "cannot_answer", &["100 tokens", "32"]);
    score(r#"{"id":7,"text":"né"}"#, "cannot_answer", &["'é'"]);
    score(r#"{"id":7,"ids":[70]}"#, "cannot_answer", &["70"]);
    score(r#"{"id":7,"ids":[-1]}"#, "invalid_row", &["ids", "-1"]);
    score(r#"{"id":7,"ids":"1 2"}"#, "invalid_row", &["ids", "list"]);
    score(r#"{"id":7,"text":3}"#, "invalid_row", &["text is not a string"]);
    score(r#"{"id":7,"text":"a","ids":[1]}"#, "invalid_row", &["text or ids"]);
    score(r#"{"id":7}"#, "invalid_row", &["neither text nor ids"]);
    score(r#"{"id":7,"text":"a","txet":1}"#, "invalid_row", &["txet"]);
    score("[1]", "invalid_row", &["JSON object"]);
    score("{\"id\":", "invalid_row", &["not JSON"]);

    let generate = |row: &str, code, names: &[&str]| check_error(&place, GENERATE, row, code, names);
    generate(&format!(r#"{{"id":7,"prompt":"{long}"}}"#), "cannot_answer", &["100 tokens", "context of 32"]);
    generate(r#"{"id":7,"prompt":""}"#, "cannot_answer", &["prompt is empty"]);
    generate(r#"{"id":7,"prompt_ids":[70]}"#, "cannot_answer", &["70"]);
    generate(r#"{"id":7,"prompt":"a","max_tokens":-1}"#, "invalid_row", &["max_tokens"]);
    generate(r#"{"id":7,"prompt":"a","seed":"x"}"#, "invalid_row", &["seed"]);
    generate(r#"{"id":7,"prompt":"a","stop":[1]}"#, "invalid_row", &["stop"]);
    generate(r#"{"id":7,"prompt":"a","stop":""}"#, "cannot_answer", &["stop"]);
    generate(r#"{"id":7,"prompt":"a","temprature":1}"#, "invalid_row", &["temprature"]);
}

#[test]
fn files_and_standard_streams_give_the_same() {
    let place = Place::with_model();
    let input = "{\"text\":\"Ham\"}\n\n{\"id\":2,\"ids\":[1,2,3]}";
    place.write("rows.jsonl", input);
    let streams = [SCORE, &["--input", "-", "--output", "-"]].concat();
    let expected = place.run_with_input(&streams, input);
    assert_eq!((expected.code, rows(&expected.out).len()), (Some(0), 2), "{expected:?}");
    let out = place.ok(&[SCORE, &["-i", "rows.jsonl", "-o", "out.jsonl"]].concat());
    assert_eq!((out.as_str(), place.read("out.jsonl")), ("", expected.out.into_bytes()));
    place.fails(&[SCORE, &["-i", "missing.jsonl"]].concat(), 1, &["cannot read missing.jsonl"]);
    check_failure(&place.run(&[SCORE, &["-i", "."]].concat()), 1, &["cannot read ."]);
}

#[test]
fn a_model_without_a_tokenizer_answers_ids() {
    let place = Place::with_model();
    place.copy_model("bare");
    for file in ["bare/tokenizer.json", "bare/tokenizer_config.json"] {
        std::fs::remove_file(place.path(file)).unwrap();
    }
    let args = |task| ["predict", "--model", "bare", "--task", task];
    let input = [json!({ "ids": [1, 2, 3] })];
    let (bare, full) = (answers(&place, &args("score"), &input), answers(&place, SCORE, &input));
    assert_eq!((&bare[0]["logprobs"], &bare[0]["bytes"]), (&full[0]["logprobs"], &Value::Null));
    let input = [json!({ "prompt_ids": [1, 2], "max_tokens": 3 })];
    let (bare, full) = (answers(&place, &args("generate"), &input), answers(&place, GENERATE, &input));
    assert_eq!((&bare[0]["ids"], &bare[0]["text"]), (&full[0]["ids"], &"".into()));
    check_error(&place, &args("generate"), r#"{"id":7,"prompt":"a"}"#, "cannot_answer", &["no tokenizer"]);
    check_error(
        &place,
        &args("generate"),
        r#"{"prompt_ids":[1],"stop":"a"}"#,
        "cannot_answer",
        &["tokenizer"],
    );
}

#[test]
fn a_generation_is_held_to_what_its_row_or_the_command_line_says() {
    let place = Place::with_model();
    let input = [
        json!({ "prompt": "To be", "choice": [" or not", " at all"] }),
        json!({ "prompt": "To be", "regex": "(e|o){3}" }),
        json!({ "prompt": "To be" }),
    ];
    let all = answers(&place, &[GENERATE, &["--regex", "[a-c]{5}", "--max-tokens", "12"]].concat(), &input);
    let texts: Vec<&str> = all.iter().map(|answer| answer["text"].as_str().unwrap()).collect();
    assert!(all.iter().all(|answer| answer["finish_reason"] == "stop"), "{all:?}");
    assert!([" or not", " at all"].contains(&texts[0]), "{texts:?}");
    assert!(texts[1].len() == 3 && texts[1].chars().all(|c| "eo".contains(c)), "{texts:?}");
    assert!(texts[2].len() == 5 && texts[2].chars().all(|c| "abc".contains(c)), "{texts:?}");

    let rows_of = |row: Value| rows(&place.run_with_input(GENERATE, &row.to_string()).out);
    for (row, said) in [
        (json!({ "prompt": "a", "regex": "(" }), "unclosed group"),
        (json!({ "prompt": "a", "json_schema": { "type": "thing" } }), "JSON schema"),
        (json!({ "prompt": "a", "choice": [] }), "give at least one text"),
        (json!({ "prompt": "a", "choice": ["b"], "regex": "b" }), "give one of"),
    ] {
        let message = rows_of(row)[0]["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(said), "{message}");
    }
    let run = |args: &[&str]| place.run(&[&["predict", "--model", "run/model"], args].concat());
    check_failure(&run(&["--json-schema", "{"]), 2, &["--json-schema is not JSON"]);
    check_failure(&run(&["--json-schema", "@nowhere.json"]), 1, &["nowhere.json"]);
    check_failure(&run(&["--task", "score", "--choice", "a"]), 2, &["task generate"]);
    check_failure(&run(&["--num-beams", "2", "--choice", "a"]), 2, &["without beams"]);
    // What a search cannot follow is named in a row, too.
    for row in [json!({ "prompt": "a", "seed": 1 }), json!({ "prompt": "a", "stop": "b" })] {
        let args = ["predict", "--model", "run/model", "--task", "generate", "--num-beams", "2"];
        let ran = place.run_with_input(&args, &format!("{row}\n"));
        let message = rows(&ran.out)[0]["error"]["message"].as_str().unwrap().to_owned();
        let field = row.as_object().unwrap().keys().nth(1).unwrap();
        assert!(message.contains(field) && message.contains("--num-beams 1"), "{message}");
    }
}

#[test]
fn rows_that_are_continued_together_get_what_each_gets_alone() {
    let place = Place::with_model();
    let input = [
        json!({ "id": 1, "prompt": "Ham", "max_tokens": 9, "seed": 3 }),
        json!({ "id": 2, "prompt": "To be, or not", "max_tokens": 4 }),
        json!({ "id": 3, "prompt": "~" }),
        json!({ "id": 4, "prompt": "a", "max_tokens": 20, "stop": ["e", " "] }),
        json!("no row"),
        json!({ "id": 6, "prompt": "the ", "regex": "[a-c]{3}" }),
        json!({ "id": 7, "prompt": "I", "strange": 1 }),
        json!({ "id": 8, "prompt": "A much longer prompt than the others, longer than the model reads" }),
        json!({ "id": 9, "prompt": "I", "max_tokens": 0 }),
    ];
    let text: String = input.iter().map(|row| format!("{row}\n")).collect();
    let run = |size: &str| {
        let ran = place.run_with_input(&[GENERATE, &["--batch-size", size]].concat(), &text);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let mut rows = rows(&ran.out);
        for row in &mut rows {
            // Sums of logarithms may differ in the last bits.
            if let Some(sum) = row.get("sum_logprob").and_then(Value::as_f64) {
                row["sum_logprob"] = json!((sum * 1e4).round());
            }
        }
        rows
    };
    let alone = run("1");
    assert_eq!(alone.len(), input.len());
    let failed: Vec<usize> = (0..alone.len()).filter(|&at| alone[at].get("error").is_some()).collect();
    assert_eq!(failed, [2, 4, 6, 7], "{alone:?}");
    for size in ["2", "3", "100"] {
        assert_eq!(run(size), alone, "batches of {size}");
    }
    check_failure(&place.run(&[GENERATE, &["--batch-size", "0"]].concat()), 2, &["batch-size"]);
}

#[test]
fn the_pieces_of_a_gguf_file_are_those_of_sentencepiece() {
    let place = Place::new();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../andiron-models/tests/golden/gguf");
    let model = golden.join("sentence_piece.gguf");
    let model = model.to_str().unwrap();
    let expected = std::fs::read(golden.join("sentence_piece.json")).unwrap();
    let expected: Vec<Value> = serde_json::from_slice(&expected).unwrap();
    let input: Vec<Value> = expected.iter().map(|case| json!({ "text": case["text"] })).collect();
    let all = answers(&place, &["predict", "--model", model, "--task", "score"], &input);
    for (case, answer) in expected.iter().zip(&all) {
        assert_eq!(answer["ids"], case["ids"], "{}", case["text"]);
        assert_eq!(answer["bytes"], case["decoded"].as_str().unwrap().len(), "{}", case["text"]);
    }
    // A prompt begins with the token that the file asks for.
    let generate =
        ["predict", "--model", model, "--task", "generate", "--max-tokens", "3", "--temperature", "0"];
    let with_bos: Vec<u64> = std::iter::once(1).chain(ids_of(&expected[0])).collect();
    let rows = [json!({ "prompt": expected[0]["text"] }), json!({ "prompt_ids": with_bos })];
    let both = answers(&place, &generate, &rows);
    assert_eq!(both[0], both[1]);
}

fn ids_of(row: &Value) -> Vec<u64> {
    row["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}
