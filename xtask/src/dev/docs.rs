//! `cargo xtask docs`: the API documentation of all crates.

use std::process::ExitCode;

use anyhow::Result;

use super::select_workspace;
use crate::backend::Backend;
use crate::flags::Invocation;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// Builds it into `target/doc`; arguments such as `--open` are passed to `cargo doc`.
pub fn docs(workspace: &Workspace, invocation: &Invocation) -> Result<ExitCode> {
    let mut cargo = workspace.cargo(&workspace.target_dir(Backend::ALL[0]), "doc");
    select_workspace(cargo.arg("--no-deps"));
    let mut steps = Steps::default();
    steps.run("docs", cargo.args(&invocation.args));
    Ok(steps.finish())
}
