use std::cell::Cell;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use andiron_data::batch::HostBatch;
use andiron_files::fault::{Fault, Seen, with_fault};
use andiron_models::{DecoderConfig, DecoderModel};
use burn::tensor::Tensor;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::checkpoint::Checkpoints;
use crate::collective::threads::{Thread, on_threads};
use crate::objective::{Causal, CausalConfig, FromConfig as _, Measured, Metrics, Pass};
use crate::observe::tensorboard;
use crate::testing::{config_in, device, open, train, write_data};

/// Asks the run to stop after a step, and remembers what it was told.
struct StopAfter<'a> {
    step: u64,
    requests: &'a Requests,
}

impl Observer for StopAfter<'_> {
    fn on_step(&mut self, record: &StepRecord) {
        if record.step == self.step {
            self.requests.stop();
        }
    }
}

#[derive(Default)]
struct Heard {
    warnings: Vec<String>,
    checkpoints: Vec<u64>,
    measured: Vec<(u64, u64)>,
    skipped: Vec<u64>,
}

impl Observer for Heard {
    fn on_step(&mut self, record: &StepRecord) {
        if record.skipped {
            self.skipped.push(record.step);
        }
    }

    fn on_eval(&mut self, step: u64, evaluation: &Evaluation) {
        self.measured.push((step, evaluation.n_targets));
    }

    fn on_checkpoint(&mut self, step: u64, path: &Path) {
        assert!(path.join("manifest.json").exists());
        self.checkpoints.push(step);
    }

    fn on_warning(&mut self, warning: &Warning) {
        self.warnings.push(warning.to_string());
    }
}

/// The causal loss, but for the calls that are to give something else.
struct Faulty<F> {
    calls: Cell<u64>,
    factor: F,
}

impl<F> fmt::Debug for Faulty<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl<F: Fn(u64) -> f32> Faulty<F> {
    fn new(factor: F) -> Self {
        Self { calls: Cell::new(0), factor }
    }
}

impl<F: Fn(u64) -> f32> Objective for Faulty<F> {
    type Family = DecoderConfig;
    type Tally = ();
    const UNIT: &'static str = "tokens";

    fn loss(&self, model: &DecoderModel, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        self.calls.set(self.calls.get() + 1);
        Causal.loss(model, batch, pass).mul_scalar((self.factor)(self.calls.get()))
    }

    fn measure(&self, model: &DecoderModel, batch: &HostBatch, pass: &Pass<'_>, _: &mut ()) -> Tensor<1> {
        Causal.loss(model, batch, pass)
    }

    fn metrics(&self, measured: &Measured, tally: &()) -> Metrics {
        Causal.metrics(measured, tally)
    }
}

fn open_run(config: &TrainConfig) -> Result<Run<DecoderConfig>, TrainError> {
    let device = device();
    let setup = Setup::open(config, &device)?;
    let Plan { start, data, .. } = Causal::plan(&CausalConfig::default(), &setup)?;
    Run::open(&setup, start, data, Unit::Row, &device)
}

/// The lines of `metrics.jsonl` without what depends on the machine.
fn metrics(config: &TrainConfig) -> Vec<Value> {
    let text = fs::read_to_string(config.run.output.join("metrics.jsonl")).unwrap();
    let strip = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let fields = line.as_object_mut().unwrap();
        assert!(fields.remove("tokens_per_s").is_some() && fields.remove("elapsed_s").is_some());
        assert!(fields.remove("step_s").is_some() && fields.remove("data_wait_s").is_some());
        line
    };
    text.lines().map(strip).collect()
}

fn steps(config: &TrainConfig) -> Vec<u64> {
    metrics(config).iter().map(|line| line["step"].as_u64().unwrap()).collect()
}

/// The bytes that a run is for: the final model and the optimizer beside it.
fn result(config: &TrainConfig) -> [Vec<u8>; 2] {
    let last = config.run.output.join(format!("step-{:06}", config.run.steps.unwrap()));
    [config.run.output.join("model/model.safetensors"), last.join("optimizer.safetensors")]
        .map(|path| fs::read(path).unwrap())
}

fn in_new_directory(overrides: &[&str]) -> (TempDir, TrainConfig) {
    let dir = tempfile::tempdir().unwrap();
    let config = config_in(dir.path(), overrides);
    (dir, config)
}

fn finish(config: &TrainConfig) -> Outcome {
    train(config, Causal, &mut ()).unwrap()
}

fn interrupt(config: &TrainConfig, step: u64) -> Outcome {
    let requests = Requests::default();
    start_or_resume(config, &device(), &mut StopAfter { step, requests: &requests }, &requests).unwrap()
}

