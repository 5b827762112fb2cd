//! Deserializes a configuration from a JSON object with errors that name the key and its value, which serde alone
//! does not.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};
use serde_json::{Error, Map, Value};

/// Maximum characters of a value in an error.
const SHOWN: usize = 80;

/// Reads a `C` from `fields`.
///
/// # Errors
/// Names the key whose value cannot be read, and the value.
pub(crate) fn from_fields<C: DeserializeOwned>(fields: Map<String, Value>) -> Result<C, Error> {
    C::deserialize(Fields { left: fields.into_iter(), next: None })
}

/// The object as a serde map; `value` belongs to the key that was just visited.
struct Fields {
    left: serde_json::map::IntoIter,
    next: Option<(String, Value)>,
}

impl<'de> Deserializer<'de> for Fields {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.left.next() else { return Ok(None) };
        let name = seed.deserialize(Value::String(key.clone()))?;
        self.next = Some((key, value));
        Ok(Some(name))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, value) = self.next.take().unwrap_or_default();
        let shown = Shown(&value).to_string();
        seed.deserialize(value).map_err(|error| Error::custom(format!("key {key} is {shown}: {error}")))
    }
}

/// A value for a message, truncated.
pub(crate) struct Shown<'a>(pub(crate) &'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.char_indices().nth(SHOWN) {
            None => f.write_str(&text),
            Some((end, _)) => write!(f, "{}…", &text[..end]),
        }
    }
}
