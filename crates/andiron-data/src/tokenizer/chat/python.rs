//! Values formatted as by Python's `str` and `repr`.

use std::fmt::Write as _;

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// Maximum nesting of values.
pub(super) const DEEPEST: usize = 256;

/// `str(value)`.
pub(crate) fn text(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String => Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
        ValueKind::Undefined => Ok(String::new()),
        _ => {
            let mut out = String::new();
            repr(value, 0, &mut out)?;
            Ok(out)
        }
    }
}

fn repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(too_deep());
    }
    match value.kind() {
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                repr(&key, depth + 1, out)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, depth + 1, out)?;
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let is_tuple = value.downcast_object_ref::<Tuple>().is_some();
            let mut n = 0;
            out.push(if is_tuple { '(' } else { '[' });
            for item in value.try_iter()? {
                out.push_str(if n > 0 { ", " } else { "" });
                repr(&item, depth + 1, out)?;
                n += 1;
            }
            out.push_str(if is_tuple && n == 1 { "," } else { "" });
            out.push(if is_tuple { ')' } else { ']' });
        }
        // Booleans and none are shown as in Python; objects of the engine as it has them.
        _ => {
            let _ = write!(out, "{value}");
        }
    }
    Ok(())
}

fn too_deep() -> Error {
    let message = format!("values lie more than {DEEPEST} deep within each other");
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Maximum number of values within an assigned value.
const MOST_NODES: usize = 1 << 18;

/// Refuses a value that is nested deeper than [`DEEPEST`]; returns how many values it contains.
pub(super) fn check_depth(value: &Value) -> Result<usize, Error> {
    let mut nodes = 0;
    descend(value, 0, &mut nodes)?;
    Ok(nodes)
}

fn descend(value: &Value, depth: usize, nodes: &mut usize) -> Result<(), Error> {
    *nodes += 1;
    if depth > DEEPEST {
        return Err(too_deep());
    }
    if *nodes > MOST_NODES {
        let message = format!("more than {MOST_NODES} values lie within one");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    match value.kind() {
        ValueKind::Map => {
            for key in value.try_iter()? {
                descend(&value.get_item(&key)?, depth + 1, nodes)?;
            }
            Ok(())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.try_for_each(|item| descend(&item, depth + 1, nodes))
        }
        _ => Ok(()),
    }
}

/// The value if it is a float.
pub(super) fn as_float(value: &Value) -> Option<f64> {
    (value.kind() == ValueKind::Number && !value.is_integer()).then(|| f64::try_from(value.clone()).ok())?
}

/// `repr` of a float.
pub(super) fn number(value: &Value) -> String {
    match as_float(value) {
        Some(float) => float_text(float),
        None => value.to_string(),
    }
}

/// The shortest digits that round-trip; in exponent notation below 1e-4 and from 1e16 on.
pub fn float_text(float: f64) -> String {
    if !float.is_finite() {
        return if float.is_nan() {
            "nan"
        } else if float > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if float == 0.0 || (-4..16).contains(&exponent) {
        let plain = float.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        let code = u32::from(character);
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            _ => {
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

fn is_printable(character: char) -> bool {
    // Debug output escapes what does not print, and marks only where they begin a string.
    if character == '\0' {
        return false;
    }
    let mut buffer = [0; 8];
    buffer[0] = b'a';
    let length = 1 + character.encode_utf8(&mut buffer[1..]).len();
    let pair = std::str::from_utf8(&buffer[..length]).unwrap_or_default();
    matches!(character, '"' | '\'') || pair.escape_debug().count() == 2
}

/// Python's `str.isspace` for a character, which `strip` and `split` use.
pub fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_in_python() {
        for (float, expected) in [
            (1e20, "1e+20"),
            (1e16, "1e+16"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1e15, "1000000000000000.0"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e-4, "0.0001"),
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (2.0, "2.0"),
            (1e300, "1e+300"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(float_text(float), expected);
        }
    }

    #[test]
    fn strings_within_values_are_quoted_as_in_python() {
        // repr(['a', "it's", 'say "it\'s"', 'é\u0301', '\u200b', '\x00\x1f\x7f', '\xa0', '\U000e0001', '\\\n']) of Python 3.
        let items = [
            "a",
            "it's",
            "say \"it's\"",
            "é\u{301}",
            "\u{200b}",
            "\0\u{1f}\u{7f}",
            "\u{a0}",
            "\u{e0001}",
            "\\\n",
        ];
        assert_eq!(
            text(&Value::from(items.map(Value::from).to_vec())).unwrap(),
            "['a', \"it's\", 'say \"it\\'s\"', 'é\u{301}', '\\u200b', '\\x00\\x1f\\x7f', '\\xa0', '\\U000e0001', '\\\\\\n']"
        );
    }
}
