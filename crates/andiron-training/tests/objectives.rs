//! Every objective from a configuration to a model directory: it learns, validates, and resumes bit for bit.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use std::fs;
use std::path::Path;

use andiron_core::{Backend, DeviceSpec};
use andiron_models::encoder::EncoderInput;
use andiron_models::{AnyBundle, AnyConfig, RunPrecision};
use andiron_pipelines::{AnswerText, EncoderPipeline, Pipeline, Question, RerankRequest, TextInput};
use andiron_training::observe::{Preparation, StepRecord, Warning};
use andiron_training::{
    Evaluation, Observer, Outcome, Requests, Status, TrainConfig, TrainError, start_or_resume,
};
use serde_json::{Value, json};

use common::{
    BART, BERT, Form, GPT2, LLAMA, MARIAN, NAMES, Place, T5, adapter_of, lengthened, letters, question_row,
    relevant_row, reversed_row, rows, table, tagged_row,
};

#[derive(Default)]
struct Heard {
    warnings: Vec<String>,
    losses: Vec<f32>,
    evaluation: Option<Evaluation>,
}

impl Observer for Heard {
    fn on_step(&mut self, record: &StepRecord) {
        self.losses.push(record.loss);
    }

    fn on_eval(&mut self, _: u64, evaluation: &Evaluation) {
        self.evaluation = Some(evaluation.clone());
    }

    fn on_warning(&mut self, warning: &Warning) {
        self.warnings.push(warning.to_string());
    }
}

fn train(
    config: &TrainConfig,
    observer: &mut dyn Observer,
    requests: &Requests,
) -> Result<Outcome, TrainError> {
    let device = DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap();
    start_or_resume(config, &device, observer, requests)
}

fn finish(config: &TrainConfig) -> Heard {
    let mut heard = Heard::default();
    let outcome = train(config, &mut heard, &Requests::default()).unwrap();
    assert_eq!(outcome.status, Status::Finished);
    heard
}

/// Stops after a step.
struct StopAfter<'a>(u64, &'a Requests);

impl Observer for StopAfter<'_> {
    fn on_step(&mut self, record: &StepRecord) {
        if record.step == self.0 {
            self.1.stop();
        }
    }
}

/// What a run leaves, without what depends on the machine.
fn result(output: &Path) -> (Vec<Value>, [Vec<u8>; 2]) {
    let strip = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let fields = line.as_object_mut().unwrap();
        for measured in ["tokens_per_s", "step_s", "data_wait_s", "elapsed_s"] {
            fields.remove(measured).unwrap();
        }
        fields.remove("rows_per_s");
        line
    };
    let lines = fs::read_to_string(output.join("metrics.jsonl")).unwrap().lines().map(strip).collect();
    let files =
        ["model.safetensors", "adapter_model.safetensors"].map(|name| output.join("model").join(name));
    let [weights] = &files.iter().filter(|path| path.exists()).collect::<Vec<_>>()[..] else {
        panic!("{files:?}")
    };
    let config = ["config.json", "adapter_config.json"].map(|name| output.join("model").join(name));
    let config = config.iter().find(|path| path.exists()).unwrap();
    (lines, [fs::read(weights).unwrap(), fs::read(config).unwrap()])
}

/// A run of each length up to a stop and a resume ends like one that was left alone; returns what was heard of that one.
#[track_caller]
fn check(place: &Place, model: &str, objective: &str, data: [&str; 2]) -> Heard {
    check_runs(place, |output| place.config(model, objective, data, output))
}

/// The same for the run that `config` makes of the name of its output.
#[track_caller]
fn check_runs(place: &Place, config: impl Fn(&str) -> TrainConfig) -> Heard {
    let heard = finish(&config("whole"));
    for step in 1..6 {
        let output = format!("stopped-{step}");
        let config = config(&output);
        let requests = Requests::default();
        let stopped = train(&config, &mut StopAfter(step, &requests), &requests).unwrap();
        assert_eq!((stopped.status, stopped.step), (Status::Interrupted, step));
        let resumed = train(&config, &mut (), &Requests::default()).unwrap();
        assert_eq!(resumed.resumed_from, Some(step));
        assert!(result(&place.path(&output)) == result(&place.path("whole")), "stopped after step {step}");
    }
    heard
}

/// A longer run, and what it was heard to achieve.
fn learnt(place: &Place, objective: &str, data: [&str; 2]) -> Evaluation {
    let mut config = place.config(&table(BERT), objective, data, "learnt");
    config.run.steps = Some(60);
    let heard = finish(&config);
    let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
    assert!(mean(&heard.losses[50..]) < 0.8 * mean(&heard.losses[..10]), "{:?}", heard.losses);
    heard.evaluation.unwrap()
}

/// The model of [`learnt`], as `predict` opens it.
fn pipeline(place: &Place) -> EncoderPipeline {
    let device = DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap();
    let pipeline = Pipeline::open(&place.path("learnt/model"), RunPrecision::F32, &device);
    pipeline.unwrap().encoder().unwrap()
}

/// A run whose micro-batches have so many tokens at most.
fn by_tokens(place: &Place, name: &'static str, tokens: usize, output: &str) -> TrainConfig {
    let mut config = place.run(&place.case(name), Form::Full, output);
    (config.data.rows, config.data.batch_tokens) = (0, Some(tokens));
    config
}

#[test]
fn every_objective_learns_from_batches_by_tokens() {
    let place = Place::of_all();
    for name in NAMES {
        let heard = finish(&by_tokens(&place, name, 96, name));
        assert_eq!(heard.losses.len(), 6, "{name}");
    }
    check_runs(&place, |output| by_tokens(&place, "seq2seq", 60, output));
}

