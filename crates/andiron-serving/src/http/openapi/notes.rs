//! Notes of the fields that a parser reads.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

/// Numbers beyond it are not exact in JSON, and no bound that anyone would want to read.
const LARGE: f64 = 9_007_199_254_740_992.0;

/// The fields read so far, in order.
#[derive(Debug, Default)]
pub(in crate::http) struct Notes {
    fields: Mutex<Map<String, Value>>,
    required: Mutex<Vec<String>>,
}

impl Notes {
    /// The field `name` is read as a value of `schema`; `wanted` is what its errors say. Of a field that may be of several types,
    /// that is said first.
    pub(in crate::http) fn add(&self, name: &str, wanted: &str, mut schema: Value) {
        schema["description"] = wanted.into();
        lock(&self.fields).entry(name).or_insert(schema);
    }

    /// The number in the field `name` is bounded.
    pub(in crate::http) fn bound(&self, name: &str, least: Value, most: Value) {
        if let Some(schema) = lock(&self.fields).get_mut(name) {
            for (key, bound) in [("minimum", least), ("maximum", most)] {
                if bound.as_f64().is_some_and(|bound| bound.abs() < LARGE) {
                    schema[key] = bound;
                }
            }
        }
    }

    /// The field `name` must be there.
    pub(in crate::http) fn require(&self, name: &str) {
        let mut required = lock(&self.required);
        if !required.iter().any(|known| known == name) {
            required.push(name.to_owned());
        }
    }

    /// Takes over the notes of a parser that read the same request under other names: pairs of a name there and the name here. A name
    /// with a dot is part of another field.
    pub(in crate::http) fn absorb(&self, other: &Self, names: &[(&str, &str)]) {
        let here = |name: &str| -> String {
            names.iter().find(|(there, _)| *there == name).map_or(name, |(_, here)| here).to_owned()
        };
        for (name, schema) in lock(&other.fields).iter() {
            let name = here(name);
            if !name.contains('.') {
                lock(&self.fields).entry(name).or_insert_with(|| schema.clone());
            }
        }
        for name in lock(&other.required).iter() {
            self.require(&here(name));
        }
    }

    /// The schema of an object with these fields. Fields that need not be there may be `null`.
    pub(in crate::http) fn schema(&self) -> Value {
        let required = lock(&self.required).clone();
        let mut fields = lock(&self.fields).clone();
        for (name, schema) in &mut fields {
            if !required.contains(name) {
                allow_null(schema);
            }
        }
        json!({ "type": "object", "properties": fields, "required": required })
    }
}

fn allow_null(schema: &mut Value) {
    match schema.get_mut("type") {
        Some(Value::String(one)) if one != "null" => schema["type"] = json!([std::mem::take(one), "null"]),
        _ => {}
    }
    for key in ["anyOf", "enum"] {
        if let Some(Value::Array(options)) = schema.get_mut(key) {
            options.push(if key == "enum" { Value::Null } else { json!({ "type": "null" }) });
        }
    }
}

/// Nothing panics while it is held but for lack of memory.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
