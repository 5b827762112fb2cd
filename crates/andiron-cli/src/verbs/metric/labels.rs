//! Accuracy, F1, Matthews' correlation and confusion: a label against the expected one.

use std::collections::HashMap;

use andiron_eval::metric::classification::{Average, LabelCounts, PrecisionRecall, confusion};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::measure::{Files, Measure, object};
use super::row::{Row, list};
use crate::exit::{Ending, Usage};
use crate::flags::Common;

/// Part of the predicted labels that is right, from 0 to 1
///
/// Rows: `{"prediction": "spam", "label": "ham"}`, where a label is a text, a number, true or false; or `{"scores": [0.1,
/// 2.5], "gold": 1}`, where the prediction is the place of the highest score, the first of equal ones.
#[derive(Debug, Args)]
pub struct AccuracyArgs {
    #[command(flatten)]
    files: Files,
}

/// F1, precision and recall of predicted labels, from 0 to 1, as scikit-learn 1.9 computes them
///
/// Rows: `{"prediction": "spam", "label": "ham"}`, or `{"scores": [0.1, 2.5], "gold": 1}`, as for accuracy. Classes are
/// those that are a label or a prediction of some row. One that is never predicted has precision 0, one that is no label
/// recall 0.
#[derive(Debug, Args)]
pub struct F1Args {
    #[command(flatten)]
    files: Files,
    /// How the classes become one score
    #[arg(long, value_enum, default_value = "macro")]
    average: AverageName,
    /// The class of --average binary
    #[arg(long, value_name = "LABEL")]
    positive: Option<String>,
}

/// Matthews' correlation coefficient of predicted labels, from -1 to 1, as scikit-learn 1.9 computes it
///
/// Rows: `{"prediction": "spam", "label": "ham"}`, or `{"scores": [0.1, 2.5], "gold": 1}`, as for accuracy. It is 0 where
/// all labels, or all predictions, are of one class.
#[derive(Debug, Args)]
pub struct MccArgs {
    #[command(flatten)]
    files: Files,
}

/// How often each label is predicted as which: a row for each label, a column for each prediction
///
/// Rows: `{"prediction": "spam", "label": "ham"}`, or `{"scores": [0.1, 2.5], "gold": 1}`, as for accuracy.
#[derive(Debug, Args)]
pub struct ConfusionArgs {
    #[command(flatten)]
    files: Files,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AverageName {
    /// The mean over classes
    Macro,
    /// Of the sums over classes: the accuracy
    Micro,
    /// The mean over classes, weighted by how many rows each has
    Weighted,
    /// Of one class, that of --positive
    Binary,
}

impl AccuracyArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&OfLabels::Accuracy, common)
    }
}

impl F1Args {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let metric = match (self.average, self.positive) {
            (AverageName::Binary, Some(positive)) => OfLabels::BinaryF1(positive),
            (AverageName::Binary, None) => {
                return Err(Usage("--average binary needs --positive, the class to score".to_owned()).into());
            }
            (_, Some(_)) => return Err(Usage("--positive goes with --average binary".to_owned()).into()),
            (AverageName::Macro, None) => OfLabels::F1(Average::Macro),
            (AverageName::Micro, None) => OfLabels::F1(Average::Micro),
            (AverageName::Weighted, None) => OfLabels::F1(Average::Weighted),
        };
        self.files.measure(&metric, common)
    }
}

impl MccArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&OfLabels::Matthews, common)
    }
}

impl ConfusionArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&OfLabels::Confusion, common)
    }
}

enum OfLabels {
    Accuracy,
    F1(Average),
    BinaryF1(String),
    Matthews,
    Confusion,
}

/// Classes in order, and rows as pairs of their numbers.
struct Labels {
    classes: Vec<String>,
    pairs: Vec<(u32, u32)>,
}

impl Labels {
    fn counts(&self, chosen: &[u32]) -> LabelCounts {
        let pair = |&row: &u32| self.pairs[row as usize];
        LabelCounts::new(self.classes.len(), chosen.iter().map(pair).map(|(a, b)| (a as usize, b as usize)))
    }

    fn all(&self) -> LabelCounts {
        self.counts(&(0..self.pairs.len() as u32).collect::<Vec<_>>())
    }
}

/// More classes than this are not listed.
const MOST_LISTED: usize = 1000;
/// More classes than this make no table.
const MOST_IN_TABLE: usize = 100;

