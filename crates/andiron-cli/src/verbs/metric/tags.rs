//! F1 of labelled spans: a list of tags against the expected one.

use andiron_eval::metric::classification::{Average, average};
use andiron_eval::metric::seqeval::{SpanCounts, TagScheme};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::measure::{Files, Measure, object};
use super::row::Row;
use crate::exit::Ending;
use crate::flags::Common;

/// F1, precision and recall of labelled spans, from 0 to 1, as seqeval 1.2.2 computes them
///
/// A row is a sentence: `{"prediction": ["B-PER", "I-PER", "O"], "label": ["B-PER", "O", "O"]}`.
#[derive(Debug, Args)]
pub struct SeqevalArgs {
    #[command(flatten)]
    files: Files,
    /// How the types become one score
    #[arg(long, value_enum, default_value = "micro")]
    average: AverageName,
    /// Read tags as IOB2, where a span begins at B- only; by default I- after another type, or after O, begins one too
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AverageName {
    /// Of the sums over types
    Micro,
    /// The mean over types
    Macro,
    /// The mean over types, weighted by how many spans each has
    Weighted,
}

impl SeqevalArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        let scheme = if self.strict { TagScheme::StrictIob2 } else { TagScheme::Lenient };
        let average = match self.average {
            AverageName::Micro => Average::Micro,
            AverageName::Macro => Average::Macro,
            AverageName::Weighted => Average::Weighted,
        };
        self.files.measure(&OfTags { scheme, average }, common)
    }
}

struct OfTags {
    scheme: TagScheme,
    average: Average,
}

impl Measure for OfTags {
    type Row = SpanCounts;
    type Rows = Vec<SpanCounts>;
    const GOLD: &'static [&'static str] = &["label"];

    fn name(&self) -> &'static str {
        "seqeval"
    }

    fn row(&self, mut row: Row) -> Result<Self::Row, String> {
        let (predicted, labels) = (row.texts("prediction")?, row.texts("label")?);
        let mut counts = SpanCounts::default();
        counts.add(&predicted, &labels, self.scheme).map_err(|error| error.to_string())?;
        Ok(counts)
    }

    fn gather(&self, rows: Vec<Self::Row>) -> Self::Rows {
        rows
    }

    fn scores(&self, _: &Self::Rows) -> Vec<&'static str> {
        vec!["f1", "precision", "recall"]
    }

    fn over(&self, rows: &Self::Rows, chosen: &[u32]) -> Vec<f64> {
        let mut counts = SpanCounts::default();
        chosen.iter().for_each(|&row| counts.merge(&rows[row as usize]));
        let scores = average(counts.classes().map(|(_, counts)| counts), self.average);
        vec![scores.f1, scores.precision, scores.recall]
    }

    fn details(&self, rows: &Self::Rows) -> Map<String, Value> {
        let mut counts = SpanCounts::default();
        rows.iter().for_each(|row| counts.merge(row));
        let class = |(label, counts): (&str, andiron_eval::metric::classification::ClassCounts)| {
            let scores = counts.scores();
            json!({
                "label": label,
                "f1": scores.f1,
                "precision": scores.precision,
                "recall": scores.recall,
                "support": counts.support,
            })
        };
        object(json!({ "classes": counts.classes().map(class).collect::<Vec<_>>() }))
    }
}
