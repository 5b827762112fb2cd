//! A run that is killed again and again ends with the same bytes as one that is left alone.
//!
//! Processes are killed by SIGKILL at random moments: in a step, between two, in the save of a checkpoint. Each objective is
//! tried with one of the forms of training. All of them, with and without accumulation, are tried by
//!
//! ```text
//! ANDIRON_WHOLE_MATRIX=1 cargo test --release -p andiron-training --test kill
//! ```

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use andiron_core::{Backend, DeviceSpec};
use andiron_data::shard::{DatasetWriter, WriterOptions};
use andiron_kernels::random::Seed;
use andiron_training::config::{CheckpointConfig, DataConfig, RunConfig};
use andiron_training::observe::{RunStart, StepRecord};
use andiron_training::{Observer, Outcome, Requests, Status, TrainConfig, start_or_resume};
use serde_json::Value;

use common::{Form, NAMES, Place};

/// Tells a process of this test that it is the one to be killed, and which run is its own.
const VICTIM: &str = "ANDIRON_KILL_TEST_CONFIG";

/// Asks for every combination.
const WHOLE: &str = "ANDIRON_WHOLE_MATRIX";

const STEPS: u64 = 160;

const CONFIG: &str = r#"
[run]
output = "out"
seed = 11
steps = 160
accumulate = 2

[model]
model_type = "gpt2"
vocab_size = 13
n_positions = 8
n_embd = 16
n_layer = 2
n_head = 2
attn_pdrop = 0.0
resid_pdrop = 0.1
embd_pdrop = 0.1

[data]
train = "train"
valid = "valid"
rows = 2
context = 8
order = "epochs"

[optimizer]
schedule = "cosine"
lr = 1e-2
min_lr = 1e-3
warmup_steps = 20
beta2 = 0.95
weight_decay = 0.1

[checkpoint]
every = 2
keep_last = 2

[evaluate]
every = 16
"#;

fn config(directory: &Path) -> TrainConfig {
    let path = |key: &str, name: &str| format!("{key}={:?}", directory.join(name).display().to_string());
    let overrides = [path("run.output", "out"), path("data.train", "train"), path("data.valid", "valid")];
    TrainConfig::parse(CONFIG, &overrides).unwrap()
}

fn write_data(directory: &Path) {
    for (name, len) in [("train", 300), ("valid", 50)] {
        let ids: Vec<u32> = (0..len).map(|i| Seed::new(len).below(i, 13) as u32).collect();
        let options = WriterOptions::new(13, "no tokenizer");
        let mut writer = DatasetWriter::create(&directory.join(name), options).unwrap();
        writer.push("all", &ids, "").unwrap();
        writer.finish().unwrap();
    }
}

fn train(config: &TrainConfig, observer: &mut dyn Observer) -> Outcome {
    let device = DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap();
    start_or_resume(config, &device, observer, &Requests::default()).unwrap()
}

/// Prints where the run begins and each step, for the process that watches.
struct Print;

impl Observer for Print {
    fn on_start(&mut self, start: &RunStart) {
        println!("\nstep {}", start.resumed_from.unwrap_or(0));
    }

    fn on_step(&mut self, record: &StepRecord) {
        println!("step {}", record.step);
    }
}

/// Does nothing in an ordinary test run: it is the program that the tests below start and kill.
#[test]
fn victim() {
    if let Some(config) = std::env::var_os(VICTIM) {
        train(&TrainConfig::load(Path::new(&config), &[]).unwrap(), &mut Print);
    }
}

/// Starts a process and kills it `steps` steps after where it began, and `later` than that; without `steps`, that long after it
/// started. False if it ended before.
fn run_and_kill(config: &TrainConfig, steps: Option<u64>, later: Duration) -> bool {
    let path = config.run.output.with_extension("toml");
    fs::write(&path, config.to_toml()).unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture", "--test-threads=1"])
        .env(VICTIM, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let Some(steps) = steps else {
        std::thread::sleep(later);
        victim.kill().unwrap();
        return !victim.wait().unwrap().success();
    };
    let output = BufReader::new(victim.stdout.take().unwrap());
    let mut last = None;
    for line in output.lines() {
        let line = line.unwrap();
        let Some(step) = line.strip_prefix("step ").and_then(|step| step.parse::<u64>().ok()) else {
            continue;
        };
        let target = *last.get_or_insert(step + steps);
        if step >= target {
            std::thread::sleep(later);
            // SIGKILL: nothing is written after this, nothing is cleaned up.
            victim.kill().unwrap();
            break;
        }
    }
    !victim.wait().unwrap().success()
}

fn metrics(output: &Path) -> Vec<Value> {
    let text = fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    let strip = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let fields = line.as_object_mut().unwrap();
        assert!(fields.remove("tokens_per_s").is_some() && fields.remove("elapsed_s").is_some());
        assert!(fields.remove("step_s").is_some() && fields.remove("data_wait_s").is_some());
        fields.remove("rows_per_s");
        line
    };
    text.lines().map(strip).collect()
}

/// Checks that two finished runs left the same: each line of metrics, and every byte of the model and of the optimizer.
#[track_caller]
fn assert_same(whole: &TrainConfig, broken: &TrainConfig, what: &str) {
    let [whole, broken] = [whole, broken].map(|config| &config.run);
    let (expected, found) = (metrics(&whole.output), metrics(&broken.output));
    assert_eq!(expected.len() as u64, whole.steps.unwrap());
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected, found, "{what}");
    }
    assert_eq!(expected.len(), found.len(), "{what}");
    let last = format!("step-{:06}", whole.steps.unwrap());
    for directory in ["model", &last] {
        let files = files(&whole.output.join(directory));
        assert_eq!(files, self::files(&broken.output.join(directory)), "{what}: {directory}");
        for file in files.iter().filter(|file| !TOLD_BY_TIME.contains(&file.as_str())) {
            let [expected, found] =
                [whole, broken].map(|run| fs::read(run.output.join(directory).join(file)).unwrap());
            assert!(expected == found, "{what}: {directory}/{file} differs");
        }
    }
}

