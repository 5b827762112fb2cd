//! The workspace's folder and its target folders.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::backend::Backend;

/// The folders and the cargo that all tasks use.
pub struct Workspace {
    /// Folder of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    cargo: OsString,
    target: PathBuf,
}

impl Workspace {
    /// Finds the workspace that this program was built from, and respects `CARGO` and `CARGO_TARGET_DIR`.
    pub fn locate() -> Result<Self> {
        let here = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&here).parent().context("xtask must lie in the workspace's folder")?.to_owned();
        let target = match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
            Some(dir) => std::path::absolute(&dir).context("CARGO_TARGET_DIR is no usable path")?,
            None => root.join("target"),
        };
        Ok(Self { root, cargo: env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), target })
    }

    /// The target folder of a build for one backend; for the default backend it is the base folder.
    ///
    /// The programs have the same name, so in one folder each build would overwrite the others.
    pub fn target_dir(&self, backend: Backend) -> PathBuf {
        if backend == Backend::ALL[0] { self.target.clone() } else { self.target.join(backend.name()) }
    }

    /// Another folder beside the builds.
    pub fn scratch_dir(&self, name: &str) -> PathBuf {
        self.target.join(name)
    }

    /// A cargo command that runs in the workspace's folder and puts finished programs into `target_dir`.
    ///
    /// Intermediate artifacts of all backends are in the base folder, so that dependencies common to them are built once.
    pub fn cargo(&self, target_dir: &Path, subcommand: &str) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", target_dir).arg(subcommand);
        if env::var_os("CARGO_BUILD_BUILD_DIR").is_none() {
            command.env("CARGO_BUILD_BUILD_DIR", &self.target);
        }
        command
    }

    /// Whether `cargo <subcommand>` can be run here.
    pub fn has_cargo(&self, subcommand: &str) -> bool {
        let output =
            Command::new(&self.cargo).current_dir(&self.root).args([subcommand, "--version"]).output();
        output.is_ok_and(|output| output.status.success())
    }
}
