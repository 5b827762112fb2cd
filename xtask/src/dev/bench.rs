//! `cargo xtask bench`: criterion targets, and the benchmarks of `andiron bench`.

use std::process::ExitCode;

use anyhow::Result;

use crate::flags::Invocation;
use crate::run;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// The benchmarks of `andiron bench`.
const BY_THE_PROGRAM: [&str; 5] = ["train", "prefill", "decode", "embed", "serve"];

/// `bench train …` runs `andiron bench train …`; `bench [TARGET] [criterion options]` runs the criterion target, or all.
pub fn bench(workspace: &Workspace, invocation: &Invocation) -> Result<ExitCode> {
    let subject = invocation.args.first().and_then(|arg| arg.to_str());
    if subject.is_some_and(|subject| BY_THE_PROGRAM.contains(&subject)) {
        return run::program(workspace, invocation);
    }
    let backend = invocation.choice().backend;
    let mut cargo = workspace.cargo(&workspace.target_dir(backend), "bench");
    cargo.args(["--package", "andiron-benches", "--no-default-features", "--features", backend.name()]);
    let criterion_args = match subject.filter(|subject| !subject.starts_with('-')) {
        Some(target) => {
            cargo.args(["--bench", target]);
            &invocation.args[1..]
        }
        None => &invocation.args[..],
    };
    if !criterion_args.is_empty() && criterion_args[0] != "--" {
        cargo.arg("--");
    }
    let mut steps = Steps::default();
    steps.run("benches", cargo.args(criterion_args));
    Ok(steps.finish())
}
