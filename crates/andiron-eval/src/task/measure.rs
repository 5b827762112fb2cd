//! What is measured of a row, and how rows become the value of a task.

use std::path::Path;

use andiron_data::jinja::replace;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::config::OutputType;
use super::error::TaskError;
use super::python;
use super::random::PythonRandom;
use crate::metric::bleu::Bleu;
use crate::metric::bootstrap::{sample_deviation, standard_error};
use crate::metric::chrf::Chrf;
use crate::metric::classification::LabelCounts;
use crate::metric::ter::{Ter, TerStats};

/// Python's `string.punctuation`.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// A metric of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    Acc,
    AccNorm,
    AccBytes,
    AccMutualInfo,
    ExactMatch,
    F1,
    Mcc,
    BrierScore,
    Perplexity,
    WordPerplexity,
    BytePerplexity,
    BitsPerByte,
    Bleu,
    Chrf,
    ChrfPlusPlus,
    Ter,
}

/// How the values of rows become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregation {
    Mean,
    NanMean,
    Median,
    Perplexity,
    WeightedPerplexity,
    BitsPerByte,
    F1,
    Matthews,
    Brier,
    Bleu,
    Chrf,
    ChrfPlusPlus,
    Ter,
}

/// Kind of a row's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Weighted,
    Labels,
    Probabilities,
    Texts,
}

/// The value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RowValue {
    /// A whole number, which results show as one.
    Count(u8),
    /// A number.
    Number(f64),
    /// A log-likelihood, and the number of words or bytes that it is of.
    Weighted(f64, u64),
    /// The right class and the predicted one.
    Labels(Value, usize),
    /// The right class and the probabilities of all.
    Probabilities(Value, Vec<f64>),
    /// The right text and the model's.
    Texts(String, String),
}

type MetricRow = (&'static str, Metric, Aggregation, bool, &'static [OutputType]);

const CHOICE: OutputType = OutputType::MultipleChoice;
const LIKELIHOOD: OutputType = OutputType::Loglikelihood;
const ROLLING: OutputType = OutputType::LoglikelihoodRolling;
const GENERATE: OutputType = OutputType::GenerateUntil;

/// Name, default aggregation, whether higher is better, and what it is measured of; in the order of the harness.
const METRICS: [MetricRow; 16] = [
    ("perplexity", Metric::Perplexity, Aggregation::Perplexity, false, &[LIKELIHOOD]),
    ("acc", Metric::Acc, Aggregation::Mean, true, &[CHOICE, LIKELIHOOD]),
    ("f1", Metric::F1, Aggregation::F1, true, &[CHOICE]),
    ("mcc", Metric::Mcc, Aggregation::Matthews, true, &[CHOICE]),
    ("acc_norm", Metric::AccNorm, Aggregation::Mean, true, &[CHOICE]),
    ("acc_bytes", Metric::AccBytes, Aggregation::Mean, true, &[CHOICE]),
    ("exact_match", Metric::ExactMatch, Aggregation::Mean, true, &[CHOICE, GENERATE]),
    ("brier_score", Metric::BrierScore, Aggregation::Brier, false, &[CHOICE]),
    ("acc_mutual_info", Metric::AccMutualInfo, Aggregation::Mean, true, &[CHOICE]),
    ("word_perplexity", Metric::WordPerplexity, Aggregation::WeightedPerplexity, false, &[ROLLING]),
    ("byte_perplexity", Metric::BytePerplexity, Aggregation::WeightedPerplexity, false, &[ROLLING]),
    ("bits_per_byte", Metric::BitsPerByte, Aggregation::BitsPerByte, false, &[ROLLING]),
    ("bleu", Metric::Bleu, Aggregation::Bleu, true, &[GENERATE]),
    ("chrf", Metric::Chrf, Aggregation::Chrf, true, &[GENERATE]),
    ("chrf++", Metric::ChrfPlusPlus, Aggregation::ChrfPlusPlus, true, &[GENERATE]),
    ("ter", Metric::Ter, Aggregation::Ter, false, &[GENERATE]),
];

