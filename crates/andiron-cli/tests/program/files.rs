//! Results are whole or absent, what cannot be read is named, and what does not fit is refused.

#![cfg(unix)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{Place, finish, text};
#[cfg(target_os = "linux")]
use crate::common::{Ran, check_failure};

/// The names in a directory, sorted; none if it is not there.
fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Runs a verb, again and again, and kills it when so many names are in its hidden directory, for every number of names
/// until it ends by itself. Its result must never be there in part.
#[track_caller]
fn check_killed(place: &Place, args: &[&str], result: &str) {
    place.ok(args);
    let whole = names(&place.path(result));
    let partial = place.path(&format!(".{result}.partial"));
    let mut kills = 0;
    for wanted in 1..=whole.len() + 2 {
        fs::remove_dir_all(place.path(result)).unwrap();
        let mut child = place.command(args).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        let ended = loop {
            if names(&partial).len() >= wanted {
                child.kill().unwrap();
                break false;
            }
            if child.try_wait().unwrap().is_some() {
                break true;
            }
            assert!(Instant::now() < deadline, "nothing happens");
            std::thread::yield_now();
        };
        finish(child);
        kills += usize::from(!ended);
        let found: Vec<String> =
            names(&place.path(result)).into_iter().filter(|name| name != ".lock").collect();
        assert!(found.is_empty() || found == whole, "killed at {wanted} names: {found:?}");
        // What a killed one left is in nobody's way.
        place.ok(&[args, &["--replace"][..usize::from(args[0] == "export")]].concat());
        assert_eq!(names(&place.path(result)), whole);
        assert!(!partial.exists(), "killed at {wanted} names");
    }
    assert!(kills > 0, "it was never killed in the middle");
}

#[test]
fn a_killed_export_leaves_nothing_or_all_of_it() {
    let place = Place::with_model();
    check_killed(&place, &["export", "--model", "run/model", "-o", "exported"], "exported");
}

#[test]
fn a_killed_training_of_a_tokenizer_leaves_nothing_or_all_of_it() {
    let place = Place::new();
    check_killed(
        &place,
        &["tokenizer", "train", "corpus.txt", "--vocab-size", "300", "-o", "tokenizer"],
        "tokenizer",
    );
}

#[test]
fn a_tokenizer_comes_beside_what_is_there() {
    let place = Place::new();
    fs::create_dir(place.path("mine")).unwrap();
    place.write("mine/notes", "mine");
    place.ok(&["tokenizer", "train", "corpus.txt", "--kind", "char", "-o", "mine"]);
    assert_eq!(place.read("mine/notes"), b"mine");
    place.ok(&["tokenizer", "inspect", "--tokenizer", "mine", "The"]);
}

#[test]
fn an_export_replaces_a_model_and_nothing_else() {
    let place = Place::with_model();
    let export = ["export", "--model", "run/model", "-o", "exported", "--replace"];
    place.ok(&export);
    let whole = names(&place.path("exported"));
    place.ok(&export);
    assert_eq!(names(&place.path("exported")), whole);
    place.write("exported/diary.txt", "mine");
    place.fails(&export, 1, &["exported/diary.txt", "would be lost"]);
    assert_eq!(place.read("exported/diary.txt"), b"mine");
    // Onto a link: what it leads to is replaced, and the link stays.
    fs::remove_file(place.path("exported/diary.txt")).unwrap();
    symlink("exported", place.path("link")).unwrap();
    place.ok(&["export", "--model", "run/model", "-o", "link", "--replace"]);
    assert!(fs::symlink_metadata(place.path("link")).unwrap().is_symlink());
    assert_eq!(names(&place.path("exported")), whole);
    // A model may be written over itself.
    place.ok(&["export", "--model", "exported", "-o", "exported", "--replace"]);
    assert_eq!(names(&place.path("exported")), whole);
}

#[test]
fn answers_appear_when_all_rows_are_answered() {
    let place = Place::with_model();
    let predict = ["predict", "--model", "run/model", "--task", "score", "-o", "rows.jsonl"];
    place.write("rows.jsonl", "old\n");
    let mut child = place.command(&predict).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"{\"text\": \"The\"}\n").unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !place.path(".rows.jsonl.partial").exists() {
        assert!(Instant::now() < deadline, "nothing happens");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    drop(input);
    finish(child);
    assert_eq!(place.read("rows.jsonl"), b"old\n");
    let ran = place.run_with_input(&predict, "{\"text\": \"The\"}\n");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(place.read("rows.jsonl").starts_with(b"{"));
    assert!(!place.path(".rows.jsonl.partial").exists());
}

#[test]
fn a_file_of_a_checkpoint_that_cannot_be_read_is_no_damage() {
    let place = Place::new();
    place.prepare();
    let pretrain = ["pretrain", "run.toml", "--set", "run.steps=12"];
    place.ok(&pretrain);
    let before = names(&place.path("run"));
    let newest = before.iter().rfind(|name| name.starts_with("step-")).unwrap();
    for file in ["manifest.json", "state.json", "optimizer.safetensors", "model/config.json"] {
        let path = place.path(&format!("run/{newest}/{file}"));
        let kept = place.path("kept");
        fs::rename(&path, &kept).unwrap();
        symlink(path.file_name().unwrap(), &path).unwrap();
        place.fails(&pretrain, 1, &[newest, file, "nothing was changed", "symbolic links"]);
        assert_eq!(names(&place.path("run")), before);
        fs::remove_file(&path).unwrap();
        fs::rename(&kept, &path).unwrap();
    }
    // The file `latest` is for people; the steps themselves say which is the newest.
    fs::remove_file(place.path("run/latest")).unwrap();
    place.ok(&[&pretrain[..], &["--resume"]].concat());
}

