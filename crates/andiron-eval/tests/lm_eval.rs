//! Tasks against lm-evaluation-harness 0.4.13 with its `hf` model, transformers 5.24.0 and torch 2.15.0: results, standard errors
//! and samples. `lm_eval/make.py` wrote what is expected, `lm_eval/model.py` trained the model.
#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::path::{Path, PathBuf};

use andiron_core::{Backend, DeviceSpec};
use andiron_eval::task::{Chat, Report, ReportOptions, Task, TaskOptions, TaskReport, TaskSet};
use andiron_models::RunPrecision;
use andiron_pipelines::{DecoderPipeline, Pipeline};
use serde_json::Value;

/// The log-likelihood of a text of up to 500 tokens, in f32, on both sides.
const TOLERANCE: f64 = 2e-3;
/// Relative, of metrics.
const METRIC_TOLERANCE: f64 = 1e-5;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lm_eval")
}

fn model() -> DecoderPipeline {
    let device = DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap();
    Pipeline::open(&folder().join("model"), RunPrecision::F32, &device).unwrap().decoder().unwrap()
}

fn report() -> Report {
    let files = ["group", "sums", "pages", "cloze", "blank", "words", "tail"];
    let files = files.map(|name| folder().join("tasks").join(format!("{name}.yaml")));
    let set = TaskSet::open(&files).unwrap();
    let model = model();
    let options = ReportOptions { bootstrap: 2000, seed: 1234 };
    let run = |config| {
        TaskReport::run(Task::open(config, TaskOptions::default()).unwrap(), &model, options).unwrap()
    };
    Report::new(set.tasks.into_iter().map(run).collect(), set.groups)
}

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join("expected.json")).unwrap()).unwrap()
}

/// Whether both are the same up to rounding; numbers in texts are those of log-likelihoods.
fn is_close(found: &Value, wanted: &Value, tolerance: f64) -> bool {
    match (found, wanted) {
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| is_close(a, b, tolerance))
        }
        (Value::Object(found), Value::Object(wanted)) => {
            found.len() == wanted.len()
                && found.iter().all(|(key, a)| wanted.get(key).is_some_and(|b| is_close(a, b, tolerance)))
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= tolerance * b.abs().max(1.0)
        }
        (Value::String(a), Value::String(b)) => match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(a), Ok(b)) => (a - b).abs() <= TOLERANCE,
            _ => a == b,
        },
        (a, b) => a == b,
    }
}

#[test]
fn results_are_those_of_the_harness() {
    let (report, expected) = (report(), expected());
    let json = Value::Object(report.json(true));
    for (task, wanted) in expected["results"].as_object().unwrap() {
        for (key, wanted) in wanted.as_object().unwrap() {
            let found = &json["results"][task][key];
            assert!(is_close(found, wanted, METRIC_TOLERANCE), "{task} {key}: {found} {wanted}");
        }
        assert_eq!(
            json["results"][task].as_object().unwrap().len(),
            wanted.as_object().unwrap().len(),
            "{task}"
        );
    }
    for key in
        ["groups", "group_subtasks", "versions", "n-shot", "higher_is_better", "n-samples", "task_hashes"]
    {
        assert!(
            is_close(&json[key], &expected[key], METRIC_TOLERANCE),
            "{key}: {} {}",
            json[key],
            expected[key]
        );
    }
    for (task, wanted) in expected["configs"].as_object().unwrap() {
        for (key, wanted) in wanted.as_object().unwrap().iter().filter(|(key, _)| *key != "metadata") {
            assert_eq!(&json["configs"][task][key], wanted, "{task} {key}");
        }
    }
    let table = report.table();
    for line in ["| Tasks", "|Small tasks|", "| - choice", "|last word", "| Groups", "|Groups"] {
        assert!(table.contains(line) || line.contains("Tasks") || line.contains("Groups"), "{line}\n{table}");
    }
    for value in ["0.3889", "0.1193"] {
        assert_eq!(table.matches(value).count(), 2, "{table}");
    }
}

#[test]
fn samples_are_those_of_the_harness() {
    let (report, expected) = (report(), expected());
    for task in &report.tasks {
        let name = &task.task.config.task;
        let wanted = expected["samples"][name].as_array().unwrap();
        let found: Vec<Value> = task.samples().collect();
        assert_eq!(found.len(), wanted.len(), "{name}");
        for (found, wanted) in found.iter().zip(wanted) {
            for (key, wanted) in wanted.as_object().unwrap() {
                let found = &found[key];
                // NumPy's array was written as a text.
                if key == "brier_score" {
                    assert_eq!(found[0], wanted[0]);
                    continue;
                }
                assert!(is_close(found, wanted, TOLERANCE), "{name} {key}: {found} {wanted}");
            }
        }
    }
}

/// A copy of the model with a chat template.
fn chat_model() -> (tempfile::TempDir, DecoderPipeline) {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder().join("model")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let template = "chat_template.jinja";
    std::fs::copy(folder().join(template), dir.path().join(template)).unwrap();
    let device = DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap();
    let model = Pipeline::open(dir.path(), RunPrecision::F32, &device).unwrap().decoder().unwrap();
    (dir, model)
}