#[test]
fn a_run_learns_and_leaves_everything_behind() {
    let (_dir, config) = in_new_directory(&["run.steps=60", "evaluate.every=20", "evaluate.max_windows=2"]);
    let mut heard = Heard::default();
    let outcome = train(&config, Causal, &mut heard).unwrap();
    assert_eq!((outcome.status, outcome.step, outcome.tokens), (Status::Finished, 60, 60 * 24));
    assert_eq!((outcome.saved, outcome.failed_saves, outcome.rollbacks), (true, 0, 0));
    assert_eq!(heard.warnings, [""; 0]);
    assert_eq!(heard.checkpoints, (1..=12).map(|i| 5 * i).collect::<Vec<_>>());
    // Two windows of eight on the way; at the end all six, and what follows the last of them.
    assert_eq!(heard.measured, [(20, 16), (40, 16), (60, 49)]);
    let lines = metrics(&config);
    assert_eq!(steps(&config), (1..=60).collect::<Vec<_>>());
    assert_eq!(lines[59]["valid_loss"].as_f64(), outcome.valid.as_ref().map(|evaluation| evaluation.loss));
    let (first, last) = (lines[0]["loss"].as_f64().unwrap(), outcome.valid.unwrap().loss);
    // A guess among thirteen costs ln 13 = 2.56 nats, knowing the rule ln 2 = 0.69.
    assert!((2.4..2.8).contains(&first) && last < 1.6, "{first} {last}");
    let written = TrainConfig::load(&config.run.output.join("config.toml"), &[]).unwrap();
    assert_eq!(written, config);
    let kept = crate::files::list(&config.run.output).unwrap();
    let expected = [
        ".lock",
        "config.toml",
        "latest",
        "metrics.jsonl",
        "model",
        "report.html",
        "step-000050",
        "step-000055",
        "step-000060",
        "tensorboard",
    ];
    assert_eq!(kept, expected);
    let report = fs::read_to_string(config.run.output.join("report.html")).unwrap();
    for shown in ["Finished", "<td>gpt2</td>", "BLAKE3", "Final evaluation", "seed = 7"] {
        assert!(report.contains(shown), "{shown}: {report}");
    }
}

/// The training losses of a run by `metrics.jsonl`, and by its TensorBoard files.
fn losses(config: &TrainConfig) -> [Vec<(u64, f32)>; 2] {
    let lines = metrics(config);
    let logged = lines.iter().map(|line| {
        (line["step"].as_u64().unwrap(), line["loss"].as_f64().map_or(f32::NAN, |loss| loss as f32))
    });
    [logged.collect(), tensorboard::testing::read(&config.run.output.join("tensorboard"), "train/loss")]
}

#[test]
fn event_files_have_each_step_once_after_crashes_and_rollbacks() {
    let (_dir, config) = in_new_directory(&["run.steps=14"]);
    interrupt(&config, 8);
    // As a crash leaves it: steps up to 8 are done, the newest checkpoint is of step 5.
    fs::remove_dir_all(config.run.output.join("step-000008")).unwrap();
    // Steps 7 to 10 are bad, and the run goes back to step 5.
    let faulty = Faulty::new(|call| if (2..=5).contains(&call) { f32::NAN } else { 1.0 });
    assert_eq!(train(&config, faulty, &mut ()).unwrap().rollbacks, 1);
    let [logged, shown] = losses(&config);
    assert_eq!(shown.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (1..=14).collect::<Vec<_>>());
    assert_eq!(shown, logged);
    let valid = tensorboard::testing::read(&config.run.output.join("tensorboard"), "valid/loss");
    assert_eq!(valid.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [14]);
}

#[test]
fn a_report_tells_of_skips_rollbacks_and_the_end() {
    let (_dir, config) = in_new_directory(&["run.steps=14"]);
    let faulty = Faulty::new(|call| if (7..=10).contains(&call) { f32::NAN } else { 1.0 });
    train(&config, faulty, &mut ()).unwrap();
    let report = fs::read_to_string(config.run.output.join("report.html")).unwrap();
    assert!(report.contains("step 10 was skipped") && report.contains("(rollback 1)"), "{report}");
    assert!(report.contains("5 warnings") && !report.contains("not finite: <b>"), "{report}");

    let (_dir, config) = in_new_directory(&[]);
    let faulty = Faulty::new(|call| if call > 7 { f32::NAN } else { 1.0 });
    train(&config, faulty, &mut ()).unwrap_err();
    let report = fs::read_to_string(config.run.output.join("report.html")).unwrap();
    assert!(report.contains("Failed: training diverged at step"), "{report}");

    let (_dir, config) = in_new_directory(&["run.steps=12"]);
    interrupt(&config, 3);
    let report = fs::read_to_string(config.run.output.join("report.html")).unwrap();
    assert!(report.contains("Interrupted") && report.contains("of 12, 25 %"), "{report}");
}

#[track_caller]
fn check_stopping(setting: &'static str) {
    let all = ["run.accumulate=2", "evaluate.every=6", "run.steps=12", "data.order=epochs", setting];
    let (_whole_dir, whole) = in_new_directory(&all);
    finish(&whole);
    for step in 1..12 {
        let (_dir, config) = in_new_directory(&all);
        let stopped = interrupt(&config, step);
        assert_eq!((stopped.status, stopped.step, stopped.saved), (Status::Interrupted, step, true));
        assert_eq!(stopped.model, None);
        let outcome = finish(&config);
        assert_eq!((outcome.status, outcome.resumed_from), (Status::Finished, Some(step)));
        assert_eq!(metrics(&config), metrics(&whole), "stopped after step {step}");
        assert!(result(&config) == result(&whole), "stopped after step {step}");
    }
}

#[test]
fn a_run_that_stops_at_any_step_ends_like_one_that_does_not() {
    check_stopping("optimizer.kind=adamw");
}

#[test]
fn a_run_by_muon_that_stops_at_any_step_ends_like_one_that_does_not() {
    check_stopping("optimizer.kind=muon");
}

#[test]
fn a_run_with_averaged_weights_that_stops_at_any_step_ends_like_one_that_does_not() {
    check_stopping("optimizer.ema_decay=0.9");
}

