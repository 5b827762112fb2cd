//! Runs on several processes, started by `mpirun`. Where there is none, the tests say so and do nothing.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use andiron_data::Seed;
use andiron_data::shard::{DatasetWriter, WriterOptions};
use serde_json::Value;
use tempfile::TempDir;

const CONFIG: &str = r#"
[run]
output = "run"
seed = 7
steps = 200
precision = "f32"
accumulate = 2

[model]
model_type = "gpt2"
vocab_size = 13
n_positions = 8
n_embd = 16
n_layer = 2
n_head = 2
attn_pdrop = 0.0
resid_pdrop = 0.0
embd_pdrop = 0.0

[data]
train = "train"
valid = "valid"
rows = 6
context = 8
order = "epochs"

[optimizer]
schedule = "cosine"
lr = 3e-3
min_lr = 3e-4
warmup_steps = 20
beta2 = 0.95
weight_decay = 0.1
clip_norm = 0.5

[checkpoint]
every = 50

[evaluate]
every = 100
"#;

/// A directory with data and a configuration.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path("run.toml"), CONFIG).unwrap();
        for (name, len) in [("train", 900), ("valid", 60)] {
            let seed = Seed::new(len);
            let next = |at: &mut u32, i: u64| {
                *at = (*at + 1 + seed.below(i, 2) as u32) % 13;
                Some(*at)
            };
            let ids: Vec<u32> = (0..len).scan(0, next).collect();
            let mut writer =
                DatasetWriter::create(&place.path(name), WriterOptions::new(13, "no tokenizer")).unwrap();
            writer.push("all", &ids, "").unwrap();
            writer.finish().unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The command that trains with `size` processes, one thread each, or without `mpirun` if that is 0.
    fn command(&self, size: usize, options: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_andiron");
        let mut command = match size {
            0 => Command::new(program),
            size => {
                let mut command = Command::new("mpirun");
                command.args(["-n", &size.to_string(), program]);
                command
            }
        };
        command.args(["pretrain", "run.toml", "--threads", "1"]).args(options).current_dir(self.0.path());
        // For root in a container, and for more processes than processors.
        for (name, value) in [
            ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
            ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
            ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
            ("OMPI_MCA_hwloc_base_binding_policy", "none"),
            ("OMPI_MCA_mpi_yield_when_idle", "1"),
        ] {
            command.env(name, value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[track_caller]
    fn train(&self, size: usize, options: &[&str]) {
        let output = self.command(size, options).output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
    }

    /// The lines of the run's metrics without what depends on the machine.
    fn metrics(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("run/metrics.jsonl")).unwrap();
        let strip = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let measured = ["tokens_per_s", "rows_per_s", "step_s", "data_wait_s", "elapsed_s"];
            line.as_object_mut().unwrap().retain(|key, _| !measured.contains(&key.as_str()));
            line
        };
        text.lines().map(strip).collect()
    }

    /// The trained weights and the moments beside the last checkpoint.
    fn result(&self, step: u64) -> [Vec<u8>; 2] {
        let moments = format!("run/step-{step:06}/optimizer.safetensors");
        ["run/model/model.safetensors", &moments].map(|file| fs::read(self.path(file)).unwrap())
    }

    /// Waits until `steps` steps are logged.
    #[track_caller]
    fn wait_for(&self, job: &mut Child, steps: usize) {
        let deadline = Instant::now() + Duration::from_secs(120);
        let logged = || fs::read(self.path("run/metrics.jsonl")).unwrap_or_default();
        while logged().iter().filter(|&&byte| byte == b'\n').count() < steps {
            assert!(job.try_wait().unwrap().is_none(), "the job has ended");
            assert!(Instant::now() < deadline, "nothing happens");
            std::thread::yield_now();
        }
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn send(signal: &str, process: u32) {
    let line = format!("kill -{signal} {process}");
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
}

/// The processes of `andiron` below a launcher, in the order of their start, which is that of their ranks.
fn ranks(launcher: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let Some(process) = entry.unwrap().file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let read = |file: &str| fs::read(Path::new("/proc").join(process.to_string()).join(file)).ok();
        let (Some(stat), Some(environment)) = (read("stat"), read("environ")) else { continue };
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let parent =
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if parent != Some(launcher) {
            continue;
        }
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let rank = environment.split('\0').find_map(|entry| entry.strip_prefix("OMPI_COMM_WORLD_RANK="));
        if let Some(rank) = rank {
            found.push((rank.parse::<usize>().unwrap(), process));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, process)| process).collect()
}

/// Whether `mpirun` is there; if not, says so.
fn has_mpirun() -> bool {
    let found = Command::new("mpirun").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        eprintln!("there is no mpirun: runs on several processes are not tested");
    }
    found
}

#[track_caller]
fn assert_alike(found: &Place, expected: &Place) {
    let [found, expected] = [found, expected].map(Place::metrics);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((&found["step"], &found["tokens"]), (&expected["step"], &expected["tokens"]));
        for key in ["loss", "grad_norm", "valid_loss"] {
            if let (Some(a), Some(b)) = (found[key].as_f64(), expected[key].as_f64()) {
                assert!((a - b).abs() <= 1e-5, "{key}: {found} {expected}");
            }
        }
    }
}

