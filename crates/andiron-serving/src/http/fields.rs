//! The fields of a request body, each parsed on its own so that an error names it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::ApiError;
use super::openapi::{Notes, schema_of};

/// Maximum nesting of arrays and objects in a body.
const MAX_DEPTH: usize = 64;

/// An object whose values are not parsed yet. `null` is the same as an absent field, as in OpenAI's API.
///
/// A parser is also its own description: one that runs on [`Fields::noting`] leaves a note of each field that it reads.
pub(super) struct Fields<'a> {
    raw: BTreeMap<String, &'a RawValue>,
    notes: Option<Arc<Notes>>,
}

impl<'a> Fields<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        if depth(body) > MAX_DEPTH {
            return Err(ApiError::malformed(format!("the body is nested deeper than {MAX_DEPTH} levels")));
        }
        let parsed: Result<BTreeMap<String, &RawValue>, _> = serde_json::from_slice(body);
        let mut raw =
            parsed.map_err(|error| ApiError::malformed(format!("the body is no JSON object: {error}")))?;
        raw.retain(|_, value| value.get() != "null");
        Ok(Self { raw, notes: None })
    }

    /// The fields of an example, with notes of how each is read.
    pub(super) fn noting(body: &'a [u8]) -> Result<Self, ApiError> {
        Ok(Self { notes: Some(Arc::default()), ..Self::parse(body)? })
    }

    /// The notes of [`Fields::noting`].
    pub(super) fn notes(&self) -> Option<&Arc<Notes>> {
        self.notes.as_ref()
    }

    /// Notes that a field, which is read by [`Fields::raw`], may be any of several types.
    pub(super) fn one_of(&self, name: &str, wanted: &str, types: &[fn() -> Value]) {
        if let Some(notes) = &self.notes {
            let types: Vec<Value> = types.iter().map(|schema| schema()).collect();
            notes.add(name, wanted, json!({ "anyOf": types }));
        }
    }

    /// All fields, parsed.
    pub(super) fn to_map(&self) -> Result<Map<String, Value>, ApiError> {
        let parse = |(name, raw): (&String, &&RawValue)| {
            let value = serde_json::from_str(raw.get());
            value.map(|value| (name.clone(), value)).map_err(|_| self.unexpected(name, "JSON"))
        };
        self.raw.iter().map(parse).collect()
    }

    /// The text of a field as it was sent.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.raw.get(name).map(|value| value.get())
    }

    pub(super) fn required<T: DeserializeOwned>(&self, name: &str, wanted: &str) -> Result<T, ApiError> {
        let missing = || ApiError::invalid(name, format_args!("missing, expected {wanted}"));
        if let Some(notes) = &self.notes {
            notes.require(name);
        }
        self.optional(name, wanted)?.ok_or_else(missing)
    }

    pub(super) fn optional<T: DeserializeOwned>(
        &self,
        name: &str,
        wanted: &str,
    ) -> Result<Option<T>, ApiError> {
        if let Some(notes) = &self.notes {
            notes.add(name, wanted, schema_of::<T>());
        }
        let Some(raw) = self.raw(name) else {
            return Ok(None);
        };
        serde_json::from_str(raw).map(Some).map_err(|_| self.unexpected(name, wanted))
    }

    /// The model that the request names.
    pub(super) fn model(&self) -> Result<Option<String>, ApiError> {
        self.optional("model", "a string")
    }

    /// Refuses a field of more than `limit` bytes, before it is parsed: values take a multiple of their text.
    pub(super) fn check_bytes(&self, name: &str, limit: usize) -> Result<(), ApiError> {
        match self.raw(name).map(str::len) {
            Some(bytes) if bytes > limit => {
                Err(ApiError::invalid(name, format_args!("{bytes} bytes, at most {limit} are allowed")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.optional(name, "true or false")?.unwrap_or(false))
    }

    pub(super) fn integer(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let wanted = format!("an integer {}", between(&range));
        let value: Option<i64> = self.optional(name, &wanted)?;
        if let Some(notes) = &self.notes {
            notes.bound(name, json!(range.start()), json!(range.end()));
        }
        match value.is_none_or(|value| range.contains(&value)) {
            true => Ok(value),
            false => Err(self.unexpected(name, &wanted)),
        }
    }

    /// A count of at least `low`.
    pub(super) fn count(&self, name: &str, low: usize, high: usize) -> Result<Option<usize>, ApiError> {
        let range = i64::try_from(low).unwrap_or(i64::MAX)..=i64::try_from(high).unwrap_or(i64::MAX);
        Ok(self.integer(name, range)?.and_then(|value| usize::try_from(value).ok()))
    }

    pub(super) fn number(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let wanted = format!("a number {}", between(&range));
        let value: Option<f64> = self.optional(name, &wanted)?;
        if let Some(notes) = &self.notes {
            notes.bound(name, json!(range.start()), json!(range.end()));
        }
        match value.is_none_or(|value| range.contains(&value)) {
            true => Ok(value.map(|value| value as f32)),
            false => Err(self.unexpected(name, &wanted)),
        }
    }

    /// Refuses fields that would change the answer and are not supported, unless they have one of the values (JSON text) that
    /// change nothing.
    pub(super) fn refuse(&self, refused: &[(&str, &[&str])]) -> Result<(), ApiError> {
        let changes =
            |(name, harmless): &&(&str, &[&str])| self.raw(name).is_some_and(|raw| !harmless.contains(&raw));
        match refused.iter().find(changes) {
            Some((name, _)) => Err(ApiError::unsupported(name, "")),
            None => Ok(()),
        }
    }

    pub(super) fn unexpected(&self, name: &str, wanted: &str) -> ApiError {
        let raw = self.raw(name).unwrap_or("nothing");
        let mut found: String = raw.chars().take(40).collect();
        if found.len() < raw.len() {
            found.push('…');
        }
        ApiError::invalid(name, format_args!("expected {wanted}, got {found}"))
    }
}

fn between<T: Display>(range: &RangeInclusive<T>) -> String {
    format!("between {} and {}", range.start(), range.end())
}

/// Maximum depth of brackets outside strings. Works on invalid JSON too, which is refused later.
fn depth(body: &[u8]) -> usize {
    let (mut now, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for &byte in body {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                now += 1;
                deepest = deepest.max(now);
            }
            (false, b'}' | b']') => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert_eq!(depth(br#"{"a":[1,[2]],"b":"[[[[\"[["}"#), 3);
        assert_eq!(depth(b"1"), 0);
        assert_eq!(depth(&[b'['; 100]), 100);
    }

    #[test]
    fn an_error_names_the_field_and_shows_what_came() {
        let fields = Fields::parse(br#"{"n": 9, "t": "hot", "big": 1e400, "none": null}"#)
            .unwrap_or_else(|e| panic!("{e}"));
        let message = |result: Result<Option<i64>, ApiError>| result.expect_err("refused").to_string();
        assert_eq!(message(fields.integer("n", 1..=8)), "n: expected an integer between 1 and 8, got 9");
        assert_eq!(
            message(fields.integer("t", 1..=8)),
            "t: expected an integer between 1 and 8, got \"hot\""
        );
        let number = fields.number("big", 0.0..=2.0).expect_err("refused").to_string();
        assert_eq!(number, "big: expected a number between 0 and 2, got 1e400");
        assert_eq!(fields.flag("none"), Ok(false));
    }

    #[test]
    fn a_parser_that_runs_on_notes_describes_its_fields() {
        let fields =
            Fields::noting(br#"{"n": 1, "text": "x", "ids": [1]}"#).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(fields.count("n", 1, 8), Ok(Some(1)));
        assert_eq!(fields.required::<String>("text", "a string"), Ok("x".to_owned()));
        fields.one_of("ids", "a list", &[schema_of::<Vec<bool>>, schema_of::<String>]);
        assert_eq!(fields.flag("on"), Ok(false));
        let expected = json!({
            "type": "object",
            "properties": {
                "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 8, "description": "an integer between 1 and 8"},
                "text": {"type": "string", "description": "a string"},
                "ids": {
                    "anyOf": [{"type": "array", "items": {"type": "boolean"}}, {"type": "string"}, {"type": "null"}],
                    "description": "a list",
                },
                "on": {"type": ["boolean", "null"], "description": "true or false"},
            },
            "required": ["text"],
        });
        assert_eq!(fields.notes().map(|notes| notes.schema()), Some(expected));
    }

    #[test]
    fn a_body_that_nests_too_deep_is_refused_before_it_is_parsed() {
        let deep = format!("{{\"prompt\":{}{}}}", "[".repeat(64), "]".repeat(64));
        assert!(
            Fields::parse(deep.as_bytes()).is_err_and(|error| error.to_string().contains("deeper than 64"))
        );
    }
}