#[test]
fn averaged_weights_are_validated_and_exported() {
    let set = ["run.steps=12", "optimizer.ema_decay=0.9"];
    let (_dir, config) = in_new_directory(&set);
    let averaged = finish(&config);
    let (_other_dir, other) = in_new_directory(&set[..1]);
    let plain = finish(&other);
    assert_ne!(averaged.valid, plain.valid);
    let model = |path: &str, config: &TrainConfig| fs::read(config.run.output.join(path)).unwrap();
    let [exported, saved] = ["model/model.safetensors", "step-000012/model/model.safetensors"];
    // The run goes on from the weights themselves.
    assert!(model(saved, &config) == model(saved, &other));
    assert!(model(exported, &other) == model(saved, &other));
    assert!(model(exported, &config) != model(saved, &config));
}

#[test]
fn a_run_with_attention_dropout_that_stops_at_any_step_ends_like_one_that_does_not() {
    check_stopping("model.attn_pdrop=0.2");
}

#[test]
fn a_run_that_lost_its_last_steps_does_them_again() {
    let (_whole_dir, whole) = in_new_directory(&["run.steps=12"]);
    finish(&whole);
    let (_dir, config) = in_new_directory(&["run.steps=12"]);
    interrupt(&config, 9);
    // As a crash leaves it: metrics up to step 9, the newest checkpoint of step 5.
    fs::remove_dir_all(config.run.output.join("step-000009")).unwrap();
    fs::write(config.run.output.join("latest"), "step-000009\n").unwrap();
    assert_eq!(finish(&config).resumed_from, Some(5));
    assert_eq!(metrics(&config), metrics(&whole));
    assert!(result(&config) == result(&whole));
}

#[test]
fn a_damaged_checkpoint_is_told_and_the_older_one_goes_on() {
    let (_whole_dir, whole) = in_new_directory(&["run.steps=12"]);
    finish(&whole);
    let (_dir, config) = in_new_directory(&["run.steps=12"]);
    interrupt(&config, 8);
    let weights = config.run.output.join("step-000008/model/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let mut heard = Heard::default();
    let outcome = train(&config, Causal, &mut heard).unwrap();
    assert_eq!(outcome.resumed_from, Some(5));
    assert_eq!(heard.warnings.len(), 1);
    assert!(heard.warnings[0].contains("step 8") && heard.warnings[0].contains("model.safetensors"));
    assert_eq!(metrics(&config), metrics(&whole));
    assert!(result(&config) == result(&whole));
}

#[test]
fn a_finished_run_is_only_measured_again() {
    let (_dir, config) = in_new_directory(&["run.steps=6"]);
    let first = finish(&config);
    let before = result(&config);
    let again = finish(&config);
    assert_eq!(again.resumed_from, Some(6));
    assert_eq!((again.valid, again.model, again.saved), (first.valid, first.model, true));
    assert!(result(&config) == before);
}

/// The causal loss, but for the validations, whose losses are multiplied: the last factor is that of all that follow.
#[derive(Debug)]
struct Overfits {
    validations: Cell<usize>,
    factors: &'static [f32],
}

impl Objective for Overfits {
    type Family = DecoderConfig;
    type Tally = ();
    const UNIT: &'static str = "tokens";

    fn loss(&self, model: &DecoderModel, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        Causal.loss(model, batch, pass)
    }

    /// Called once a validation: its data fit a batch.
    fn measure(&self, model: &DecoderModel, batch: &HostBatch, pass: &Pass<'_>, _: &mut ()) -> Tensor<1> {
        let at = self.validations.replace(self.validations.get() + 1);
        let factor = self.factors.get(at).or(self.factors.last()).copied().unwrap();
        Causal.loss(model, batch, pass).mul_scalar(factor)
    }

    fn metrics(&self, measured: &Measured, tally: &()) -> Metrics {
        Causal.metrics(measured, tally)
    }
}

fn overfits(factors: &'static [f32]) -> Overfits {
    Overfits { validations: Cell::new(0), factors }
}

#[test]
fn the_best_model_is_kept_and_is_that_of_the_end() {
    let set = ["run.steps=12", "evaluate.every=3", "checkpoint.every=3", "checkpoint.keep_last=2"];
    let weights = |config: &TrainConfig, of: &str| {
        fs::read(config.run.output.join(of).join("model.safetensors")).unwrap()
    };
    let (_dir, last) = in_new_directory(&set);
    let outcome = train(&last, overfits(&[9.0, 1.0, 9.0]), &mut ()).unwrap();
    assert_eq!(outcome.model_step, Some(12));
    assert!(weights(&last, "model") == weights(&last, "step-000012/model"));

    let (_dir, config) = in_new_directory(&[&set[..], &["checkpoint.keep_best=true"]].concat());
    let outcome = train(&config, overfits(&[9.0, 1.0, 9.0, 9.0, 1.0]), &mut ()).unwrap();
    assert_eq!((outcome.step, outcome.model_step), (12, Some(6)));
    assert_eq!(outcome.valid.as_ref().unwrap().loss, outcome.best[0].value);
    let kept = || crate::checkpoint::steps_in(&config.run.output).unwrap();
    assert_eq!(kept(), [6, 9, 12]);
    let best = weights(&config, "model");
    assert!(best == weights(&config, "step-000006/model") && best != weights(&config, "step-000012/model"));
    // The training itself is the same.
    assert!(weights(&config, "step-000012/model") == weights(&last, "step-000012/model"));

    // Measured again, it is the same model; without its checkpoint, the last one.
    let again = train(&config, overfits(&[9.0, 1.0]), &mut ()).unwrap();
    assert_eq!((again.model_step, again.valid), (Some(6), outcome.valid));
    assert!(best == weights(&config, "model"));
    fs::remove_dir_all(config.run.output.join("step-000006")).unwrap();
    let mut heard = Heard::default();
    let without = train(&config, overfits(&[9.0]), &mut heard).unwrap();
    assert_eq!(without.model_step, Some(12));
    assert!(heard.warnings.len() == 1 && heard.warnings[0].contains("step 6"), "{:?}", heard.warnings);
    assert!(weights(&config, "model") == weights(&config, "step-000012/model"));
}

#[test]
fn a_best_model_between_two_checkpoints_gets_one_and_survives_a_stop() {
    let set = ["run.steps=12", "evaluate.every=3", "checkpoint.every=100", "checkpoint.keep_best=true"];
    let (_dir, config) = in_new_directory(&set);
    let requests = Requests::default();
    let trainer = open(&config, overfits(&[9.0, 1.0, 9.0])).unwrap();
    trainer.run(&mut StopAfter { step: 8, requests: &requests }, &requests).unwrap();
    assert_eq!(crate::checkpoint::steps_in(&config.run.output).unwrap(), [3, 6, 8]);
    let outcome = train(&config, overfits(&[9.0, 9.0, 1.0]), &mut ()).unwrap();
    assert_eq!((outcome.resumed_from, outcome.model_step), (Some(8), Some(6)));
}

#[test]
fn a_best_model_needs_something_to_measure_on() {
    let error = TrainConfig::parse(crate::testing::CONFIG, &["checkpoint.keep_best=true".to_owned()]);
    assert!(error.unwrap_err().to_string().contains("data.held_out"));
}

#[test]
fn another_seed_is_another_run() {
    let (_one_dir, one) = in_new_directory(&["run.steps=3"]);
    let (_other_dir, other) = in_new_directory(&["run.steps=3", "run.seed=8"]);
    finish(&one);
    finish(&other);
    assert_ne!(metrics(&one), metrics(&other));
}

#[test]
fn three_bad_steps_are_skipped_and_change_nothing() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let (_dir, config) =
            in_new_directory(&["run.steps=12", "checkpoint.every=1", "checkpoint.keep_last=12"]);
        let faulty = Faulty::new(|call| if (7..=9).contains(&call) { value } else { 1.0 });
        let mut heard = Heard::default();
        let outcome = train(&config, faulty, &mut heard).unwrap();
        assert_eq!((outcome.status, outcome.rollbacks, outcome.tokens), (Status::Finished, 0, 9 * 24));
        assert_eq!((heard.skipped, heard.warnings.len()), (vec![7, 8, 9], 3));
        let weights = |step: u64| {
            fs::read(config.run.output.join(format!("step-{step:06}/model/model.safetensors"))).unwrap()
        };
        assert!(weights(6) == weights(9) && weights(9) != weights(10));
        let lines = metrics(&config);
        assert_eq!((&lines[6]["loss"], &lines[6]["skipped"]), (&Value::Null, &Value::Bool(true)));
        assert!(lines[9]["loss"].is_number());
    }
}