#[test]
fn an_epoch_of_batches_by_tokens_reads_each_row_once() {
    let place = Place::of_all();
    let mut config = by_tokens(&place, "classify", 40, "epoch");
    (config.run.steps, config.run.epochs, config.run.accumulate) = (None, Some(1.0), 1);
    let outcome = train(&config, &mut (), &Requests::default()).unwrap();
    assert_eq!((outcome.rows, outcome.epochs), (Some(40), Some(1.0)));
    // Texts of 5 to 9 tokens: 4 to 8 of them fit.
    assert!((5..=9).contains(&outcome.step), "{} steps", outcome.step);

    let too_few = by_tokens(&place, "classify", 8, "too-few");
    let error = train(&too_few, &mut (), &Requests::default()).unwrap_err();
    let causes = std::error::Error::source(&error).unwrap().to_string();
    assert!(causes.contains("takes 9 tokens and a batch has 8"), "{causes}");
}

#[test]
fn labels_of_texts_are_learnt_by_an_encoder() {
    let place = Place::new();
    let heard = check(&place, &table(BERT), "kind = \"classify\"", rows());
    let evaluation = heard.evaluation.unwrap();
    assert_eq!((evaluation.n_targets, evaluation.unit), (9, "rows"));
    let confusion = evaluation.confusion.as_ref().unwrap();
    assert_eq!(confusion.labels(), ["high", "low", "middle"]);
    assert_eq!(confusion.counts().iter().sum::<u64>(), 9);
    let right = confusion.counts().iter().step_by(4).sum::<u64>() as f64;
    assert!((evaluation.metric("accuracy").unwrap() - right / 9.0).abs() < 1e-12);
    let AnyConfig::Encoder(config) = AnyConfig::open(&place.path("whole/model")).unwrap() else { panic!() };
    assert_eq!((config.labels(), config.class_name()), (confusion.labels(), "BertForSequenceClassification"));
}

#[test]
fn labels_of_texts_are_learnt_by_a_decoder() {
    let place = Place::new();
    let heard = check(&place, &table(GPT2), "kind = \"classify\"", rows());
    assert!(heard.evaluation.unwrap().metric("macro_f1").is_some());
    let config = AnyConfig::open(&place.path("whole/model")).unwrap();
    assert_eq!(config.class_name(), "GPT2ForSequenceClassification");
}

#[test]
fn several_labels_and_numbers_are_learnt() {
    let place = Place::new();
    let fields = |label: &str, label_type: &str| {
        let config = place.config(&table(BERT), "kind = \"classify\"", rows(), label_type);
        let fields = json!({ "label": label, "label_type": label_type });
        let data = andiron_training::config::DataConfig {
            fields: Some(fields.as_object().unwrap().clone()),
            ..config.data.clone()
        };
        finish(&TrainConfig { data, ..config }).evaluation.unwrap()
    };
    assert!(fields("labels", "classes").metric("micro_f1").is_some());
    assert!(fields("score", "numbers").metric("pearson").is_some());
}

#[test]
fn labels_of_words_are_learnt() {
    let place = Place::new();
    let [train, valid] = place.write("tags", tagged_row);
    let (objective, data) = ("kind = \"token-classify\"", [train.as_str(), &valid]);
    let heard = check(&place, &table(BERT), objective, data);
    assert_eq!(heard.evaluation.unwrap().unit, "tokens");
    let evaluation = learnt(&place, objective, data);
    for metric in ["accuracy", "precision", "recall", "f1"] {
        assert!(evaluation.metric(metric).unwrap() > 0.9, "{evaluation:?}");
    }
    let text = TextInput::Text { text: "d a c e".to_owned(), pair: None };
    let pipeline = pipeline(&place);
    let found = pipeline.label(&[text]).remove(0).unwrap();
    let entities: Vec<_> = found.entities.iter().map(|entity| (entity.label, entity.span.clone())).collect();
    assert_eq!(entities, [("VOWEL", 2..5)]);
    // Labels of tags that are numbers, in the order that is given.
    let [train, valid] =
        place.write("numbers", |seed| json!({ "tokens": letters(seed, 2), "ner_tags": [0, 1] }));
    let objective = "kind = \"token-classify\"\nlabels = [\"NOUN\", \"VERB\"]";
    let config = place.config(&table(BERT), objective, [&train, &valid], "numbers");
    let evaluation = finish(&config).evaluation.unwrap();
    assert!(evaluation.metric("accuracy").is_some() && evaluation.metric("f1").is_none());
}

#[test]
fn answers_are_learnt_in_windows_of_their_contexts() {
    let place = Place::new();
    let [train, valid] = place.write("questions", |seed| question_row(seed, true));
    let (objective, data) = ("kind = \"answer\"", [train.as_str(), &valid]);
    let heard = check(&place, &table(BERT), objective, data);
    let evaluation = heard.evaluation.unwrap();
    // Of 24 tokens, 20 are left for a window.
    assert!(evaluation.unit == "windows" && evaluation.n_targets > 9, "{evaluation:?}");
    let evaluation = learnt(&place, objective, data);
    assert!(evaluation.metric("exact_match").unwrap() > 0.9, "{evaluation:?}");
    assert!(evaluation.metric("f1").unwrap() > 0.9, "{evaluation:?}");
    let question = Question::Text { question: "y".to_owned(), context: "a b a z c".to_owned() };
    let found = pipeline(&place).answer(&[question], 5).remove(0).unwrap();
    assert_eq!((found.answer, found.span), (AnswerText::Text("z".to_owned()), 6..7));
    // A model that has learnt to find an answer is wrong where there is none.
    let [_, unanswerable] = place.write("unanswerable", |seed| question_row(seed, false));
    let evaluation = finish(&place.config(&table(BERT), objective, [&train, &unanswerable], "none"));
    assert!(evaluation.evaluation.unwrap().metric("exact_match").is_some());
}

