//! `cargo xtask golden NAME`: regenerates a golden fixture with Python's `transformers`.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::flags::Invocation;
use crate::workspace::Workspace;

/// Makes the fixtures of models.
const SCRIPT: &str = "crates/andiron-models/tests/golden/make.py";
/// Where the fixtures of training are, each with a script of its name.
const TRAINING: &str = "crates/andiron-training/tests/golden";
const REQUIREMENTS: &str = "xtask/requirements.txt";

/// Runs the script that writes the fixture, with a Python that has the packages it imports.
///
/// `ANDIRON_PYTHON` names the interpreter. Without it, `python3` is used if it has PyTorch and transformers, else a virtual
/// environment is created in the target folder.
pub fn golden(workspace: &Workspace, invocation: &Invocation) -> Result<ExitCode> {
    let Some((name, others)) = invocation.args.split_first() else {
        bail!(
            "name the fixture to make, as in `cargo xtask golden gpt2`; {SCRIPT} knows which there are, and each script \
             in {TRAINING} makes one"
        );
    };
    let own = Path::new(TRAINING).join(name).with_extension("py");
    let (path, args) = match workspace.root.join(&own).is_file() {
        true => (own.as_path(), others),
        false => (Path::new(SCRIPT), &invocation.args[..]),
    };
    let python = python(workspace)?;
    let mut script = Command::new(&python);
    let status = script.current_dir(&workspace.root).arg(path).args(args).status();
    let status = status.with_context(|| format!("cannot run {}", python.display()))?;
    ensure!(status.success(), "{} failed; its message stands above", path.display());
    Ok(ExitCode::SUCCESS)
}

fn python(workspace: &Workspace) -> Result<OsString> {
    if let Some(python) = std::env::var_os("ANDIRON_PYTHON") {
        ensure!(
            has_transformers(&python),
            "ANDIRON_PYTHON is {python:?}, which cannot import torch and transformers"
        );
        return Ok(python);
    }
    if has_transformers("python3".as_ref()) {
        return Ok("python3".into());
    }
    let folder = workspace.scratch_dir("python");
    let python = folder.join("bin").join("python");
    if !has_transformers(python.as_os_str()) {
        eprintln!("golden: installing PyTorch and transformers into {}; several minutes", folder.display());
        make_environment(workspace, &folder, &python).with_context(|| {
            format!("no Python environment: `pip install -r {REQUIREMENTS}` by hand and set ANDIRON_PYTHON")
        })?;
    }
    Ok(python.into())
}

fn has_transformers(python: &OsStr) -> bool {
    let mut probe = Command::new(python);
    probe.args(["-c", "import importlib.util as u, sys; sys.exit(not (u.find_spec('torch') and u.find_spec('transformers')))"]);
    probe.output().is_ok_and(|output| output.status.success())
}

fn make_environment(workspace: &Workspace, folder: &Path, python: &Path) -> Result<()> {
    let status =
        Command::new("python3").args(["-m", "venv"]).arg(folder).status().context("cannot run python3")?;
    ensure!(status.success(), "`python3 -m venv {}` failed", folder.display());
    let mut pip = Command::new(python);
    pip.current_dir(&workspace.root).args(["-m", "pip", "install", "--quiet", "-r", REQUIREMENTS]);
    let status = pip.status().context("cannot run pip")?;
    ensure!(status.success(), "pip failed");
    Ok(())
}