#[test]
fn a_fourth_bad_step_brings_the_last_state_back_and_leaves_its_data_out() {
    let (_dir, config) = in_new_directory(&["run.steps=14"]);
    let mut heard = Heard::default();
    // Steps 7 to 10 are bad; the checkpoint is of step 5, so batches 6 to 10 are left out.
    let faulty = Faulty::new(|call| if (7..=10).contains(&call) { f32::NAN } else { 1.0 });
    let outcome = train(&config, faulty, &mut heard).unwrap();
    assert_eq!((outcome.status, outcome.rollbacks), (Status::Finished, 1));
    assert_eq!(steps(&config), (1..=14).collect::<Vec<_>>());
    assert!(metrics(&config).iter().all(|line| line.get("skipped").is_none()));
    let last = heard.warnings.last().unwrap();
    assert!(last.contains("after step 5") && last.contains("rollback 1"), "{last}");
    let state = fs::read_to_string(config.run.output.join("step-000014/state.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["progress"]["next_batch"], 14 + 5);
}

#[test]
fn a_run_without_a_checkpoint_goes_back_to_its_beginning() {
    let (_dir, config) = in_new_directory(&["run.steps=6", "checkpoint.every=100"]);
    let faulty = Faulty::new(|call| if call <= 4 { f32::NAN } else { 1.0 });
    let outcome = train(&config, faulty, &mut ()).unwrap();
    assert_eq!((outcome.status, outcome.step, outcome.rollbacks), (Status::Finished, 6, 1));
    assert_eq!(steps(&config), (1..=6).collect::<Vec<_>>());
}

#[test]
fn a_run_that_keeps_failing_stops() {
    let (_dir, config) = in_new_directory(&[]);
    let faulty = Faulty::new(|call| if call > 7 { f32::NAN } else { 1.0 });
    let error = train(&config, faulty, &mut ()).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { rollbacks: 3, .. }), "{error}");
}

#[test]
fn a_checkpoint_that_cannot_be_saved_does_not_stop_the_run() {
    let (_whole_dir, whole) = in_new_directory(&["run.steps=12"]);
    finish(&whole);
    let (_dir, config) = in_new_directory(&["run.steps=12"]);
    let mut heard = Heard::default();
    let trainer = open(&config, Causal).unwrap();
    // A file where the checkpoint of step 10 would be written.
    fs::write(config.run.output.join(".step-000010.partial"), "").unwrap();
    let outcome = trainer.run(&mut heard, &Requests::default()).unwrap();
    assert_eq!((outcome.failed_saves, outcome.saved, outcome.saved_step), (1, true, Some(12)));
    assert_eq!(heard.checkpoints, [5, 12]);
    assert!(heard.warnings[0].contains("step 10"), "{:?}", heard.warnings);
    assert_eq!(metrics(&config), metrics(&whole));
    assert!(result(&config) == result(&whole));
}