#[test]
fn rows_are_held_out_of_the_training_file() {
    let place = Place::new();
    let [questions, _] = place.write("questions", |seed| {
        let words = letters(seed, 6).join(" ");
        json!({ "question": "y", "context": words, "answers": { "text": [words[..1]], "answer_start": [0] } })
    });
    let held_out = |objective: &str, train: &str, output: &str, share: f64| {
        let mut config = place.config(&table(BERT), objective, [train, ""], output);
        (config.data.valid, config.data.held_out) = (None, Some(share));
        config
    };
    for (objective, train) in [("answer", questions.as_str()), ("classify", "train.jsonl")] {
        let mut config = held_out(&format!("kind = \"{objective}\""), train, objective, 0.3);
        let evaluation = finish(&config).evaluation.unwrap();
        let records = |part: &str| {
            let path = place.path(objective).join("records").join(part).join("manifest.json");
            let manifest: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            manifest["records"].as_u64().unwrap()
        };
        assert_eq!((records("train") + records("valid"), records("valid")), (40, evaluation.n_targets));
        assert!((5..20).contains(&evaluation.n_targets), "{evaluation:?}");
        // Another share is another run.
        config.data.held_out = Some(0.4);
        let refused = train_error(&config);
        assert!(refused.contains("data.held_out"), "{refused}");
    }
    for (objective, train, share, expected) in [
        (
            "classify",
            "train.jsonl",
            1e-6,
            "data.held_out is 0.000001: it must be larger: it holds out none of the rows",
        ),
        (
            "classify",
            "train.jsonl",
            0.9999,
            "data.held_out is 0.9999: it must be smaller: it leaves none of the rows",
        ),
        ("masked", "train", 0.3, "data.held_out is 0.3: it must be absent with shards"),
    ] {
        let config = held_out(&format!("kind = \"{objective}\""), train, "refused", share);
        let refused = train_error(&config);
        assert!(refused.contains(expected), "{refused}");
    }
}

/// The error of a run, with its causes.
fn train_error(config: &TrainConfig) -> String {
    let mut error: &dyn std::error::Error = &train(config, &mut (), &Requests::default()).unwrap_err();
    let mut text = error.to_string();
    while let Some(cause) = error.source() {
        text = format!("{text}: {cause}");
        error = cause;
    }
    text
}

#[test]
fn a_model_is_measured_before_the_first_step_too() {
    struct Steps(Vec<u64>);
    impl Observer for Steps {
        fn on_eval(&mut self, step: u64, _: &Evaluation) {
            self.0.push(step);
        }
    }
    let place = Place::new();
    let mut config = place.config(&table(BERT), "kind = \"classify\"", rows(), "run");
    config.evaluate.at_start = true;
    let (mut steps, requests) = (Steps(Vec::new()), Requests::default());
    train(&config, &mut steps, &requests).unwrap();
    assert_eq!(steps.0, [0, 3, 6]);
    // A run that goes on has begun before.
    let mut again = Steps(Vec::new());
    train(&config, &mut again, &requests).unwrap();
    assert_eq!(again.0, [6]);
}

#[test]
fn embeddings_are_learnt_from_groups_and_from_scores() {
    let place = Place::new();
    let [train, valid] = place.write("groups", reversed_row);
    let (objective, data) = ("kind = \"contrastive\"", [train.as_str(), &valid]);
    let heard = check(&place, &table(BERT), objective, data);
    assert_eq!((heard.evaluation.as_ref().unwrap().unit, heard.evaluation.unwrap().n_targets), ("rows", 9));
    let evaluation = learnt(&place, objective, data);
    assert!(evaluation.metric("batch_accuracy").unwrap() > 0.7, "{evaluation:?}");
    assert!(evaluation.metric("batch_mrr").unwrap() > 0.8, "{evaluation:?}");
    assert!(place.path("learnt/model/modules.json").exists());
    assert!(place.path("learnt/model/1_Pooling/config.json").exists());
    let text = |text: &str| TextInput::Text { text: text.to_owned(), pair: None };
    let found = pipeline(&place).embed(&[text("a b"), text("c d e")]);
    assert!(found.iter().all(|found| found.as_ref().unwrap().vector.len() == 16));

    for (scored_loss, name) in [("cosent", "order"), ("cosine", "values")] {
        let place = Place::new();
        let [train, valid] = place.write(name, |seed| {
            let (first, mut second) = (letters(seed, 4), letters(seed, 4));
            let changed = seed.below(99, 5) as usize;
            second[..changed].fill("z".to_owned());
            json!({ "sentence1": first.join(" "), "sentence2": second.join(" "), "score": 5.0 - changed as f32 })
        });
        let objective = format!("kind = \"contrastive\"\nmax_score = 5.0\nscored_loss = \"{scored_loss}\"");
        check(&place, &table(BERT), &objective, [&train, &valid]);
        let evaluation = learnt(&place, &objective, [&train, &valid]);
        assert!(evaluation.metric("spearman").unwrap() > 0.8, "{evaluation:?}");
    }
}

