//! Runs of the program in a directory of their own.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The shipped corpus, of which the tests take the first few thousand bytes.
const CORPUS: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/shakespeare.txt"));

/// A run small enough for a test, over the dataset `data` that [`Place::prepare`] makes.
pub const PRETRAIN: &str = r#"
[run]
output = "run"
seed = 7
steps = 60
accumulate = 2

[model]
model_type = "gpt2"
vocab_size = 70
n_positions = 32
n_embd = 32
n_layer = 2
n_head = 2
attn_pdrop = 0.0
resid_pdrop = 0.1
embd_pdrop = 0.1

[data]
train = "data/train"
valid = "data/valid"
tokenizer = "data/tokenizer"
rows = 4
context = 32
order = "epochs"

[optimizer]
schedule = "cosine"
lr = 1e-2
min_lr = 1e-3
warmup_steps = 10
beta2 = 0.99
weight_decay = 0.1

[checkpoint]
every = 4

[evaluate]
every = 20
"#;

/// A word of its own for each number, out of a thousand: numbers in texts are the same to filters.
pub fn word(number: usize) -> String {
    let mixed = number.wrapping_mul(2_654_435_761) / 7 % 1000;
    let syllable = |at: usize| {
        let (consonant, vowel) = (b"bdfgklmnpr"[at % 10] as char, b"aeiou"[at % 5] as char);
        format!("{consonant}{vowel}")
    };
    [mixed % 10, mixed / 10 % 10, mixed / 100].map(syllable).concat()
}

/// A temporary directory in which the program runs, with `corpus.txt` in it.
pub struct Place(TempDir);

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("corpus.txt", text(4000));
        place
    }

    /// A place with a small model in `run/model` that has barely learnt anything.
    pub fn with_model() -> Self {
        let place = Self::new();
        place.prepare();
        place.ok(&["pretrain", "run.toml", "--set", "run.steps=12"]);
        place
    }

    /// Makes the dataset `data` and the configuration `run.toml`.
    pub fn prepare(&self) {
        self.ok(&["prepare", "corpus.txt", "--kind", "char", "-o", "data"]);
        self.write("run.toml", PRETRAIN);
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A copy of the model `run/model` under another name.
    pub fn copy_model(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
        for entry in fs::read_dir(self.path("run/model")).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, self.path(name).join(from.file_name().unwrap())).unwrap();
        }
    }

    /// The program, about to run here.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_andiron"));
        command
            .args(args)
            .current_dir(self.0.path())
            // A backtrace that could be shown would be shown.
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args).spawn().unwrap())
    }

    /// Runs the program to its end with `input` on standard input.
    pub fn run_with_input(&self, args: &[&str], input: &str) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        finish(child)
    }

    /// Runs the program, which must succeed, and gives its standard output.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        ran.out
    }

    /// Runs the program, which must succeed and print one JSON object.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.ok(&[args, &["--json"]].concat());
        let value: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
        assert!(value.is_object(), "{value}");
        value
    }

    /// Runs the program, which must exit with `code` and say why in one paragraph that has all of `names` in it.
    #[track_caller]
    pub fn fails(&self, args: &[&str], code: i32, names: &[&str]) -> Ran {
        let ran = self.run(args);
        check_failure(&ran, code, names);
        ran
    }
}

/// Checks the exit code, and that the last thing on standard error is one paragraph that has all of `names` in it.
#[track_caller]
pub fn check_failure(ran: &Ran, code: i32, names: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    for word in ["panicked", "backtrace", "unwrap"] {
        assert!(!ran.err.contains(word), "{ran:?}");
    }
    // A message may speak of a `syntax error: `.
    assert_eq!(ran.err.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{ran:?}");
    let before: usize =
        ran.err.split_inclusive('\n').take_while(|line| !line.starts_with("error: ")).map(str::len).sum();
    let message = ran.err[before..].trim_end();
    // The command line's own errors add how to use it.
    let paragraph = message.split("\n\n").next().unwrap();
    assert!(code == 2 || paragraph == message, "more than one paragraph: {ran:?}");
    for name in names {
        assert!(message.contains(name), "{name:?} is not in: {message}");
    }
}

/// The first bytes of the corpus.
pub fn text(len: usize) -> &'static str {
    &CORPUS[..CORPUS.floor_char_boundary(len)]
}

pub fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The lines of a JSONL text.
pub fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The names of an object's fields, in order.
#[track_caller]
pub fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The lines of a run's `metrics.jsonl` without what depends on the clock.
pub fn metrics(run: &Path) -> Vec<Value> {
    let mut lines = rows(&fs::read_to_string(run.join("metrics.jsonl")).unwrap());
    for line in &mut lines {
        let fields = line.as_object_mut().unwrap();
        assert!(fields.remove("tokens_per_s").is_some() && fields.remove("elapsed_s").is_some());
        assert!(fields.remove("step_s").is_some() && fields.remove("data_wait_s").is_some());
        fields.remove("rows_per_s");
    }
    lines
}