#[test]
fn a_state_that_is_not_finite_is_not_saved() {
    let (_dir, config) = in_new_directory(&["run.steps=4", "checkpoint.every=2"]);
    let mut heard = Heard::default();
    // Finite gradients, but a learning rate that throws the weights out of range.
    let config = TrainConfig {
        optimizer: crate::optimizer::OptimizerConfig { lr: 1e38, weight_decay: 1e10, ..config.optimizer },
        ..config
    };
    let _ = train(&config, Causal, &mut heard);
    assert_eq!(heard.checkpoints, [0u64; 0]);
}

#[track_caller]
fn check_mismatch(set: &[&str], field: &str) {
    let dir = tempfile::tempdir().unwrap();
    interrupt(&config_in(dir.path(), &[]), 3);
    let error = train(&config_in(dir.path(), set), Causal, &mut ()).unwrap_err();
    match &error {
        TrainError::Mismatch { field: found, .. } => assert_eq!(found, field),
        other => panic!("{other}"),
    }
    assert!(error.to_string().contains(field));
    // The refusal changed nothing.
    assert_eq!(finish(&config_in(dir.path(), &[])).resumed_from, Some(3));
}

#[test]
fn a_checkpoint_of_another_configuration_is_refused() {
    check_mismatch(&["optimizer.lr=0.02"], "optimizer.lr");
    check_mismatch(&["optimizer.kind=muon"], "optimizer.kind");
    check_mismatch(&["run.seed=8"], "run.seed");
    check_mismatch(&["run.steps=21"], "run.steps");
    check_mismatch(&["model.n_layer=1"], "model.n_layer");
    check_mismatch(&["data.rows=4"], "data.rows");
}

#[test]
fn what_does_not_change_the_weights_may_change() {
    let dir = tempfile::tempdir().unwrap();
    interrupt(&config_in(dir.path(), &[]), 3);
    let set = ["run.log_every=2", "checkpoint.every=3", "checkpoint.keep_last=2", "evaluate.every=4"];
    let outcome = train(&config_in(dir.path(), &set), Causal, &mut ()).unwrap();
    assert_eq!(outcome.resumed_from, Some(3));
}

#[test]
fn a_constant_run_may_be_made_longer() {
    let dir = tempfile::tempdir().unwrap();
    let set = ["optimizer.schedule=constant", "run.steps=4"];
    finish(&config_in(dir.path(), &set));
    let longer = config_in(dir.path(), &["optimizer.schedule=constant", "run.steps=8"]);
    let outcome = finish(&longer);
    assert_eq!((outcome.resumed_from, outcome.step), (Some(4), 8));
    assert_eq!(steps(&longer), (1..=8).collect::<Vec<_>>());
}

#[test]
fn other_data_under_the_same_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config_in(dir.path(), &[]);
    interrupt(&config, 3);
    fs::remove_dir_all(&config.data.train).unwrap();
    write_data(&config.data.train, 500);
    let error = train(&config, Causal, &mut ()).unwrap_err();
    assert!(matches!(&error, TrainError::Mismatch { field, .. } if field == "data.train_blake3"), "{error}");
}

#[test]
fn two_runs_cannot_share_a_directory() {
    let (_dir, config) = in_new_directory(&[]);
    let held = open(&config, Causal).unwrap();
    let error = open(&config, Causal).unwrap_err();
    assert!(matches!(error, TrainError::Busy { .. }), "{error}");
    drop(held);
    open(&config, Causal).unwrap();
}

#[test]
fn the_tokenizer_goes_with_every_model() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = dir.path().join("tokenizer");
    fs::create_dir(&tokenizer).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "corpus.txt"] {
        fs::write(tokenizer.join(file), file).unwrap();
    }
    let set = format!("data.tokenizer={:?}", tokenizer.display().to_string());
    let config = config_in(dir.path(), &["run.steps=5", &set]);
    finish(&config);
    for model in ["model", "step-000005/model"] {
        let files = crate::files::list(&config.run.output.join(model)).unwrap();
        let expected = [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        assert_eq!(files, expected);
    }
    fs::write(tokenizer.join("tokenizer.json"), "another").unwrap();
    let error = train(&config, Causal, &mut ()).unwrap_err();
    assert!(
        matches!(&error, TrainError::Mismatch { field, .. } if field == "data.tokenizer_blake3"),
        "{error}"
    );
    fs::remove_file(tokenizer.join("tokenizer.json")).unwrap();
    let error = train(&config, Causal, &mut ()).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
}

#[test]
fn a_tokenizer_without_tokenizer_json_is_copied_and_checked_too() {
    let layouts: [&[&str]; 3] = [
        &["source.spm", "target.spm", "vocab.json"],
        &["added_tokens.json", "vocab.txt"],
        &["merges.txt", "vocab.json"],
    ];
    for names in layouts {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = dir.path().join("tokenizer");
        fs::create_dir(&tokenizer).unwrap();
        for name in names {
            fs::write(tokenizer.join(name), name).unwrap();
        }
        let set = format!("data.tokenizer={:?}", tokenizer.display().to_string());
        let config = config_in(dir.path(), &["run.steps=1", &set]);
        finish(&config);
        let model = config.run.output.join("model");
        for name in names {
            assert_eq!(fs::read_to_string(model.join(name)).unwrap(), **name);
        }
        // Each of the files decides what the ids mean.
        for name in names {
            fs::write(tokenizer.join(name), "another").unwrap();
            let error = train(&config, Causal, &mut ()).unwrap_err();
            assert!(
                matches!(&error, TrainError::Mismatch { field, .. } if field == "data.tokenizer_blake3"),
                "{name}: {error}"
            );
            fs::write(tokenizer.join(name), name).unwrap();
        }
    }
}