impl Measure for OfLabels {
    /// The label and the prediction.
    type Row = (String, String);
    type Rows = Labels;
    const GOLD: &'static [&'static str] = &["label", "gold"];

    fn name(&self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::F1(_) | Self::BinaryF1(_) => "f1",
            Self::Matthews => "mcc",
            Self::Confusion => "confusion",
        }
    }

    fn row(&self, mut row: Row) -> Result<Self::Row, String> {
        let Some(scores) = row.optional("scores") else {
            return Ok((row.label("label")?, row.label("prediction")?));
        };
        let scores = list(scores, |score| score.as_f64()).filter(|scores| !scores.is_empty());
        let scores = scores.ok_or("scores is not a list of numbers")?;
        let gold = row.count("gold")?.ok_or("there is no gold: the place of the right score, from 0")?;
        if gold >= scores.len() as u64 {
            return Err(format!("gold is {gold}, but there are {} scores, counted from 0", scores.len()));
        }
        let best = (1..scores.len()).fold(0, |best, at| if scores[at] > scores[best] { at } else { best });
        Ok((gold.to_string(), best.to_string()))
    }

    fn gather(&self, rows: Vec<Self::Row>) -> Labels {
        let mut classes: Vec<&String> =
            rows.iter().flat_map(|(label, prediction)| [label, prediction]).collect();
        classes.sort_unstable();
        classes.dedup();
        if classes.iter().all(|class| class.parse::<i64>().is_ok()) {
            classes.sort_by_key(|class| class.parse::<i64>().unwrap_or_default());
        }
        let numbers: HashMap<&String, u32> = classes.iter().copied().zip(0..).collect();
        let pairs = rows.iter().map(|(label, prediction)| (numbers[label], numbers[prediction])).collect();
        Labels { classes: classes.into_iter().cloned().collect(), pairs }
    }

    fn scores(&self, _: &Labels) -> Vec<&'static str> {
        match self {
            Self::Accuracy | Self::Confusion => vec!["accuracy"],
            Self::F1(_) | Self::BinaryF1(_) => vec!["f1", "precision", "recall"],
            Self::Matthews => vec!["mcc"],
        }
    }

    fn over(&self, labels: &Labels, chosen: &[u32]) -> Vec<f64> {
        if matches!(self, Self::Accuracy | Self::Confusion) {
            let right =
                chosen.iter().filter(|&&row| labels.pairs[row as usize].0 == labels.pairs[row as usize].1);
            return vec![right.count() as f64 / chosen.len() as f64];
        }
        let counts = labels.counts(chosen);
        let PrecisionRecall { precision, recall, f1 } = match self {
            Self::F1(average) => counts.average(*average),
            Self::BinaryF1(positive) => {
                let class = labels.classes.iter().position(|class| class == positive);
                class.map(|class| counts.classes()[class].scores()).unwrap_or_default()
            }
            _ => return vec![counts.matthews()],
        };
        vec![f1, precision, recall]
    }

    fn is_mean(&self) -> bool {
        matches!(self, Self::Accuracy | Self::Confusion)
    }

    fn details(&self, labels: &Labels) -> Map<String, Value> {
        let classes = labels.classes.len();
        match self {
            Self::F1(_) | Self::BinaryF1(_) if classes <= MOST_LISTED => {
                let counts = labels.all();
                let class = |(name, counts): (
                    &String,
                    &andiron_eval::metric::classification::ClassCounts,
                )| {
                    let PrecisionRecall { precision, recall, f1 } = counts.scores();
                    json!({ "label": name, "f1": f1, "precision": precision, "recall": recall, "support": counts.support })
                };
                let list: Vec<Value> = labels.classes.iter().zip(counts.classes()).map(class).collect();
                object(json!({ "classes": list }))
            }
            Self::Confusion if classes <= MOST_IN_TABLE => {
                let counts = confusion(labels.pairs.iter().copied());
                let count =
                    |label: u32, prediction: u32| counts.get(&(label, prediction)).copied().unwrap_or(0);
                let all = 0..classes as u32;
                let matrix: Vec<Vec<u64>> = all
                    .clone()
                    .map(|label| all.clone().map(|prediction| count(label, prediction)).collect())
                    .collect();
                object(json!({ "labels": labels.classes, "matrix": matrix }))
            }
            _ => object(json!({ "classes": classes })),
        }
    }
}
