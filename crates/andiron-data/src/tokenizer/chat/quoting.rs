//! Marks in message contents, which tell their control tokens from those of the template.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use serde_json::Value;

/// Breaks up control tokens spelled in messages: inserts, after their first character, a character that occurs nowhere in
/// the conversation. However a template cuts a text, no part of it is a control token.
#[derive(Debug)]
pub(super) struct Quoting<'a> {
    mark: char,
    /// Two more characters that occur nowhere in the conversation.
    pub(super) spare: [char; 2],
    /// By their first character, the longest first.
    tokens: HashMap<char, Vec<&'a str>>,
}

/// A part of a rendered text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'t> {
    /// Text of the template, or of a message without control tokens.
    Written(&'t str),
    /// A control token spelled in a message.
    Quoted(String),
}

impl<'a> Quoting<'a> {
    /// A mark for `tokens` that does not occur in `given`; `None` if they use every character that could be one.
    pub(super) fn avoiding(given: &[&str], tokens: impl Iterator<Item = &'a str>) -> Option<Self> {
        // Private use: no tokenizer's template writes these.
        const PRIVATE: RangeInclusive<char> = '\u{F0000}'..='\u{FFFFD}';
        let characters = given.iter().flat_map(|text| text.chars());
        let used: HashSet<char> = characters.filter(|character| PRIVATE.contains(character)).collect();
        let mut free = PRIVATE.filter(|mark| !used.contains(mark));
        let (mark, spare) = (free.next()?, [free.next()?, free.next()?]);
        let mut by_first: HashMap<char, Vec<&str>> = HashMap::new();
        for token in tokens {
            if let Some(first) = token.chars().next() {
                by_first.entry(first).or_default().push(token);
            }
        }
        by_first.values_mut().for_each(|tokens| tokens.sort_by_key(|token| std::cmp::Reverse(token.len())));
        Some(Self { mark, spare, tokens: by_first })
    }

    /// Marks each control token in `text`.
    pub(super) fn quote(&self, text: &str) -> String {
        let mut quoted = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let tokens = self.tokens.get(&first);
            let token = tokens.into_iter().flatten().find(|token| rest.starts_with(**token));
            let (taken, after) = rest.split_at(token.map_or(first.len_utf8(), |token| token.len()));
            quoted.push(first);
            if token.is_some() {
                quoted.push(self.mark);
            }
            quoted.push_str(&taken[first.len_utf8()..]);
            rest = after;
        }
        quoted
    }

    /// The text without marks.
    pub(super) fn unquote(&self, text: &str) -> String {
        text.replace(self.mark, "")
    }

    /// Splits a text at the marks: at each is a token, or what a template has left of one. Each part comes with the byte at
    /// which it begins.
    pub(super) fn parts<'t>(&self, text: &'t str) -> Vec<(usize, Part<'t>)> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(self.mark) {
            let last = before.chars().next_back();
            let begins =
                |token: &&&str| last.is_some_and(|last| after.starts_with(&token[last.len_utf8()..]));
            let tokens = last.and_then(|last| self.tokens.get(&last));
            match (last, tokens.into_iter().flatten().find(begins)) {
                (Some(last), Some(token)) => {
                    let at = text.len() - rest.len();
                    let (written, first) = before.split_at(before.len() - last.len_utf8());
                    parts.push((at, Part::Written(written)));
                    parts.push((at + before.len() - first.len(), Part::Quoted((*token).to_owned())));
                    rest = &after[token.len() - last.len_utf8()..];
                }
                _ => {
                    parts.push((text.len() - rest.len(), Part::Written(before)));
                    rest = after;
                }
            }
        }
        parts.push((text.len() - rest.len(), Part::Written(rest)));
        parts.retain(|(_, part)| *part != Part::Written(""));
        parts
    }
}

/// Collects the strings within a value, including keys.
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

/// The value with `shown` applied to each string in it, including keys.
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
