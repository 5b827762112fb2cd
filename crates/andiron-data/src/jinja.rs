//! Jinja templates over rows: prompts, answers and choices of evaluation tasks.
//!
//! The language is that of Python's Jinja 3.1 with `StrictUndefined`, so that a misspelt field is an error, and with Python's
//! methods of strings, lists and dictionaries. Values are printed as Python prints them.

use std::fmt::Write as _;
use std::thread;

use fancy_regex::Regex;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::Map;

use crate::tokenizer::chat::{filters, python, source, strings};

pub use crate::tokenizer::chat::python::{float_text, is_space};

/// Longest template in bytes.
const TEMPLATE_LIMIT: usize = 128 << 10;
/// Steps allowed for a row. The engine counts 64 bytes of a value as a step, so this bounds memory too.
const STEPS: u64 = 400_000;
/// For the recursion of the engine, of which the source's length is the bound. It is reserved, not used.
const STACK: usize = 256 << 20;
/// Longest text that a filter makes, in bytes.
const TEXT_LIMIT: usize = 64 << 20;
/// How far a regular expression may look back, in steps.
const BACKTRACKS: usize = 1_000_000;

/// Why a template gives no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template is not one, whatever the row.
    #[error("the template cannot be used: {problem}")]
    Template {
        /// What is wrong with it.
        problem: String,
    },
    /// A row does not suit it.
    #[error("the template fails for row {row}: {problem}")]
    Row {
        /// Its number, from 0.
        row: usize,
        /// What is wrong.
        problem: String,
    },
}

/// Renders `template` for each row; a row's fields are its variables.
///
/// Beyond Jinja's own filters there is `regex_replace(pattern, replacement, count=0)`: Python's `re.sub`.
///
/// # Errors
/// If the template is not one, or needs a field that a row lacks, or runs for too long.
///
/// # Example
/// ```
/// let rows = [serde_json::json!({"q": " Why? ", "n": [1, 2.5, "it's", null]})];
/// let rows = rows.iter().filter_map(|row| row.as_object());
/// let texts = andiron_data::jinja::render("Q: {{q.strip()}} {{n}}", rows)?;
/// assert_eq!(texts, ["Q: Why? [1, 2.5, \"it's\", None]"]);
/// # Ok::<(), andiron_data::jinja::TemplateError>(())
/// ```
pub fn render<'a>(
    template: &str,
    rows: impl IntoIterator<Item = &'a Map<String, serde_json::Value>> + Send,
) -> Result<Vec<String>, TemplateError> {
    if template.len() > TEMPLATE_LIMIT {
        let problem = format!("it has {} bytes; at most {TEMPLATE_LIMIT} are accepted", template.len());
        return Err(TemplateError::Template { problem });
    }
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("template".to_owned()).stack_size(STACK);
        let running = thread.spawn_scoped(scope, || render_here(template, rows));
        let failed = |problem: String| TemplateError::Template { problem };
        let running = running.map_err(|error| failed(format!("there is no thread to run it: {error}")))?;
        running.join().unwrap_or_else(|_| Err(failed("the template engine panicked".to_owned())))
    })
}

fn render_here<'a>(
    template: &str,
    rows: impl IntoIterator<Item = &'a Map<String, serde_json::Value>>,
) -> Result<Vec<String>, TemplateError> {
    let environment = environment();
    let rewritten = source::rewrite(template, source::Generation::Plain);
    let template = environment
        .template_from_str(&rewritten)
        .map_err(|error| TemplateError::Template { problem: say(&error) })?;
    let one = |(row, fields): (usize, &'a Map<String, serde_json::Value>)| {
        template
            .render(Value::from(Serde(fields)))
            .map_err(|error| TemplateError::Row { row, problem: say(&error) })
    };
    rows.into_iter().enumerate().map(one).collect()
}

/// Jinja as lm-evaluation-harness 0.4.13 sets it up.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
    environment.set_fuel(Some(STEPS));
    environment.set_unknown_method_callback(strings::call);
    environment.set_formatter(|out, _, value| Ok(out.write_str(&python::text(value)?)?));
    filters::add_to(&mut environment);
    environment.add_filter("regex_replace", regex_replace);
    environment.add_filter("replace", replace_text);
    environment
}

