//! Rules about each crate's folder.

use super::report::Report;
use super::source;
use super::tree::{read, root};

/// A crate under `crates/`.
pub struct Crate {
    /// Package name, which is the folder's name.
    pub name: String,
    pub manifest: toml::Table,
}

impl Crate {
    /// Path of a file of the crate, relative to the workspace.
    pub fn path(&self, file: &str) -> String {
        format!("crates/{}/{file}", self.name)
    }

    /// Whether this is a library, which must not use the command line, the environment or the terminal.
    pub fn is_library(&self) -> bool {
        self.name != "andiron-cli"
    }
}

/// All crates under `crates/`, by name.
pub fn crates() -> Vec<Crate> {
    let entries = std::fs::read_dir(root().join("crates")).expect("there is a folder of crates");
    let mut crates: Vec<_> = entries
        .filter_map(|entry| {
            let folder = entry.expect("its entries can be read");
            let name = folder.file_name().into_string().expect("names are UTF-8");
            folder.path().is_dir().then(|| Crate { manifest: manifest(&format!("crates/{name}")), name })
        })
        .collect();
    crates.sort_by(|a, b| a.name.cmp(&b.name));
    crates
}

/// The manifest of the package in `folder`.
pub fn manifest(folder: &str) -> toml::Table {
    let path = format!("{folder}/Cargo.toml");
    read(&path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_crate_introduces_itself() {
    let mut report = Report::new(
        "a crate is named as its folder, has a description, a README.md, a CHANGELOG.md and the workspace's lints",
        "add what is missing; its neighbours show how",
    );
    for krate in crates() {
        let place = krate.path("Cargo.toml");
        let package = krate.manifest.get("package").and_then(toml::Value::as_table);
        let field = |name: &str| package?.get(name)?.as_str().filter(|text| !text.is_empty());
        if field("name") != Some(&krate.name) {
            report.add(&place, format!("the package is not called {}", krate.name));
        }
        if field("description").is_none() {
            report.add(&place, "has no `description`");
        }
        if krate.manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool()) != Some(true) {
            report.add(&place, "has no `[lints] workspace = true`");
        }
        for file in ["README.md", "CHANGELOG.md"] {
            let path = krate.path(file);
            if !root().join(&path).is_file() {
                report.add(path, "is missing");
            } else if read(&path).trim().is_empty() {
                report.add(path, "is empty");
            }
        }
    }
    report.hold();
}

#[test]
fn every_source_file_tells_its_story_first() {
    let mut report = Report::new(
        "a source file starts with `//!` docs (or `#![doc = include_str!(…)]`)",
        "say in a sentence or two what the file is about",
    );
    // A `tests.rs` belongs to the file beside it, which has told the story.
    for file in source::all().iter().filter(|file| !file.path.ends_with("/tests.rs")) {
        let text = read(&file.path);
        let told = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
        let included = text.lines().any(|line| line.starts_with("#![doc = include_str!"));
        let story =
            told.is_some_and(|line| line.strip_prefix("//!").is_some_and(|story| story.trim().len() > 1));
        if !story && !included {
            report.add(&file.path, "does not");
        }
    }
    report.hold();
}
