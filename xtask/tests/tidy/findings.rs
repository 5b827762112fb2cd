//! The form of the scripts in `findings/`, as described in `findings/README.md`.

use std::path::Path;

use super::report::Report;
use super::tree::{files, read, root};

const REMEDY: &str = "findings/README.md says what a finding looks like; the other scripts show it";

/// What is wrong with a script, by what it says.
fn problems(script: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut lines = script.lines();
    if lines.next() != Some("#!/usr/bin/env bash") {
        problems.push("does not begin with `#!/usr/bin/env bash`".to_owned());
    }
    let header: Vec<&str> = lines.take_while(|line| line.starts_with('#')).collect();
    for label in ["Package:", "Guessed:", "Seen:", "Andiron:"] {
        let stated = header.iter().find_map(|line| line.strip_prefix("# ")?.strip_prefix(label));
        if stated.is_none_or(|stated| stated.trim().is_empty()) {
            problems.push(format!("its header says nothing after `{label}`"));
        }
    }
    let packages = header.iter().find_map(|line| line.strip_prefix("# Package:")).unwrap_or_default();
    for package in packages.split_whitespace() {
        let pinned = package.split_once("==").is_some_and(|(name, version)| {
            !name.is_empty() && version.starts_with(|first: char| first.is_ascii_digit())
        });
        if !pinned {
            problems.push(format!("{package} has no fixed version, as in NAME==VERSION"));
        }
        let installed = script.lines().any(|line| {
            line.contains("pip\" install") && line.split_whitespace().any(|word| word == package)
        });
        if !installed {
            problems.push(format!("{package} is not installed by its `pip install`"));
        }
    }
    for line in script.lines().filter(|line| line.contains("pip\" install")) {
        let words = line.split("install").last().unwrap_or_default().split_whitespace();
        for package in words.filter(|word| !word.starts_with('-') && !word.contains("==")) {
            problems.push(format!("installs {package} without a version"));
        }
    }
    for needed in ["set -euo pipefail", "place=$(mktemp -d)", "trap 'rm -rf \"$place\"' EXIT"] {
        if !script.lines().any(|line| line == needed) {
            problems.push(format!("has no line `{needed}`"));
        }
    }
    problems
}

#[test]
fn each_finding_states_what_it_shows() {
    let mut report = Report::new("a finding has a header, fixed versions and a folder of its own", REMEDY);
    let all: Vec<_> = files().into_iter().filter(|path| path.starts_with("findings")).collect();
    let list = read("findings/README.md");
    for path in all.iter().filter(|path| *path != Path::new("findings/README.md")) {
        let place = path.display().to_string();
        if path.extension().is_none_or(|extension| extension != "sh") || path.iter().count() != 2 {
            report.add(place, "is no script `findings/SUBJECT.sh`");
            continue;
        }
        for problem in problems(&read(path)) {
            report.add(&place, problem);
        }
        if !list.contains(&format!("`{}`", path.file_name().unwrap_or_default().to_string_lossy())) {
            report.add(&place, "is not in the table of findings/README.md");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(root().join(path)).map_or(0, |found| found.permissions().mode());
            if mode & 0o111 == 0 {
                report.add(&place, "is not executable");
            }
        }
    }
    assert!(all.len() > 1 && root().join("findings").is_dir(), "there are findings");
    report.hold();
}

#[test]
fn what_a_finding_lacks_is_told() {
    let whole = "#!/usr/bin/env bash\n# Package: a==1.0\n# Guessed: x.\n# Seen: y.\n# Andiron: z.\nset -euo pipefail\n\
                 place=$(mktemp -d)\ntrap 'rm -rf \"$place\"' EXIT\n\"$place/venv/bin/pip\" install --quiet a==1.0\n";
    assert_eq!(problems(whole), [""; 0]);
    for (from, to, said) in [
        ("# Seen: y.", "# Seen:", "`Seen:`"),
        ("# Package: a==1.0", "# Package: a==", "no fixed version"),
        ("install --quiet a==1.0", "install --quiet a==1.0 b", "b without a version"),
        ("install --quiet a==1.0", "install --quiet a==1.1", "a==1.0 is not installed"),
        ("set -euo pipefail\n", "", "set -euo pipefail"),
        ("#!/usr/bin/env bash\n", "#!/bin/sh\n", "begin with"),
    ] {
        let found = problems(&whole.replacen(from, to, 1));
        assert!(found.iter().any(|problem| problem.contains(said)), "{from:?}: {found:?}");
    }
}