#[test]
fn relevance_is_learnt_from_groups_and_from_scores() {
    let place = Place::new();
    let [train, valid] = place.write("groups", relevant_row);
    let (objective, data) = ("kind = \"rerank\"", [train.as_str(), &valid]);
    let heard = check(&place, &table(BERT), objective, data);
    assert_eq!((heard.evaluation.as_ref().unwrap().unit, heard.evaluation.unwrap().n_targets), ("pairs", 27));
    let evaluation = learnt(&place, objective, data);
    assert!(evaluation.metric("accuracy").unwrap() > 0.9, "{evaluation:?}");
    assert!(evaluation.metric("mrr").unwrap() > 0.9, "{evaluation:?}");
    let documents = ["a b c", "d z e"].map(str::to_owned).to_vec();
    let request = RerankRequest { query: "a b".to_owned(), documents };
    let ranking = pipeline(&place).rerank(&request).unwrap();
    assert_eq!(ranking.results[0].index, 1);
    assert!(ranking.results[0].score > 0.5 && ranking.results[1].score < 0.5, "{ranking:?}");

    let [train, valid] = place.write("scores", |seed| {
        let score = seed.below(99, 4) as usize;
        let mut words = letters(seed, 3);
        words[..score].fill("z".to_owned());
        json!({ "sentence1": "a", "sentence2": words.join(" "), "score": score as f32 })
    });
    let objective = "kind = \"rerank\"\nmax_score = 3.0";
    let evaluation = finish(&place.config(&table(BERT), objective, [&train, &valid], "scores"));
    assert!(evaluation.evaluation.unwrap().metric("pearson").is_some());
    check_refused(
        &place,
        &table(BERT),
        "kind = \"rerank\"",
        [&train, &valid],
        "set that to the highest score",
    );
}

#[test]
fn masked_tokens_are_learnt_from_streams_and_from_rows() {
    let place = Place::new();
    let heard = check(&place, &table(BERT), "kind = \"masked\"\nprobability = 0.3", ["train", "valid"]);
    let evaluation = heard.evaluation.unwrap();
    assert!(evaluation.metric("perplexity").is_some() && evaluation.metric("bits_per_byte").is_none());
    let place = Place::new();
    check(&place, &table(BERT), "kind = \"masked\"\nwhole_words = true", rows());
}

#[test]
fn targets_of_sources_are_learnt() {
    let place = Place::new();
    let heard =
        check(&place, &table(T5), "kind = \"seq2seq\"\nprefix = \"x \"\nlabel_smoothing = 0.1", rows());
    let evaluation = heard.evaluation.unwrap();
    assert_eq!((evaluation.unit, evaluation.metric("bleu")), ("tokens", None));
    for model in [BART, MARIAN] {
        let place = Place::new();
        let heard = check(&place, &table(model), "kind = \"seq2seq\"\nscored_rows = 2", rows());
        assert!(heard.losses[5] < heard.losses[0], "{:?}", heard.losses);
        let evaluation = heard.evaluation.unwrap();
        for (name, most) in [("bleu", 100.0), ("chrf", 100.0), ("rouge_l", 1.0)] {
            let value = evaluation.metric(name).unwrap();
            assert!((0.0..=most).contains(&value), "{name} {value}");
        }
    }
}

#[test]
fn targets_that_were_learnt_by_heart_score_full_marks() {
    let place = Place::new();
    let rows = |n: usize| vec![json!({ "source": "a b c", "target": "c b a d e" }).to_string(); n].join("\n");
    fs::write(place.path("same.jsonl"), rows(12)).unwrap();
    let objective = "kind = \"seq2seq\"\nscored_rows = 5";
    let mut config = place.config(&table(BART), objective, ["same.jsonl"; 2], "same");
    (config.run.steps, config.evaluate.rows) = (Some(60), 2);
    let evaluation = finish(&config).evaluation.unwrap();
    for (name, most) in [("bleu", 100.0), ("chrf", 100.0), ("rouge_l", 1.0)] {
        let value = evaluation.metric(name).unwrap();
        assert!((value - most).abs() < 1e-9, "{name} {value} {:?}", evaluation.loss);
    }
}

#[test]
fn translations_are_learnt_in_either_direction() {
    let place = Place::new();
    for name in ["train", "valid"] {
        let rows = fs::read_to_string(place.path(&format!("{name}.jsonl"))).unwrap();
        let translated = rows.lines().map(|row| {
            let row: Value = serde_json::from_str(row).unwrap();
            json!({ "translation": { "en": row["text"], "es": row["label"] } }).to_string()
        });
        let translated = translated.collect::<Vec<_>>().join("\n");
        fs::write(place.path(&format!("{name}-languages.jsonl")), translated).unwrap();
    }
    let losses = |output: &str, fields: Option<[&str; 2]>| {
        let data = ["train-languages.jsonl", "valid-languages.jsonl"];
        let mut config = place.config(&table(T5), "kind = \"seq2seq\"", data, output);
        config.data.fields = fields.map(|[source, target]| {
            json!({ "source": source, "target": target }).as_object().unwrap().clone()
        });
        finish(&config).losses
    };
    let usual = losses("usual", None);
    assert_eq!(losses("there", Some(["translation.en", "translation.es"])), usual);
    assert_ne!(losses("back", Some(["translation.es", "translation.en"])), usual);
}

#[test]
fn removed_spans_are_learnt() {
    let place = Place::new();
    place.add_sentinels();
    let heard = check(&place, &table(T5), "kind = \"span-corruption\"\ndensity = 0.3", ["train", "valid"]);
    assert!(heard.losses[5] < heard.losses[0], "{:?}", heard.losses);
    let evaluation = heard.evaluation.unwrap();
    assert!(evaluation.metric("perplexity").is_some() && evaluation.metric("bits_per_byte").is_none());
}

