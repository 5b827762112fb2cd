//! `cargo xtask check`: everything but the tests that must hold before a change is pushed.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use super::select_workspace;
use super::tidy::run_tidy;
use crate::backend::Backend;
use crate::flags::Invocation;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// Format, lints, documentation, house rules, spelling, dependencies and features; arguments choose among those steps by name.
///
/// With `--backend` it only type-checks the program for that backend, which needs no device and none of its drivers.
pub fn check(workspace: &Workspace, invocation: &Invocation) -> Result<ExitCode> {
    let mut steps = Steps::default();
    if let Some(choice) = &invocation.backend {
        let mut cargo = workspace.cargo(&workspace.target_dir(choice.backend), "check");
        cargo.args(["--release", "--package", "andiron-cli", "--features", choice.backend.name()]);
        // CubeCL's CUDA backend links a prebuilt LLVM that its build script downloads. This is its own switch for builds
        // that only look at types; a real build for CUDA needs that download.
        cargo.env("DOCS_RS", "1");
        steps.run(&format!("type check for {}", choice.backend), cargo.args(&invocation.args));
        return Ok(steps.finish());
    }

    for name in
        chosen(&invocation.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>())?
    {
        match name {
            "fmt" => fmt(workspace, &mut steps),
            "tidy" => run_tidy(workspace, &mut steps),
            "typos" => typos(workspace, &mut steps),
            "deny" => deny(workspace, &mut steps),
            "clippy" => clippy(workspace, &mut steps),
            "clippy-aarch64" => clippy_aarch64(workspace, &mut steps),
            "rustdoc" => rustdoc(workspace, &mut steps),
            "features" => features(workspace, &mut steps),
            _ => unreachable!("{name} is a step without a body"),
        }
    }
    Ok(steps.finish())
}

/// The steps, the quick ones first.
const STEPS: [&str; 8] = ["fmt", "tidy", "typos", "deny", "clippy", "clippy-aarch64", "rustdoc", "features"];

fn chosen(names: &[String]) -> Result<Vec<&'static str>> {
    if let Some(name) = names.iter().find(|name| !STEPS.contains(&name.as_str())) {
        anyhow::bail!("no step of the check is called {name:?}; the known ones are {}", STEPS.join(", "));
    }
    Ok(STEPS.into_iter().filter(|step| names.is_empty() || names.iter().any(|name| name == step)).collect())
}

fn fmt(workspace: &Workspace, steps: &mut Steps) {
    let mut cargo = workspace.cargo(&workspace.target_dir(Backend::ALL[0]), "fmt");
    steps.run("fmt", cargo.args(["--all", "--", "--check"]));
}

fn clippy(workspace: &Workspace, steps: &mut Steps) {
    let mut cargo = workspace.cargo(&workspace.target_dir(Backend::ALL[0]), "clippy");
    select_workspace(&mut cargo);
    steps.run("clippy", cargo.args(["--all-targets", "--", "--deny", "warnings"]));
}

/// The kernels once more as for AArch64, where other parts of them are compiled.
fn clippy_aarch64(workspace: &Workspace, steps: &mut Steps) {
    const TARGET: &str = "aarch64-unknown-linux-gnu";
    let libraries = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let libraries = libraries.map(|output| String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    if !libraries.is_ok_and(|libraries| Path::new(&libraries).is_dir()) {
        return steps
            .skip("clippy-aarch64", &format!("`rustup target add {TARGET}` brings what it builds on"));
    }
    let mut cargo = workspace.cargo(&workspace.target_dir(Backend::ALL[0]), "clippy");
    cargo.args(["--package", "andiron-kernels", "--target", TARGET]);
    steps.run("clippy-aarch64", cargo.args(["--all-targets", "--", "--deny", "warnings"]));
}

fn rustdoc(workspace: &Workspace, steps: &mut Steps) {
    let mut cargo = workspace.cargo(&workspace.target_dir(Backend::ALL[0]), "doc");
    select_workspace(cargo.arg("--no-deps").env("RUSTDOCFLAGS", "--deny warnings"));
    steps.run("rustdoc", &mut cargo);
}

/// Each feature alone, and the libraries without any: what other programs build. The GPU backends have
/// `cargo xtask check --backend`, and `ndarray` alone is what the other steps look at.
fn features(workspace: &Workspace, steps: &mut Steps) {
    let default = workspace.target_dir(Backend::ALL[0]);
    let mut libraries = workspace.cargo(&default, "check");
    libraries.args(["--release", "--workspace", "--lib"]);
    for program in ["andiron-cli", "andiron-examples", "andiron-benches", "xtask"] {
        libraries.args(["--exclude", program]);
    }
    steps.run("libraries without features", &mut libraries);
    let mut allocator = workspace.cargo(&default, "check");
    allocator.args(["--release", "--package", "andiron-kernels", "--features", "allocator"]);
    steps.run("kernels with their allocator alone", &mut allocator);
    let mut flex = workspace.cargo(&workspace.target_dir(Backend::Flex), "check");
    flex.args(["--release", "--package", "andiron-cli", "--features", "flex"]);
    steps.run("the program with flex alone", &mut flex);
    let has_mpi = Command::new("mpicc").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_mpi {
        return steps.skip(
            "the program with MPI",
            "it builds on an MPI library and libclang, as of Debian's libopenmpi-dev and libclang-dev",
        );
    }
    let mut mpi = workspace.cargo(&default, "clippy");
    select_workspace(&mut mpi);
    mpi.args(["--features", "andiron-cli/mpi", "--all-targets", "--", "--deny", "warnings"]);
    steps.run("the program with MPI", &mut mpi);
}

fn typos(workspace: &Workspace, steps: &mut Steps) {
    let found = Command::new("typos").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        return steps.skip("typos", "`cargo install --locked typos-cli` brings the program");
    }
    let mut typos = Command::new("typos");
    steps.run("typos", typos.current_dir(&workspace.root).args(["--config", "xtask/typos.toml", "."]));
}

fn deny(workspace: &Workspace, steps: &mut Steps) {
    if !workspace.has_cargo("deny") {
        return steps.skip("deny", "`cargo install --locked cargo-deny` brings the program");
    }
    let mut cargo = workspace.cargo(&workspace.target_dir(Backend::ALL[0]), "deny");
    // Advisories are left out: they need a database from the network and change without a change of ours.
    cargo.args(["--locked", "--config", "xtask/deny.toml", "check", "bans", "licenses", "sources"]);
    steps.run("deny", &mut cargo);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_chosen_by_name_and_keep_their_order() {
        let names = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
        assert_eq!(chosen(&names("clippy fmt")).unwrap(), ["fmt", "clippy"]);
        assert_eq!(chosen(&[]).unwrap(), STEPS);
        assert!(chosen(&names("format")).unwrap_err().to_string().contains("fmt, tidy"));
    }
}
