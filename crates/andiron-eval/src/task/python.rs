//! Values as Python writes and reads them: `str`, `json.dumps` and `ast.literal_eval`.

use std::fmt::Write as _;

use andiron_data::jinja::float_text;
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

/// Deepest nesting of a value that is read.
const DEEPEST: usize = 64;

/// `str(value)`.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        _ => {
            let mut out = String::new();
            repr(value, &mut out);
            out
        }
    }
}

/// `repr(value)`, written to `out`.
fn repr(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::String(text) => quoted(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                repr(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (index, (key, value)) in fields.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                quoted(key, out);
                out.push_str(": ");
                repr(value, out);
            }
            out.push('}');
        }
    }
}

fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

pub(crate) fn number_text(number: &Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(float) => float_text(float),
        None => number.to_string(),
    }
}

/// `json.dumps(value, indent=2, ensure_ascii=False)`.
pub(crate) fn json(value: &Value) -> String {
    let mut out = String::new();
    write_json(value, 0, &mut out);
    out
}

fn write_json(value: &Value, depth: usize, out: &mut String) {
    let line = |depth: usize, out: &mut String| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::String(_) => out.push_str(&value.to_string()),
        Value::Array(items) if items.is_empty() => out.push_str("[]"),
        Value::Object(fields) if fields.is_empty() => out.push_str("{}"),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                line(depth + 1, out);
                write_json(item, depth + 1, out);
            }
            line(depth, out);
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (index, (key, value)) in fields.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                line(depth + 1, out);
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push_str(": ");
                write_json(value, depth + 1, out);
            }
            line(depth, out);
            out.push('}');
        }
    }
}