const AGGREGATIONS: [(&str, Aggregation, Kind); 13] = [
    ("mean", Aggregation::Mean, Kind::Number),
    ("nanmean", Aggregation::NanMean, Kind::Number),
    ("median", Aggregation::Median, Kind::Number),
    ("perplexity", Aggregation::Perplexity, Kind::Number),
    ("weighted_perplexity", Aggregation::WeightedPerplexity, Kind::Weighted),
    ("bits_per_byte", Aggregation::BitsPerByte, Kind::Weighted),
    ("f1", Aggregation::F1, Kind::Labels),
    ("matthews_corrcoef", Aggregation::Matthews, Kind::Labels),
    ("brier_score", Aggregation::Brier, Kind::Probabilities),
    ("bleu", Aggregation::Bleu, Kind::Texts),
    ("chrf", Aggregation::Chrf, Kind::Texts),
    ("chrf++", Aggregation::ChrfPlusPlus, Kind::Texts),
    ("ter", Aggregation::Ter, Kind::Texts),
];

impl Metric {
    fn kind(self) -> Kind {
        match self {
            Self::F1 | Self::Mcc => Kind::Labels,
            Self::BrierScore => Kind::Probabilities,
            Self::WordPerplexity | Self::BytePerplexity | Self::BitsPerByte => Kind::Weighted,
            Self::Bleu | Self::Chrf | Self::ChrfPlusPlus | Self::Ter => Kind::Texts,
            _ => Kind::Number,
        }
    }
}

/// A metric of a task with its options.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricConfig {
    /// Its name.
    pub name: &'static str,
    /// Whether a higher value is a better one.
    pub higher_is_better: bool,
    pub(crate) metric: Metric,
    pub(crate) aggregation: Aggregation,
    pub(crate) matching: Matching,
}

/// What `exact_match` of texts passes over.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Matching {
    patterns: Vec<String>,
    ignore_case: bool,
    ignore_punctuation: bool,
    ignore_numbers: bool,
}

impl MetricConfig {
    /// Those of a `metric_list`; without one, those that are usual for the kind of output.
    pub(crate) fn read(
        path: &Path,
        list: Option<&Vec<Value>>,
        output: OutputType,
    ) -> Result<Vec<Self>, TaskError> {
        let Some(list) = list else {
            let usual: &[&str] = match output {
                OutputType::Loglikelihood => &["perplexity", "acc"],
                OutputType::LoglikelihoodRolling => &["word_perplexity", "byte_perplexity", "bits_per_byte"],
                OutputType::MultipleChoice => &["acc", "acc_norm"],
                OutputType::GenerateUntil => &["exact_match"],
            };
            return Ok(usual.iter().filter_map(|name| Self::usual(name)).collect());
        };
        let mut metrics: Vec<Self> = Vec::new();
        for (number, item) in list.iter().enumerate() {
            let wrong = |problem: String| {
                let key = format!("metric_list.{number}");
                TaskError::Key { path: path.to_owned(), key, problem }
            };
            let metric = Self::one(item, output).map_err(wrong)?;
            metrics.retain(|known| known.name != metric.name);
            metrics.push(metric);
        }
        // Those of log-likelihoods stand in samples in the harness's own order.
        if output != OutputType::GenerateUntil {
            metrics.sort_by_key(|metric| METRICS.iter().position(|row| row.0 == metric.name));
        }
        Ok(metrics)
    }

    /// A metric by the configuration that results have of a task; `None` if we do not know it.
    pub(crate) fn of_results(config: &Value, name: &str) -> Option<Self> {
        let list = config.get("metric_list").and_then(Value::as_array);
        let item =
            list.into_iter().flatten().find(|item| item.get("metric").and_then(Value::as_str) == Some(name));
        let own = item.and_then(|item| item.get("aggregation")).and_then(Value::as_str);
        let mut metric = Self::usual(name)?;
        if let Some((_, aggregation, _)) = AGGREGATIONS.iter().find(|(name, ..)| Some(*name) == own) {
            metric.aggregation = *aggregation;
        }
        Some(metric)
    }

    fn usual(name: &str) -> Option<Self> {
        let &(name, metric, aggregation, higher_is_better, _) = METRICS.iter().find(|row| row.0 == name)?;
        Some(Self { name, higher_is_better, metric, aggregation, matching: Matching::default() })
    }

