//! Rust files as lines of code, with comments and the contents of strings blanked out.

use std::path::PathBuf;

use super::tree::{files, read};

/// One Rust file.
pub struct Source {
    /// Path from the workspace's root, with `/` between its parts.
    pub path: String,
    /// Code of each line: comments and text in quotes are spaces.
    pub code: Vec<String>,
    /// Number of lines before the tests: all, or those before `#[cfg(test)] mod`; none for a file of tests.
    pub n_before_tests: usize,
}

impl Source {
    fn new(path: String, text: &str) -> Self {
        let code: Vec<String> = blank(text).lines().map(String::from).collect();
        let is_tests =
            path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "benches" | "examples"));
        let n_before_tests = if is_tests { 0 } else { tests_start(&code).unwrap_or(code.len()) };
        Self { path, code, n_before_tests }
    }

    /// Lines before the tests, with their numbers from 1.
    pub fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code[..self.n_before_tests].iter().enumerate().map(|(index, line)| (index + 1, line.as_str()))
    }

    /// Whether this is a file of a library: a crate, but not the program.
    pub fn is_library(&self) -> bool {
        self.path.starts_with("crates/") && !self.path.starts_with("crates/andiron-cli/")
    }

    /// `path:line`.
    pub fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.path)
    }
}

/// Every Rust file of the workspace.
pub fn all() -> Vec<Source> {
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let name = |path: PathBuf| path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/");
    files().into_iter().filter(is_rust).map(name).map(|path| Source::new(path.clone(), &read(path))).collect()
}

/// Line of the `#[cfg(test)]` (or `#[cfg(all(test, …))]`) that stands before a module at the end of a file.
fn tests_start(code: &[String]) -> Option<usize> {
    let is_attribute = |line: &str| line.starts_with("#[");
    (0..code.len()).find(|&start| {
        let gated = code[start].starts_with("#[cfg(test)]") || code[start].starts_with("#[cfg(all(test,");
        let item = code[start + 1..].iter().find(|line| !is_attribute(line) && !line.trim().is_empty());
        // `mod tests;` names another file and may stand anywhere.
        gated && item.is_some_and(|item| item.contains("mod ") && item.trim_end().ends_with('{'))
    })
}

/// Whether `line` contains `word` as a whole word.
pub fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(is_part)
            && !line[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

/// Replaces comments and the contents of strings and character literals by spaces; lines stay where they are.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = span_end(&chars, at);
        match end {
            Some(end) => {
                out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
                at = end;
            }
            None => {
                out.push(chars[at]);
                at += 1;
            }
        }
    }
    out
}

/// End of the comment or literal that starts at `at`, if one does.
fn span_end(chars: &[char], at: usize) -> Option<usize> {
    let rest = &chars[at..];
    let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest {
        ['/', '/', ..] => Some(at + rest.iter().position(|&c| c == '\n').unwrap_or(rest.len())),
        ['/', '*', ..] => Some(at + block_comment_length(rest)),
        ['"', ..] => Some(at + quoted_length(rest, '"')),
        ['r', '"' | '#', ..] if !after_word => raw_length(&rest[1..]).map(|length| at + 1 + length),
        ['b' | 'c', 'r', '"' | '#', ..] if !after_word => {
            raw_length(&rest[2..]).map(|length| at + 2 + length)
        }
        // A lifetime has no quote after its first character; a literal has.
        ['\'', '\\', ..] => Some(at + quoted_length(rest, '\'')),
        ['\'', _, '\'', ..] => Some(at + 3),
        _ => None,
    }
}

fn block_comment_length(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < rest.len() {
        match (rest[at], rest[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') if depth == 1 => return at + 2,
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted_length(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Length of `#"…"#` with any number of `#`; none where the `#` starts a raw identifier.
fn raw_length(rest: &[char]) -> Option<usize> {
    let hashes = rest.iter().take_while(|&&c| c == '#').count();
    if rest.get(hashes) != Some(&'"') {
        return None;
    }
    let closes =
        |at: usize| rest[at] == '"' && rest[at + 1..].iter().take_while(|&&c| c == '#').count() >= hashes;
    let end = (hashes + 1..rest.len()).find(|&at| closes(at));
    Some(end.map_or(rest.len(), |end| end + 1 + hashes))
}

#[test]
fn comments_and_strings_are_not_code() {
    let code = blank(
        "let a = \"unsafe // \\\" x\"; // unsafe\nlet c = 'u'; /* a /* b */ unsafe */ fn f<'a>() { r#\"un\"safe\"# }",
    );
    assert!(!code.contains("unsafe") && !code.contains("safe"), "{code}");
    assert!(code.contains("let c =") && code.contains("fn f<'a>() {") && code.ends_with('}'), "{code}");
    assert_eq!(code.lines().count(), 2);
}

#[test]
fn the_product_ends_where_the_tests_begin() {
    let source = Source::new("crates/a/src/b.rs".into(), "fn a() {}\n#[cfg(test)]\nmod tests {\n}\n");
    assert_eq!(source.n_before_tests, 1);
    let source = Source::new("crates/a/src/b.rs".into(), "#[cfg(test)]\nmod tests;\nfn a() {}\n");
    assert_eq!(source.n_before_tests, 3);
    assert_eq!(Source::new("crates/a/tests/b.rs".into(), "fn a() {}\n").n_before_tests, 0);
}

#[test]
fn a_word_is_not_part_of_another() {
    assert!(has_word("x = unsafe { y }", "unsafe"));
    assert!(!has_word("deny(unsafe_code)", "unsafe"));
}