/// The SHA-256 hash of a text, in hexadecimal.
pub(crate) fn sha256(text: &str) -> String {
    let mut out = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// `ast.literal_eval(text)`: texts, numbers, lists, tuples (which become lists), dictionaries with keys of text, `True`, `False`
/// and `None`; `None` of anything else.
pub(crate) fn literal(text: &str) -> Option<Value> {
    let mut reader = Reader { rest: text.trim_matches([' ', '\t', '\n', '\r']) };
    let value = reader.value(0)?;
    // A tuple may stand without its brackets.
    let value = if reader.skip(",") {
        let mut items = vec![value];
        while !reader.rest.is_empty() {
            items.push(reader.value(0)?);
            if !reader.skip(",") {
                break;
            }
        }
        Value::Array(items)
    } else {
        value
    };
    reader.rest.is_empty().then_some(value)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    /// Skips white space and `sign`, if that is next.
    fn skip(&mut self, sign: &str) -> bool {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEEPEST {
            return None;
        }
        self.skip("");
        for (word, value) in
            [("True", Value::Bool(true)), ("False", Value::Bool(false)), ("None", Value::Null)]
        {
            if let Some(rest) = self.rest.strip_prefix(word)
                && !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            {
                self.rest = rest;
                self.skip("");
                return Some(value);
            }
        }
        match self.rest.chars().next()? {
            '[' => self.items("[", "]", depth).map(|(items, _)| Value::Array(items)),
            '(' => {
                let (mut items, commas) = self.items("(", ")", depth)?;
                match (items.len(), commas) {
                    (1, 0) => items.pop(),
                    _ => Some(Value::Array(items)),
                }
            }
            '{' => self.object(depth),
            '\'' | '"' => {
                let mut text = self.string()?;
                // Strings side by side are one.
                while self.rest.starts_with(['\'', '"']) {
                    text.push_str(&self.string()?);
                }
                Some(text.into())
            }
            _ => self.number(),
        }
    }

    /// The items between two brackets, and the number of commas.
    fn items(&mut self, open: &str, close: &str, depth: usize) -> Option<(Vec<Value>, usize)> {
        self.skip(open);
        let (mut items, mut commas) = (Vec::new(), 0);
        while !self.skip(close) {
            if items.len() > commas {
                return None;
            }
            items.push(self.value(depth + 1)?);
            commas += usize::from(self.skip(","));
        }
        Some((items, commas))
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        self.skip("{");
        let (mut fields, mut separated) = (Map::new(), true);
        while !self.skip("}") {
            let Value::String(key) = self.value(depth + 1)?.clone() else { return None };
            if !separated || !self.skip(":") {
                return None;
            }
            fields.insert(key, self.value(depth + 1)?);
            separated = self.skip(",");
        }
        Some(Value::Object(fields))
    }

    fn number(&mut self) -> Option<Value> {
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-._".contains(c));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let digits = word.trim_start_matches(['+', '-']);
        if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || digits.contains("__") {
            return None;
        }
        let plain = word.replace('_', "");
        let has_zero = digits.len() > 1 && digits.starts_with('0') && digits.bytes().any(|b| b != b'0');
        let value = match plain.parse::<i64>() {
            Ok(_) if has_zero => return None,
            Ok(whole) => whole.into(),
            Err(_) => Value::Number(Number::from_f64(plain.parse().ok()?)?),
        };
        self.rest = rest;
        self.skip("");
        Some(value)
    }

    fn string(&mut self) -> Option<String> {
        let quote = self.rest.chars().next()?;
        let mut out = String::new();
        let mut characters = self.rest[1..].char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => {
                    let (_, escape) = characters.next()?;
                    let digits = match escape {
                        'x' => 2,
                        'u' => 4,
                        'U' => 8,
                        _ => 0,
                    };
                    if digits > 0 {
                        let code: String = characters.by_ref().take(digits).map(|(_, c)| c).collect();
                        if code.len() != digits {
                            return None;
                        }
                        out.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                        continue;
                    }
                    match escape {
                        'n' => out.push('\n'),
                        't' => out.push('\t'),
                        'r' => out.push('\r'),
                        'a' => out.push('\u{7}'),
                        'b' => out.push('\u{8}'),
                        'f' => out.push('\u{c}'),
                        'v' => out.push('\u{b}'),
                        '0' => out.push('\0'),
                        '\n' => {}
                        '\\' | '\'' | '"' => out.push(escape),
                        other => out.extend(['\\', other]),
                    }
                }
                '\n' => return None,
                c if c == quote => {
                    self.rest = &self.rest[1 + at + 1..];
                    self.skip("");
                    return Some(out);
                }
                c => out.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_as_in_python() {
        let value = json!([null, true, 1, 1.0, 1e-7, "it's", "\"", "a\n\u{7f}é", {"a": [], "b": {}}]);
        assert_eq!(
            text(&value),
            "[None, True, 1, 1.0, 1e-07, \"it's\", '\"', 'a\\n\\x7fé', {'a': [], 'b': {}}]"
        );
        let texts = json!([null, 1e-7, "it's \"\n\u{7f}é", {"a": [1], "b": {}, "c": []}]);
        assert_eq!(
            json(&texts),
            "[\n  null,\n  1e-07,\n  \"it's \\\"\\n\u{7f}é\",\n  {\n    \"a\": [\n      1\n    ],\n    \"b\": {},\n    \"c\": []\n  }\n]"
        );
        assert_eq!(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    /// `ast.literal_eval` of CPython 3.11.
    #[test]
    fn literals_are_read_as_in_python() {
        for (text, expected) in [
            ("['a', \"it's\", 'b\\n\\x41\\u00e9']", json!(["a", "it's", "b\nA\u{e9}"])),
            (" [1, -2.5, 1_000, 1e3, True, None,]", json!([1, -2.5, 1000, 1000.0, true, null])),
            ("('a', 'b')", json!(["a", "b"])),
            ("('a')", json!("a")),
            ("('a',)", json!(["a"])),
            ("'a', 1", json!(["a", 1])),
            ("{'a': [1, (2,)], 'b': {}}", json!({"a": [1, [2]], "b": {}})),
            ("'a' \"b\"", json!("ab")),
            ("[]", json!([])),
            ("0", json!(0)),
        ] {
            assert_eq!(literal(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "[",
            "['a' 'b",
            "[a]",
            "[1 2]",
            "['a',, 'b']",
            "{1: 2}",
            "f(1)",
            "012",
            "'a' + 'b'",
            "Trueish",
        ] {
            assert_eq!(literal(text), None, "{text}");
        }
        assert_eq!(literal(&"[".repeat(10_000)), None);
    }
}
