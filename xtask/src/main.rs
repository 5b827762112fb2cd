//! `cargo xtask <verb>`: builds and runs the program `andiron` with a backend, and development tasks.
//!
//! This crate links none of the others, so it compiles in seconds and answers `--help` before anything else is built. The
//! table of verbs is in [`flags`].

mod backend;
mod dev;
mod flags;
mod run;
mod steps;
mod workspace;

use std::process::ExitCode;

use crate::flags::{Invocation, Kind};
use crate::workspace::Workspace;

fn main() -> ExitCode {
    match dispatch(&flags::parse(std::env::args_os().skip(1))) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(invocation: &Invocation) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::locate()?;
    match invocation.verb.kind {
        Kind::Program => run::program(&workspace, invocation),
        Kind::Development(task) => task(&workspace, invocation),
    }
}
