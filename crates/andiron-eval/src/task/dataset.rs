//! The rows of a task, as the package `datasets` gives them to lm-evaluation-harness.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use andiron_data::rows::{RowOptions, RowReader};
use serde_json::{Map, Number, Value};

use super::config::TaskConfig;
use super::error::TaskError;

/// A row: its fields by name.
pub(crate) type Doc = Map<String, Value>;

/// Cells of a table that pandas takes for missing.
const MISSING: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// The rows of each split that a task names.
#[derive(Debug, Default)]
pub(crate) struct Splits {
    splits: BTreeMap<String, Vec<Doc>>,
}

impl Splits {
    /// Reads the splits with these names.
    pub(crate) fn read(config: &TaskConfig, names: &[&str]) -> Result<Self, TaskError> {
        let mut splits = BTreeMap::new();
        for &name in names {
            if splits.contains_key(name) {
                continue;
            }
            let Some((_, files)) = config.data_files.iter().find(|(split, _)| split == name) else {
                let known: Vec<&str> = config.data_files.iter().map(|(split, _)| split.as_str()).collect();
                let problem =
                    format!("there is no split {name:?}; dataset_kwargs.data_files has {}", known.join(", "));
                return Err(TaskError::Task { task: config.task.clone(), problem });
            };
            let mut docs = Vec::new();
            for file in files {
                docs.extend(read_file(config, name, file)?);
            }
            align(&mut docs, config.dataset_path == "csv");
            splits.insert(name.to_owned(), docs);
        }
        Ok(Self { splits })
    }

    /// The rows of a split that was read.
    pub(crate) fn get(&self, name: &str) -> &[Doc] {
        self.splits.get(name).map_or(&[], Vec::as_slice)
    }
}

fn read_file(config: &TaskConfig, split: &str, file: &Path) -> Result<Vec<Doc>, TaskError> {
    let read = |source| TaskError::Read { path: file.to_owned(), source };
    let key = |problem: String| TaskError::Key {
        path: config.path.clone(),
        key: "dataset_kwargs.field".to_owned(),
        problem,
    };
    if config.dataset_path == "text" {
        let text = fs::read_to_string(file).map_err(read)?;
        let doc = |line: &str| Map::from_iter([("text".to_owned(), Value::from(line))]);
        return Ok(text.lines().map(doc).collect());
    }
    if let Some(field) = &config.field {
        let text = fs::read_to_string(file).map_err(read)?;
        let document: Value =
            serde_json::from_str(&text).map_err(|error| key(format!("needs JSON: {error}")))?;
        let Some(Value::Array(items)) = document.get(field) else {
            return Err(key(format!("{field:?} is no list in {}", file.display())));
        };
        let object = |item: &Value| item.as_object().cloned();
        return items
            .iter()
            .map(object)
            .collect::<Option<_>>()
            .ok_or_else(|| key("has items that are no rows".to_owned()));
    }
    let separator = (config.dataset_path == "csv").then_some(',');
    let options = RowOptions { separator, ..RowOptions::default() };
    let failed = |source| TaskError::Rows {
        task: config.task.clone(),
        split: split.to_owned(),
        source: Box::new(source),
    };
    let rows = RowReader::open(file, &options).map_err(failed)?;
    rows.map(|row| row.map(|row| row.into_fields()).map_err(failed)).collect()
}

/// Gives all rows the same fields, in the order in which they first occur, and each column one type of numbers.
fn align(docs: &mut [Doc], is_table: bool) {
    let mut names: Vec<String> = Vec::new();
    for doc in docs.iter() {
        for name in doc.keys() {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    if is_table {
        for name in &names {
            type_column(docs, name);
        }
    }
    let has_floats = |name: &String| docs.iter().any(|doc| doc.get(name).is_some_and(Value::is_f64));
    let floats: Vec<String> = names.iter().filter(|name| has_floats(name)).cloned().collect();
    for doc in docs {
        let mut aligned = Map::new();
        for name in &names {
            let mut value = doc.shift_remove(name).unwrap_or(Value::Null);
            if floats.contains(name)
                && let Some(float) = value.as_f64().and_then(Number::from_f64)
            {
                value = Value::Number(float);
            }
            aligned.insert(name.clone(), value);
        }
        *doc = aligned;
    }
}

type ReadCell = fn(&str) -> Option<Value>;

fn whole_number(text: &str) -> Option<Value> {
    text.parse::<i64>().ok().map(Value::from)
}

fn number(text: &str) -> Option<Value> {
    text.parse().ok().and_then(Number::from_f64).map(Value::Number)
}

fn truth_value(text: &str) -> Option<Value> {
    match text {
        "True" | "TRUE" | "true" => Some(Value::Bool(true)),
        "False" | "FALSE" | "false" => Some(Value::Bool(false)),
        _ => None,
    }
}

/// Reads the cells of a column as pandas does: as numbers or truth values if all of them are, else as texts.
fn type_column(docs: &mut [Doc], name: &str) {
    let cell = |doc: &Doc| doc.get(name).and_then(Value::as_str).map(str::to_owned);
    let cells: Vec<Option<String>> =
        docs.iter().map(|doc| cell(doc).filter(|text| !MISSING.contains(&text.as_str()))).collect();
    let present: Vec<&str> = cells.iter().flatten().map(|text| text.trim()).collect();
    let has_missing = present.len() < cells.len();
    let all = |read: ReadCell| !present.is_empty() && present.iter().all(|text| read(text).is_some());
    let read: ReadCell = if !has_missing && all(whole_number) {
        whole_number
    } else if all(number) {
        number
    } else if all(truth_value) {
        truth_value
    } else {
        |_| None
    };
    for (doc, cell) in docs.iter_mut().zip(&cells) {
        let value = match cell {
            Some(text) => read(text.trim()).unwrap_or_else(|| text.as_str().into()),
            None => Value::Null,
        };
        doc.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(rows: Value, is_table: bool, expected: Value) {
        let mut docs: Vec<Doc> =
            rows.as_array().unwrap().iter().map(|row| row.as_object().unwrap().clone()).collect();
        align(&mut docs, is_table);
        assert_eq!(Value::Array(docs.into_iter().map(Value::Object).collect()), expected);
    }

    /// `datasets` 5.2.0 with pandas 3.1.1.
    #[test]
    fn columns_have_the_types_of_datasets() {
        check(
            json!([{"a": 1}, {"b": "x", "a": 2.5}]),
            false,
            json!([{"a": 1.0, "b": null}, {"a": 2.5, "b": "x"}]),
        );
        check(
            json!([{"n": "1", "f": "1.5", "m": "2", "t": "True", "s": "x", "e": ""},
                   {"n": "-7", "f": "2", "m": "NA", "t": "False", "s": "1", "e": "null"}]),
            true,
            json!([{"n": 1, "f": 1.5, "m": 2.0, "t": true, "s": "x", "e": null},
                   {"n": -7, "f": 2.0, "m": null, "t": false, "s": "1", "e": null}]),
        );
    }
}