    fn one(item: &Value, output: OutputType) -> Result<Self, String> {
        let Value::Object(fields) = item else { return Err("is no object with the key metric".to_owned()) };
        let name = fields.get("metric").and_then(Value::as_str).ok_or("has no metric")?;
        let names = || {
            let fitting = METRICS.iter().filter(|row| row.4.contains(&output)).map(|row| row.0);
            fitting.collect::<Vec<_>>().join(", ")
        };
        let Some(usual) = Self::usual(name) else {
            let problem =
                format!("is {name:?}; there are {}. `andiron metric` computes more from samples", names());
            return Err(problem);
        };
        let fits = METRICS.iter().any(|row| row.0 == name && row.4.contains(&output));
        if !fits {
            return Err(format!(
                "{name} is not measured for output_type {}; there are {}",
                output.name(),
                names()
            ));
        }
        if fields.get("hf_evaluate").is_some_and(|value| *value != Value::Bool(false)) {
            return Err("sets hf_evaluate, which runs a Python package: leave it out".to_owned());
        }
        let mut metric = usual;
        if let Some(aggregation) = fields.get("aggregation").filter(|value| !value.is_null()) {
            let fitting: Vec<_> =
                AGGREGATIONS.iter().filter(|(_, _, kind)| *kind == metric.metric.kind()).collect();
            let known = fitting.iter().find(|(name, ..)| Some(*name) == aggregation.as_str());
            let Some((_, known, _)) = known else {
                let names: Vec<&str> = fitting.iter().map(|(name, ..)| *name).collect();
                return Err(format!("has the aggregation {aggregation}; {name} takes {}", names.join(", ")));
            };
            metric.aggregation = *known;
        }
        match fields.get("higher_is_better") {
            None | Some(Value::Null) => {}
            Some(Value::Bool(better)) => metric.higher_is_better = *better,
            Some(other) => return Err(format!("has higher_is_better {other}, not true or false")),
        }
        let plain = ["metric", "aggregation", "higher_is_better", "hf_evaluate"];
        for (key, value) in fields.iter().filter(|(key, _)| !plain.contains(&key.as_str())) {
            if metric.metric != Metric::ExactMatch || output != OutputType::GenerateUntil {
                return Err(format!("gives {name} the unknown option {key}"));
            }
            metric.matching.set(key, value)?;
        }
        Ok(metric)
    }
}

impl Matching {
    fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        let flag = || value.as_bool().ok_or_else(|| format!("has {key} {value}, not true or false"));
        match key {
            "ignore_case" => self.ignore_case = flag()?,
            "ignore_punctuation" => self.ignore_punctuation = flag()?,
            "ignore_numbers" => self.ignore_numbers = flag()?,
            "regexes_to_ignore" => {
                let items = match value {
                    Value::Null => return Ok(()),
                    Value::Array(items) => items.as_slice(),
                    _ => return Err("has regexes_to_ignore that are no list".to_owned()),
                };
                for item in items {
                    let pattern = item.as_str().ok_or("has regexes_to_ignore that are no texts")?;
                    replace(pattern, "", "", 0)?;
                    self.patterns.push(pattern.to_owned());
                }
            }
            other => return Err(format!("gives exact_match the unknown option {other}")),
        }
        Ok(())
    }

    /// A text without what is passed over.
    pub(crate) fn shown(&self, text: &str) -> Result<String, String> {
        let mut text = text.to_owned();
        for pattern in &self.patterns {
            text = replace(pattern, "", &text, 0)?;
        }
        if self.ignore_case {
            text = text.to_lowercase();
        }
        if self.ignore_punctuation {
            text.retain(|c| !PUNCTUATION.contains(c));
        }
        if self.ignore_numbers {
            text.retain(|c| !c.is_ascii_digit());
        }
        // NumPy's arrays of texts end at the last character that is not NUL.
        Ok(text.trim_end_matches('\0').to_owned())
    }
}

impl RowValue {
    /// As it stands in a sample.
    pub(crate) fn json(&self) -> Value {
        match self {
            Self::Count(value) => json!(value),
            Self::Number(value) => json!(value),
            Self::Weighted(sum, weight) => json!([sum, weight]),
            Self::Labels(gold, predicted) => json!([gold, predicted]),
            Self::Probabilities(gold, all) => json!([gold, all]),
            Self::Texts(gold, predicted) => json!([gold, predicted]),
        }
    }