#[test]
fn processes_train_as_one() {
    if !has_mpirun() {
        return;
    }
    for kind in ["optimizer.kind=adamw", "optimizer.kind=muon"] {
        let [alone, one, two, four] = [(); 4].map(|()| Place::new());
        alone.train(0, &["--set", kind]);
        one.train(1, &["--set", kind]);
        assert_eq!(one.metrics(), alone.metrics());
        two.train(2, &["--set", kind]);
        four.train(4, &["--set", kind, "--step-timeout", "60"]);
        assert_alike(&two, &alone);
        assert_alike(&four, &alone);
    }
}

#[test]
fn a_killed_process_ends_all_and_the_next_job_ends_as_if_nothing_had_been() {
    if !has_mpirun() {
        return;
    }
    let set = ["--set", "run.steps=400"];
    let [whole, broken] = [(); 2].map(|()| Place::new());
    whole.train(2, &set);
    for (rank, steps) in [(1, 70), (0, 130), (1, 170)] {
        let mut job = broken.command(2, &set).spawn().unwrap();
        broken.wait_for(&mut job, steps);
        let killed = Instant::now();
        send("KILL", ranks(job.id())[rank]);
        let output = job.wait_with_output().unwrap();
        assert!(
            !output.status.success() && killed.elapsed() < Duration::from_secs(20),
            "{}",
            errors(&output)
        );
    }
    broken.train(2, &set);
    assert_eq!(broken.metrics(), whole.metrics());
    assert!(broken.result(400) == whole.result(400));
}

/// Starts a run of two processes that saves nothing by itself, and sends a signal to its launcher or to a process.
fn interrupt(place: &Place, signal: &str, rank: Option<usize>, patience_s: &str) -> Output {
    let never = ["--set", "run.steps=20000", "--set", "checkpoint.every=100000"];
    let mut command = place.command(2, &never);
    let mut job = command.env("OMPI_MCA_odls_base_sigkill_timeout", patience_s).spawn().unwrap();
    place.wait_for(&mut job, 120);
    send(signal, rank.map_or(job.id(), |rank| ranks(job.id())[rank]));
    job.wait_with_output().unwrap()
}

/// The steps that have a checkpoint.
fn saved(place: &Place) -> Vec<u64> {
    let names = fs::read_dir(place.path("run")).unwrap().map(|entry| entry.unwrap().file_name());
    let step = |name: std::ffi::OsString| name.to_str()?.strip_prefix("step-")?.parse().ok();
    let mut steps: Vec<u64> = names.filter_map(step).collect();
    steps.sort_unstable();
    steps
}

#[test]
fn a_signal_to_one_process_stops_all_after_the_same_step() {
    if !has_mpirun() {
        return;
    }
    for rank in [0, 1] {
        let place = Place::new();
        let output = interrupt(&place, "TERM", Some(rank), "1");
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(75), "{text}");
        assert_eq!(text.matches("saved after step").count(), 1, "{text}");
        assert_eq!(saved(&place), [place.metrics().len() as u64]);
    }
}

/// Open MPI 4.1 passes SIGTERM on after so many seconds, kills after as many again, and ends with 1 whatever the processes end with.
#[test]
fn a_signal_to_the_launcher_stops_all_after_the_same_step() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let output = interrupt(&place, "TERM", None, "4");
    let text = errors(&output);
    assert!(!output.status.success(), "{text}");
    assert_eq!(text.matches("saved after step").count(), 1, "{text}");
    assert_eq!(saved(&place), [place.metrics().len() as u64]);
}

#[test]
fn a_request_to_save_is_passed_on_by_the_launcher() {
    if !has_mpirun() {
        return;
    }
    let set = ["--set", "run.steps=600", "--set", "checkpoint.every=100000"];
    let [whole, saved_once] = [(); 2].map(|()| Place::new());
    whole.train(2, &set);
    let mut job = saved_once.command(2, &set).spawn().unwrap();
    saved_once.wait_for(&mut job, 100);
    send("USR1", job.id());
    assert!(job.wait_with_output().unwrap().status.success());
    let steps = saved(&saved_once);
    assert!(steps.len() == 2 && steps[1] == 600, "{steps:?}");
    // From there the run goes on to the same end.
    fs::remove_dir_all(saved_once.path("run/step-000600")).unwrap();
    saved_once.train(2, &set);
    assert_eq!(saved_once.metrics(), whole.metrics());
    assert!(saved_once.result(600) == whole.result(600));
}

#[test]
fn a_process_that_hangs_is_named_and_ends_the_run() {
    if !has_mpirun() {
        return;
    }
    for rank in [1, 0] {
        let place = Place::new();
        let mut job =
            place.command(2, &["--set", "run.steps=100000", "--step-timeout", "5"]).spawn().unwrap();
        place.wait_for(&mut job, 60);
        let stopped = Instant::now();
        send("STOP", ranks(job.id())[rank]);
        let output = job.wait_with_output().unwrap();
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(75), "{text}");
        assert!(text.contains(&format!("process {rank} did not finish its part")), "{text}");
        assert!(stopped.elapsed() < Duration::from_secs(30), "{text}");
    }
}

#[test]
fn an_error_is_said_once() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    for (options, said) in [
        (["--set", "optimizer.lr=-1.0"], "optimizer.lr"),
        (["--set", "data.train=nothing"], "nothing"),
        (["--set", "data.rows=1"], "a step has 2 rows, which 4 processes cannot share"),
    ] {
        let output = place.command(4, &options).output().unwrap();
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert_eq!(text.matches("error: ").count(), 1, "{text}");
        assert!(text.contains(said), "{text}");
    }
}
