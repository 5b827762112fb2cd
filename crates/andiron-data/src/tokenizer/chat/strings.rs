//! Methods of Python's strings, dictionaries and lists that the engine lacks or implements differently.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use super::python::is_space;

/// Maximum width of a format field.
const WIDEST: i64 = 10_000;

/// A method that the engine does not know.
pub(crate) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let own = match value.kind() {
        ValueKind::String => of_string(state, value.as_str().unwrap_or_default(), method, args)?,
        ValueKind::Map | ValueKind::Seq if method == "copy" => {
            let () = from_args(args)?;
            Some(value.clone())
        }
        ValueKind::Seq if method == "index" => {
            let (wanted,): (&Value,) = from_args(args)?;
            let found = value.try_iter()?.position(|item| item == *wanted);
            Some(found.map(Value::from).ok_or_else(|| failed("the value is not in the list"))?)
        }
        _ => None,
    };
    own.map_or_else(|| pycompat::unknown_method_callback(state, value, method, args), Ok)
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn of_string(state: &State, text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let nothing = || from_args::<()>(args);
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (set,): (Option<&str>,) = from_args(args)?;
            let belongs = |c: char| set.map_or_else(|| is_space(c), |set| set.contains(c));
            let text = if method == "rstrip" { text } else { text.trim_start_matches(belongs) };
            Value::from(if method == "lstrip" { text } else { text.trim_end_matches(belongs) })
        }
        "title" => {
            nothing()?;
            Value::from(title(text))
        }
        "capitalize" => {
            nothing()?;
            Value::from(capitalize(text))
        }
        "swapcase" => {
            nothing()?;
            let swap = |c: char| match c.is_uppercase() {
                true => c.to_lowercase().to_string(),
                false => c.to_uppercase().to_string(),
            };
            Value::from(text.chars().map(swap).collect::<String>())
        }
        "casefold" => {
            nothing()?;
            Value::from(text.to_lowercase())
        }
        "isspace" => {
            nothing()?;
            Value::from(!text.is_empty() && text.chars().all(is_space))
        }
        "split" | "rsplit" => {
            let (separator, most, options): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = given(separator, &options, "sep")?;
            let most = most.map_or_else(|| options.get::<Option<i64>>("maxsplit"), |n| Ok(Some(n)))?;
            options.assert_all_used()?;
            // A negative number is none.
            let most = most.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            let parts = match (&separator, method == "rsplit") {
                (None, from_right) => split_at_spaces(text, most, from_right),
                (Some(separator), from_right) => {
                    let separator = non_empty(separator)?;
                    let most = most.saturating_add(1);
                    if from_right {
                        let mut parts: Vec<&str> = text.rsplitn(most, separator).collect();
                        parts.reverse();
                        parts
                    } else {
                        text.splitn(most, separator).collect()
                    }
                }
            };
            parts.into_iter().map(Value::from).collect()
        }
        "splitlines" => {
            let (keep, options): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.map_or_else(|| options.get::<Option<bool>>("keepends"), |keep| Ok(Some(keep)))?;
            options.assert_all_used()?;
            lines(text, keep.unwrap_or(false)).into_iter().map(Value::from).collect()
        }
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            let rest =
                if method == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            Value::from(rest.unwrap_or(text))
        }
        "partition" | "rpartition" => {
            let (separator,): (Value,) = from_args(args)?;
            let separator = non_empty(&separator)?;
            let parts = match (text.split_once(separator), text.rsplit_once(separator)) {
                (Some((before, after)), _) if method == "partition" => [before, separator, after],
                (_, Some((before, after))) => [before, separator, after],
                _ if method == "partition" => [text, "", ""],
                _ => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let (part, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let found =
                slice(text, start, end).map(|(first, text)| (first, text, search(text, part, method)));
            match (method, found) {
                ("count", Some((_, text, _))) if part.is_empty() => Value::from(text.chars().count() + 1),
                ("count", Some((_, text, _))) => Value::from(text.matches(part).count()),
                ("count", None) => Value::from(0),
                (_, Some((first, _, Some(at)))) => Value::from(first + at),
                ("find" | "rfind", _) => Value::from(-1),
                _ => return Err(failed("substring not found")),
            }
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            let (width, fill): (i64, Option<&str>) = from_args(args)?;
            Value::from(padded(
                text,
                width,
                fill.unwrap_or(if method == "zfill" { "0" } else { " " }),
                method,
            )?)
        }
        "expandtabs" => {
            let (width,): (Option<i64>,) = from_args(args)?;
            Value::from(expand_tabs(text, width.unwrap_or(8))?)
        }
        "format" => {
            check_widths(text, args)?;
            state.consume_fuel(text.len() as u64 / 64)?;
            Value::from(format(FormatStyle::StrFormat, text, args)?)
        }
        _ => return Ok(None),
    }))
}

/// An argument by position or by name; `None` if it is absent or `none`.
fn given(value: Option<Value>, options: &Kwargs, name: &str) -> Result<Option<Value>, Error> {
    let value = value.map_or_else(|| options.get::<Option<Value>>(name), |value| Ok(Some(value)))?;
    Ok(value.filter(|value| !value.is_none()))
}

fn non_empty(separator: &Value) -> Result<&str, Error> {
    separator
        .as_str()
        .filter(|text| !text.is_empty())
        .ok_or_else(|| failed("the separator is no text, or empty"))
}

/// `str.title`: title case; every non-letter ends a word.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for character in text.chars() {
        match in_word {
            true => out.extend(character.to_lowercase()),
            false => out.push_str(&title_case(character)),
        }
        in_word = character.is_alphabetic();
    }
    out
}