    /// From a sample.
    pub(crate) fn of_json(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(Self::Number(number.as_f64()?)),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(gold), Value::String(predicted)] => {
                    Some(Self::Texts(gold.clone(), predicted.clone()))
                }
                [Value::Number(sum), Value::Number(weight)] if sum.is_f64() => {
                    Some(Self::Weighted(sum.as_f64()?, weight.as_u64()?))
                }
                [gold, Value::Array(all)] => {
                    let all = all.iter().map(Value::as_f64).collect::<Option<_>>()?;
                    Some(Self::Probabilities(gold.clone(), all))
                }
                [gold, Value::Number(predicted)] => {
                    Some(Self::Labels(gold.clone(), predicted.as_u64()? as usize))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn number(&self) -> f64 {
        match self {
            Self::Count(value) => f64::from(*value),
            Self::Number(value) => *value,
            _ => f64::NAN,
        }
    }
}

/// The values of all rows, prepared so that rows can be drawn again and again.
pub(crate) enum Prepared {
    Numbers(Aggregation, Vec<f64>),
    Weighted(Aggregation, Vec<(f64, f64)>),
    Labels { f1: bool, classes: usize, positive: Option<usize>, pairs: Vec<(usize, usize)> },
    Brier(Vec<f64>),
    Bleu(Vec<crate::metric::bleu::BleuStats>),
    Chrf(Chrf, Vec<crate::metric::chrf::ChrfStats>),
    Ter(Vec<TerStats>),
}

impl Prepared {
    /// Prepares the values of a metric.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn new(metric: &MetricConfig, values: &[RowValue]) -> Result<Self, String> {
        let aggregation = metric.aggregation;
        match aggregation {
            Aggregation::WeightedPerplexity | Aggregation::BitsPerByte => {
                let pair = |value: &RowValue| match value {
                    RowValue::Weighted(sum, weight) => (*sum, *weight as f64),
                    _ => (f64::NAN, 0.0),
                };
                Ok(Self::Weighted(aggregation, values.iter().map(pair).collect()))
            }
            Aggregation::F1 | Aggregation::Matthews => labels(aggregation, values),
            Aggregation::Brier => {
                let one = |value: &RowValue| match value {
                    RowValue::Probabilities(gold, all) => {
                        let gold = gold.as_u64().filter(|&gold| (gold as usize) < all.len());
                        let gold = gold.ok_or("brier_score needs the index of the right choice")?;
                        let square = |(at, p): (usize, &f64)| (p - f64::from(at as u64 == gold)).powi(2);
                        Ok(all.iter().enumerate().map(square).sum())
                    }
                    _ => Ok(f64::NAN),
                };
                Ok(Self::Brier(values.iter().map(one).collect::<Result<_, String>>()?))
            }
            Aggregation::Bleu => {
                let bleu = Bleu::default();
                Ok(Self::Bleu(texts(values).map(|(gold, text)| bleu.stats(text, &[gold])).collect()))
            }
            Aggregation::Chrf | Aggregation::ChrfPlusPlus => {
                let chrf = if aggregation == Aggregation::Chrf { Chrf::default() } else { Chrf::plus_plus() };
                let stats = texts(values).map(|(gold, text)| chrf.stats(text, &[gold])).collect();
                Ok(Self::Chrf(chrf, stats))
            }
            Aggregation::Ter => {
                let ter = Ter::default();
                Ok(Self::Ter(texts(values).map(|(gold, text)| ter.stats(text, &[gold])).collect()))
            }
            _ => Ok(Self::Numbers(aggregation, values.iter().map(RowValue::number).collect())),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Numbers(_, rows) => rows.len(),
            Self::Weighted(_, rows) => rows.len(),
            Self::Labels { pairs, .. } => pairs.len(),
            Self::Brier(rows) => rows.len(),
            Self::Bleu(rows) => rows.len(),
            Self::Chrf(_, rows) => rows.len(),
            Self::Ter(rows) => rows.len(),
        }
    }

    /// The value over some rows, a row as often as it is named.
    pub(crate) fn value(&self, rows: &[u32]) -> f64 {
        let n = rows.len() as f64;
        match self {
            Self::Numbers(aggregation, values) => {
                let drawn = || rows.iter().map(|&row| values[row as usize]);
                match aggregation {
                    Aggregation::Median => {
                        let mut sorted: Vec<f64> = drawn().collect();
                        let middle = sorted.len() / 2;
                        match sorted.is_empty() {
                            true => f64::NAN,
                            false => *sorted.select_nth_unstable_by(middle, f64::total_cmp).1,
                        }
                    }
                    Aggregation::NanMean => {
                        let real = drawn().filter(|value| !value.is_nan());
                        let (sum, n) = real.fold((0.0, 0.0), |(sum, n), value| (sum + value, n + 1.0));
                        sum / n
                    }
                    Aggregation::Perplexity => (-(drawn().sum::<f64>() / n)).exp(),
                    _ => drawn().sum::<f64>() / n,
                }
            }
            Self::Weighted(aggregation, pairs) => {
                let drawn = || rows.iter().map(|&row| pairs[row as usize]);
                let mean =
                    drawn().map(|(sum, _)| sum).sum::<f64>() / drawn().map(|(_, weight)| weight).sum::<f64>();
                match aggregation {
                    Aggregation::BitsPerByte => -mean / std::f64::consts::LN_2,
                    _ => (-mean).exp(),
                }
            }
            Self::Labels { f1, classes, positive, pairs } => {
                let counts = LabelCounts::new(*classes, rows.iter().map(|&row| pairs[row as usize]));
                match f1 {
                    true => positive.map_or(0.0, |class| counts.classes()[class].scores().f1),
                    false => counts.matthews(),
                }
            }
            Self::Brier(values) => rows.iter().map(|&row| values[row as usize]).sum::<f64>() / n,
            Self::Bleu(stats) => {
                Bleu::default().score(&rows.iter().map(|&row| stats[row as usize]).sum()).score
            }
            Self::Chrf(chrf, stats) => chrf.score(&rows.iter().map(|&row| stats[row as usize]).sum()),
            Self::Ter(stats) => Ter::default().score(&rows.iter().map(|&row| stats[row as usize]).sum()),
        }
    }

