//! The files of the workspace, and rules about which are allowed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fs};

use super::report::Report;

/// Folder of the workspace in which the test runs. The target folder may be shared with other checkouts.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let xtask = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        Path::new(&xtask).parent().expect("xtask lies in the workspace").to_owned()
    });
    &ROOT
}

/// All files that are or would be committed, as sorted paths from the root.
pub fn files() -> Vec<PathBuf> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let mut files: Vec<PathBuf> = match git.output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8(output.stdout).expect("paths are UTF-8");
            text.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect()
        }
        // A copy without its history, such as an unpacked archive.
        _ => {
            let mut found = Vec::new();
            walk(Path::new(""), &mut found);
            found
        }
    };
    files.sort();
    files.dedup();
    files.retain(|path| root().join(path).is_file());
    files
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root().join(folder)).expect("a folder of the workspace can be read") {
        let path = folder.join(entry.expect("its entries too").file_name());
        if root().join(&path).is_file() {
            found.push(path);
        } else if !["target", ".git", "__pycache__"].iter().any(|name| path.ends_with(name)) {
            walk(&path, found);
        }
    }
}

/// Text of a file, by its path from the root.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(root().join(path))
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

#[test]
fn only_the_agreed_entries_stand_at_the_top() {
    const ALLOWED: [&str; 10] = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "crates",
        "examples",
        "benches",
        "findings",
        "xtask",
    ];
    let mut report = Report::new(
        "the top holds the manifest, the README, the licences, dot-files and five folders",
        "move it into the crate it belongs to",
    );
    let mut tops: Vec<_> =
        files().iter().filter_map(|path| path.iter().next()?.to_str().map(String::from)).collect();
    tops.dedup();
    for top in tops {
        if !top.starts_with('.') && !ALLOWED.contains(&top.as_str()) {
            report.add(top, "does not belong at the top");
        }
    }
    report.hold();
}

#[test]
fn no_file_is_large() {
    const LIMIT_BYTES: u64 = 1_500_000;
    let mut report =
        Report::new("no committed file is larger than 1.5 MB", "make it smaller, or let a script make it");
    for path in files() {
        let bytes = fs::metadata(root().join(&path)).map_or(0, |metadata| metadata.len());
        if bytes > LIMIT_BYTES {
            report.add(path.display(), format!("{bytes} bytes"));
        }
    }
    report.hold();
}

#[test]
fn licences_and_furniture_are_there() {
    let mut report = Report::new("the workspace has its licences, its map and its checks", "add the file");
    for path in [
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "README.md",
        "Cargo.lock",
        "crates/ARCHITECTURE.md",
        "xtask/deny.toml",
    ] {
        if !root().join(path).is_file() {
            report.add(path, "is missing");
        }
    }
    report.hold();
}
