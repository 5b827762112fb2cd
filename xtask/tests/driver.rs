//! How the driver calls cargo and the program, tested with stand-ins for both.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with a `cargo` that writes its arguments down and "builds" a program that prints its own and exits with 75.
struct Stage(PathBuf);

impl Stage {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).expect("an old stage can be removed");
        }
        fs::create_dir_all(&folder).expect("a stage can be made");
        let script = r#"#!/bin/sh
echo "$CARGO_TARGET_DIR: $*" >> "$STAGE/cargo.log"
echo "$CARGO_BUILD_BUILD_DIR" >> "$STAGE/build-dir.log"
test "$FAIL" = 1 && exit 101
mkdir -p "$CARGO_TARGET_DIR/release"
printf '#!/bin/sh\necho "$PWD: $*"\nexit 75\n' > "$CARGO_TARGET_DIR/release/andiron"
chmod +x "$CARGO_TARGET_DIR/release/andiron"
"#;
        // Written by a process of its own: a file that this one held open for writing could not be run while a child
        // of another test still holds it too.
        let mut write = Command::new("sh");
        write.current_dir(&folder).args(["-c", "printf %s \"$0\" > cargo && chmod +x cargo", script]);
        assert!(write.status().expect("sh runs").success());
        Self(folder)
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(args.split_whitespace()).current_dir(&self.0);
        command
            .env("STAGE", &self.0)
            .env("CARGO", self.0.join("cargo"))
            .env("CARGO_TARGET_DIR", self.0.join("built"))
            .env_remove("CARGO_BUILD_BUILD_DIR");
        command
    }

    fn run(&self, args: &str) -> Output {
        self.command(args).output().expect("xtask runs")
    }

    /// The lines that the stand-in for cargo wrote, without the folder of the test.
    fn cargo_log(&self) -> String {
        let log = fs::read_to_string(self.0.join("cargo.log")).unwrap_or_default();
        log.replace(&format!("{}/", self.0.display()), "")
    }
}

#[track_caller]
fn check_program(stage: &str, args: &str, target_dir: &str, feature: &str, program_args: &str) {
    let stage = Stage::new(stage);
    let output = stage.run(args);
    let build = format!("{target_dir}: build --release --package andiron-cli --features {feature}\n");
    assert_eq!(stage.cargo_log(), build);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        stdout,
        format!("{}: {program_args}\n", stage.0.display()),
        "the program runs in the caller's folder"
    );
    assert_eq!(output.status.code(), Some(75), "the program's exit code is handed on");
}

#[test]
fn a_program_verb_builds_the_default_backend_and_becomes_the_program() {
    check_program(
        "default",
        "quickstart --steps 20",
        "built",
        "ndarray",
        "--device ndarray quickstart --steps 20",
    );
}

#[test]
fn a_backend_has_its_own_target_folder() {
    check_program(
        "wgpu",
        "serve --port 0 --backend wgpu:1",
        "built/wgpu",
        "ndarray,flex,wgpu",
        "--device wgpu:1 serve --port 0",
    );
}

#[test]
fn backends_share_the_builds_of_what_they_have_in_common() {
    let stage = Stage::new("build-dir");
    for args in ["doctor", "doctor --backend flex", "doctor --backend wgpu", "check --backend cuda"] {
        stage.run(args);
    }
    let log = fs::read_to_string(stage.0.join("build-dir.log")).expect("cargo was run");
    assert_eq!(log.lines().collect::<Vec<_>>(), [stage.0.join("built").to_str().expect("UTF-8"); 4]);
}

#[test]
fn a_device_of_the_caller_wins() {
    check_program(
        "device",
        "doctor --backend wgpu --device wgpu:2",
        "built/wgpu",
        "ndarray,flex,wgpu",
        "--device wgpu:2 doctor",
    );
}

#[test]
fn throughput_benches_are_the_programs_own() {
    check_program("bench", "bench decode --json", "built", "ndarray", "--device ndarray bench decode --json");
}

#[test]
fn other_benches_are_criterion_targets() {
    let stage = Stage::new("criterion");
    assert!(stage.run("bench tokenizer --quick").status.success());
    let wanted = "bench --package andiron-benches --no-default-features --features ndarray --bench tokenizer -- --quick";
    assert_eq!(stage.cargo_log(), format!("built: {wanted}\n"));
}

#[test]
fn the_first_build_is_announced_and_later_ones_are_not() {
    let stage = Stage::new("announced");
    let said = |output: Output| String::from_utf8_lossy(&output.stderr).contains("building for ndarray");
    assert!(said(stage.run("doctor")));
    assert!(!said(stage.run("doctor")));
}

#[test]
fn a_failed_build_runs_nothing() {
    let stage = Stage::new("failed");
    let output = stage.command("quickstart").env("FAIL", "1").output().expect("xtask runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("could not be built for ndarray"));
}

#[test]
fn an_unknown_backend_is_a_usage_error_before_anything_is_built() {
    let stage = Stage::new("unknown");
    let output = stage.run("quickstart --backend tpu");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ndarray, flex, wgpu, vulkan, metal, cuda"));
    assert_eq!(stage.cargo_log(), "");
}

#[test]
fn tests_leave_the_benches_out_and_cover_doc_tests() {
    let stage = Stage::new("tests");
    assert!(stage.run("test").status.success());
    let selection = "--release --workspace --exclude andiron-benches --features andiron-cli/ndarray";
    let wanted =
        format!("built: nextest --version\nbuilt: nextest run {selection}\nbuilt: test --doc {selection}\n");
    // The probe for nextest runs before a target folder is chosen, in the caller's.
    assert_eq!(stage.cargo_log(), wanted);
}
