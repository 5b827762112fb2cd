//! YAML as PyYAML reads it: version 1.1, in which an unquoted `no` is false.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};

/// Deepest nesting of a file.
const DEEPEST: usize = 64;
/// Most values in a file, those of aliases counted each time.
const MOST_NODES: usize = 100_000;

/// Why a text is no YAML that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum YamlError {
    /// It is no YAML.
    #[error("line {line}: {problem}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A value is a function of a Python file.
    #[error(
        "line {line}: {key} is the Python function {function}, which Andiron does not run: {}",
        instead(key)
    )]
    Function {
        /// The line, from 1.
        line: usize,
        /// The key whose value it is, with those around it.
        key: String,
        /// The function.
        function: String,
    },
}

/// What to do without a function.
fn instead(key: &str) -> &'static str {
    match key.rsplit('.').next().unwrap_or(key) {
        "process_docs" => "write its rows to a JSON Lines file, and name that in dataset_kwargs.data_files",
        "doc_to_text" | "doc_to_target" | "doc_to_choice" | "description" | "gen_prefix" => {
            "write it as a Jinja template"
        }
        "filter_fn" => "use the filters regex, map, lowercase, uppercase, remove_whitespace or majority_vote",
        _ => "remove it, or run the task with lm-evaluation-harness over `andiron serve`",
    }
}

/// Parses the one document of `text`.
///
/// # Errors
/// If it is no YAML, has a Python function, is nested too deeply, or grows too large by its aliases.
pub fn parse(text: &str) -> Result<Value, YamlError> {
    let mut reader = Reader { nodes: 0, anchors: BTreeMap::new(), stack: Vec::new(), root: None };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| syntax(error.marker().line(), error.info().to_owned()))?;
        reader.take(event, span.start.line())?;
    }
    Ok(reader.root.unwrap_or(Value::Null))
}

fn syntax(line: usize, problem: impl Into<String>) -> YamlError {
    YamlError::Syntax { line, problem: problem.into() }
}

/// A list or an object that is being read.
enum Open {
    List { items: Vec<Value>, anchor: usize },
    Object { fields: Map<String, Value>, key: Option<String>, merged: Vec<Value>, anchor: usize },
}

struct Reader {
    nodes: usize,
    anchors: BTreeMap<usize, Value>,
    stack: Vec<Open>,
    root: Option<Value>,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), line)?;
                self.close(value, anchor, line)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), line)?;
                self.open(Open::List { items: Vec::new(), anchor }, line)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), line)?;
                self.open(Open::Object { fields: Map::new(), key: None, merged: Vec::new(), anchor }, line)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open::List { items, anchor }) => self.close(Value::Array(items), anchor, line),
                Some(Open::Object { mut fields, merged, anchor, .. }) => {
                    // What `<<` brings in stands before the object's own keys, which win.
                    for value in merged.into_iter().rev() {
                        let Value::Object(more) = value else {
                            return Err(syntax(line, "`<<` merges objects only"));
                        };
                        for (key, value) in more {
                            fields.entry(key).or_insert(value);
                        }
                    }
                    self.close(Value::Object(fields), anchor, line)
                }
                None => Err(syntax(line, "a list or an object ends that did not begin")),
            },
            Event::Alias(anchor) => {
                let Some(value) = self.anchors.get(&anchor).cloned() else {
                    return Err(syntax(line, "an alias stands before its anchor"));
                };
                self.nodes += count(&value);
                self.close(value, 0, line)
            }
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(syntax(line, "there is more than one document"))
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, open: Open, line: usize) -> Result<(), YamlError> {
        if self.stack.len() >= DEEPEST {
            return Err(syntax(line, format!("values are nested more than {DEEPEST} deep")));
        }
        self.stack.push(open);
        Ok(())
    }

    /// Puts a whole value where it belongs.
    fn close(&mut self, value: Value, anchor: usize, line: usize) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(syntax(line, format!("there are more than {MOST_NODES} values")));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.stack.last_mut() {
            None => self.root = Some(value),
            Some(Open::List { items, .. }) => items.push(value),
            Some(Open::Object { fields, key, merged, .. }) => match key.take() {
                Some(name) if name == "<<" => match value {
                    Value::Array(values) => merged.extend(values.into_iter().rev()),
                    value => merged.push(value),
                },
                Some(name) => {
                    fields.insert(name, value);
                }
                None => {
                    *key = Some(match value {
                        Value::String(text) => text,
                        Value::Array(_) | Value::Object(_) => {
                            return Err(syntax(line, "a key is no text"));
                        }
                        value => super::python::text(&value),
                    });
                }
            },
        }
        Ok(())
    }

    /// The keys around the next value.
    fn path(&self) -> String {
        let key = |open: &Open| match open {
            Open::List { items, .. } => Some(items.len().to_string()),
            Open::Object { key, .. } => key.clone(),
        };
        self.stack.iter().filter_map(key).collect::<Vec<_>>().join(".")
    }

    fn refuse_tag(&self, tag: Option<&Tag>, line: usize) -> Result<(), YamlError> {
        match tag {
            Some(tag) if !tag.is_yaml_core_schema() => {
                Err(syntax(line, format!("the tag {tag} is not known")))
            }
            _ => Ok(()),
        }
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        line: usize,
    ) -> Result<Value, YamlError> {
        match tag {
            Some(tag) if tag.handle == "!" && tag.suffix == "function" => {
                Err(YamlError::Function { line, key: self.path(), function: text.to_owned() })
            }
            Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
                "str" => Ok(text.into()),
                "float" => {
                    let value = plain(text);
                    Ok(value.as_f64().map_or(value, Value::from))
                }
                "bool" | "int" | "null" => Ok(plain(text)),
                _ => Err(syntax(line, format!("the tag {tag} is not known"))),
            },
            Some(tag) => Err(syntax(line, format!("the tag {tag} is not known"))),
            None if style == ScalarStyle::Plain => Ok(plain(text)),
            None => Ok(text.into()),
        }
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// An unquoted scalar, by the rules of PyYAML's resolver.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return true.into(),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return false.into(),
        _ => {}
    }
    if let Some(whole) = whole(text) {
        return whole.into();
    }
    match float(text) {
        Some(value) => Number::from_f64(value).map_or_else(|| text.into(), Value::Number),
        None => text.into(),
    }
}

