//! The command line of `cargo xtask`: the table of verbs and the two options shared by all of them.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command};

use crate::backend::{Backend, Choice};
use crate::dev;
use crate::workspace::Workspace;

/// A verb of `cargo xtask`.
pub struct Verb {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
}

/// What runs a verb.
pub enum Kind {
    /// The program `andiron`, built for one backend.
    Program,
    /// A task of this crate.
    Development(fn(&Workspace, &Invocation) -> Result<ExitCode>),
}

/// Every verb, in the order of `--help`. A verb of the program needs only its row here.
pub const VERBS: &[Verb] = &[
    program(
        "quickstart",
        "Train a model on the example corpus and serve it, in minutes; run again to resume",
    ),
    program("prepare", "Turn text files into tokenized shards"),
    program("tokenizer", "Train, evaluate and inspect tokenizers"),
    program("pretrain", "Train a model from a TOML config, or from --params and data; run again to resume"),
    program("finetune", "Train a model directory further, from a TOML config or from flags"),
    program(
        "evaluate",
        "Measure a model: loss on a text, tasks of lm-evaluation-harness, or validation on rows",
    ),
    program("metric", "Compute BLEU, ROUGE, F1, nDCG and other metrics from a JSONL file of predictions"),
    program(
        "predict",
        "Run a task on a JSONL file: generate, score, embed, label, answer questions, and more",
    ),
    program("generate", "Continue a prompt on the terminal"),
    program("chat", "Chat with a model on the terminal"),
    program("serve", "Serve a model directory over HTTP, with an OpenAI-compatible API and a web page"),
    program("inspect", "Show a model's modules, parameters, memory and FLOPs per token"),
    program("export", "Convert a model to a Hugging Face directory or a GGUF file"),
    program("doctor", "Show this machine's hardware, and the backend and kernels in use"),
    development(
        "bench",
        "Run a benchmark: train, prefill, decode, embed, serve, or a criterion target",
        dev::bench,
    ),
    development("test", "Run all tests of the default build, or with --backend compare backends", dev::test),
    development(
        "check",
        "Run all checks before a push, except the tests: format, lints, docs, features",
        dev::check,
    ),
    development(
        "tidy",
        "Check the house rules: dependencies between crates, file lengths, docs, words",
        dev::tidy,
    ),
    development("golden", "Regenerate a golden fixture with Python's transformers", dev::golden),
    development("docs", "Build the API documentation; --open shows it", dev::docs),
];

const fn program(name: &'static str, help: &'static str) -> Verb {
    Verb { name, help, kind: Kind::Program }
}

const fn development(
    name: &'static str,
    help: &'static str,
    task: fn(&Workspace, &Invocation) -> Result<ExitCode>,
) -> Verb {
    Verb { name, help, kind: Kind::Development(task) }
}

/// A parsed command line.
pub struct Invocation {
    pub verb: &'static Verb,
    /// The value of `--backend`.
    pub backend: Option<Choice>,
    /// The value of `--device`, which the program validates.
    pub device: Option<OsString>,
    /// All other arguments after the verb, unchanged.
    pub args: Vec<OsString>,
}

impl Invocation {
    /// The backend to build for: `--backend`, else the one that `--device` names, else the default.
    pub fn choice(&self) -> Choice {
        let named = || Choice::parse(self.device.as_ref()?.to_str()?).ok();
        self.backend.clone().or_else(named).unwrap_or_else(|| Choice::from(Backend::ALL[0]))
    }
}

/// Parses a command line. For `--help` and usage errors it prints a message and ends the process, with code 0 or 2.
pub fn parse(args: impl Iterator<Item = OsString>) -> Invocation {
    read(args).unwrap_or_else(|error| error.exit())
}

fn read(args: impl Iterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let mut matches = command().try_get_matches_from(hoist_shared_options(args.collect()))?;
    let backend = matches.remove_one("backend");
    let device = matches.remove_one("device");
    let (name, mut rest) = matches.remove_subcommand().expect("a verb is required");
    let verb = VERBS.iter().find(|verb| verb.name == name).expect("clap knows only the verbs of the table");
    let args = rest.remove_many("args").map(Iterator::collect).unwrap_or_default();
    Ok(Invocation { verb, backend, device, args })
}