    /// The value over all rows.
    pub(crate) fn whole(&self) -> f64 {
        let all: Vec<u32> = (0..self.len() as u32).collect();
        self.value(&all)
    }

    /// The standard error: that of a mean by its formula, others from `samples` drawn with Python's generator in chunks of 1,000,
    /// of which each has its number as the seed; `None` where lm-evaluation-harness has none.
    ///
    /// Source: `stderr_for_metric` and `bootstrap_stderr` of lm-evaluation-harness 0.4.13.
    pub(crate) fn standard_error(&self, samples: usize) -> Option<f64> {
        let n = self.len();
        if n < 2 || samples == 0 {
            return None;
        }
        let samples = match self {
            Self::Numbers(Aggregation::Mean, values) => return standard_error(values),
            Self::Weighted(..) | Self::Brier(_) => return None,
            Self::Bleu(_) | Self::Chrf(..) | Self::Ter(_) => samples.min(100),
            _ => samples,
        };
        let chunk = samples.min(1000);
        let of_chunk = |seed: usize| {
            let mut random = PythonRandom::new(seed as u64);
            let mut rows = vec![0; n];
            let one = |_| {
                random.choices(&mut rows);
                self.value(&rows)
            };
            (0..chunk).map(one).collect::<Vec<f64>>()
        };
        let chunks: Vec<Vec<f64>> = (0..samples / chunk).into_par_iter().map(of_chunk).collect();
        sample_deviation(&chunks.concat())
    }
}

fn texts(values: &[RowValue]) -> impl Iterator<Item = (&str, &str)> {
    values.iter().map(|value| match value {
        RowValue::Texts(gold, text) => (gold.as_str(), text.as_str()),
        _ => ("", ""),
    })
}

