//! What is wrong with the input is said in one paragraph, with an exit code, and never with a panic.

use std::fs;
use std::process::Stdio;

use crate::common::{PRETRAIN, Place, check_failure, finish, text};

#[test]
fn a_corpus_that_cannot_be_used_is_named() {
    let place = Place::new();
    place.write("empty.txt", "");
    place.write("latin1.txt", b"caf\xe9".as_slice());
    place.write("rows.jsonl", "{\"text\":\"a\"}\n{\"txt\":\"b\"}\n");
    for (corpus, names) in [
        ("missing.txt", &["cannot read missing.txt", "No such file"] as &[_]),
        ("empty.txt", &["empty.txt", "no text"]),
        ("latin1.txt", &["latin1.txt", "UTF-8"]),
        ("rows.jsonl", &["rows.jsonl:2", "`text`"]),
    ] {
        place.fails(&["quickstart", "--corpus", corpus, "--output", "story"], 1, names);
        place.fails(&["prepare", corpus, "--output", "data"], 1, names);
        place.fails(&["tokenizer", "train", corpus, "--output", "tokenizer"], 1, names);
    }
    assert!(!place.path("story/run").exists() && !place.path("data").exists());
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let place = Place::with_model();
    let below = "corpus.txt/below";
    let model = ["--model", "run/model"];
    place.fails(&["quickstart", "--corpus", "corpus.txt", "--output", below], 1, &[below]);
    place.fails(&["prepare", "corpus.txt", "--output", below], 1, &[below]);
    place.fails(&["tokenizer", "train", "corpus.txt", "--output", below], 1, &[below]);
    place.fails(&["pretrain", "run.toml", "--set", "run.output=corpus.txt/below"], 1, &[below]);
    place.fails(&["predict", "--output", below, model[0], model[1]], 1, &[below]);
}

#[test]
fn a_key_that_a_configuration_does_not_have_is_named() {
    let place = Place::new();
    place.prepare();
    place.write("misspelt.toml", PRETRAIN.replace("\nlr =", "\nlrr ="));
    place.fails(&["pretrain", "misspelt.toml"], 1, &["misspelt.toml", "`lrr`", "`lr`", "lrr = 1e-2"]);
    let misspelt = ["pretrain", "run.toml", "--set", "optimizer.lrr=1"];
    place.fails(&misspelt, 1, &["--set optimizer.lrr=1", "`lrr`", "`lr`"]);
    place.fails(&["pretrain", "run.toml", "--set", "optimizer.lr=fast"], 1, &["optimizer.lr=fast", "fast"]);
    place.fails(&["pretrain", "run.toml", "--set", "data.rows=0"], 1, &["data.rows is 0", "at least 1"]);
    place.fails(&["pretrain", "run.toml", "--set", "model.n_head=5"], 1, &["n_head"]);
    place.fails(&["pretrain", "run.toml", "--set", "nonsense"], 2, &["\"nonsense\"", "key=value"]);
    place.fails(&["pretrain", "missing.toml"], 1, &["cannot read missing.toml"]);
    let no_data = ["pretrain", "run.toml", "--set", "data.train=missing"];
    place.fails(&no_data, 1, &["cannot read missing: no such file or directory"]);
}

#[test]
fn a_damaged_model_directory_is_named() {
    let place = Place::with_model();
    let verbs = |model: &'static str| {
        [
            vec!["generate", "--model", model, "a"],
            vec!["evaluate", "--model", model, "--text", "corpus.txt"],
            vec!["predict", "--model", model],
            vec!["serve", "--model", model, "--port", "0"],
            vec!["bench", "decode", "--model", model],
        ]
    };
    let check =
        |model, names: &[&str]| verbs(model).iter().for_each(|args| drop(place.fails(args, 1, names)));

    place.copy_model("cut");
    let weights = place.read("cut/model.safetensors");
    place.write("cut/model.safetensors", &weights[..weights.len() / 2]);
    check("cut", &["cut/model.safetensors", "truncated"]);
    place.copy_model("stub");
    place.write("stub/model.safetensors", &weights[..5]);
    check("stub", &["stub/model.safetensors"]);

    place.copy_model("unknown");
    let config = String::from_utf8(place.read("unknown/config.json")).unwrap();
    place.write("unknown/config.json", config.replacen('{', "{\"sliding_window\": 3,", 1));
    check("unknown", &["unknown/config.json", "sliding_window"]);
    place.copy_model("wider");
    place.write("wider/config.json", config.replace("\"n_embd\": 32", "\"n_embd\": 64"));
    check("wider", &["wte.weight", "[70, 32]", "[70, 64]"]);

    place.copy_model("weightless");
    fs::remove_file(place.path("weightless/model.safetensors")).unwrap();
    check("weightless", &["weightless/model.safetensors"]);
    fs::create_dir(place.path("nothing")).unwrap();
    check("nothing", &["nothing/config.json"]);
    check("missing", &["missing is not a model directory"]);
    check("corpus.txt", &["corpus.txt is not a model directory"]);

    place.copy_model("wordless");
    place.write("wordless/tokenizer.json", "{");
    for args in &verbs("wordless")[..4] {
        place.fails(args, 1, &["tokenizer in wordless", "tokenizer.json"]);
    }
}

