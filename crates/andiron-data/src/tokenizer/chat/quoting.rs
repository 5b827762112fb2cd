//! What somebody wrote, marked so that it can be told from what the template writes.

use std::collections::HashMap;

use serde_json::Value;

/// Encloses control tokens in two characters that occur nowhere in a conversation.
pub(super) struct Quoting<'a> {
    pub(super) open: char,
    pub(super) close: char,
    /// By their first character, the longest first.
    tokens: HashMap<char, Vec<&'a str>>,
}

impl<'a> Quoting<'a> {
    /// Marks that none of the texts in `given` has, for `tokens`.
    pub(super) fn avoiding(given: &[&str], tokens: impl Iterator<Item = &'a str>) -> Self {
        // Private use: no tokenizer's template writes these, and there are more than any text uses up.
        let mut free =
            ('\u{F0000}'..='\u{FFFFD}').filter(|mark| !given.iter().any(|text| text.contains(*mark)));
        let mut next =
            || free.next().expect("a text that uses every private character is not a conversation");
        let (open, close) = (next(), next());
        let mut by_first: HashMap<char, Vec<&str>> = HashMap::new();
        for token in tokens {
            if let Some(first) = token.chars().next() {
                by_first.entry(first).or_default().push(token);
            }
        }
        by_first.values_mut().for_each(|tokens| tokens.sort_by_key(|token| std::cmp::Reverse(token.len())));
        Self { open, close, tokens: by_first }
    }

    /// Encloses each control token in `text`.
    pub(super) fn quote(&self, text: &str) -> String {
        let mut quoted = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let here = self.tokens.get(&first).into_iter().flatten().find(|token| rest.starts_with(**token));
            match here {
                Some(token) => {
                    quoted.push(self.open);
                    quoted.push_str(token);
                    quoted.push(self.close);
                }
                None => quoted.push(first),
            }
            rest = &rest[here.map_or(first.len_utf8(), |token| token.len())..];
        }
        quoted
    }
}

/// Adds the strings within a value, keys included.
pub(super) fn strings_of<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| strings_of(item, found)),
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            found.push(key);
            strings_of(value, found);
        }),
        _ => {}
    }
}

/// The value with each string in it, keys included, as `shown` has it.
pub(super) fn map_strings(value: &Value, shown: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(shown(text)),
        Value::Array(items) => items.iter().map(|item| map_strings(item, shown)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (shown(key), map_strings(value, shown))).collect()
        }
        other => other.clone(),
    }
}