fn whole(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let digits: String = digits.chars().filter(|&c| c != '_').collect();
    i64::from_str_radix(&digits, radix).ok().map(|value| sign * value)
}

/// A float has a point, and a sign in its exponent: `1e3` is a text.
fn float(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let (before, after) = mantissa.split_once('.')?;
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let begins = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
    let has_sign =
        |part: &str| part.strip_prefix(['+', '-']).is_some_and(|rest| begins(rest) && is_number(rest));
    let is_float = is_number(before)
        && is_number(after)
        && (begins(before) || before.is_empty() && begins(after))
        && exponent.is_none_or(has_sign);
    is_float.then(|| text.replace('_', "").parse().ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// PyYAML 6.0.3, `yaml.safe_load`.
    #[test]
    fn values_are_those_of_pyyaml() {
        let text = "
a: no
b: 'no'
c: [1, 1.0, 1e3, 1.5e+3, 0x1F, 010, 1_000, .5, -3, ~, , null]
d: &base {x: 1, y: [Yes, on, OFF]}
e: {<<: *base, x: 2, z: *base}
f: |
  one
   two

g: >-
  folded
  line
h: \"a\\n\\u00e9\"
i: - no list
1: one
true: yes
";
        let text = text.replace(", , null", ", null").replace("i: - no list", "i: -x");
        let expected = json!({
            "a": false, "b": "no",
            "c": [1, 1.0, "1e3", 1500.0, 31, 8, 1000, 0.5, -3, null, null],
            "d": {"x": 1, "y": [true, true, false]},
            "e": {"x": 2, "z": {"x": 1, "y": [true, true, false]}, "y": [true, true, false]},
            "f": "one\n two\n", "g": "folded line", "h": "a\n\u{e9}", "i": "-x", "1": "one", "True": true,
        });
        assert_eq!(parse(&text), Ok(expected));
        assert_eq!(parse(""), Ok(Value::Null));
    }

    #[test]
    fn python_is_refused_by_the_name_of_its_key() {
        let error = parse("a: 1\nfewshot_config:\n  process_docs: !function utils.f\n").unwrap_err();
        let YamlError::Function { line: 3, key, function } = &error else { panic!("{error}") };
        assert_eq!((key.as_str(), function.as_str()), ("fewshot_config.process_docs", "utils.f"));
        assert!(error.to_string().contains("JSON Lines"), "{error}");
        let error = parse("metric_list:\n - metric: !function m.f\n").unwrap_err().to_string();
        assert!(error.contains("metric_list.0.metric"), "{error}");
    }

    #[test]
    fn what_is_no_yaml_is_refused() {
        for text in ["a: [1", "a: b: c", "a: \"x", "a: !x 1", "a: 1\n---\nb: 2", "<<: 1\na: 1"] {
            assert!(matches!(parse(text), Err(YamlError::Syntax { .. })), "{text:?}: {:?}", parse(text));
        }
        assert!(parse(&"[".repeat(1000)).is_err());
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (from, to) in "abcdefgh".chars().zip("bcdefghi".chars()) {
            bomb += &format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 10].join(", "));
        }
        assert!(parse(&bomb).unwrap_err().to_string().contains("more than"), "aliases are bounded");
    }
}