fn labels(aggregation: Aggregation, values: &[RowValue]) -> Result<Prepared, String> {
    let f1 = aggregation == Aggregation::F1;
    let mut known: Vec<String> = Vec::new();
    let mut number = |label: String| match known.iter().position(|other| *other == label) {
        Some(at) => at,
        None => {
            known.push(label);
            known.len() - 1
        }
    };
    let mut pairs = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        let RowValue::Labels(gold, predicted) = value else { continue };
        let is_binary = *predicted < 2 && gold.as_u64().is_some_and(|gold| gold < 2);
        if f1 && !is_binary {
            return Err(format!(
                "f1 is of two classes, 0 and 1, but row {row} has {} and {predicted}: use mcc or acc",
                python::text(gold)
            ));
        }
        pairs.push((number(python::text(gold)), number(predicted.to_string())));
    }
    let positive = known.iter().position(|label| label == "1");
    Ok(Prepared::Labels { f1, classes: known.len(), positive, pairs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(item: Value, output: OutputType) -> Result<MetricConfig, String> {
        MetricConfig::one(&item, output)
    }

    fn numbers(values: &[f64]) -> Vec<RowValue> {
        values.iter().map(|&value| RowValue::Number(value)).collect()
    }

    #[track_caller]
    fn check(item: Value, output: OutputType, values: &[RowValue], expected: f64, error: Option<f64>) {
        let prepared = Prepared::new(&metric(item.clone(), output).unwrap(), values).unwrap();
        let (value, found) = (prepared.whole(), prepared.standard_error(2000));
        assert!((value - expected).abs() < 1e-12, "{item}: {value}");
        match (found, error) {
            (Some(found), Some(error)) => assert!((found - error).abs() < 1e-12, "{item}: {found}"),
            (found, error) => assert_eq!(found, error, "{item}"),
        }
    }

    /// lm-evaluation-harness 0.4.13 with `bootstrap_iters` of 2,000.
    #[test]
    fn values_and_errors_are_those_of_the_harness() {
        let logs = [-1.0, -2.5, -0.25, -4.0, -3.0];
        let label = |gold: u8, predicted: usize| RowValue::Labels(json!(gold), predicted);
        let labels = [label(1, 1), label(0, 1), label(1, 0), label(1, 1), label(0, 0), label(1, 1)];
        let text = |gold: &str, text: &str| RowValue::Texts(gold.to_owned(), text.to_owned());
        let texts = [
            text("the cat sat on the mat", "the cat sat on a mat"),
            text("a b c d", "a b c d"),
            text("x y", "y x z"),
        ];
        let weighted = [RowValue::Weighted(-10.0, 4), RowValue::Weighted(-20.5, 9)];
        check(
            json!({"metric": "acc"}),
            CHOICE,
            &numbers(&[1.0, 0.0, 1.0]),
            2.0 / 3.0,
            Some(0.33333333333333337),
        );
        check(
            json!({"metric": "acc", "aggregation": "median"}),
            CHOICE,
            &numbers(&logs),
            -2.5,
            Some(1.001603259239626),
        );
        check(
            json!({"metric": "perplexity"}),
            LIKELIHOOD,
            &numbers(&logs),
            8.584858397177893,
            Some(6.686632191883755),
        );
        check(json!({"metric": "f1"}), CHOICE, &labels, 0.75, Some(0.1931447034609521));
        check(json!({"metric": "mcc"}), CHOICE, &labels, 0.25, Some(0.4143270599607566));
        check(json!({"metric": "bleu"}), GENERATE, &texts, 61.71392021671751, Some(19.330623939692337));
        check(json!({"metric": "chrf"}), GENERATE, &texts, 67.47750654746953, Some(13.503571246515063));
        check(json!({"metric": "chrf++"}), GENERATE, &texts, 70.11927034901802, Some(12.214973787310413));
        check(json!({"metric": "ter"}), GENERATE, &texts, 25.0, Some(20.3312295514359));
        check(json!({"metric": "word_perplexity"}), ROLLING, &weighted, 10.445318067055567, None);
        check(json!({"metric": "bits_per_byte"}), ROLLING, &weighted, 3.384784519008722, None);
        let probabilities = [
            RowValue::Probabilities(json!(1), vec![0.25, 0.75]),
            RowValue::Probabilities(json!(0), vec![0.5, 0.5]),
        ];
        check(json!({"metric": "brier_score"}), CHOICE, &probabilities, 0.3125, None);
        let one =
            Prepared::new(&metric(json!({"metric": "acc"}), CHOICE).unwrap(), &numbers(&[1.0])).unwrap();
        assert_eq!(one.standard_error(100), None);
    }

    #[test]
    fn texts_are_compared_without_what_is_passed_over() {
        let item = json!({"metric": "exact_match", "ignore_case": true, "ignore_punctuation": true,
                          "regexes_to_ignore": ["the ", "\\d+$"], "ignore_numbers": false});
        let matching = metric(item, GENERATE).unwrap().matching;
        assert_eq!(matching.shown("So, the King! 12").unwrap(), "so king ");
        assert_eq!(Matching::default().shown("A.").unwrap(), "A.");
    }

    #[test]
    fn metrics_that_do_not_fit_are_refused() {
        for (item, output, said) in [
            (json!({"metric": "rouge"}), GENERATE, "andiron metric"),
            (json!({"metric": "acc"}), GENERATE, "not measured for output_type generate_until"),
            (json!({"metric": "acc", "aggregation": "bleu"}), CHOICE, "acc takes mean"),
            (json!({"metric": "acc", "ignore_case": true}), CHOICE, "unknown option ignore_case"),
            (json!({"metric": "exact_match", "hf_evaluate": true}), GENERATE, "hf_evaluate"),
            (json!({"metric": "exact_match", "regexes_to_ignore": ["("]}), GENERATE, "cannot be used"),
        ] {
            let error = metric(item.clone(), output).unwrap_err();
            assert!(error.contains(said), "{item}: {error}");
        }
        let three = [RowValue::Labels(json!(2), 0)];
        let f1 = metric(json!({"metric": "f1"}), CHOICE).unwrap();
        assert!(Prepared::new(&f1, &three).err().unwrap().contains("row 0 has 2"));
    }
}