#[test]
fn damaged_texts_are_learnt_from_streams_and_from_rows_and_the_model_is_fine_tuned() {
    let place = Place::new();
    let heard = check(&place, &table(BART), "kind = \"denoise\"", ["train", "valid"]);
    assert!(heard.losses[5] < heard.losses[0], "{:?}", heard.losses);
    let from = format!("[init]\nfrom = {:?}", place.path("whole/model").display().to_string());
    let tuned = place.config(&from, "kind = \"seq2seq\"", rows(), "tuned");
    assert_eq!(finish(&tuned).warnings, [""; 0]);
    let place = Place::new();
    let objective = "kind = \"denoise\"\npermute_sentences = false\nshare = 0.5";
    let heard = check(&place, &table(BART), objective, rows());
    // Special tokens around a text are predicted too.
    let texts = fs::read_to_string(place.path("valid.jsonl")).unwrap();
    let n_letters = texts.lines().map(|row| {
        let row: Value = serde_json::from_str(row).unwrap();
        row["text"].as_str().unwrap().split(' ').count() as u64
    });
    assert_eq!(heard.evaluation.unwrap().n_targets, n_letters.map(|n| n + 2).sum::<u64>());
}

#[test]
fn answers_of_conversations_are_learnt() {
    let place = Place::of_answers();
    let heard = check(&place, &table(GPT2), "kind = \"chat\"", rows());
    assert!(heard.losses[5] < heard.losses[0], "{:?}", heard.losses);
    let evaluation = heard.evaluation.unwrap();
    // Of each row, two messages of two letters and the token that ends them.
    assert_eq!((evaluation.n_targets, evaluation.unit), (9 * 2 * 3, "tokens"));
    assert!(evaluation.metric("perplexity").is_some());

    let n_targets = |objective: &str, fields: Value, output: &str| {
        finish(&place.with_fields(objective, fields, output)).evaluation.unwrap().n_targets
    };
    assert_eq!(n_targets("kind = \"chat\"", json!({ "instruction": "instruction" }), "instruction"), 9 * 3);
    assert_eq!(n_targets("kind = \"chat\"", json!({ "prompt": "prompt" }), "completion"), 9 * 3);
    let whole = "kind = \"chat\"\nlearn = \"all\"";
    // Two turns of `[CLS] a [SEP] [MASK] a a [SEP]`, but for the first token.
    assert_eq!(n_targets(whole, json!({ "messages": "messages" }), "whole-text"), 9 * (2 * 7 - 1));
}

/// Stops while a row is encoded, and counts the rows.
struct StopAtRow<'a>(u64, &'a Requests, u64);

impl Observer for StopAtRow<'_> {
    fn on_prepare(&mut self, preparation: &Preparation<'_>) {
        assert!(preparation.bytes_done <= preparation.bytes_total && preparation.bytes_total > 0);
        self.2 += 1;
        if preparation.rows == self.0 {
            self.1.stop();
        }
    }
}

#[test]
fn a_pass_of_the_reference_that_was_interrupted_goes_on_where_it_was() {
    let place = Place::of_answers();
    let config = |output: &str| place.config(&table(GPT2), "kind = \"preference\"", rows(), output);
    finish(&config("whole"));
    let stopped = config("stopped");
    let journal = stopped.run.output.join("records/reference.partial");
    let mut lengths = Vec::new();
    for row in [8, 30] {
        let requests = Requests::default();
        let ended = train(&stopped, &mut StopAtRow(row, &requests, 0), &requests);
        assert!(matches!(ended, Err(TrainError::Stopped)), "{ended:?}");
        lengths.push(fs::metadata(&journal).unwrap().len());
    }
    // An entry of 32 bytes for each row before that at which it was stopped; equal rows are not computed again.
    assert!(lengths[0] == 7 * 32 && lengths[1] > lengths[0] && lengths[1] <= 29 * 32, "{lengths:?}");
    finish(&stopped);
    assert!(!journal.exists());
    assert!(result(&stopped.run.output) == result(&place.path("whole")));
}

#[test]
fn preferences_are_learnt_from_a_reference_that_is_computed_once() {
    let place = Place::of_answers();
    let heard = check(&place, &table(GPT2), "kind = \"preference\"", rows());
    // The model begins as its reference, and dropout is off.
    assert!((heard.losses[0] - std::f32::consts::LN_2).abs() < 1e-5, "{:?}", heard.losses);
    assert!(heard.losses[5] < heard.losses[0], "{:?}", heard.losses);
    let evaluation = heard.evaluation.unwrap();
    assert_eq!((evaluation.n_targets, evaluation.unit), (9, "pairs"));
    assert!(evaluation.metric("reward_margin").unwrap() > 0.0);
    assert!(evaluation.metric("reward_accuracy").unwrap() > 0.5);

    // The records of another model at the beginning are others.
    let records = |output: &str| fs::read(place.path(output).join("records/train/reference.f32")).unwrap();
    let from = format!("[init]\nfrom = {:?}", place.path("whole/model").display().to_string());
    finish(&place.config(&from, "kind = \"preference\"", rows(), "again"));
    assert_ne!(records("whole"), records("again"));
    assert_eq!(records("whole"), records("stopped-3"));
}

#[test]
fn documents_are_rearranged_to_fill_in_the_middle() {
    let place = Place::new();
    let objective = "kind = \"causal\"\nfim_rate = 0.5";
    let streams = ["train", "valid"];
    check_refused(&place, &table(GPT2), objective, streams, "<fim_prefix>, <fim_middle>, <fim_suffix>");
    // The vocabulary has the tokens in place of the last letters.
    let words = fs::read_to_string(place.path("tokenizer/vocab.txt")).unwrap();
    let words = words.replace("\nx\ny\nz", "\n<fim_prefix>\n<fim_middle>\n<fim_suffix>");
    fs::write(place.path("tokenizer/vocab.txt"), words).unwrap();
    check_refused(&place, &table(GPT2), objective, streams, "no end-of-sequence token");
    place.describe(json!({ "eos_token": "[SEP]" }));
    let heard = check(&place, &table(GPT2), objective, streams);
    let plain = finish(&place.config(&table(GPT2), "kind = \"causal\"", streams, "plain"));
    assert_ne!(heard.losses, plain.losses);
    let [rearranged, plain] = [heard, plain].map(|heard| heard.evaluation.unwrap());
    assert!(rearranged.metric("bits_per_byte").is_none() && plain.metric("perplexity").is_some());
    check_refused(
        &place,
        &table(GPT2),
        "kind = \"causal\"\nfim_rate = 1.5",
        streams,
        "objective.fim_rate is 1.5",
    );
}