/// `str.capitalize`: the first letter in title case, the others in lower case.
pub(super) fn capitalize(text: &str) -> String {
    let Some(first) = text.chars().next() else { return String::new() };
    // In one piece, since the last sigma of a word is another letter.
    let lower = text.to_lowercase();
    let rest = lower.chars().skip(first.to_lowercase().count());
    title_case(first).chars().chain(rest).collect()
}

/// A letter in title case, which is not always upper case: `Ǆ` becomes `ǅ`, and `ß` becomes `Ss`.
///
/// Source: The Unicode Standard, Titlecase_Mapping, by its regularities.
fn title_case(letter: char) -> String {
    const IOTA: char = '\u{399}';
    const IOTA_BELOW: char = '\u{345}';
    let one = match letter {
        'Ǆ'..='ǆ' => Some('ǅ'),
        'Ǉ'..='ǉ' => Some('ǈ'),
        'Ǌ'..='ǌ' => Some('ǋ'),
        'Ǳ'..='ǳ' => Some('ǲ'),
        // Georgian has large letters for whole words only.
        '\u{10d0}'..='\u{10ff}' => Some(letter),
        // Letters with an iota below: the large ones are eight further.
        '\u{1f80}'..='\u{1faf}' => char::from_u32(u32::from(letter) | 8),
        'ᾳ' | 'ᾼ' => Some('ᾼ'),
        'ῃ' | 'ῌ' => Some('ῌ'),
        'ῳ' | 'ῼ' => Some('ῼ'),
        _ => None,
    };
    if let Some(one) = one {
        return one.to_string();
    }
    let upper: Vec<char> = letter.to_uppercase().collect();
    let rest = |&c: &char| match (c, letter) {
        (IOTA, _) => IOTA_BELOW.to_string(),
        (c, 'ŉ') => c.to_string(),
        (c, _) => c.to_lowercase().to_string(),
    };
    upper.iter().take(1).map(char::to_string).chain(upper.iter().skip(1).map(rest)).collect()
}

fn split_at_spaces(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    if from_right {
        loop {
            rest = rest.trim_end_matches(is_space);
            if rest.is_empty() {
                break;
            }
            if parts.len() == most {
                parts.push(rest);
                break;
            }
            let last = rest.char_indices().rev().find(|&(_, c)| is_space(c));
            let start = last.map_or(0, |(at, c)| at + c.len_utf8());
            parts.push(&rest[start..]);
            rest = &rest[..start];
        }
        parts.reverse();
        return parts;
    }
    loop {
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() {
            break;
        }
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = &rest[end..];
    }
    parts
}

/// Lines as `str.splitlines` finds them.
fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    const ENDS: [char; 10] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(at) = rest.find(ENDS) else {
            found.push(rest);
            break;
        };
        let first = rest[at..].chars().next().map_or(1, char::len_utf8);
        let end = at + if rest[at..].starts_with("\r\n") { 2 } else { first };
        found.push(if keep_ends { &rest[..end] } else { &rest[..at] });
        rest = &rest[end..];
    }
    found
}

/// The slice from `start` to `end` by Python's rules, and the number of characters before it; `None` if it begins after the
/// end of the text.
fn slice(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(usize, &str)> {
    let n = text.chars().count() as i64;
    let place = |at: i64| if at < 0 { (at + n).max(0) } else { at };
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(n)).min(n));
    if start > end {
        return None;
    }
    let byte = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    Some((start as usize, &text[byte(start)..byte(end)]))
}

/// The number of characters before `part`.
fn search(text: &str, part: &str, method: &str) -> Option<usize> {
    let at = if method.starts_with('r') { text.rfind(part) } else { text.find(part) }?;
    Some(text[..at].chars().count())
}

pub(super) fn padded(text: &str, width: i64, fill: &str, method: &str) -> Result<String, Error> {
    if width > WIDEST {
        return Err(failed(format!("a text of {width} characters is too wide: at most {WIDEST}")));
    }
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count());
    // As in CPython, where an odd space goes by the width.
    let left = match method {
        "ljust" => 0,
        "rjust" | "zfill" => missing,
        _ => missing / 2 + (missing & width as usize & 1),
    };
    let (sign, digits) = match text.strip_prefix(['+', '-']).filter(|_| method == "zfill") {
        Some(digits) => text.split_at(text.len() - digits.len()),
        None => ("", text),
    };
    Ok(format!("{sign}{}{digits}{}", fill.repeat(left), fill.repeat(missing - left)))
}

fn expand_tabs(text: &str, width: i64) -> Result<String, Error> {
    if width > 64 {
        return Err(failed(format!("a tab of {width} characters is too wide")));
    }
    let width = usize::try_from(width).unwrap_or(0);
    let (mut out, mut column) = (String::with_capacity(text.len()), 0);
    for character in text.chars() {
        match character {
            '\t' => {
                let spaces = if width == 0 { 0 } else { width - column % width };
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            c => {
                column = if c == '\n' || c == '\r' { 0 } else { column + 1 };
                out.push(c);
            }
        }
    }
    Ok(out)
}

/// Refuses format fields that could be very wide: widths of more than four digits, or given by an argument.
pub(super) fn check_widths(pattern: &str, args: &[Value]) -> Result<(), Error> {
    let is_long = pattern.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 4);
    let from_argument = pattern.contains('*') || pattern.contains(":{") || pattern.contains(".{");
    let is_large = |value: &Value| value.as_i64().is_some_and(|n| n > WIDEST);
    if is_long || (from_argument && args.iter().any(is_large)) {
        return Err(failed(format!("a field of more than {WIDEST} characters is too wide")));
    }
    Ok(())
}