#[test]
fn a_prompt_longer_than_the_context_is_refused() {
    let place = Place::with_model();
    let prompt = text(100);
    for more in [&[] as &[_], &["--slide"], &["--json"]] {
        let args = [&["generate", "--model", "run/model", "--max-tokens", "5", prompt], more].concat();
        let ran = place.fails(&args, 1, &["prompt", "100 tokens", "context of 32"]);
        assert_eq!(ran.out, "");
    }
    place.fails(&["generate", "--model", "run/model", ""], 1, &["prompt is empty"]);
    place.fails(&["generate", "--model", "run/model", "né"], 1, &["'é'", "vocabulary"]);
    let evaluate = ["evaluate", "--model", "run/model", "--text", "corpus.txt", "--context", "33"];
    place.fails(&evaluate, 1, &["--context 33", "1 to 32"]);
    // Less than a window is measured; of one token there is nothing to predict.
    place.write("few.txt", text(20));
    assert_eq!(place.json(&["evaluate", "--model", "run/model", "--text", "few.txt"])["tokens"], 19);
    place.write("one.txt", text(1));
    place.fails(&["evaluate", "--model", "run/model", "--text", "one.txt"], 1, &["one.txt", "2 tokens"]);
    let bench = ["bench", "decode", "--model", "run/model", "--prompt", "30", "--tokens", "3"];
    place.fails(&bench, 1, &["33 tokens", "context of 32"]);
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let place = Place::new();
    let generate = |more: &[&'static str]| [&["generate", "--model", "m", "a"], more].concat();
    for (args, names) in [
        (vec!["frobnicate"], &["'frobnicate'", "--help"] as &[_]),
        (vec!["quickstart", "--steps", "0"], &["--steps"]),
        (vec!["quickstart", "--stepps", "1"], &["--stepps", "--steps"]),
        (vec!["quickstart", "--device", "abacus"], &["\"abacus\"", "ndarray"]),
        (vec!["doctor", "--device", "abacus"], &["\"abacus\"", "ndarray"]),
        (vec!["serve", "--model", "m", "--device", "ndarray:3"], &["\"ndarray:3\""]),
        (vec!["serve", "--model", "m", "--max-queued", "0"], &["--max-queued"]),
        (vec!["evaluate", "--model", "m"], &["--text", "--data"]),
        (vec!["evaluate", "--model", "m", "--text", "a", "--data", "b"], &["--text", "--data"]),
        (vec!["predict", "--model", "m", "--task", "divine"], &["divine", "score, generate"]),
        (vec!["prepare", "corpus.txt", "-o", "d", "--kind", "char", "--vocab-size", "9"], &["--vocab-size"]),
        (vec!["bench", "train"], &["--model", "--config"]),
        (generate(&["--device", "abacus"]), &["\"abacus\"", "ndarray"]),
        (generate(&["--threads", "0"]), &["--threads"]),
        (generate(&["--log", "a=b=c"]), &["--log", "a=b=c"]),
    ] {
        place.fails(&args, 2, names);
    }
    #[cfg(not(feature = "wgpu"))]
    place.fails(&generate(&["--device", "wgpu"]), 2, &["wgpu", "--backend wgpu"]);
}

#[test]
fn help_of_a_verb_describes_it_in_full() {
    let place = Place::new();
    for (verb, part) in [
        (&["predict"] as &[_], "exit code is 1"),
        (&["generate"], "generation_config.json"),
        (&["pretrain"], "SIGUSR1"),
        (&["bench", "train"], "median step"),
        (&["tokenizer", "inspect"], "the tokens of a text"),
    ] {
        let help = place.ok(&[verb, &["--help"]].concat());
        let described = help.split("Usage:").next().unwrap();
        assert!(described.contains(part), "{help}");
    }
}

#[test]
fn a_sampling_value_out_of_range_is_a_usage_error() {
    let place = Place::with_model();
    for (option, value) in
        [("--temperature", "-1"), ("--top-p", "1.5"), ("--min-p", "-0.5"), ("--repetition-penalty", "0")]
    {
        let name = option.trim_start_matches("--").replace('-', "_");
        let args = ["generate", "--model", "run/model", "a", option, value];
        place.fails(&args, 2, &[name.as_str()]);
        place.fails(&["predict", "--model", "run/model", option, value], 2, &[name.as_str()]);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let place = Place::new();
    let mut child = place.command(&["doctor"]).spawn().unwrap();
    drop(child.stdout.take());
    let ran = finish(child);
    assert_eq!((ran.code, ran.err.as_str()), (Some(1), ""));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_told() {
    let place = Place::new();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let child = place.command(&["doctor"]).stdout(Stdio::from(full)).spawn().unwrap();
    check_failure(&finish(child), 1, &["standard output", "No space left"]);
}

#[cfg(not(feature = "mpi"))]
#[test]
fn a_program_without_mpi_does_not_train_the_same_run_twice() {
    let place = Place::new();
    place.prepare();
    for (variable, launcher) in [("OMPI_COMM_WORLD_SIZE", "mpirun"), ("SLURM_STEP_NUM_TASKS", "srun")] {
        let mut command = place.command(&["pretrain", "run.toml"]);
        let ran = finish(command.env(variable, "2").spawn().unwrap());
        check_failure(&ran, 1, &[launcher, "2 processes", "--features ndarray,mpi"]);
    }
    assert!(!place.path("run").exists());
}