#[test]
fn rows_of_answers_that_do_not_fit_are_named() {
    let place = Place::of_answers();
    let gpt2 = table(GPT2);
    check_refused(&place, &gpt2, "kind = \"preference\"\nbeta = 0.0", rows(), "objective.beta is 0");
    let smoothing = "kind = \"preference\"\nlabel_smoothing = 0.5";
    check_refused(&place, &gpt2, smoothing, rows(), "objective.label_smoothing is 0.5");
    let error = train(
        &place.with_fields("kind = \"chat\"", json!({ "text": "prompt" }), "refused"),
        &mut (),
        &Requests::default(),
    );
    let error = std::error::Error::source(&error.unwrap_err()).unwrap().to_string();
    assert!(error.contains("fields of conversations (messages"), "{error}");

    // A row whose answer is cut off whole is left out and reported.
    let long = json!({ "messages": [
        { "role": "user", "content": "a ".repeat(30) }, { "role": "assistant", "content": "b" },
    ] });
    let text = fs::read_to_string(place.path("train.jsonl")).unwrap();
    fs::write(place.path("train.jsonl"), format!("{text}\n{long}")).unwrap();
    let heard = finish(&place.config(&gpt2, "kind = \"chat\"", rows(), "long"));
    assert!(heard.warnings.iter().any(|warning| warning.contains("train.jsonl:41")), "{:?}", heard.warnings);

    place.describe(json!({ "eos_token": "[SEP]" }));
    check_refused(&place, &gpt2, "kind = \"chat\"", rows(), "no chat template");
    // Texts need none.
    fs::write(place.path("train.jsonl"), text).unwrap();
    finish(&place.with_fields("kind = \"chat\"", json!({ "prompt": "prompt" }), "texts"));
}

#[test]
fn a_model_directory_is_fine_tuned_and_gets_the_head_that_it_lacks() {
    let place = Place::new();
    let pretrained = place.config(&table(BERT), "kind = \"masked\"", ["train", "valid"], "pretrained");
    assert_eq!(finish(&pretrained).warnings, [""; 0]);
    let from =
        |run: &str| format!("[init]\nfrom = {:?}", place.path(run).join("model").display().to_string());
    let tuned = place.config(&from("pretrained"), "kind = \"classify\"", rows(), "tuned");
    let heard = finish(&tuned);
    assert_eq!(heard.warnings.len(), 1);
    assert!(heard.warnings[0].contains("BertForSequenceClassification"), "{:?}", heard.warnings);
    // Its head is that of the rows: it goes on being trained.
    let again = place.config(&from("tuned"), "kind = \"classify\"", rows(), "again");
    let more = finish(&again);
    assert_eq!(more.warnings, [""; 0]);
    assert!(more.losses[0] < heard.losses[0], "{:?} {:?}", heard.losses, more.losses);
    // The tokenizer came along.
    assert!(place.path("again/model/vocab.txt").exists());
    assert!(place.path("again/config.toml").exists());
}

/// Checks that the last five losses are at most this share of the first five.
#[track_caller]
fn assert_falls(losses: &[f32], share: f32) {
    let [first, last] = [&losses[..5], &losses[losses.len() - 5..]].map(|some| some.iter().sum::<f32>());
    assert!(last < share * first, "{losses:?}");
}

/// The model of the run `base` with the adapter of the run `adapted`, as others open it.
fn opened(place: &Place, base: &str, precision: RunPrecision, adapted: &str) -> AnyBundle {
    let device = DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap();
    let base = AnyBundle::open_at(&place.path(base).join("model"), precision, &device).unwrap();
    base.with_adapter(&place.path(adapted).join("model")).unwrap()
}

/// Ids and label of the rows of the validation data.
fn valid_rows(place: &Place) -> (Vec<Vec<u32>>, Vec<usize>) {
    let text = fs::read_to_string(place.path("valid.jsonl")).unwrap();
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let letters = row["text"].as_str().unwrap().bytes().filter(|byte| *byte != b' ');
        let ids = letters.map(|letter| 5 + u32::from(letter - b'a'));
        let label = ["high", "low", "middle"].iter().position(|label| row["label"] == *label).unwrap();
        (std::iter::once(2).chain(ids).chain([3]).collect(), label)
    };
    text.lines().map(row).unzip()
}

/// Checks that the opened adapter gives the loss that the run measured with the model in its memory.
#[track_caller]
fn assert_loss(probabilities: &[Vec<f32>], labels: &[usize], evaluation: &Evaluation) {
    let losses = probabilities.iter().zip(labels).map(|(row, &label)| -f64::from(row[label]).ln());
    let loss = losses.sum::<f64>() / labels.len() as f64;
    assert!((loss - evaluation.loss).abs() < 1e-4, "{loss} {}", evaluation.loss);
}