/// What a checkpoint says of seconds, of paths and of itself.
const TOLD_BY_TIME: [&str; 2] = ["state.json", "manifest.json"];

/// The files in a directory and below it.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match path.is_dir() {
            true => found.extend(files(&path).into_iter().map(|below| format!("{name}/{below}"))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

#[test]
fn a_killed_run_ends_like_one_that_was_left_alone() {
    let [whole, broken] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for directory in [&whole, &broken] {
        write_data(directory.path());
    }
    let [whole_run, broken_run] = [&whole, &broken].map(|directory| config(directory.path()));
    assert_eq!(train(&whole_run, &mut ()).status, Status::Finished);

    let seed = Seed::new(2024);
    let mut kills = 0;
    while run_and_kill(&broken_run, Some(1 + seed.below(kills, 9)), Duration::ZERO) {
        kills += 1;
        assert!(kills < STEPS, "the run does not come to its end");
    }
    assert!(kills >= 20, "only {kills} kills");
    let outcome = train(&broken_run, &mut ());
    assert_eq!((outcome.status, outcome.resumed_from), (Status::Finished, Some(STEPS)));
    assert_same(&whole_run, &broken_run, &format!("after {kills} kills"));
}

/// A run of a case is killed a few times and ends like one that was left alone.
fn check(place: &Place, name: &'static str, form: Form, accumulate: u64, kills: u64) {
    let case = place.case(name);
    let what = format!("{name}, {form:?}, {accumulate} micro-batches");
    let of = |output: &str| {
        let config = place.run(&case, form, output);
        TrainConfig {
            run: RunConfig { accumulate, steps: Some(8), ..config.run },
            checkpoint: CheckpointConfig { every: 1, keep_last: 2, keep_best: false },
            ..config
        }
    };
    let (whole, broken) = (of("whole"), of("broken"));
    let started = Instant::now();
    train(&whole, &mut ());
    let (all, step) = (started.elapsed(), started.elapsed() / 8);
    let seed = Seed::new(accumulate).derive(name);
    // The first while data are read and the model is made.
    run_and_kill(&broken, None, all.mul_f64(seed.uniform(0).into()));
    for kill in 1..kills {
        let later = step.mul_f64(seed.uniform(2 * kill).into());
        run_and_kill(&broken, Some(seed.below(2 * kill + 1, 3)), later);
    }
    assert_eq!(train(&broken, &mut ()).status, Status::Finished);
    assert_same(&whole, &broken, &what);
}

/// Each process of a run may have another number of workers, and batches of a number of tokens.
#[test]
fn killed_runs_with_other_numbers_of_workers_end_like_those_left_alone() {
    for (name, batch_tokens) in
        [("masked", None), ("chat", None), ("seq2seq", Some(60)), ("contrastive", Some(96))]
    {
        let place = Place::of_all();
        let case = place.case(name);
        let of = |output: &str, workers| {
            let config = place.run(&case, Form::Full, output);
            let rows = if batch_tokens.is_some() { 0 } else { config.data.rows };
            TrainConfig {
                run: RunConfig { steps: Some(12), ..config.run },
                data: DataConfig { rows, batch_tokens, workers, ..config.data },
                checkpoint: CheckpointConfig { every: 1, keep_last: 2, keep_best: false },
                ..config
            }
        };
        let whole = of("whole", 0);
        train(&whole, &mut ());
        let seed = Seed::new(7).derive(name);
        for (kill, workers) in (0..).zip([1, 4, 0, 4]) {
            run_and_kill(&of("broken", workers), Some(seed.below(kill, 3)), Duration::ZERO);
        }
        let broken = of("broken", 1);
        assert_eq!(train(&broken, &mut ()).status, Status::Finished);
        assert_same(&whole, &broken, &format!("{name} with 0, 1 and 4 workers"));
    }
}

/// Every case of `names`: in one form each, or all if they are asked for.
fn check_all(names: &[&'static str]) {
    for &name in names {
        let at = NAMES.iter().position(|known| *known == name).unwrap();
        if std::env::var_os(WHOLE).is_none() {
            let (form, accumulate) = (Form::ALL[at % 3], 1 + 2 * (at as u64 / 3 % 2));
            check(&Place::of_all(), name, form, accumulate, 3);
            continue;
        }
        for form in Form::ALL {
            for accumulate in [1, 3] {
                check(&Place::of_all(), name, form, accumulate, 4);
            }
        }
    }
}

#[test]
fn killed_runs_of_decoders_end_like_those_left_alone() {
    check_all(&NAMES[..3]);
}

#[test]
fn killed_runs_of_masked_models_end_like_those_left_alone() {
    check_all(&NAMES[3..5]);
}

#[test]
fn killed_runs_of_encoder_decoders_end_like_those_left_alone() {
    check_all(&NAMES[5..9]);
}

#[test]
fn killed_runs_of_classifiers_end_like_those_left_alone() {
    check_all(&NAMES[9..12]);
}

#[test]
fn killed_runs_of_other_encoders_end_like_those_left_alone() {
    check_all(&NAMES[12..]);
}
