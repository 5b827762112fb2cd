//! A run that is killed again and again ends with the same bytes as one that is left alone.

// Clippy knows the functions marked as tests, not those they call.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use andiron_core::{Backend, DeviceSpec};
use andiron_data::shard::{DatasetWriter, WriterOptions};
use andiron_kernels::random::Seed;
use andiron_training::observe::{RunStart, StepRecord};
use andiron_training::{Observer, Outcome, Requests, Status, TrainConfig, start_or_resume};
use serde_json::Value;

/// Tells a process of this test that it is the one to be killed, and where it works.
const DIRECTORY: &str = "ANDIRON_KILL_TEST_DIRECTORY";

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

fn train(directory: &Path, observer: &mut dyn Observer) -> Outcome {
    let device = DeviceSpec { backend: Backend::Ndarray, index: None }.open().unwrap();
    start_or_resume(&config(directory), &device, observer, &Requests::default()).unwrap()
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

/// Does nothing in an ordinary test run: it is the program that the test below starts and kills.
#[test]
fn victim() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        train(Path::new(&directory), &mut Print);
    }
}

/// Starts a process and kills it `later` steps after where it began; false if it ended before.
fn run_and_kill(directory: &Path, later: u64) -> bool {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(victim.stdout.take().unwrap());
    let mut last = None;
    for line in output.lines() {
        let line = line.unwrap();
        let Some(step) = line.strip_prefix("step ").and_then(|step| step.parse::<u64>().ok()) else {
            continue;
        };
        let target = *last.get_or_insert(step + later);
        if step >= target {
            // SIGKILL: nothing is written after this, nothing is cleaned up.
            victim.kill().unwrap();
            break;
        }
    }
    !victim.wait().unwrap().success()
}

fn metrics(directory: &Path) -> Vec<Value> {
    let text = fs::read_to_string(directory.join("out/metrics.jsonl")).unwrap();
    let strip = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let fields = line.as_object_mut().unwrap();
        assert!(fields.remove("tokens_per_s").is_some() && fields.remove("elapsed_s").is_some());
        line
    };
    text.lines().map(strip).collect()
}

#[test]
fn a_killed_run_ends_like_one_that_was_left_alone() {
    let [whole, broken] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for directory in [&whole, &broken] {
        write_data(directory.path());
    }
    assert_eq!(train(whole.path(), &mut ()).status, Status::Finished);

    let seed = Seed::new(2024);
    let mut kills = 0;
    while run_and_kill(broken.path(), 1 + seed.below(kills, 9)) {
        kills += 1;
        assert!(kills < STEPS, "the run does not come to its end");
    }
    assert!(kills >= 20, "only {kills} kills");
    let outcome = train(broken.path(), &mut ());
    assert_eq!((outcome.status, outcome.resumed_from), (Status::Finished, Some(STEPS)));

    let (whole_metrics, broken_metrics) = (metrics(whole.path()), metrics(broken.path()));
    assert_eq!(whole_metrics.len() as u64, STEPS);
    for (whole, broken) in whole_metrics.iter().zip(&broken_metrics) {
        assert_eq!(whole, broken);
    }
    assert_eq!(whole_metrics.len(), broken_metrics.len());
    let last = format!("out/step-{STEPS:06}/optimizer.safetensors");
    for file in ["out/model/model.safetensors", "out/model/config.json", last.as_str()] {
        let [whole, broken] =
            [&whole, &broken].map(|directory| fs::read(directory.path().join(file)).unwrap());
        assert!(whole == broken, "{file} differs after {kills} kills");
    }
}