#[test]
fn an_adapter_of_an_encoder_is_learnt_with_a_new_head() {
    let place = Place::new();
    finish(&place.config(&table(BERT), "kind = \"masked\"", ["train", "valid"], "base"));
    let before = fs::read(place.path("base/model/model.safetensors")).unwrap();
    let tables = adapter_of(&place, "base", "f32", "dora = true");
    let heard = check(&place, &tables, "kind = \"classify\"", rows());
    assert!(heard.warnings[0].contains("BertForSequenceClassification"), "{:?}", heard.warnings);
    let names = |path: &str| {
        let bytes = fs::read(place.path(path)).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut names: Vec<String> = tensors.names().into_iter().map(|name| name.to_string()).collect();
        names.sort();
        names
    };
    // Whatever is not frozen is in the adapter, and has moments: the pooler is new as well as the head.
    let saved = names("whole/model/adapter_model.safetensors");
    let has = |part: &str| saved.iter().any(|name| name.contains(part));
    assert!(has("query.lora_A") && has("pooler.dense.weight") && has("classifier.bias"), "{saved:?}");
    assert!(!has("LayerNorm") && !has("embeddings"), "{saved:?}");
    let moments = names("whole/step-000006/optimizer.safetensors");
    assert_eq!(moments.len(), 2 * saved.len(), "{moments:?}");
    assert!(fs::read(place.path("base/model/model.safetensors")).unwrap() == before);

    let long = finish(&lengthened(place.config(&tables, "kind = \"classify\"", rows(), "long"), 60));
    let evaluation = long.evaluation.unwrap();
    assert_falls(&long.losses, 0.7);
    let AnyBundle::Encoder(bundle) = opened(&place, "base", RunPrecision::F32, "long") else { panic!() };
    let (texts, labels) = valid_rows(&place);
    let inputs: Vec<EncoderInput<'_>> = texts.iter().map(|ids| ids.as_slice().into()).collect();
    assert_loss(&bundle.classify(&inputs), &labels, &evaluation);
}

#[test]
fn an_adapter_of_a_decoder_is_learnt_with_a_head_for_labels() {
    let place = Place::new();
    finish(&place.config(&table(LLAMA), "kind = \"causal\"", ["train", "valid"], "base"));
    let tables = adapter_of(&place, "base", "f32", "targets = [\"q_proj\", \"v_proj\"]");
    let config = place.config(&tables, "kind = \"classify\"", rows(), "adapted");
    let evaluation = finish(&config).evaluation.unwrap();
    let AnyBundle::Classifier(bundle) = opened(&place, "base", RunPrecision::F32, "adapted") else {
        panic!()
    };
    let (texts, labels) = valid_rows(&place);
    assert_loss(&bundle.classify(&texts), &labels, &evaluation);
}

#[test]
fn an_adapter_of_weights_in_few_bits_is_learnt() {
    let place = Place::new();
    let streams = ["train", "valid"];
    finish(&place.config(&table(LLAMA), "kind = \"causal\"", streams, "base"));
    for precision in ["int8", "int4"] {
        let tables = adapter_of(&place, "base", precision, "rslora = true");
        let config = place.config(&tables, "kind = \"causal\"", streams, precision);
        let heard = finish(&lengthened(config, 30));
        assert_falls(&heard.losses, 0.9);
        opened(&place, "base", precision.parse().unwrap(), precision);
        // Others look for the tokenizer beside the adapter.
        for dir in ["model", "step-000030/model"] {
            assert!(place.path(&format!("{precision}/{dir}/vocab.txt")).is_file(), "{dir}");
        }
    }
    check(&place, &adapter_of(&place, "base", "int8", "dropout = 0.1"), "kind = \"causal\"", streams);
}