/// `text.replace(from, to, count)`; the engine's own filter takes no count.
fn replace_text(text: &Value, from: &Value, to: &Value, count: Option<i64>) -> Result<String, Error> {
    let [text, from, to] = [python::text(text)?, python::text(from)?, python::text(to)?];
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let n = text.matches(from.as_str()).take(count).count();
    match n.saturating_mul(to.len()) > TEXT_LIMIT {
        true => Err(failed(format!("replace: the text becomes longer than {TEXT_LIMIT} bytes"))),
        false => Ok(text.replacen(&from, &to, count)),
    }
}

/// `re.sub(pattern, replacement, text, count)`.
fn regex_replace(
    text: &Value,
    pattern: String,
    replacement: String,
    count: Option<usize>,
    options: Kwargs,
) -> Result<String, Error> {
    let count = count.map_or_else(|| options.get::<Option<usize>>("count"), |count| Ok(Some(count)))?;
    options.assert_all_used()?;
    let Some(text) = text.as_str() else {
        return Err(failed("regex_replace: this is no text".to_owned()));
    };
    replace(&pattern, &replacement, text, count.unwrap_or(0))
        .map_err(|problem| failed(format!("regex_replace: {problem}")))
}

fn failed(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// A regular expression of Python's `re`, with a bound on its running time.
///
/// # Errors
/// What is wrong with it, in words.
pub fn python_regex(pattern: &str) -> Result<Regex, String> {
    // Python's `\Z` is the end of the text, and `$` may stand before a last line break.
    let pattern = python_ends(pattern);
    fancy_regex::RegexBuilder::new(&pattern)
        .backtrack_limit(BACKTRACKS)
        .build()
        .map_err(|error| format!("the pattern {pattern:?} cannot be used: {error}"))
}

/// `\Z` as `\z`, and `$` outside of classes as the end of the text or of its last line, unless `(?m)` gives it another meaning.
fn python_ends(pattern: &str) -> String {
    let multiline = pattern.contains("(?m") || pattern.contains("(?sm") || pattern.contains("(?im");
    let mut out = String::with_capacity(pattern.len());
    let (mut characters, mut in_class) = (pattern.chars(), false);
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('Z') => out.push_str("\\z"),
                Some(next) => out.extend(['\\', next]),
                None => out.push('\\'),
            },
            '$' if !in_class && !multiline => out.push_str("(?=\\n?\\z)"),
            '[' => {
                in_class = true;
                out.push('[');
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            other => out.push(other),
        }
    }
    out
}

/// `re.sub`: replaces the first `count` matches, or all if it is 0.
///
/// # Errors
/// What is wrong with the pattern or the replacement, in words.
pub fn replace(pattern: &str, replacement: &str, text: &str, count: usize) -> Result<String, String> {
    let regex = python_regex(pattern)?;
    let mut out = String::with_capacity(text.len());
    let mut kept = 0;
    let limit = if count == 0 { usize::MAX } else { count };
    for found in regex.captures_iter(text).take(limit) {
        let found = found.map_err(|error| format!("the pattern {pattern:?} fails: {error}"))?;
        let whole = found.get(0).map_or(0..0, |whole| whole.range());
        if out.len() > TEXT_LIMIT {
            return Err(format!("the text becomes longer than {TEXT_LIMIT} bytes"));
        }
        out.push_str(&text[kept..whole.start]);
        expand(replacement, &found, &mut out)?;
        kept = whole.end;
    }
    out.push_str(&text[kept..]);
    Ok(out)
}

/// Writes a replacement, in which `\1` and `\g<name>` stand for groups.
fn expand(replacement: &str, found: &fancy_regex::Captures<'_>, out: &mut String) -> Result<(), String> {
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let digits = after.bytes().take_while(u8::is_ascii_digit).take(2).count();
        if digits > 0 {
            let number: usize = after[..digits].parse().unwrap_or(usize::MAX);
            if number >= found.len() {
                return Err(format!("the replacement {replacement:?} names the group {number}"));
            }
            out.push_str(found.get(number).map_or("", |group| group.as_str()));
            rest = &after[digits..];
        } else if let Some((name, after)) = after.strip_prefix("g<").and_then(|after| after.split_once('>')) {
            let group = match name.parse::<usize>() {
                Ok(number) => found.get(number),
                Err(_) => found.name(name),
            };
            out.push_str(group.map_or("", |group| group.as_str()));
            rest = after;
        } else {
            let mut characters = after.chars();
            match characters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('\\') => out.push('\\'),
                Some(other) if !other.is_ascii_alphabetic() => out.extend(['\\', other]),
                other => {
                    let escape: String = other.into_iter().collect();
                    return Err(format!("the replacement {replacement:?} has the unknown escape \\{escape}"));
                }
            }
            rest = characters.as_str();
        }
    }
    out.push_str(rest);
    Ok(())
}

