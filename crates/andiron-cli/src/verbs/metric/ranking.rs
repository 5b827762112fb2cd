//! nDCG, reciprocal rank, average precision, recall and precision: an order of documents against their relevance.

use std::collections::HashMap;

use andiron_eval::metric::ranking::{Ranking, rank};
use clap::Args;
use serde_json::{Map, Value, json};

use super::measure::{Files, Measure, means, object};
use super::row::{Row, list};
use crate::exit::Ending;
use crate::flags::Common;

/// Normalized discounted cumulative gain, as pytrec_eval 0.5.11 computes it: the mean over rows, from 0 to 1
///
/// A row is a query: `{"scores": {"d1": 0.9, "d2": 0.3}, "gold": {"d2": 1}}`, with a score for each document and the
/// relevance of those that were judged; or `{"ranking": ["d2", "d1"], "gold": ["d2"]}`, with documents in order, and the
/// relevant ones as a list; or `{"scores": [0.9, 0.3], "gold": [0, 1]}`, for documents without names. Scores are compared
/// as 32-bit floats. Of equal ones the document with the greater name stands first, of those without names the later one.
#[derive(Debug, Args)]
pub struct NdcgArgs {
    #[command(flatten)]
    files: Files,
    /// Look at the first K documents only [default: all]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    k: Option<u32>,
}

/// Mean reciprocal rank of the first relevant document, as pytrec_eval 0.5.11 computes it, from 0 to 1
///
/// Rows are queries, as for ndcg: `{"scores": {"d1": 0.9, "d2": 0.3}, "gold": {"d2": 1}}`, or `{"ranking": ["d2", "d1"],
/// "gold": ["d2"]}`.
#[derive(Debug, Args)]
pub struct MrrArgs {
    #[command(flatten)]
    files: Files,
    /// Look at the first K documents only [default: all]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    k: Option<u32>,
}

/// Mean average precision, as pytrec_eval 0.5.11 computes it, from 0 to 1
///
/// Rows are queries, as for ndcg: `{"scores": {"d1": 0.9, "d2": 0.3}, "gold": {"d2": 1}}`, or `{"ranking": ["d2", "d1"],
/// "gold": ["d2"]}`.
#[derive(Debug, Args)]
pub struct MapArgs {
    #[command(flatten)]
    files: Files,
    /// Look at the first K documents only [default: all]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    k: Option<u32>,
}

/// Part of the relevant documents that is among the first K, as pytrec_eval 0.5.11 computes it: the mean over rows, from 0 to 1
///
/// Rows are queries, as for ndcg: `{"scores": {"d1": 0.9, "d2": 0.3}, "gold": {"d2": 1}}`, or `{"ranking": ["d2", "d1"],
/// "gold": ["d2"]}`.
#[derive(Debug, Args)]
pub struct RecallArgs {
    #[command(flatten)]
    files: Files,
    /// Look at the first K documents
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
}

/// Part of the first K documents that is relevant, as pytrec_eval 0.5.11 computes it: the mean over rows, from 0 to 1
///
/// Rows are queries, as for ndcg: `{"scores": {"d1": 0.9, "d2": 0.3}, "gold": {"d2": 1}}`, or `{"ranking": ["d2", "d1"],
/// "gold": ["d2"]}`.
#[derive(Debug, Args)]
pub struct PrecisionArgs {
    #[command(flatten)]
    files: Files,
    /// Look at the first K documents
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    k: u32,
}

fn size(k: Option<u32>) -> Option<usize> {
    k.map(|k| k as usize)
}

impl NdcgArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&OfRankings::Ndcg(size(self.k)), common)
    }
}

impl MrrArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&OfRankings::ReciprocalRank(size(self.k)), common)
    }
}

impl MapArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&OfRankings::AveragePrecision(size(self.k)), common)
    }
}

impl RecallArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&OfRankings::Recall(self.k as usize), common)
    }
}

impl PrecisionArgs {
    pub(super) fn run(self, common: &Common) -> anyhow::Result<Ending> {
        self.files.measure(&OfRankings::Precision(self.k as usize), common)
    }
}

enum OfRankings {
    Ndcg(Option<usize>),
    ReciprocalRank(Option<usize>),
    AveragePrecision(Option<usize>),
    Recall(usize),
    Precision(usize),
}