#[test]
fn a_run_with_an_adapter_goes_on_only_over_the_weights_it_began_with() {
    let place = Place::new();
    let streams = ["train", "valid"];
    let base = place.config(&table(LLAMA), "kind = \"causal\"", streams, "base");
    finish(&base);
    let config =
        place.config(&adapter_of(&place, "base", "f32", ""), "kind = \"causal\"", streams, "adapted");
    let requests = Requests::default();
    train(&config, &mut StopAfter(2, &requests), &requests).unwrap();
    let path = place.path("base/model/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = train(&config, &mut (), &Requests::default()).unwrap_err().to_string();
    assert!(error.contains("init.weights_blake3"), "{error}");
    let more = "targets = [\"nothing\"]";
    check_refused(
        &place,
        &adapter_of(&place, "base", "f32", more),
        "kind = \"causal\"",
        streams,
        "target_modules",
    );
}

#[track_caller]
fn check_refused(place: &Place, model: &str, objective: &str, data: [&str; 2], expected: &str) {
    let text = train_error(&place.config(model, objective, data, "refused"));
    assert!(text.contains(expected), "{text}");
}

#[test]
fn what_does_not_fit_is_named() {
    let place = Place::new();
    let (bert, t5, gpt2) = (table(BERT), table(T5), table(GPT2));
    let streams = ["train", "valid"];
    check_refused(&place, &bert, "kind = \"causal\"", streams, "choose masked, classify");
    check_refused(&place, &gpt2, "kind = \"seq2seq\"", rows(), "choose causal, chat, preference, classify");
    check_refused(
        &place,
        &t5,
        "kind = \"seq2seq\"\nlabel_smoothing = 1.5",
        rows(),
        "objective.label_smoothing is 1.5",
    );
    let spans = "kind = \"span-corruption\"";
    check_refused(&place, &t5, spans, streams, "no <extra_id_0>");
    place.add_sentinels();
    check_refused(&place, &t5, &format!("{spans}\ndensity = 0.9"), streams, "objective.density is 0.9");
    check_refused(
        &place,
        &t5,
        &format!("{spans}\nmean_length = 1\ndensity = 0.5"),
        streams,
        "only 2 sentinel",
    );
    check_refused(&place, &t5, spans, rows(), "data.context is missing");
    check_refused(&place, &t5, "kind = \"denoise\"\nshare = 0", rows(), "objective.share is 0");
    check_refused(&place, &bert, "kind = \"classify\"\nlabels = [\"low\", \"high\"]", rows(), "\"middle\"");
    let causal = place.config(&gpt2, "kind = \"causal\"", streams, "refused");
    let refused = |data, problem: &str| {
        let config = TrainConfig { data, ..causal.clone() };
        let error = train(&config, &mut (), &Requests::default()).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    };
    let data = || causal.data.clone();
    let [train_rows, valid_rows] = rows().map(|name| place.path(name));
    let mixed = andiron_training::config::DataConfig { valid: Some(valid_rows), ..data() };
    refused(mixed, "valid.jsonl is a file");
    let mixed = andiron_training::config::DataConfig { train: train_rows, ..data() };
    refused(mixed, "valid is a directory");
    let text = fs::read_to_string(place.path("train.jsonl")).unwrap();
    fs::write(place.path("train.jsonl"), format!("{text}\n{{\"text\": \"a\"}}")).unwrap();
    check_refused(&place, &bert, "kind = \"classify\"", rows(), "train.jsonl:41");
    fs::write(place.path("empty.jsonl"), "").unwrap();
    check_refused(&place, &bert, "kind = \"classify\"", ["empty.jsonl", "valid.jsonl"], "empty.jsonl");
}

/// The same run with several texts to a row.
fn packed(config: TrainConfig, context: Option<usize>) -> TrainConfig {
    let data = andiron_training::config::DataConfig { packing: true, context, ..config.data.clone() };
    TrainConfig { data, ..config }
}

#[test]
fn packed_conversations_are_learnt() {
    let place = Place::of_answers();
    for (name, model) in [("gpt2", GPT2), ("llama", LLAMA)] {
        let config = |output: &str| {
            place.config(&table(model), "kind = \"chat\"", rows(), &format!("{name}-{output}"))
        };
        let heard = finish(&packed(config("whole"), None));
        assert!(heard.losses[5] < heard.losses[0], "{:?}", heard.losses);
        assert_eq!(heard.evaluation.unwrap().n_targets, 9 * 2 * 3);
    }
    // Conversations of 9 positions, two to a row: an epoch is 20 rows, so that it ends amid the micro-batches of a step.
    let config = |output: &str| {
        let mut config = place.config(&table(LLAMA), "kind = \"chat\"", rows(), output);
        config.data.max_length = Some(10);
        packed(config, Some(20))
    };
    check_runs(&place, config);
    let whole = fs::read_to_string(place.path("whole/config.toml")).unwrap();
    assert!(whole.contains("packing = true"), "{whole}");
}

#[test]
fn rows_are_packed_where_a_decoder_learns_texts() {
    let place = Place::of_answers();
    let refused = |config: TrainConfig, problem: &str| {
        let error = train(&config, &mut (), &Requests::default()).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    };
    let config =
        |model, objective, data| packed(place.config(&table(model), objective, data, "refused"), Some(12));
    refused(config(GPT2, "kind = \"preference\"", rows()), "data.packing is true");
    refused(
        config(GPT2, "kind = \"causal\"", ["train", "valid"]),
        "the sequences of a token stream are full",
    );
    refused(config(GPT2, "kind = \"chat\"", rows()), "data.context is 12: it must be at least 24");
}

#[test]
fn texts_and_completions_of_rows_are_learnt_by_next_tokens() {
    let place = Place::of_answers();
    let texts = place
        .write("texts", |seed| json!({ "text": letters(seed, 3 + seed.below(77, 30) as usize).join(" ") }));
    let n_letters: usize = {
        let texts = fs::read_to_string(place.path(&texts[1])).unwrap();
        texts.lines().map(|row| row.matches(' ').count() + 1).sum()
    };
    let data = || [texts[0].as_str(), texts[1].as_str()];
    let causal = "kind = \"causal\"";
    let heard = check(&place, &table(GPT2), causal, data());
    assert!(heard.losses[5] < heard.losses[0], "{:?}", heard.losses);
    // All letters of the nine texts, and the token that ends each: longer texts than the model reads are divided.
    let n_tokens = n_letters as u64 + 9;
    assert_eq!(heard.evaluation.unwrap().n_targets, n_tokens);
    let packed_run = finish(&packed(place.config(&table(GPT2), causal, data(), "packed"), None));
    assert_eq!(packed_run.evaluation.unwrap().n_targets, n_tokens);

    let n_targets = |objective: &str, output: &str| {
        finish(&place.with_fields(objective, json!({ "prompt": "prompt" }), output))
            .evaluation
            .unwrap()
            .n_targets
    };
    assert_eq!(n_targets(causal, "completion"), 9 * 3);
    assert_eq!(n_targets("kind = \"causal\"\nlearn = \"all\"", "all"), 9 * 5);
    let middle = "kind = \"causal\"\nfim_rate = 0.5";
    let words = fs::read_to_string(place.path("tokenizer/vocab.txt")).unwrap();
    let words = words.replace("\nx\ny\nz", "\n<fim_prefix>\n<fim_middle>\n<fim_suffix>");
    fs::write(place.path("tokenizer/vocab.txt"), words).unwrap();
    check_refused(&place, &table(GPT2), middle, rows(), "only texts are rearranged");
    let plain = finish(&place.config(&table(GPT2), causal, data(), "plain"));
    let rearranged = finish(&packed(place.config(&table(GPT2), middle, data(), "rearranged"), None));
    assert_ne!(plain.losses, rearranged.losses);
    assert!(rearranged.evaluation.unwrap().n_targets > n_tokens);
}
