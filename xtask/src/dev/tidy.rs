//! `cargo xtask tidy`: the house rules, which are ordinary tests in `xtask/tests/tidy`.

use std::process::ExitCode;

use anyhow::Result;

use crate::backend::Backend;
use crate::flags::Invocation;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// Runs only the tidy tests, in the profile that this program was built with, which compiles fast.
pub fn tidy(workspace: &Workspace, _: &Invocation) -> Result<ExitCode> {
    let mut steps = Steps::default();
    run_tidy(workspace, &mut steps);
    Ok(steps.finish())
}

pub(super) fn run_tidy(workspace: &Workspace, steps: &mut Steps) {
    let mut cargo = workspace.cargo(&workspace.target_dir(Backend::ALL[0]), "test");
    steps.run("tidy", cargo.args(["--quiet", "--package", "xtask", "--test", "tidy"]));
}
