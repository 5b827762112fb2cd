//! JSON as Python's `json.dumps` writes it: the filter `tojson` of `transformers`.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::python::{self, number};

/// Maximum nesting of values.
const DEEPEST: usize = 256;

/// Arguments of `json.dumps`.
struct Style {
    ensure_ascii: bool,
    indent: Option<String>,
    between_items: String,
    after_key: String,
    sort_keys: bool,
}

/// The filter: `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn to_json(
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    separators: Option<Value>,
    options: Kwargs,
) -> Result<String, Error> {
    let named = |name: &str, given: Option<Value>| -> Result<Option<Value>, Error> {
        let value = given.map_or_else(|| options.get::<Option<Value>>(name), |value| Ok(Some(value)))?;
        Ok(value.filter(|value| !value.is_none()))
    };
    let indent = match named("indent", indent)? {
        Some(text) if text.kind() == ValueKind::String => Some(text.to_string()),
        Some(width) => {
            let width = i64::try_from(width)?;
            if width > 64 {
                return Err(invalid(format!("tojson: an indent of {width} is too wide")));
            }
            Some(" ".repeat(usize::try_from(width).unwrap_or(0)))
        }
        None => None,
    };
    let separators = match named("separators", separators)? {
        Some(pair) => {
            let pair: Vec<String> = pair.try_iter()?.map(|part| part.to_string()).collect();
            <[String; 2]>::try_from(pair)
                .map_err(|_| invalid("tojson: separators are two strings".to_owned()))?
        }
        None if indent.is_some() => [",".to_owned(), ": ".to_owned()],
        None => [", ".to_owned(), ": ".to_owned()],
    };
    let [between_items, after_key] = separators;
    let is_true =
        |name: &str, given: Option<Value>| Ok::<_, Error>(named(name, given)?.is_some_and(|v| v.is_true()));
    let style = Style {
        ensure_ascii: is_true("ensure_ascii", ensure_ascii)?,
        indent,
        between_items,
        after_key,
        sort_keys: is_true("sort_keys", None)?,
    };
    options.assert_all_used()?;
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(out)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::BadSerialization, message)
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(invalid(format!("tojson: values lie more than {DEEPEST} deep within each other")));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&json_number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(out, ['[', ']'], depth, items.len(), |this, index, out| {
                    this.write(&items[index], depth + 1, out)
                })?;
            }
            ValueKind::Map => {
                let mut pairs = Vec::new();
                for key in value.try_iter()? {
                    pairs.push((key_text(&key)?, value.get_item(&key)?));
                }
                if self.sort_keys {
                    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.list(out, ['{', '}'], depth, pairs.len(), |this, index, out| {
                    let (key, value) = &pairs[index];
                    this.string(key, out);
                    out.push_str(&this.after_key);
                    this.write(value, depth + 1, out)
                })?;
            }
            kind => {
                return Err(invalid(format!("tojson: a value of the kind {kind} is not JSON serializable")));
            }
        }
        Ok(())
    }

    fn list(
        &self,
        out: &mut String,
        [open, close]: [char; 2],
        depth: usize,
        n: usize,
        mut item: impl FnMut(&Self, usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for index in 0..n {
            if index > 0 {
                out.push_str(&self.between_items);
            }
            self.line(depth + 1, out);
            item(self, index, out)?;
        }
        if n > 0 {
            self.line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

fn json_number(value: &Value) -> String {
    match python::as_float(value) {
        Some(float) if float.is_nan() => "NaN".to_owned(),
        Some(float) if float.is_infinite() => if float > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        _ => number(value),
    }
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::Number => Ok(json_number(key)),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        kind => Err(invalid(format!("tojson: a key of the kind {kind} is not JSON serializable"))),
    }
}
