//! Jinja filters and tests that the engine lacks or implements differently.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Rest, Tuple, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::python::{self, is_space};
use super::{json, source, strings};

/// Registers them.
pub(crate) fn add_to(environment: &mut Environment<'_>) {
    environment.add_filter("tojson", json::to_json);
    environment.add_filter("trim", |text: &Value, set: Option<String>| -> Result<String, Error> {
        let text = python::text(text)?;
        let belongs = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.contains(c));
        Ok(text.trim_matches(belongs).to_owned())
    });
    environment.add_filter("title", |text: &Value| python::text(text).map(|text| title(&text)));
    environment
        .add_filter("capitalize", |text: &Value| python::text(text).map(|text| strings::capitalize(&text)));
    environment.add_filter("string", python::text);
    environment.add_filter("join", join);
    environment.add_filter("int", to_int);
    environment.add_filter("float", to_float);
    environment.add_filter("wordcount", |text: &Value| python::text(text).map(|text| count_words(&text)));
    environment.add_filter("truncate", truncate);
    environment.add_filter("center", |text: &Value, width: Option<i64>| {
        strings::padded(&python::text(text)?, width.unwrap_or(80), " ", "center")
    });
    environment.add_filter("format", |pattern: &Value, args: Rest<Value>| {
        strings::check_widths(&python::text(pattern)?, &args)?;
        format(FormatStyle::Printf, &python::text(pattern)?, &args)
    });
    environment.add_filter("urlencode", url_encode);
    environment.add_filter(source::PERCENT, percent);
    environment.add_filter(source::BOUNDED, |state: &State, value: Value| -> Result<Value, Error> {
        let nodes = python::check_depth(&value)?;
        state.consume_fuel(nodes as u64 / 4)?;
        Ok(value)
    });
    environment.add_test("sequence", |value: &Value| {
        let is_iterator = value.kind() == ValueKind::Iterable && value.len().is_none();
        has_items(value) && !is_iterator
    });
    environment.add_test("iterable", has_items);
    environment
        .add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
}

fn has_items(value: &Value) -> bool {
    use ValueKind::{Bytes, Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), Undefined | String | Bytes | Seq | Map | Iterable)
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Title case; words begin after white space, dashes and opening brackets.
fn title(text: &str) -> String {
    let begins = |c: char| is_space(c) || "-({[<".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut at_start = true;
    for character in text.chars() {
        if begins(character) {
            out.push(character);
            at_start = true;
        } else if at_start {
            out.extend(character.to_uppercase());
            at_start = false;
        } else {
            out.extend(character.to_lowercase());
        }
    }
    out
}

fn join(
    state: &State,
    values: &Value,
    between: Option<String>,
    attribute: Option<String>,
    options: Kwargs,
) -> Result<String, Error> {
    let between =
        between.map_or_else(|| options.get::<Option<String>>("d"), |d| Ok(Some(d)))?.unwrap_or_default();
    let attribute = attribute.map_or_else(|| options.get::<Option<String>>("attribute"), |a| Ok(Some(a)))?;
    options.assert_all_used()?;
    let mut out = String::new();
    if values.is_undefined() {
        return Ok(out);
    }
    for (index, item) in values.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(&between);
        }
        let length = out.len();
        let part = attribute.iter().flat_map(|path| path.split('.')).try_fold(item, |value, name| {
            name.parse::<usize>().map_or_else(|_| value.get_attr(name), |at| value.get_item_by_index(at))
        })?;
        out.push_str(&python::text(&part)?);
        state.consume_fuel(((out.len() - length) + between.len()) as u64 / 64)?;
    }
    Ok(out)
}

/// `int(value)`, or the default if `value` is not a number.
fn to_int(value: &Value, default: Option<Value>, base: Option<u32>, options: Kwargs) -> Result<Value, Error> {
    let default = default.map_or_else(|| options.get::<Option<Value>>("default"), |d| Ok(Some(d)))?;
    let base = base.map_or_else(|| options.get::<Option<u32>>("base"), |base| Ok(Some(base)))?.unwrap_or(10);
    options.assert_all_used()?;
    let whole = |float: f64| {
        // As far as numbers go that are whole and exact.
        (float.is_finite() && float.abs() < 1.7e38).then(|| Value::from(float.trunc() as i128))
    };
    let number = match value.kind() {
        ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        ValueKind::Number if value.is_integer() => Some(value.clone()),
        ValueKind::Number => python::as_float(value).and_then(whole),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default().trim_matches(is_space);
            parse_int(text, base).map(Value::from).or_else(|| parse_float(text).and_then(whole))
        }
        _ => None,
    };
    Ok(number.or(default).unwrap_or(Value::from(0)))
}