impl Measure for OfRankings {
    type Row = [f64; 1];
    type Rows = Vec<[f64; 1]>;
    const GOLD: &'static [&'static str] = &["gold"];

    fn name(&self) -> &'static str {
        match self {
            Self::Ndcg(_) => "ndcg",
            Self::ReciprocalRank(_) => "mrr",
            Self::AveragePrecision(_) => "map",
            Self::Recall(_) => "recall",
            Self::Precision(_) => "precision",
        }
    }

    fn row(&self, row: Row) -> Result<Self::Row, String> {
        let ranking = ranking(row)?;
        Ok([match *self {
            Self::Ndcg(k) => ranking.ndcg(k),
            Self::ReciprocalRank(k) => ranking.reciprocal_rank(k),
            Self::AveragePrecision(k) => ranking.average_precision(k),
            Self::Recall(k) => ranking.recall(k),
            Self::Precision(k) => ranking.precision(k),
        }])
    }

    fn gather(&self, rows: Vec<Self::Row>) -> Self::Rows {
        rows
    }

    fn scores(&self, _: &Self::Rows) -> Vec<&'static str> {
        vec![self.name()]
    }

    fn over(&self, rows: &Self::Rows, chosen: &[u32]) -> Vec<f64> {
        means(rows, chosen)
    }

    fn is_mean(&self) -> bool {
        true
    }

    fn details(&self, _: &Self::Rows) -> Map<String, Value> {
        object(json!({ "k": match *self {
            Self::Ndcg(k) | Self::ReciprocalRank(k) | Self::AveragePrecision(k) => k,
            Self::Recall(k) | Self::Precision(k) => Some(k),
        } }))
    }
}

fn ranking(mut row: Row) -> Result<Ranking, String> {
    let gold = row.take("gold")?;
    match (row.optional("scores"), row.optional("ranking")) {
        (Some(Value::Array(scores)), None) => of_places(scores, gold),
        (Some(Value::Object(scores)), None) => {
            let score = |(id, score): (String, Value)| score.as_f64().map(|score| (id, score));
            let documents: Option<Vec<_>> = scores.into_iter().map(score).collect();
            let mut documents = documents.ok_or("scores has a value that is not a number")?;
            rank(&mut documents);
            of_names(documents.into_iter().map(|(id, _)| id), gold)
        }
        (None, Some(ids)) => {
            let ids =
                list(ids, |id| Some(id.as_str()?.to_owned())).ok_or("ranking is not a list of names")?;
            let mut seen = ids.clone();
            seen.sort_unstable();
            if let Some(twice) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(format!("ranking has {:?} twice", twice[0]));
            }
            of_names(ids.into_iter(), gold)
        }
        (Some(_), Some(_)) => Err("give scores or ranking, not both".to_owned()),
        (Some(_), None) => Err("scores is neither a list of numbers nor an object of them".to_owned()),
        (None, None) => Err("there is neither scores nor ranking".to_owned()),
    }
}

/// A relevance: a whole number, or true or false.
fn relevance(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_bool().map(i64::from))
}

fn of_places(scores: Vec<Value>, gold: Value) -> Result<Ranking, String> {
    let scores: Option<Vec<f64>> = scores.iter().map(Value::as_f64).collect();
    let scores = scores.ok_or("scores is not a list of numbers")?;
    let judged = list(gold, |value| relevance(&value));
    let judged = judged.ok_or("gold is not a list of whole numbers, one for each score")?;
    if judged.len() != scores.len() {
        return Err(format!("gold has {} values for {} scores", judged.len(), scores.len()));
    }
    // In this order of bytes, a later place is a greater name.
    let mut documents: Vec<_> =
        scores.into_iter().enumerate().map(|(at, score)| (at.to_be_bytes(), score)).collect();
    rank(&mut documents);
    let ranked = documents.iter().map(|(at, _)| judged[usize::from_be_bytes(*at)]).collect();
    Ok(Ranking { ranked, judged })
}

fn of_names(ids: impl Iterator<Item = String>, gold: Value) -> Result<Ranking, String> {
    let judged: Option<HashMap<String, i64>> = match gold {
        Value::Object(gold) => gold.into_iter().map(|(id, value)| Some((id, relevance(&value)?))).collect(),
        Value::Array(gold) => gold.into_iter().map(|id| Some((id.as_str()?.to_owned(), 1))).collect(),
        _ => None,
    };
    let judged = judged.ok_or("gold is neither an object of whole numbers nor a list of relevant names")?;
    let ranked = ids.map(|id| judged.get(&id).copied().unwrap_or(0)).collect();
    Ok(Ranking { ranked, judged: judged.into_values().collect() })
}
