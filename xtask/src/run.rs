//! Builds `andiron` for one backend, then replaces this process by it.

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::backend::Choice;
use crate::flags::Invocation;
use crate::steps;
use crate::workspace::Workspace;

/// Runs a verb of the program in the caller's folder and terminal.
///
/// If the system supports it, the program replaces this process, so that it receives signals and its exit code reaches the
/// caller unchanged.
pub fn program(workspace: &Workspace, invocation: &Invocation) -> Result<ExitCode> {
    let choice = invocation.choice();
    let folder = workspace.target_dir(choice.backend).join("release");
    let andiron = folder.join(format!("andiron{}", std::env::consts::EXE_SUFFIX));
    build(workspace, &choice, &andiron)?;

    let mut command = Command::new(&andiron);
    command.arg("--device");
    match &invocation.device {
        Some(device) => command.arg(device),
        None => command.arg(&choice.device),
    };
    command.arg(invocation.verb.name).args(&invocation.args);
    become_program(command).with_context(|| format!("cannot run {}", andiron.display()))
}

fn build(workspace: &Workspace, choice: &Choice, andiron: &Path) -> Result<()> {
    let target_dir = workspace.target_dir(choice.backend);
    let first = !andiron.exists();
    if first {
        eprintln!(
            "andiron: building for {} into {}; the first build takes about {} minutes on two cores, later ones seconds",
            choice.backend,
            target_dir.display(),
            choice.backend.first_build_minutes(),
        );
    }
    let started = Instant::now();
    // No `--no-default-features`: the program has no default features, and with the same flags as `cargo xtask test`
    // both share every build.
    let mut cargo = workspace.cargo(&target_dir, "build");
    cargo.args(["--release", "--package", "andiron-cli", "--features", &choice.backend.features()]);
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "andiron could not be built for {}; cargo says why above", choice.backend);
    if first {
        eprintln!("andiron: built in {}", steps::duration(started.elapsed()));
    }
    Ok(())
}

#[cfg(unix)]
fn become_program(mut command: Command) -> io::Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(command.exec())
}

#[cfg(not(unix))]
fn become_program(mut command: Command) -> io::Result<ExitCode> {
    let code = command.status()?.code().unwrap_or(1);
    std::process::exit(code)
}