fn command() -> Command {
    let backends = Backend::ALL.map(Backend::name).join(", ");
    let backend = Arg::new("backend")
        .long("backend")
        .value_name("NAME[:INDEX]")
        .value_parser(ValueParser::from(Choice::parse))
        .help(format!("Build for this backend and run on it: {backends} [default: {}]", Backend::ALL[0]));
    let device = Arg::new("device")
        .long("device")
        .value_name("DEVICE")
        .value_parser(ValueParser::os_string())
        .help("Run on this device instead of that of --backend");
    Command::new("xtask")
        .bin_name("cargo xtask")
        .about("Builds and runs the program andiron, and development tasks")
        .override_usage("cargo xtask <VERB> [--backend NAME] [ARGS]...")
        .subcommand_value_name("VERB")
        .subcommand_help_heading("Verbs")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .arg(backend)
        .arg(device)
        .subcommands(VERBS.iter().map(subcommand))
        .after_help(
            "`cargo xtask <VERB> --help` shows the options of a verb; it builds the program if necessary.",
        )
}

fn subcommand(verb: &'static Verb) -> Command {
    let args = Arg::new("args")
        .num_args(0..)
        .action(ArgAction::Append)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .value_parser(ValueParser::os_string())
        .help("Passed on unchanged");
    // The program explains its own verbs; only ours are explained here.
    let own_help = matches!(verb.kind, Kind::Program);
    Command::new(verb.name).about(verb.help).disable_help_flag(own_help).arg(args)
}

/// Moves `--backend` and `--device` before the verb, from anywhere before a `--`, and puts the program's name first.
///
/// The other arguments are parsed by another program, so clap cannot look for options between them.
fn hoist_shared_options(args: Vec<OsString>) -> Vec<OsString> {
    let mut shared = vec![OsString::from("xtask")];
    let mut others = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let text = arg.to_str().unwrap_or_default();
        if text == "--" {
            // clap swallows the first `--` unless another argument came before it.
            if others.len() == 1 {
                others.push(arg.clone());
            }
            others.push(arg);
            others.extend(args.by_ref());
        } else if text == "--backend" || text == "--device" {
            shared.push(arg);
            shared.extend(args.next());
        } else if text.starts_with("--backend=") || text.starts_with("--device=") {
            shared.push(arg);
        } else {
            others.push(arg);
        }
    }
    shared.extend(others);
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Invocation, clap::Error> {
        read(text.split_whitespace().map(OsString::from))
    }

    #[track_caller]
    fn check(text: &str, device: &str, args: &str) {
        let invocation = line(text).unwrap();
        assert_eq!(invocation.choice().device, device);
        assert_eq!(invocation.args.join(" ".as_ref()), args);
    }

    #[test]
    fn a_backend_is_found_anywhere_before_a_double_dash() {
        check("quickstart --steps 20", "ndarray", "--steps 20");
        check("quickstart --steps 20 --backend wgpu", "wgpu", "--steps 20");
        check("--backend=flex quickstart --steps 20", "flex", "--steps 20");
        check("quickstart --backend wgpu:1 --steps 20", "wgpu:1", "--steps 20");
        check("generate x -- --backend wgpu", "ndarray", "x -- --backend wgpu");
        check("generate -- --backend wgpu", "ndarray", "-- --backend wgpu");
    }

    #[test]
    fn a_device_names_its_backend_where_no_backend_is_given() {
        check("quickstart --device wgpu:1", "wgpu:1", "");
        check("quickstart --device elsewhere", "ndarray", "");
    }

    #[test]
    fn help_of_a_program_verb_is_left_to_the_program() {
        check("quickstart --help", "ndarray", "--help");
        check("quickstart -h --version", "ndarray", "-h --version");
    }

    #[test]
    fn a_wrong_command_line_is_a_usage_error() {
        for text in ["", "quikstart", "quickstart --backend tpu", "quickstart --backend"] {
            let Err(error) = line(text) else { panic!("{text:?} was accepted") };
            assert_eq!(error.exit_code(), 2, "{text:?}");
        }
    }

    #[test]
    fn clap_accepts_the_table() {
        command().debug_assert();
    }
}
