//! `cargo xtask test`: the tests of the default build, or the comparison of backends.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use super::select_default_build;
use crate::backend::Backend;
use crate::flags::Invocation;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// Runs the tests; arguments go to nextest, or to `cargo test` where nextest is not installed.
///
/// Without arguments the doc tests run too. With `--package` only those packages are built. With another backend than
/// the default one, the test targets `twins` of `andiron-core` and `backends` of `andiron-cli` compare it with the CPU
/// backends: operations with their gradients, and the training and the output of models.
pub fn test(workspace: &Workspace, invocation: &Invocation) -> Result<ExitCode> {
    let backend = invocation.choice().backend;
    let runner = Runner::find(workspace);
    let mut steps = Steps::default();
    if backend == Backend::ALL[0] {
        let target_dir = workspace.target_dir(backend);
        let mut tests = runner.command(workspace, &target_dir);
        if names_package(&invocation.args) {
            tests.arg("--release");
        } else {
            select_default_build(&mut tests);
            runner.leave_doc_tests_out(&mut tests);
        }
        steps.run("tests", tests.args(&invocation.args));
        if invocation.args.is_empty() {
            let mut doc_tests = workspace.cargo(&target_dir, "test");
            select_default_build(doc_tests.arg("--doc"));
            steps.run("doc tests", &mut doc_tests);
        }
    } else {
        let mut tests = runner.command(workspace, &workspace.target_dir(backend));
        tests.args(["--release", "--package", "andiron-core", "--test", "twins"]);
        tests.args(["--package", "andiron-cli", "--test", "backends"]);
        tests.args(["--features", &backend.features()]);
        steps.run(&format!("tests across backends, with {backend}"), tests.args(&invocation.args));
    }
    Ok(steps.finish())
}

fn names_package(args: &[OsString]) -> bool {
    let texts = args.iter().map(|arg| arg.to_str().unwrap_or_default()).take_while(|text| *text != "--");
    texts.into_iter().any(|text| {
        text == "--package"
            || text.starts_with("--package=")
            || (text.starts_with("-p") && !text.starts_with("--"))
    })
}

#[derive(Clone, Copy)]
enum Runner {
    Nextest,
    Cargo,
}

impl Runner {
    fn find(workspace: &Workspace) -> Self {
        if workspace.has_cargo("nextest") { Self::Nextest } else { Self::Cargo }
    }

    fn command(self, workspace: &Workspace, target_dir: &Path) -> Command {
        match self {
            Self::Nextest => {
                let mut command = workspace.cargo(target_dir, "nextest");
                command.arg("run");
                command
            }
            Self::Cargo => workspace.cargo(target_dir, "test"),
        }
    }

    /// Doc tests run as a step of their own; nextest never runs them.
    fn leave_doc_tests_out(self, command: &mut Command) {
        if matches!(self, Self::Cargo) {
            command.args(["--lib", "--bins", "--tests"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_in_four_ways() {
        let names = |line: &str| names_package(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(names("-p andiron-data"));
        assert!(names("-pandiron-data"));
        assert!(names("--package andiron-data"));
        assert!(names("loader --package=andiron-data"));
        assert!(!names("--no-fail-fast loader"));
        assert!(!names("-- -p"));
    }
}
