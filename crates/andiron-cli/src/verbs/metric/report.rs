//! How a metric is printed.

use andiron_eval::metric::bootstrap::Comparison;
use serde_json::{Map, Value, json};

use crate::flags::Common;
use crate::lines::out;

/// A score, and how sure it is.
pub struct Estimate {
    /// Over all rows.
    pub value: f64,
    /// Standard error, where it is defined.
    pub standard_error: Option<f64>,
    /// Bounds of 95 % of the bootstrap samples.
    pub interval: Option<[f64; 2]>,
}

impl Estimate {
    fn json(&self) -> Map<String, Value> {
        let fields = [
            ("value", json!(self.value)),
            ("standard_error", json!(self.standard_error)),
            ("interval", json!(self.interval)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// What was measured.
pub struct Subject<'a> {
    /// The metric's name.
    pub metric: &'a str,
    /// Number of rows.
    pub rows: usize,
    /// Names of its scores.
    pub scores: Vec<&'a str>,
    /// Bootstrap samples.
    pub resamples: usize,
}

impl Subject<'_> {
    fn json(&self) -> Map<String, Value> {
        [("metric".to_owned(), json!(self.metric)), ("rows".to_owned(), json!(self.rows))]
            .into_iter()
            .collect()
    }

    /// The scores by name, if there are several.
    fn several<T>(&self, scores: &[T], json: impl Fn(&T) -> Map<String, Value>) -> Option<(String, Value)> {
        let fields = self
            .scores
            .iter()
            .zip(scores)
            .map(|(name, score)| ((*name).to_owned(), Value::Object(json(score))));
        (self.scores.len() > 1).then(|| ("scores".to_owned(), Value::Object(fields.collect())))
    }
}

/// Prints one system's scores and the metric's details.
///
/// # Errors
/// If standard output is closed.
pub fn print(
    subject: &Subject,
    estimates: &[Estimate],
    details: Map<String, Value>,
    common: &Common,
) -> anyhow::Result<()> {
    if common.json {
        let mut object = subject.json();
        object.extend(estimates.first().into_iter().flat_map(Estimate::json));
        object.insert("resamples".to_owned(), json!(subject.resamples));
        object.extend(details);
        object.extend(subject.several(estimates, Estimate::json));
        return out!("{}", Value::Object(object));
    }
    for (name, Estimate { value, standard_error, interval }) in subject.scores.iter().zip(estimates) {
        let error = standard_error.map(|error| format!(" ± {error:.4}")).unwrap_or_default();
        let interval =
            interval.map(|[low, high]| format!("  95 %: {low:.4} to {high:.4}")).unwrap_or_default();
        out!("{name:18}{}{error}{interval}", number(*value))?;
    }
    out!("{:18}{}", "rows", subject.rows)?;
    for (name, value) in &details {
        match value {
            Value::Array(rows) if rows.iter().any(Value::is_array) => print_table(&details, rows)?,
            Value::Array(rows) if rows.iter().any(Value::is_object) => {
                for (at, row) in rows.iter().enumerate() {
                    out!("{:18}{}", if at == 0 { name } else { "" }, plain(row))?;
                }
            }
            // A table's.
            _ if name == "labels" => {}
            value => out!("{name:18}{}", plain(value))?,
        }
    }
    Ok(())
}

/// Prints counts of labels, in rows, by predictions, in columns.
fn print_table(details: &Map<String, Value>, rows: &[Value]) -> anyhow::Result<()> {
    let labels: Vec<String> =
        details.get("labels").and_then(Value::as_array).into_iter().flatten().map(plain).collect();
    let width = |text: &str| text.chars().count();
    let cells: Vec<Vec<String>> =
        rows.iter().map(|row| row.as_array().into_iter().flatten().map(plain).collect()).collect();
    let widths = labels.iter().enumerate().map(|(column, label)| {
        let counts = cells.iter().filter_map(|row| Some(width(row.get(column)?)));
        counts.fold(width(label), usize::max)
    });
    let widths: Vec<usize> = widths.collect();
    let line = |cells: &[String]| {
        let padded =
            cells.iter().zip(&widths).map(|(cell, &to)| format!("{}{cell}", " ".repeat(to - width(cell))));
        padded.collect::<Vec<_>>().join("  ")
    };
    out!("{:18}{}", "label, predicted", line(&labels))?;
    for (label, row) in labels.iter().zip(&cells) {
        out!("{label:18}{}", line(row))?;
    }
    Ok(())
}

/// Prints two systems' scores.
///
/// # Errors
/// If standard output is closed.
pub fn print_comparison(
    subject: &Subject,
    comparisons: &[Comparison],
    common: &Common,
) -> anyhow::Result<()> {
    if common.json {
        let json = |comparison: &Comparison| {
            let Comparison { first, second, difference, p_value, interval } = comparison;
            let fields = [
                ("value", json!(first)),
                ("other", json!(second)),
                ("difference", json!(difference)),
                ("p_value", json!(p_value)),
                ("interval", json!(interval)),
            ];
            fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        };
        let mut object = subject.json();
        object.extend(comparisons.first().map(json).unwrap_or_default());
        object.insert("resamples".to_owned(), json!(subject.resamples));
        object.extend(subject.several(comparisons, json));
        return out!("{}", Value::Object(object));
    }
    out!("{:18}{:>12}{:>12}{:>12}{:>10}  95 % of differences", "", "first", "other", "difference", "p")?;
    for (name, comparison) in subject.scores.iter().zip(comparisons) {
        let Comparison { first, second, difference, p_value, interval } = comparison;
        let [first, second, difference] = [first, second, difference].map(|value| number(*value));
        let p = p_value.map_or_else(|| "-".to_owned(), |p| format!("{p:.4}"));
        let interval = interval.map(|[low, high]| format!("{low:.4} to {high:.4}")).unwrap_or_default();
        out!("{name:18}{first:>12}{second:>12}{difference:>12}{p:>10}  {interval}")?;
    }
    out!("{:18}{}", "rows", subject.rows)
}

fn number(value: f64) -> String {
    if value.is_nan() { "undefined".to_owned() } else { format!("{value:.4}") }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(value) if value.is_f64() => value.as_f64().map(number).unwrap_or_default(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{name} {}", plain(value)))
            .collect::<Vec<_>>()
            .join("  "),
        _ => value.to_string(),
    }
}
