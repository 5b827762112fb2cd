//! A row: named fields that tell where they stand when they are not what is asked for.

use serde_json::{Map, Value};

use super::error::{Origin, RowError, RowFault, excerpt};

/// A row of a dataset as it was found: an object of JSON, or the cells of a table by the names in its header.
///
/// A field is named by its key, or by a path with dots into objects (`translation.en`).
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    fields: Map<String, Value>,
    origin: Origin,
    cells: Cells,
}

/// Whether the fields of a row have types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cells {
    /// They are values of JSON.
    Typed,
    /// They are text, in which numbers are spelled.
    Text,
}

impl Row {
    pub(super) fn new(fields: Map<String, Value>, origin: Origin, cells: Cells) -> Self {
        Self { fields, origin, cells }
    }

    /// Where the row comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Its fields as they were found: values of JSON, or the text of a table's cells.
    pub fn into_fields(self) -> Map<String, Value> {
        self.fields
    }

    /// The names of its fields, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// The value of a field. `null` and, in a table, an empty cell count as absent.
    pub fn find(&self, field: &str) -> Option<&Value> {
        let value = self.fields.get(field).or_else(|| {
            let (first, rest) = field.split_once('.')?;
            rest.split('.').try_fold(self.fields.get(first)?, |value, key| value.get(key))
        });
        value.filter(|value| !value.is_null() && (self.cells == Cells::Typed || value.as_str() != Some("")))
    }

    /// The value of a field.
    ///
    /// # Errors
    /// If it is absent or `null`.
    pub fn get(&self, field: &str) -> Result<&Value, RowError> {
        self.find(field).ok_or_else(|| {
            if self.fields.contains_key(field) && self.cells == Cells::Typed {
                let found = "null (NaN and Infinity count as null)".to_owned();
                return self.fail(RowFault::Type { field: field.to_owned(), found, wanted: "a value" });
            }
            if self.fields.contains_key(field) {
                return self.fail(RowFault::Empty { field: field.to_owned() });
            }
            let has = self.names().map(str::to_owned).collect();
            self.fail(RowFault::Missing { field: field.to_owned(), has })
        })
    }

    /// The text in a field. In a table an empty cell is an empty text.
    ///
    /// # Errors
    /// If it is absent, or no string.
    pub fn text(&self, field: &str) -> Result<&str, RowError> {
        if self.cells == Cells::Text
            && let Some(Value::String(text)) = self.fields.get(field)
        {
            return Ok(text);
        }
        let value = self.get(field)?;
        value.as_str().ok_or_else(|| self.wrong(field, value, "text in quotes"))
    }

    /// The text in a field, which is more than spaces.
    ///
    /// # Errors
    /// If it is absent, no string, or empty.
    pub fn some_text(&self, field: &str) -> Result<&str, RowError> {
        let text = self.text(field)?;
        if text.trim().is_empty() {
            return Err(self.fail(RowFault::Empty { field: field.to_owned() }));
        }
        Ok(text)
    }

    /// The number in a field.
    ///
    /// # Errors
    /// If it is absent, no number, or too large for an `f32`.
    pub fn number(&self, field: &str) -> Result<f32, RowError> {
        let value = self.get(field)?;
        self.number_in(value).ok_or_else(|| self.wrong(field, value, "a number"))
    }

    /// The items of a list in a field.
    ///
    /// # Errors
    /// If it is absent, or no list.
    pub fn list(&self, field: &str) -> Result<&[Value], RowError> {
        let value = self.get(field)?;
        value.as_array().map(Vec::as_slice).ok_or_else(|| self.wrong(field, value, "a list"))
    }

