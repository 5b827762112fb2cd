//! `andiron evaluate` on tasks and on rows, and the comparison of results.

use std::fs;

use serde_json::Value;

use crate::common::Place;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../andiron-eval/tests/lm_eval");

#[test]
fn tasks_give_results_and_samples_that_can_be_compared() {
    let place = Place::new();
    let (model, tasks) = (format!("{FIXTURES}/model"), format!("{FIXTURES}/tasks"));
    let files = format!("{tasks}/choice.yaml,{tasks}/sums.yaml");
    let run = ["evaluate", "--model", &model, "--tasks", &files, "--bootstrap-iters", "100", "--output"];
    let report = place.json(&[&run, &["a", "--log-samples"] as &[_]].concat());
    assert_eq!(report["results"]["choice"]["acc,none"], 0.3, "{report}");
    assert_eq!(report["n-samples"]["sums"]["effective"], 6);
    assert_eq!(report["model_blake3"].as_str().map(str::len), Some(64));
    assert_eq!(report["andiron_version"], env!("CARGO_PKG_VERSION"));
    let folder = place.path("a").join(report["model_name_sanitized"].as_str().unwrap());
    let names = |start: &str| {
        let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(start)).count()
    };
    assert_eq!((names("results_"), names("samples_choice_"), names("samples_sums_")), (1, 1, 1));

    let table = place.ok(&[&run, &["b", "--log-samples", "--limit", "3"] as &[_]].concat());
    assert!(table.starts_with('|') && table.contains("acc_norm") && table.contains("blake3"), "{table}");
    let compared = place.json(&["evaluate", "--compare", "a", "b"]);
    let choice = compared["compared"].as_array().unwrap().iter().find(|row| row["metric"] == "acc").unwrap();
    assert_eq!(
        (&choice["rows"], &choice["difference"], &choice["p_value"]),
        (&3.into(), &0.0.into(), &1.0.into())
    );
    assert_eq!(choice["test"], "mcnemar");
    let text = place.ok(&["evaluate", "--compare", "a", "b"]);
    assert!(text.contains("choice acc,none") && text.contains("p = 1.0000"), "{text}");

    place.fails(&["evaluate", "--compare", "a", "corpus.txt"], 1, &["corpus.txt", "JSON"]);
    place.write("python.yaml", "task: t\nprocess_docs: !function utils.f\n");
    let python = ["evaluate", "--model", &model, "--tasks", "python.yaml"];
    place.fails(&python, 1, &["python.yaml", "process_docs", "utils.f", "JSON Lines"]);
    place.fails(&["evaluate", "--tasks", "python.yaml"], 2, &["--model"]);
    place.fails(&["evaluate", "--model", &model, "--text", "corpus.txt", "--limit", "3"], 2, &["--tasks"]);
}

#[test]
fn rows_are_measured_as_a_run_validates() {
    let place = Place::with_model();
    // Letters only, which the tokenizer of a small text knows.
    let row = |n: usize| {
        let (word, label) = ("a".repeat(n), ["a", "b"][n % 2]);
        format!("{{\"text\": \"the word {word}\", \"label\": \"{label}\"}}\n")
    };
    place.write("rows.jsonl", (0..24).map(row).collect::<String>());
    let train = ["finetune", "--model", "run/model", "--objective", "classify", "--train", "rows.jsonl"];
    let run = ["--valid", "rows.jsonl", "--output", "labels", "--set", "run.precision=\"f32\""];
    let report = place.json(&[&train, &run as &[_]].concat());
    let measure = ["evaluate", "--model", "labels/model", "--rows", "rows.jsonl", "--objective", "classify"];
    let measured = place.json(&measure);
    let close = |key: &str| {
        let value = |of: &Value| of[key].as_f64().unwrap();
        assert!((value(&measured) - value(&report["validation"])).abs() < 1e-5, "{key}: {measured} {report}");
    };
    close("loss");
    close("accuracy");
    assert_eq!((&measured["rows"], measured["model_blake3"].as_str().map(str::len)), (&24.into(), Some(64)));
    let text = place.ok(&measure);
    assert!(text.contains("accuracy"), "{text}");
    let untrained = ["evaluate", "--model", "run/model", "--rows", "rows.jsonl", "--objective", "classify"];
    place.fails(&untrained, 1, &["run/model", "finetune"]);

    // The run tells its objective.
    let told = ["evaluate", "--model", "labels/model", "--rows", "rows.jsonl"];
    assert_eq!(place.json(&told)["accuracy"], measured["accuracy"]);
    // Rows need not have all labels of the model, but no others.
    place.write("some.jsonl", "{\"text\": \"the word aa\", \"label\": \"a\"}\n".repeat(2));
    let some = ["evaluate", "--model", "labels/model", "--rows", "some.jsonl"];
    assert_eq!(place.json(&some)["rows"], 2);
    place.write("other.jsonl", "{\"text\": \"the word aa\", \"label\": \"c\"}\n");
    let other = ["evaluate", "--model", "labels/model", "--rows", "other.jsonl"];
    place.fails(&other, 1, &["other.jsonl:1", "\"c\""]);
    fs::rename(place.path("labels/model"), place.path("alone")).unwrap();
    let alone = ["evaluate", "--model", "alone", "--rows", "rows.jsonl"];
    place.fails(&alone, 2, &["--objective", "alone"]);

    // And so does that of an adapter, which brings its head.
    let lora = ["--lora", "--valid", "rows.jsonl", "--output", "adapter", "--set", "run.precision=\"f32\""];
    let report = place.json(&[&train, &lora as &[_]].concat());
    let adapted = ["evaluate", "--model", "run/model", "--adapter", "adapter/model", "--rows", "rows.jsonl"];
    let measured = place.json(&adapted);
    let loss = |of: &Value| of["loss"].as_f64().unwrap();
    assert!((loss(&measured) - loss(&report["validation"])).abs() < 1e-5, "{measured} {report}");
    assert_eq!(measured["adapter_blake3"].as_str().map(str::len), Some(64));
    let step = report["model_step"].as_u64().unwrap();
    let checkpoint = format!("adapter/step-{step:06}/model");
    let adapted = ["evaluate", "--model", "run/model", "--adapter", &checkpoint, "--rows", "rows.jsonl"];
    assert_eq!(place.json(&adapted)["loss"], measured["loss"]);
    place.fails(
        &["evaluate", "--model", "run/model", "--adapter", "alone", "--rows", "rows.jsonl"],
        2,
        &["--objective"],
    );
}