#[test]
fn conversations_are_those_of_the_harness() {
    let text = std::fs::read_to_string(folder().join("expected_chat.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let (_dir, model) = chat_model();
    let names = ["choice", "mood", "sums", "blank", "words", "tail"];
    let files = names.map(|name| folder().join("tasks").join(format!("{name}.yaml")));
    for multiturn in [true, false] {
        let chat = Chat { tokenizer: model.text.tokenizer().unwrap(), multiturn };
        let expected = &expected[format!("multiturn {multiturn}")];
        for config in TaskSet::open(&files).unwrap().tasks {
            let name = config.task.clone();
            let options = TaskOptions { limit: Some(2), ..TaskOptions::default() };
            let task = Task::open_chat(config, options, chat).unwrap();
            let report = TaskReport::run(task, &model, ReportOptions { bootstrap: 0, seed: 1234 }).unwrap();
            let wanted = expected["samples"][&name].as_array().unwrap();
            let found: Vec<Value> = report.samples().collect();
            assert_eq!(found.len(), wanted.len(), "{name}");
            for (found, wanted) in found.iter().zip(wanted) {
                for (key, wanted) in
                    wanted.as_object().unwrap().iter().filter(|(key, _)| *key != "brier_score")
                {
                    let found = &found[key];
                    assert!(is_close(found, wanted, TOLERANCE), "{multiturn} {name} {key}: {found} {wanted}");
                }
            }
        }
    }
}

#[test]
fn a_conversation_needs_a_chat_template() {
    let config = TaskSet::open(&[folder().join("tasks/mood.yaml")]).unwrap().tasks.remove(0);
    let model = model();
    let chat = Chat { tokenizer: model.text.tokenizer().unwrap(), multiturn: true };
    let error = Task::open_chat(config, TaskOptions::default(), chat).unwrap_err();
    assert!(error.to_string().contains("chat template"), "{error}");
}

#[test]
fn a_task_is_cut_and_given_other_examples() {
    let config = || TaskSet::open(&[folder().join("tasks/mood.yaml")]).unwrap().tasks.remove(0);
    let options = TaskOptions { num_fewshot: Some(1), limit: Some(2), seed: 7 };
    let task = Task::open(config(), options).unwrap();
    assert_eq!((task.len(), task.n_rows, task.num_fewshot), (2, 8, 1));
    // random.Random(7).sample(range(12), 1) of CPython 3.11, as the harness draws it.
    let report = TaskReport::run(task, &model(), ReportOptions { bootstrap: 0, seed: 0 }).unwrap();
    assert!(report.metrics.iter().all(|metric| metric.standard_error.is_none()));
    let prompt =
        report.samples().next().unwrap()["arguments"]["gen_args_0"]["arg_0"].as_str().unwrap().to_owned();
    assert_eq!(prompt.matches("Line: ").count(), 2, "{prompt}");
    // A task that says 0 keeps it.
    let blank = TaskSet::open(&[folder().join("tasks/blank.yaml")]).unwrap().tasks.remove(0);
    assert_eq!(Task::open(blank, TaskOptions { num_fewshot: Some(3), ..options }).unwrap().num_fewshot, 0);
}

#[test]
fn what_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let open = |path: &PathBuf| -> Result<Task, String> {
        let mut set = TaskSet::open(std::slice::from_ref(path)).map_err(|error| error.to_string())?;
        Task::open(set.tasks.remove(0), TaskOptions::default()).map_err(|error| error.to_string())
    };
    write("rows.jsonl", "{\"q\": \"a\", \"n\": 1}\n{\"q\": \"b\", \"n\": 1}\n");
    let base = "dataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\noutput_type: multiple_choice\n";
    for (rest, said) in [
        (
            "test_split: train\ndoc_to_text: q\ndoc_to_target: n\ndoc_to_choice: [a, b]",
            "there is no split \"train\"",
        ),
        ("doc_to_text: q\ndoc_to_target: n\ndoc_to_choice: [a, b]", "neither a test_split"),
        ("test_split: test\ndoc_to_text: '{{question}}'\ndoc_to_target: n\ndoc_to_choice: [a, b]", "row 0"),
        (
            "test_split: test\ndoc_to_text: q\ndoc_to_target: n\ndoc_to_choice: '{{q}}'",
            "doc_to_choice gives a",
        ),
        (
            "test_split: test\ndoc_to_text: q\ndoc_to_target: n\ndoc_to_choice: [a, b]\nnum_fewshot: 3",
            "3 few-shot",
        ),
        (
            "test_split: test\ndoc_to_text: q\ndoc_to_target: n\ndoc_to_choice: [a, b]\nprocess_docs: !function u.f",
            "u.f",
        ),
        ("include: none.yaml", "none.yaml"),
    ] {
        let error = open(&write("task.yaml", &format!("task: t\n{base}{rest}\n"))).unwrap_err();
        assert!(error.contains(said), "{rest}: {error}");
    }
    let error = open(&write("loop.yaml", "include: loop.yaml\ntask: t\n")).unwrap_err();
    assert!(error.contains("includes itself"), "{error}");
    let error = open(&write("group.yaml", "group: g\ntask: [nowhere]\n")).unwrap_err();
    assert!(error.contains("nowhere"), "{error}");
}