#[test]
fn an_optional_file_of_a_model_that_cannot_be_looked_at_is_named() {
    let place = Place::with_model();
    place.copy_model("model");
    fs::remove_file(place.path("model/generation_config.json")).unwrap();
    symlink("generation_config.json", place.path("model/generation_config.json")).unwrap();
    place.fails(&["generate", "--model", "model", "The"], 1, &["model/generation_config.json"]);
}

#[test]
fn too_few_file_descriptors_are_an_error() {
    let place = Place::with_model();
    let under = |files: u32, args: &[&str]| {
        let line = format!("ulimit -n {files} && exec \"$@\"");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &line, "sh", env!("CARGO_BIN_EXE_andiron")]).args(args);
        command.current_dir(place.path("")).env("RUST_BACKTRACE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command.spawn().unwrap())
    };
    // How many are open before depends on the system; one of these is where only the watch for signals has none.
    for files in 5..12 {
        let serve = under(files, &["serve", "--model", "run/model", "--host", "256.0.0.1"]);
        check_failure(&serve, 1, &[]);
        let train = under(files, &["pretrain", "run.toml", "--resume", "--set", "run.steps=12"]);
        if train.code != Some(0) {
            check_failure(&train, 1, &[]);
        }
    }
}

/// Runs the program with at most so many bytes of address space.
#[cfg(target_os = "linux")]
fn run_within(place: &Place, bytes: u64, args: &[&str]) -> Ran {
    let line = format!("ulimit -v {} && exec \"$@\"", bytes / 1024);
    let program = env!("CARGO_BIN_EXE_andiron");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &line, "sh", program]).args(args).current_dir(place.path(""));
    // Stacks of fewer threads leave more of the little there is.
    command.args(["--threads", "1"]).env("RUST_BACKTRACE", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap())
}

// Other systems do not say how much memory there is.
#[cfg(target_os = "linux")]
#[test]
fn a_model_that_does_not_fit_is_refused_with_its_size_and_what_fits() {
    const MATRIX: u64 = 12_500 * 1024 * 4;
    let place = Place::with_model();
    place.copy_model("large");
    // Eight matrices of 51.2 MB that take no room on the disk.
    let tensor = |number: u64| {
        let offsets = [number * MATRIX, (number + 1) * MATRIX];
        (
            format!("m{number}"),
            serde_json::json!({ "dtype": "F32", "shape": [12_500, 1024], "data_offsets": offsets }),
        )
    };
    let header: serde_json::Map<_, _> = (0..8).map(tensor).collect();
    let header = serde_json::Value::Object(header).to_string();
    let path = place.path("large/model.safetensors");
    fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(8 + header.len() as u64 + 8 * MATRIX).unwrap();

    let limit = 220_000_000;
    let generate = ["generate", "--model", "large", "--max-tokens", "4", "The"];
    let ran = run_within(&place, limit, &generate);
    check_failure(
        &ran,
        1,
        &["large needs about 410 MB", "at f32", "ulimit -v", "--precision int8", "--no-memory-check"],
    );
    let ran = run_within(&place, limit, &["export", "--model", "large", "-o", "exported"]);
    check_failure(&ran, 1, &["large needs about 410 MB", "choose a smaller model"]);
    assert!(!place.path("exported").exists() && !place.path(".exported.partial").exists());
    // What fits runs, under the same limit.
    let ran = run_within(&place, limit, &["generate", "--model", "run/model", "--max-tokens", "4", "The"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let large = ["model.n_embd=2048", "model.n_layer=8"];
    let set: Vec<&str> = large.iter().flat_map(|set| ["--set", set]).collect();
    let ran = run_within(
        &place,
        limit,
        &[&["pretrain", "run.toml", "--set", "run.output=other"], &set[..]].concat(),
    );
    check_failure(&ran, 1, &["training needs about 6.", "GB", "data.rows"]);
    assert!(!place.path("other").exists());
    // Where nobody estimated, or wrongly, the allocation that fails says so.
    let unchecked = ["pretrain", "run.toml", "--no-memory-check", "--set", "run.output=other"];
    let ran = run_within(&place, limit, &[&unchecked, &set[..]].concat());
    check_failure(&ran, 1, &["out of memory", "ulimit -v"]);
}

#[cfg(target_os = "linux")]
#[test]
fn too_little_address_space_for_the_threads_of_a_server_is_an_error() {
    let place = Place::with_model();
    let serve = ["serve", "--model", "run/model", "--host", "256.0.0.1"];
    // How much the threads before need depends on the system; under some of these limits the server's own do not start.
    for megabytes in (150..340).step_by(10) {
        check_failure(&run_within(&place, megabytes << 20, &serve), 1, &[]);
    }
}

#[test]
fn a_text_in_a_folder_that_closes_a_circle_is_read_once() {
    let place = Place::new();
    fs::create_dir_all(place.path("texts/inner")).unwrap();
    place.write("texts/inner/a.txt", text(2000));
    symlink("..", place.path("texts/inner/up")).unwrap();
    let said = place.json(&["prepare", "texts", "--kind", "char", "-o", "prepared"]);
    assert_eq!(said["documents"]["read"], 1, "{said}");
}