#[test]
fn data_that_does_not_fit_the_model_is_refused() {
    let (_dir, config) = in_new_directory(&["model.vocab_size=12"]);
    let error = train(&config, Causal, &mut ()).unwrap_err();
    assert!(matches!(error, TrainError::Vocabulary { data: 13, model: 12, .. }), "{error}");

    let dir = tempfile::tempdir().unwrap();
    write_data(&dir.path().join("train"), 8);
    let error = train(&config_in(dir.path(), &[]), Causal, &mut ()).unwrap_err();
    assert!(matches!(error, TrainError::Loader { .. }), "{error}");

    let dir = tempfile::tempdir().unwrap();
    write_data(&dir.path().join("valid"), 1);
    let error = train(&config_in(dir.path(), &[]), Causal, &mut ()).unwrap_err();
    assert!(matches!(error, TrainError::Evaluate { .. }), "{error}");

    let (_dir, config) = in_new_directory(&["data.train=nowhere"]);
    let error = train(&config, Causal, &mut ()).unwrap_err();
    assert!(matches!(error, TrainError::File(_)), "{error}");
}

/// Saves on request after a step.
struct SaveAfter<'a> {
    step: u64,
    requests: &'a Requests,
    heard: Heard,
}

impl Observer for SaveAfter<'_> {
    fn on_step(&mut self, record: &StepRecord) {
        if record.step == self.step {
            self.requests.save();
        }
    }

    fn on_checkpoint(&mut self, step: u64, path: &Path) {
        self.heard.on_checkpoint(step, path);
    }
}

#[test]
fn a_run_asked_to_save_saves_and_goes_on() {
    let (_whole_dir, whole) = in_new_directory(&["run.steps=12"]);
    finish(&whole);
    let (_dir, config) = in_new_directory(&["run.steps=12"]);
    let requests = Requests::default();
    let mut observer = SaveAfter { step: 7, requests: &requests, heard: Heard::default() };
    let outcome = start_or_resume(&config, &device(), &mut observer, &requests).unwrap();
    assert_eq!((outcome.status, outcome.step), (Status::Finished, 12));
    assert_eq!(observer.heard.checkpoints, [5, 7, 10, 12]);
    assert_eq!(metrics(&config), metrics(&whole));
    assert!(result(&config) == result(&whole));
}

/// Linux error numbers that do not mean damage: EIO, ENOMEM, EACCES, EMFILE, ENFILE, ELOOP, ESTALE.
const NO_DAMAGE: [i32; 7] = [5, 12, 13, 24, 23, 40, 116];

/// What an error and its causes say.
fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What stands in a directory and below it, hidden names included, with every byte of it.
fn snapshot(root: &Path) -> Vec<(String, Vec<u8>)> {
    let files = crate::files::list_files(root).unwrap();
    files.into_iter().map(|name| (name.clone(), fs::read(root.join(&name)).unwrap())).collect()
}

#[test]
fn a_resume_that_cannot_read_a_file_names_it_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = dir.path().join("tokenizer");
    fs::create_dir(&tokenizer).unwrap();
    fs::write(tokenizer.join("tokenizer.json"), "{}").unwrap();
    let config = config_in(
        dir.path(),
        &[&format!("data.tokenizer={:?}", tokenizer.display().to_string()), "run.steps=40"],
    );
    interrupt(&config, 7);
    let before = snapshot(&config.run.output);
    let resume = || {
        let run = open_run(&config)?;
        run.load(&mut StopAfter { step: 0, requests: &Requests::default() })
    };
    let (loaded, seen) = with_fault(Fault::none(), resume);
    assert_eq!(loaded.unwrap().unwrap().progress.step, 7);
    let reads: Vec<_> = seen.iter().enumerate().filter(|(_, seen)| seen.operation.is_reading()).collect();
    for file in [
        "manifest.json",
        "state.json",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "optimizer.safetensors",
        "tokenizer.json",
        "shard-00000.ids",
    ] {
        assert!(reads.iter().any(|(_, seen)| seen.path.ends_with(file)), "{file} is not read: {reads:?}");
    }
    for (at, seen) in reads {
        for number in NO_DAMAGE {
            let (loaded, _) = with_fault(Fault::once(at, number), resume);
            let error = loaded.map(|_| ()).expect_err("a file cannot be read");
            let said = said(&error);
            let cause = io::Error::from_raw_os_error(number).to_string();
            assert!(
                said.contains(&seen.path.display().to_string()) && said.contains(&cause),
                "{seen:?}: {said}"
            );
            assert!(snapshot(&config.run.output) == before, "{seen:?}: {said}");
        }
    }
    assert_eq!(finish(&config).resumed_from, Some(7));
}