/// What failed, as one line.
fn say(error: &Error) -> String {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let _ = write!(said, ": {error}");
        cause = error.source();
    }
    said.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(template: &str, row: serde_json::Value, expected: &str) {
        let row = row.as_object().unwrap();
        assert_eq!(render(template, [row]), Ok(vec![expected.to_owned()]));
    }

    /// Jinja2 3.1.6 with the settings of lm-evaluation-harness 0.4.13.
    #[test]
    fn texts_are_those_of_jinja() {
        check("{{a}}\n", json!({"a": true}), "True\n");
        check("  {% if a %}\n x{% endif %}\n", json!({"a": 1}), "  \n x\n");
        check("{{a[0]}} {{a|length}} {{a|first|upper}}", json!({"a": ["x", "y"]}), "x 2 X");
        check("{{a.b.c}} {{a['b']}}", json!({"a": {"b": {"c": null}}}), "None {'c': None}");
        check("{% set n = 'abcd'.find('c') %}{{n}}{{'%d!' % n}}", json!({}), "22!");
        check("{{1.0}} {{3 / 2}} {{7 // 2}} {{1e20}}", json!({}), "1.0 1.5 3 1e+20");
        check("{{x is defined}} {{x|default('d')}}", json!({}), "False d");
        check(
            "{{a|regex_replace('(\\\\w+) ', '<\\\\1>', 1)}}",
            json!({"a": "one two three"}),
            "<one>two three",
        );
        check("{{'a1b2'|regex_replace('[0-9]', '', count=1)}}", json!({}), "ab2");
        check(
            "{{['A','B'][a]}}. {% for c in ['x', 'y'] %}{{loop.index}}{{c}}{% endfor %}",
            json!({"a": 1}),
            "B. 1x2y",
        );
        check("{{'aXbX'|replace('X', '-')}} {{'aXbX'|replace('X', '-', 1)}}", json!({}), "a-b- a-bX");
        check("{{a|join(', ')}} {{a|map('upper')|list}}", json!({"a": ["p", "q"]}), "p, q ['P', 'Q']");
    }

    #[test]
    fn a_field_that_is_missing_is_an_error() {
        let row = json!({"question": "?"});
        let error = render("{{query}}", [row.as_object().unwrap()]).unwrap_err();
        assert!(matches!(error, TemplateError::Row { row: 0, .. }), "{error}");
        assert!(error.to_string().contains("row 0"), "{error}");
        let error = render("{{ a", [row.as_object().unwrap()]).unwrap_err();
        assert!(matches!(error, TemplateError::Template { .. }), "{error}");
        let endless = "{% for i in range(100000) %}{% for j in range(100000) %}{{i}}{% endfor %}{% endfor %}";
        assert!(render(endless, [row.as_object().unwrap()]).is_err());
    }

    /// `re.sub` of Python 3.11.
    #[test]
    fn replacements_are_those_of_python() {
        let sub = |pattern, replacement, text| replace(pattern, replacement, text, 0).unwrap();
        assert_eq!(sub(r"(?P<a>.)(.)", r"\2\g<a>", "abcd"), "badc");
        assert_eq!(sub(r"\s+$", "", "a b \n"), "a b");
        assert_eq!(sub("[$a]", r"\n", "$ab"), "\n\nb");
        assert_eq!(sub(r"(?<=b)c", "", "bcc"), "bc");
        assert!(replace("(", "", "a", 0).is_err());
        assert!(replace("a", r"\1", "a", 0).is_err());
        assert!(replace("a", r"\q", "a", 0).is_err());
    }
}