    /// The texts of a list in a field.
    ///
    /// # Errors
    /// If it is absent, no list, or a list of something else.
    pub fn texts(&self, field: &str) -> Result<Vec<String>, RowError> {
        let text = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            _ => Err(self.wrong(field, value, "text in each item of the list")),
        };
        self.list(field)?.iter().map(text).collect()
    }

    /// A number in JSON, or spelled in a cell of a table.
    pub(super) fn number_in(&self, value: &Value) -> Option<f32> {
        let number = match value {
            Value::String(text) if self.cells == Cells::Text => text.trim().parse().ok()?,
            value => value.as_f64()?,
        };
        Some(number as f32).filter(|number| number.is_finite())
    }

    /// A whole number in JSON, also as `3.0` (which tables of floats with gaps hold), or spelled in a cell of a table.
    pub(super) fn whole_in(&self, value: &Value) -> Option<i64> {
        const EXACT: f64 = (1u64 << 53) as f64;
        let from_float =
            |number: f64| (number.fract() == 0.0 && number.abs() < EXACT).then_some(number as i64);
        match value {
            Value::String(text) if self.cells == Cells::Text => {
                let text = text.trim();
                text.parse().ok().or_else(|| from_float(text.parse().ok()?))
            }
            value => value.as_i64().or_else(|| from_float(value.as_f64()?)),
        }
    }

    /// The error that a field holds something else.
    pub(super) fn wrong(&self, field: &str, value: &Value, wanted: &'static str) -> RowError {
        self.fail(RowFault::Type { field: field.to_owned(), found: describe(value), wanted })
    }

    /// The error that this row is at fault.
    pub fn fail(&self, fault: RowFault) -> RowError {
        RowError { origin: self.origin.clone(), fault }
    }
}

/// A value in words, for a message.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {:?}", excerpt(text)),
        Value::Array(items) => format!("a list of {} items", items.len()),
        Value::Object(fields) => format!("an object of {} fields", fields.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Place;
    use serde_json::json;
    use std::path::Path;

    fn row(fields: Value, cells: Cells) -> Row {
        let Value::Object(fields) = fields else { panic!("no object: {fields}") };
        Row::new(fields, Origin { file: Path::new("rows.x").into(), place: Place::Line(7) }, cells)
    }

    #[test]
    fn a_field_may_be_a_path() {
        let row = row(json!({ "translation": { "en": "a" }, "a.b": "c", "n": null }), Cells::Typed);
        assert_eq!(row.text("translation.en").unwrap(), "a");
        assert_eq!(row.text("a.b").unwrap(), "c");
        assert!(row.find("translation.es").is_none() && row.find("n").is_none() && row.find("a.c").is_none());
    }

    #[track_caller]
    fn check<T: std::fmt::Debug>(found: Result<T, RowError>, message: &str) {
        assert_eq!(found.unwrap_err().to_string(), format!("rows.x:7: {message}"));
    }

    #[test]
    fn errors_name_the_place_the_field_and_what_is_there() {
        let row = row(
            json!({ "id": 3, "score": "high", "label": null, "text": " ", "tokens": ["a", 1], "big": 1e300 }),
            Cells::Typed,
        );
        check(
            row.text("txt"),
            "no field \"txt\"; the row has \"id\", \"score\", \"label\", \"text\", \"tokens\", \"big\"; name the field to read",
        );
        check(row.text("id"), "field \"id\" is the number 3, not text in quotes");
        check(row.some_text("text"), "field \"text\" is empty");
        check(row.number("score"), "field \"score\" is the text \"high\", not a number");
        assert!(row.number("big").is_err());
        check(row.number("label"), "field \"label\" is null (NaN and Infinity count as null), not a value");
        check(row.texts("tokens"), "field \"tokens\" is the number 1, not text in each item of the list");
        check(row.list("text"), "field \"text\" is the text \" \", not a list");
    }

    #[test]
    fn cells_of_a_table_spell_numbers() {
        let row = row(json!({ "a": " 2.5", "b": "", "c": "3", "d": "4.0", "e": "x" }), Cells::Text);
        assert_eq!(row.number("a").unwrap(), 2.5);
        assert_eq!(row.text("b").unwrap(), "");
        let whole = |field: &str| row.whole_in(row.find(field).unwrap());
        assert_eq!([whole("c"), whole("d"), whole("a"), whole("e")], [Some(3), Some(4), None, None]);
        check(row.number("b"), "field \"b\" is empty");
    }
}