#[test]
fn a_save_that_is_killed_anywhere_leaves_a_checkpoint_to_go_on_from() {
    let (_dir, config) = in_new_directory(&["run.steps=12", "checkpoint.every=100"]);
    interrupt(&config, 4);
    let run = open_run(&config).unwrap();
    let state = run.load(&mut ()).unwrap().unwrap();
    let save = |step: u64| {
        let mut state = state.clone();
        state.progress.step = step;
        run.save(&state, None).map(drop)
    };
    let (saved, seen) = with_fault(Fault::none(), || save(5));
    saved.unwrap();
    let names = |seen: &[Seen]| seen.iter().filter(|seen| !seen.operation.is_reading()).count();
    assert!(names(&seen) > 20, "{seen:?}");
    drop(run);
    for (at, operation) in seen.iter().enumerate() {
        let run = open_run(&config).unwrap();
        let newest = run.load(&mut ()).unwrap().unwrap().progress.step;
        // Twice under the same number, so that the second replaces the first.
        for step in [newest + 1, newest + 1] {
            let mut state = state.clone();
            state.progress.step = step;
            let (saved, _) = with_fault(Fault::killed_at(at), || run.save(&state, None));
            let after = Checkpoints::open(&config.run.output, 3).unwrap();
            assert!(after.steps().unwrap().last() >= Some(&newest), "{:?}", operation);
            drop(saved);
            let mut heard = Heard::default();
            let found = run.load(&mut heard).unwrap().unwrap().progress.step;
            assert!((newest..=newest + 1).contains(&found), "{:?}: {found}", operation);
            assert_eq!(heard.warnings, [""; 0], "{:?}", operation);
        }
    }
}

#[cfg(unix)]
#[test]
fn the_files_of_a_run_are_as_readable_as_those_of_any_program() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, config) = in_new_directory(&["run.steps=2"]);
    finish(&config);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    for name in crate::files::list_files(&config.run.output).unwrap() {
        assert_eq!(mode(&config.run.output.join(&name)), mode(&plain), "{name}");
    }
}

/// A run of `size` processes, which are threads: what each ended with.
fn share(config: &TrainConfig, size: usize) -> Vec<Result<Outcome, String>> {
    share_with(config, size, |_| Requests::default())
}

fn share_with(
    config: &TrainConfig,
    size: usize,
    requests: impl Fn(usize) -> Requests + Sync,
) -> Vec<Result<Outcome, String>> {
    on_threads(size, |ranks| {
        let requests = requests(ranks.rank());
        let ranks = Rc::new(ranks.handle());
        start_or_resume_shared(config, &device(), &mut (), &requests, ranks)
            .map_err(|error| error.to_string())
    })
}

/// Checks that two runs have the same losses and gradient norms but for the order of sums.
#[track_caller]
fn assert_alike(found: &TrainConfig, expected: &TrainConfig) {
    let [found, expected] = [found, expected].map(metrics);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((&found["step"], &found["tokens"]), (&expected["step"], &expected["tokens"]));
        for key in ["loss", "grad_norm", "valid_loss"] {
            let [found_value, expected_value] = [found, expected].map(|line| line[key].as_f64());
            let (Some(a), Some(b)) = (found_value, expected_value) else {
                assert_eq!(found_value, expected_value);
                continue;
            };
            assert!((a - b).abs() <= 1e-5, "{key}: {found} {expected}");
        }
    }
}

/// Settings with which the order of sums shows in the last digits only. Rounding to bf16 would turn one into another number, and so
/// do AdamW's first steps, which are as long for gradients that are rounding errors.
const COMPARABLE: [&str; 3] = ["run.precision=f32", "optimizer.lr=3e-3", "optimizer.min_lr=3e-4"];

/// Losses of 1, 2 and 4 processes over 200 steps. The model is in training without dropout, which follows how micro-batches are divided.
#[track_caller]
fn check_sharing(settings: &[&str]) {
    let all = [
        &COMPARABLE[..],
        &[
            "run.steps=200",
            "model.resid_pdrop=0.0",
            "model.embd_pdrop=0.0",
            "data.order=epochs",
            "checkpoint.every=100",
        ],
        settings,
    ]
    .concat();
    let (_dir, alone) = in_new_directory(&all);
    finish(&alone);
    for size in [2, 4] {
        let (_dir, config) = in_new_directory(&all);
        for (rank, outcome) in share(&config, size).into_iter().enumerate() {
            let outcome = outcome.unwrap();
            assert_eq!((outcome.status, outcome.step, outcome.saved), (Status::Finished, 200, true));
            assert_eq!(outcome.model.is_some(), rank == 0);
        }
        assert_alike(&config, &alone);
    }
}

#[test]
fn processes_train_as_one_with_adamw() {
    check_sharing(&["run.accumulate=3", "optimizer.clip_norm=0.5", "evaluate.every=50"]);
}

#[test]
fn processes_train_as_one_with_muon() {
    check_sharing(&[
        "data.rows=5",
        "optimizer.kind=muon",
        "optimizer.clip_norm=0.5",
        "optimizer.ema_decay=0.9",
    ]);
}

#[test]
fn a_divided_optimizer_changes_no_bit() {
    for kind in ["optimizer.kind=adamw", "optimizer.kind=muon"] {
        let all = ["run.steps=12", "run.accumulate=4", kind];
        let (_dir, whole) = in_new_directory(&all);
        let (_other_dir, divided) = in_new_directory(&[&all[..], &["optimizer.shard=true"]].concat());
        share(&whole, 2);
        share(&divided, 2);
        assert_eq!(metrics(&divided), metrics(&whole));
        assert!(result(&divided) == result(&whole));
    }
}

#[test]
fn a_divided_optimizer_goes_on_with_any_number_of_processes() {
    let all = [&COMPARABLE[..], &["run.steps=16", "run.accumulate=4", "data.order=epochs"]].concat();
    let (_dir, alone) = in_new_directory(&all);
    finish(&alone);
    let (_other_dir, mut config) = in_new_directory(&all);
    for (size, stop) in [(2, 3), (4, 7), (1, 11), (2, 16)] {
        config.optimizer.shard = size != 1;
        share_with(&config, size, |_| {
            let requests = Requests::default();
            requests.stop_after(stop);
            requests
        });
    }
    assert_alike(&config, &alone);
}

