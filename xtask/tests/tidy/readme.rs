//! Commands in the documentation exist.

use std::collections::BTreeSet;
use std::process::Command;

use super::report::Report;
use super::tree::{files, read, root};

/// The verbs that `cargo xtask --help` lists.
fn verbs() -> BTreeSet<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("--help").output().expect("xtask runs");
    let help = String::from_utf8(output.stdout).expect("its help is UTF-8");
    let listed =
        help.lines().skip_while(|line| *line != "Verbs:").skip(1).take_while(|line| !line.is_empty());
    listed.filter_map(|line| line.split_whitespace().next()).map(String::from).collect()
}

#[test]
fn commands_in_documents_are_verbs() {
    let verbs = verbs();
    assert!(verbs.contains("quickstart") && verbs.contains("test"), "{verbs:?}");
    let mut report = Report::new(
        "every `cargo xtask VERB` in a document is a verb that `cargo xtask --help` lists",
        "correct the document, or add the verb to VERBS in xtask/src/flags.rs",
    );
    for path in files().iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        for (index, line) in read(path).lines().enumerate() {
            for (at, _) in line.match_indices("cargo xtask ") {
                let word: String = line[at + "cargo xtask ".len()..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
                    .collect();
                // `VERB` stands for any.
                let is_verb = word.starts_with(|c: char| c.is_ascii_lowercase());
                if is_verb && !verbs.contains(&word) {
                    report.add(format!("{}:{}", path.display(), index + 1), format!("`cargo xtask {word}`"));
                }
            }
        }
    }
    report.hold();
}

#[test]
fn the_readme_shows_the_two_commands_on_its_first_screen() {
    let first_screen: Vec<_> = read("README.md").lines().take(40).map(String::from).collect();
    for command in ["cargo xtask quickstart", "cargo xtask test"] {
        assert!(
            first_screen.iter().any(|line| line.starts_with(command)),
            "README.md: no `{command}` in its first 40 lines"
        );
    }
}

#[test]
fn the_crate_map_is_complete() {
    let mut report = Report::new(
        "README.md and crates/ARCHITECTURE.md name every crate",
        "add the crate to the map, with a sentence about it",
    );
    for document in ["README.md", "crates/ARCHITECTURE.md"] {
        let text = read(document);
        for krate in super::crates::crates() {
            if !text.contains(&krate.name) {
                report.add(document, format!("does not name {}", krate.name));
            }
        }
    }
    report.hold();
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut report = Report::new("a relative link in a document leads to a file", "correct the link");
    for path in files().iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let folder = root().join(path).parent().expect("a file has a folder").to_owned();
        for (index, line) in read(path).lines().enumerate() {
            for (at, _) in line.match_indices("](") {
                let target: String = line[at + 2..].chars().take_while(|c| *c != ')' && *c != '#').collect();
                let is_path =
                    !target.is_empty() && !target.contains("://") && !target.contains(['`', ' ', ':']);
                if is_path && !folder.join(&target).exists() {
                    report.add(format!("{}:{}", path.display(), index + 1), target);
                }
            }
        }
    }
    report.hold();
}
