//! The JSON schema of a type, from what its `Deserialize` asks for.
//!
//! A deserializer that has no data notes which values a type wants and gives it neutral ones, so that it goes on to its parts.

use serde::de::value::{Error, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde_json::{Map, Value, json};

/// Nesting of a described type: one that holds itself ends here.
const MAX_DEPTH: usize = 8;

/// The JSON schema of what `T` is read from. `{}`, which stands for any value, where it takes several kinds.
pub(in crate::http) fn schema_of<T: DeserializeOwned>() -> Value {
    let mut schema = json!({});
    // A type may refuse the neutral values. What it wanted is known by then.
    drop(T::deserialize(Probe { schema: &mut schema, depth: 0 }));
    schema
}

/// Notes in `schema` what a type wants.
struct Probe<'a> {
    schema: &'a mut Value,
    depth: usize,
}

impl Probe<'_> {
    fn note(&mut self, schema: Value) {
        *self.schema = schema;
    }
}

/// A method for a plain value.
macro_rules! plain {
    ($($method:ident => $visit:ident($($value:expr)?), $schema:tt;)+) => {
        $(fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
            self.note(json!($schema));
            visitor.$visit($($value)?)
        })+
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    plain! {
        deserialize_any => visit_unit(), {};
        deserialize_ignored_any => visit_unit(), {};
        deserialize_unit => visit_unit(), {"type": "null"};
        deserialize_bool => visit_bool(false), {"type": "boolean"};
        deserialize_i8 => visit_i64(0), {"type": "integer", "minimum": (i8::MIN), "maximum": (i8::MAX)};
        deserialize_i16 => visit_i64(0), {"type": "integer", "minimum": (i16::MIN), "maximum": (i16::MAX)};
        deserialize_i32 => visit_i64(0), {"type": "integer", "minimum": (i32::MIN), "maximum": (i32::MAX)};
        deserialize_i64 => visit_i64(0), {"type": "integer"};
        deserialize_i128 => visit_i64(0), {"type": "integer"};
        deserialize_u8 => visit_u64(0), {"type": "integer", "minimum": 0, "maximum": (u8::MAX)};
        deserialize_u16 => visit_u64(0), {"type": "integer", "minimum": 0, "maximum": (u16::MAX)};
        deserialize_u32 => visit_u64(0), {"type": "integer", "minimum": 0, "maximum": (u32::MAX)};
        deserialize_u64 => visit_u64(0), {"type": "integer", "minimum": 0};
        deserialize_u128 => visit_u64(0), {"type": "integer", "minimum": 0};
        deserialize_f32 => visit_f64(0.0), {"type": "number"};
        deserialize_f64 => visit_f64(0.0), {"type": "number"};
        deserialize_char => visit_char(' '), {"type": "string", "minLength": 1, "maxLength": 1};
        deserialize_str => visit_str(""), {"type": "string"};
        deserialize_string => visit_str(""), {"type": "string"};
        deserialize_identifier => visit_str(""), {"type": "string"};
        deserialize_bytes => visit_bytes(&[]), {"type": "string"};
        deserialize_byte_buf => visit_bytes(&[]), {"type": "string"};
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        // Names like this one are how serde_json asks for a value as it was written.
        match name.starts_with('$') {
            true => Err(Error::custom("any value")),
            false => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut items = json!({});
        let read = match self.depth < MAX_DEPTH {
            true => visitor.visit_seq(Items { items: &mut items, left: 1, depth: self.depth + 1 }),
            false => Err(Error::custom("too deep")),
        };
        *self.schema = json!({"type": "array", "items": items});
        read
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        let mut items = json!({});
        let read = visitor.visit_seq(Items { items: &mut items, left: len, depth: self.depth + 1 });
        *self.schema = json!({"type": "array", "minItems": len, "maxItems": len});
        read
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut values = json!({});
        let entries =
            Entries { names: &[""], at: 0, depth: self.depth + 1, note: &mut |_, schema| values = schema };
        let read = visitor.visit_map(entries);
        *self.schema = match values == json!({}) {
            true => json!({"type": "object"}),
            false => json!({"type": "object", "additionalProperties": values}),
        };
        read
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut properties = Map::new();
        let mut note = |name: &'static str, schema| drop(properties.insert(name.to_owned(), schema));
        let read = match self.depth < MAX_DEPTH {
            true => {
                visitor.visit_map(Entries { names: fields, at: 0, depth: self.depth + 1, note: &mut note })
            }
            false => Err(Error::custom("too deep")),
        };
        *self.schema = json!({"type": "object", "properties": properties});
        read
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.schema = json!({"enum": variants});
        let first: StrDeserializer<'_, Error> =
            variants.first().copied().unwrap_or_default().into_deserializer();
        visitor.visit_enum(first)
    }
}

/// The elements of an array, of which one is described.
struct Items<'a> {
    items: &'a mut Value,
    left: usize,
    depth: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(Probe { schema: self.items, depth: self.depth }).map(Some)
    }
}

/// The entries of an object.
struct Entries<'a> {
    names: &'a [&'static str],
    at: usize,
    depth: usize,
    note: &'a mut dyn FnMut(&'static str, Value),
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(name) = self.names.get(self.at) else { return Ok(None) };
        let name: StrDeserializer<'_, Error> = (*name).into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let mut schema = json!({});
        let read = seed.deserialize(Probe { schema: &mut schema, depth: self.depth });
        if let Some(&name) = self.names.get(self.at) {
            (self.note)(name, schema);
        }
        self.at += 1;
        read
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    #[allow(dead_code, reason = "only described")]
    enum Side {
        Left,
        Right,
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only described")]
    struct Row {
        side: Side,
        names: Option<Vec<String>>,
        rest: Value,
        more: Vec<Row>,
    }

    #[test]
    fn a_type_is_described_by_what_it_reads() {
        assert_eq!(schema_of::<bool>(), json!({"type": "boolean"}));
        assert_eq!(schema_of::<Option<f32>>(), json!({"type": "number"}));
        assert_eq!(schema_of::<Vec<Vec<u32>>>()["items"]["items"]["maximum"], u32::MAX);
        assert_eq!(schema_of::<Value>(), json!({}));
        assert_eq!(schema_of::<Box<serde_json::value::RawValue>>(), json!({}));
        assert_eq!(schema_of::<Map<String, Value>>(), json!({"type": "object"}));
        let biases = json!({"type": "object", "additionalProperties": {"type": "number"}});
        assert_eq!(schema_of::<BTreeMap<String, f64>>(), biases);
        let row = schema_of::<Row>();
        assert_eq!(row["properties"]["side"], json!({"enum": ["left", "right"]}));
        assert_eq!(row["properties"]["names"], json!({"type": "array", "items": {"type": "string"}}));
        assert_eq!(row["properties"]["rest"], json!({}));
        assert_eq!(row["properties"]["more"]["items"]["properties"]["side"], row["properties"]["side"]);
    }
}
