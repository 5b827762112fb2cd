//! A row of JSON, and its fields.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Map, Value};

/// A row.
pub struct Row(Map<String, Value>);

impl Row {
    /// Parses a line. The prediction of a row that `andiron predict` wrote is its best label, its answer or its text.
    ///
    /// # Errors
    /// If it is not a JSON object.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice(line) {
            Ok(Value::Object(mut row)) => {
                if !row.contains_key("prediction") {
                    let best = row.get("labels").and_then(|labels| labels.get(0)?.get("label"));
                    let found = best.or_else(|| row.get("answer")).or_else(|| row.get("text"));
                    if let Some(prediction) = found.cloned() {
                        row.insert("prediction".to_owned(), prediction);
                    }
                }
                Ok(Self(row))
            }
            Ok(_) => Err("expected a JSON object".to_owned()),
            Err(error) => Err(format!("not JSON: {error}")),
        }
    }

    /// A hash of the values of `fields`.
    pub fn hash(&self, fields: &[&str]) -> u64 {
        let mut hasher = DefaultHasher::new();
        for field in fields {
            self.0.get(*field).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Takes a field that is there and not null.
    pub fn optional(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a field.
    ///
    /// # Errors
    /// If it is missing.
    pub fn take(&mut self, name: &str) -> Result<Value, String> {
        self.optional(name).ok_or_else(|| format!("there is no {name}"))
    }

    /// A text.
    ///
    /// # Errors
    /// If it is missing, or no text.
    pub fn text(&mut self, name: &str) -> Result<String, String> {
        match self.take(name)? {
            Value::String(text) => Ok(text),
            _ => Err(format!("{name} is not a text")),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// If it is missing, or no such list.
    pub fn texts(&mut self, name: &str) -> Result<Vec<String>, String> {
        let value = self.take(name)?;
        list(value, |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
        .ok_or_else(|| format!("{name} is not a list of texts"))
    }

    /// `references`, a list of texts, or `reference`, one.
    ///
    /// # Errors
    /// If there is neither, or both, or one that is no text.
    pub fn references(&mut self) -> Result<Vec<String>, String> {
        match (self.0.contains_key("reference"), self.0.contains_key("references")) {
            (true, false) => Ok(vec![self.text("reference")?]),
            (false, true) => self.texts("references"),
            (true, true) => Err("give reference or references, not both".to_owned()),
            (false, false) => {
                Err("there are no references: give a list of texts, or one text as reference".to_owned())
            }
        }
    }

    /// A number.
    ///
    /// # Errors
    /// If it is missing, or no number.
    pub fn number(&mut self, name: &str) -> Result<f64, String> {
        self.take(name)?.as_f64().ok_or_else(|| format!("{name} is not a number"))
    }

    /// A count, if it is there.
    ///
    /// # Errors
    /// If it is no whole number from 0.
    pub fn count(&mut self, name: &str) -> Result<Option<u64>, String> {
        let count = |value: Value| value.as_u64().ok_or_else(|| format!("{name} is not a whole number"));
        self.optional(name).map(count).transpose()
    }

    /// A label: a text, a number, true or false.
    ///
    /// # Errors
    /// If it is missing, or something else.
    pub fn label(&mut self, name: &str) -> Result<String, String> {
        match self.take(name)? {
            Value::String(label) => Ok(label),
            Value::Bool(label) => Ok(label.to_string()),
            // 1.0 is the same class as 1.
            Value::Number(label) => Ok(match label.as_f64().filter(|_| label.is_f64()) {
                Some(label) => label.to_string(),
                None => label.to_string(),
            }),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                Err(format!("{name} is not a label: a text or a number"))
            }
        }
    }
}

/// The elements of a list, if `value` is one and `element` takes each.
pub fn list<T>(value: Value, element: impl Fn(Value) -> Option<T>) -> Option<Vec<T>> {
    match value {
        Value::Array(values) => values.into_iter().map(element).collect(),
        _ => None,
    }
}