#[test]
fn processes_that_take_whole_micro_batches_train_as_one_with_dropout() {
    let all = [&COMPARABLE[..], &["run.steps=30", "run.accumulate=4", "data.rows=2"]].concat();
    let (_dir, alone) = in_new_directory(&all);
    finish(&alone);
    for size in [2, 4] {
        let (_dir, config) = in_new_directory(&all);
        share(&config, size);
        assert_alike(&config, &alone);
    }
}

#[test]
fn a_run_goes_on_with_any_number_of_processes() {
    let all = ["run.accumulate=4", "run.steps=16", "data.order=epochs", "optimizer.ema_decay=0.9"];
    let all = [&COMPARABLE[..], &all].concat();
    let (_dir, alone) = in_new_directory(&all);
    finish(&alone);
    let (_dir, config) = in_new_directory(&all);
    for (size, stop) in [(1, 3), (2, 7), (4, 11), (1, 0)] {
        let ends = share_with(&config, size, |rank| {
            let requests = Requests::default();
            // A request to the last process is one to all.
            if stop > 0 && rank + 1 == size {
                requests.stop_after(stop);
            }
            requests
        });
        for outcome in ends {
            let outcome = outcome.unwrap();
            let expected = if stop > 0 { (Status::Interrupted, stop) } else { (Status::Finished, 16) };
            assert_eq!((outcome.status, outcome.step), expected);
        }
    }
    assert_alike(&config, &alone);
}

#[test]
fn processes_that_stop_and_go_on_end_like_those_that_do_not() {
    let all = ["run.accumulate=2", "run.steps=12", "data.order=epochs", "evaluate.every=4"];
    let (_dir, whole) = in_new_directory(&all);
    share(&whole, 2);
    for step in [1, 6, 11] {
        let (_dir, config) = in_new_directory(&all);
        share_with(&config, 2, |_| {
            let requests = Requests::default();
            requests.stop_after(step);
            requests
        });
        share(&config, 2);
        assert_eq!(metrics(&config), metrics(&whole), "stopped after step {step}");
        assert!(result(&config) == result(&whole), "stopped after step {step}");
    }
}

/// A trainer of one of several processes.
fn open_shared<O>(config: &TrainConfig, objective: O, ranks: &Thread) -> Trainer<O>
where
    O: Objective<Family = DecoderConfig>,
{
    let device = device();
    let setup = Setup::open(config, &device).unwrap().shared(Rc::new(ranks.handle()));
    let Plan { start, data, .. } = Causal::plan(&CausalConfig::default(), &setup).unwrap();
    Trainer::open(&setup, Plan { objective, start, data }, &device).unwrap()
}

#[test]
fn a_loss_that_is_not_finite_on_one_process_skips_the_step_of_all() {
    let (_dir, config) = in_new_directory(&["run.steps=8", "run.accumulate=2"]);
    let skipped = on_threads(2, |ranks| {
        // The second process is wrong in its fifth step.
        let is_wrong = ranks.rank() == 1;
        let faulty = Faulty::new(move |call| if is_wrong && call == 5 { f32::NAN } else { 1.0 });
        let mut heard = Heard::default();
        open_shared(&config, faulty, ranks).run(&mut heard, &Requests::default()).unwrap();
        heard.skipped
    });
    assert_eq!(skipped, [[5], [5]]);
    assert_eq!(metrics(&config)[4]["loss"], Value::Null);
}

#[test]
fn processes_go_back_together_when_too_many_steps_are_bad() {
    let (_dir, config) = in_new_directory(&["run.steps=14", "run.accumulate=2"]);
    let rollbacks = on_threads(2, |ranks| {
        let is_wrong = ranks.rank() == 1;
        let is_bad = move |call| is_wrong && (7..=10).contains(&call);
        let faulty = Faulty::new(move |call| if is_bad(call) { f32::NAN } else { 1.0 });
        open_shared(&config, faulty, ranks).run(&mut (), &Requests::default()).unwrap().rollbacks
    });
    assert_eq!(rollbacks, [1, 1]);
    assert_eq!(steps(&config), (1..=14).collect::<Vec<_>>());
}

#[test]
fn processes_whose_first_cannot_save_go_on_and_end_together() {
    let (_dir, config) = in_new_directory(&["run.steps=12", "run.accumulate=2"]);
    let ends = on_threads(2, |ranks| {
        let trainer = open_shared(&config, Causal, ranks);
        if ranks.rank() == 0 {
            // A file where a checkpoint would be written.
            fs::write(config.run.output.join(".step-000012.partial"), "").unwrap();
        }
        trainer.run(&mut (), &Requests::default()).unwrap()
    });
    for end in ends {
        assert_eq!((end.saved, end.failed_saves, end.saved_step), (false, 1, Some(10)));
    }
}

#[test]
fn a_process_too_many_and_a_directory_in_use_end_all() {
    let (_dir, config) = in_new_directory(&["run.steps=2"]);
    let errors: Vec<String> = share(&config, 4).into_iter().map(Result::unwrap_err).collect();
    assert!(errors[0].contains("3 rows") && errors[1].contains("process 0"), "{errors:?}");
    let _busy = open_run(&config).unwrap();
    let errors: Vec<String> = share(&config, 2).into_iter().map(Result::unwrap_err).collect();
    assert!(errors[0].contains("in use") && errors[1].contains("process 0"), "{errors:?}");
}
