//! Rules about the content of source files.

use super::report::Report;
use super::source::{self, Source, has_word};
use super::tree::{files, read};

/// Adds a problem for each line of `sources` before their tests on which `broken` finds something.
fn scan(report: &mut Report, keep: impl Fn(&Source) -> bool, broken: impl Fn(&str) -> Option<String>) {
    for file in source::all().iter().filter(|file| keep(file)) {
        for (line, code) in file.product() {
            if let Some(what) = broken(code) {
                report.add(file.place(line), what);
            }
        }
    }
}

fn first_of(code: &str, words: &[&str]) -> Option<String> {
    words.iter().find(|word| code.contains(**word)).map(|word| format!("`{word}`"))
}

#[test]
fn files_stay_short() {
    const LIMIT: usize = 600;
    let mut report =
        Report::new("a source file has at most 600 lines before its tests", "split it: one concept per file");
    for file in source::all() {
        if file.n_before_tests > LIMIT {
            report.add(&file.path, format!("{} lines", file.n_before_tests));
        }
    }
    report.hold();
}

#[test]
fn unsafe_code_stays_in_its_room() {
    let mut report = Report::new(
        "`unsafe` is only in andiron-kernels",
        "use a safe function, or give the kernels a safe one and call that",
    );
    for file in source::all() {
        if file.path.starts_with("crates/andiron-kernels/") {
            continue;
        }
        for (index, code) in file.code.iter().enumerate() {
            if has_word(code, "unsafe")
                || code.contains("allow(unsafe_code)")
                || code.contains("expect(unsafe_code")
            {
                report.add(file.place(index + 1), "`unsafe`");
            }
        }
    }
    report.hold();
}

#[test]
fn libraries_neither_print_nor_read_the_environment() {
    let mut report = Report::new(
        "a library prints nothing and reads no environment variable",
        "return the value or use `tracing`; take settings as arguments, read from the environment in andiron-cli",
    );
    let words = ["std::env", "env::var", "env::args", "println!", "print!(", "dbg!", "process::exit"];
    scan(&mut report, Source::is_library, |code| first_of(code, &words));
    report.hold();
}

#[test]
fn libraries_take_their_device() {
    let mut report = Report::new(
        "a library takes `&Device`; only andiron-core's device and ops know backends",
        "add a `&Device` argument, or take the device of a tensor at hand",
    );
    scan(&mut report, Source::is_library, |code| first_of(code, &["Device::default()"]));
    report.hold();
}

#[test]
fn errors_are_typed() {
    let mut report = Report::new(
        "no signature of a library holds `Box<dyn Error>` or anyhow",
        "define an error with thiserror that names the object and the cause",
    );
    for file in source::all().iter().filter(|file| file.is_library()) {
        for (line, signature) in signatures(file) {
            if signature.contains("anyhow::") || boxes_an_error(&signature) {
                report.add(file.place(line), signature.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
    }
    report.hold();
}

/// Whether `signature` contains a trait object of errors.
fn boxes_an_error(signature: &str) -> bool {
    signature
        .split("Box<dyn")
        .skip(1)
        .any(|rest| rest.split('>').next().is_some_and(|boxed| boxed.contains("Error")))
}

/// Each `fn … {` or `fn …;` before the tests, with its line.
fn signatures(file: &Source) -> Vec<(usize, String)> {
    let lines: Vec<_> = file.product().collect();
    let starts =
        lines.iter().enumerate().filter(|(_, (_, code))| has_word(code, "fn") && has_word(code, "pub"));
    let signature = |start: usize| {
        let mut text = String::new();
        for (_, code) in &lines[start..] {
            text.push_str(code);
            text.push(' ');
            if code.contains('{') || code.trim_end().ends_with(';') {
                break;
            }
        }
        text.split('{').next().unwrap_or_default().to_owned()
    };
    starts.map(|(index, (line, _))| (*line, signature(index))).collect()
}

#[test]
fn nothing_is_left_unfinished() {
    let mut report = Report::new(
        "nothing is left unfinished: an open point is an issue, a test that cannot run is fixed or removed",
        "finish it, or open an issue and delete the mark",
    );
    // In two pieces, or this file would break the rule.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let stubs = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("#[ign", "ore")];
    for path in files() {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !["rs", "py", "toml", "sh", "html", "js", "css", "md"].contains(&extension) {
            continue;
        }
        for (index, line) in read(&path).lines().enumerate() {
            let mark = marks.iter().find(|mark| has_word(line, mark));
            let stub = stubs.iter().find(|stub| extension == "rs" && line.contains(**stub));
            if let Some(found) = mark.or(stub) {
                report.add(format!("{}:{}", path.display(), index + 1), format!("`{found}`"));
            }
        }
    }
    report.hold();
}