fn parse_int(text: &str, base: u32) -> Option<i128> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let prefix = match base {
        16 => ["0x", "0X"],
        8 => ["0o", "0O"],
        2 => ["0b", "0B"],
        _ => ["\0", "\0"],
    };
    let digits = prefix.iter().find_map(|prefix| digits.strip_prefix(prefix)).unwrap_or(digits);
    let digits = without_underscores(digits)?;
    let is_word = digits.starts_with(|c: char| c.is_ascii_alphanumeric());
    let number = i128::from_str_radix(&digits, base.clamp(2, 36)).ok().filter(|_| is_word)?;
    Some(if text.starts_with('-') { -number } else { number })
}

/// Digits, which single underscores may separate.
fn without_underscores(digits: &str) -> Option<String> {
    let is_plain = !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
    is_plain.then(|| digits.replace('_', ""))
}

fn parse_float(text: &str) -> Option<f64> {
    without_underscores(text)?.parse().ok()
}

fn to_float(value: &Value, default: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let default = default.map_or_else(|| options.get::<Option<Value>>("default"), |d| Ok(Some(d)))?;
    options.assert_all_used()?;
    let number = match value.kind() {
        ValueKind::Bool => Some(if value.is_true() { 1.0 } else { 0.0 }),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::String => parse_float(value.as_str().unwrap_or_default().trim_matches(is_space)),
        _ => None,
    };
    Ok(number.map(Value::from).or(default).unwrap_or(Value::from(0.0)))
}

fn count_words(text: &str) -> usize {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
}

/// `truncate(length=255, killwords=False, end='...', leeway=5)`.
fn truncate(text: &Value, places: Rest<Value>, options: Kwargs) -> Result<String, Error> {
    let text = python::text(text)?;
    let setting = |place: usize, name: &str| -> Result<Option<Value>, Error> {
        let value =
            places.get(place).cloned().map_or_else(|| options.get::<Option<Value>>(name), |v| Ok(Some(v)))?;
        Ok(value.filter(|value| !value.is_none()))
    };
    let size = |place, name, absent| setting(place, name)?.map_or(Ok(absent), usize::try_from);
    let length = size(0, "length", 255)?;
    let kills_words = setting(1, "killwords")?.is_some_and(|kill| kill.is_true());
    let end = setting(2, "end")?.map_or_else(|| Ok("...".to_owned()), |end| python::text(&end))?;
    let leeway = size(3, "leeway", 5)?;
    options.assert_all_used()?;
    let n_end = end.chars().count();
    if length < n_end {
        return Err(failed(format!("truncate: expected length >= {n_end}, got {length}")));
    }
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let cut: String = text.chars().take(length - n_end).collect();
    let kept =
        if kills_words { &cut } else { cut.rsplit_once(' ').map_or(cut.as_str(), |(before, _)| before) };
    Ok(format!("{kept}{end}"))
}

/// `urlencode`: a text as part of a URL's path; pairs or a dictionary as its query.
fn url_encode(value: &Value) -> Result<String, Error> {
    let is_list = matches!(value.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Iterable);
    if !is_list {
        return Ok(quoted(&python::text(value)?, "/", "%20"));
    }
    let pair = |item: Value| -> Result<String, Error> {
        let [key, value] = match value.kind() {
            ValueKind::Map => [item.clone(), value.get_item(&item)?],
            _ => [item.get_item_by_index(0)?, item.get_item_by_index(1)?],
        };
        Ok(format!("{}={}", quoted(&python::text(&key)?, "", "+"), quoted(&python::text(&value)?, "", "+")))
    };
    Ok(value.try_iter()?.map(pair).collect::<Result<Vec<_>, _>>()?.join("&"))
}

fn quoted(text: &str, safe: &str, space: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match char::from(byte) {
            ' ' => out.push_str(space),
            c if c.is_ascii_alphanumeric() || "_.-~".contains(c) || safe.contains(c) => out.push(c),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `pattern % value`.
fn percent(pattern: &Value, value: &Value) -> Result<String, Error> {
    let args = match value.downcast_object_ref::<Tuple>() {
        Some(_) => value.try_iter()?.collect(),
        None => vec![value.clone()],
    };
    let pattern = python::text(pattern)?;
    strings::check_widths(&pattern, &args)?;
    format(FormatStyle::Printf, &pattern, &args)
}
