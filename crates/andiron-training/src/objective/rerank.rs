//! Cross-encoders: an encoder reads two texts together and says how well one fits the other, such as a document a query.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use andiron_core::loss;
use andiron_data::batch::{HostBatch, Labels};
use andiron_data::collate::{self, Target};
use andiron_data::records::{ColumnType, Record, columns};
use andiron_data::rows::RowFault;
use andiron_eval::metric::correlation::{pearson, spearman};
use andiron_eval::metric::ranking::Ranking;
use andiron_models::encoder::Problem;
use andiron_models::{EncoderConfig, EncoderHead};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::pairs::{PairFields, Pairs, ScoredPair};
use super::{FromConfig, Measured, Metrics, ModelOf, Objective, Pass, TextClassifier as _};
use crate::config::check;
use crate::plan::{Plan, Setup};
use crate::rows::{EncodeFault, Encoding, text_columns};
use crate::trainer::TrainError;

/// Options of [`Rerank`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RerankConfig {
    /// The score of texts that fit wholly. The least is 0.
    pub max_score: f32,
}

impl Default for RerankConfig {
    fn default() -> Self {
        Self { max_score: 1.0 }
    }
}

/// Binary cross-entropy between the only output for a pair of texts and its score, from 0 to 1. A positive of a query has the
/// score 1, a negative 0.
///
/// Source: `BinaryCrossEntropyLoss` of sentence-transformers.
#[derive(Clone, Debug)]
pub struct Rerank {
    /// The configuration of the model.
    pub config: EncoderConfig,
}

/// What reranking collects over the validation data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RerankTally {
    /// Each pair.
    pub pairs: Vec<ScoredQuery>,
}

/// A pair of the validation data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoredQuery {
    /// The number of the query.
    pub query: u32,
    /// The score, from 0 to 1.
    pub score: f32,
    /// The model's output, a logit.
    pub logit: f32,
}

impl Rerank {
    /// The sum of the losses of the rows.
    fn loss_of(logits_b1: Tensor<2>, batch: &HostBatch) -> Tensor<1> {
        let scores: Vec<f32> = rows(batch).map(|[score, _]| score).collect();
        let scores_b1 = Tensor::from_data(TensorData::new(scores, logits_b1.dims()), &logits_b1.device());
        loss::binary_cross_entropy(logits_b1, scores_b1).sum()
    }
}

/// Score of each row, and the number of its query.
fn rows(batch: &HostBatch) -> impl Iterator<Item = [f32; 2]> {
    let Labels::Values { values, width: 2 } = &batch.labels else { panic!("a collator of two values") };
    values.as_chunks().0.iter().copied()
}

impl Objective for Rerank {
    type Family = EncoderConfig;
    type Tally = RerankTally;
    const UNIT: &'static str = "pairs";

    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        Self::loss_of(self.config.logits(model, batch, pass), batch).mul_scalar(pass.scale)
    }

    fn measure(
        &self,
        model: &ModelOf<Self>,
        batch: &HostBatch,
        pass: &Pass<'_>,
        tally: &mut RerankTally,
    ) -> Tensor<1> {
        let logits_b1 = self.config.logits(model, batch, pass);
        let loss = Self::loss_of(logits_b1.clone(), batch).mul_scalar(pass.scale);
        let logits = logits_b1.into_data().try_into_vec::<f32>().expect("logits are f32");
        let pairs = rows(batch).zip(logits);
        tally.pairs.extend(pairs.map(|([score, query], logit)| ScoredQuery {
            query: query as u32,
            score,
            logit,
        }));
        loss
    }

    /// Of scores that are 0 or 1, how often the output says which, and the mean reciprocal rank of the first positive of each
    /// query with several texts; else the correlations of scores and probabilities.
    fn metrics(&self, _: &Measured, tally: &RerankTally) -> Metrics {
        let pairs = &tally.pairs;
        let values = if pairs.iter().all(|pair| pair.score == 0.0 || pair.score == 1.0) {
            let right = pairs.iter().filter(|pair| (pair.logit > 0.0) == (pair.score > 0.5)).count();
            let accuracy = right as f64 / pairs.len().max(1) as f64;
            vec![("accuracy", Some(accuracy)), ("mrr", mean_reciprocal_rank(pairs))]
        } else {
            let (scores, probabilities): (Vec<f64>, Vec<f64>) = pairs
                .iter()
                .map(|pair| (f64::from(pair.score), 1.0 / (1.0 + f64::from(-pair.logit).exp())))
                .unzip();
            vec![
                ("pearson", pearson(&scores, &probabilities)),
                ("spearman", spearman(&scores, &probabilities)),
            ]
        };
        let values = values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        Metrics { values, confusion: None }
    }
}

/// Of the queries with a positive and another text; `None` if there are none. Of equal outputs, those of positives come last.
fn mean_reciprocal_rank(pairs: &[ScoredQuery]) -> Option<f64> {
    let mut queries: BTreeMap<u32, Vec<&ScoredQuery>> = BTreeMap::new();
    for pair in pairs {
        queries.entry(pair.query).or_default().push(pair);
    }
    let judged = queries.into_values().filter(|pairs| pairs.len() > 1);
    let judged = judged.filter(|pairs| pairs.iter().any(|pair| pair.score == 1.0));
    let ranks: Vec<f64> = judged
        .map(|mut pairs| {
            pairs.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.score.total_cmp(&b.score)));
            let ranked: Vec<i64> = pairs.iter().map(|pair| pair.score as i64).collect();
            Ranking { judged: ranked.clone(), ranked }.reciprocal_rank(None)
        })
        .collect();
    (!ranks.is_empty()).then(|| ranks.iter().sum::<f64>() / ranks.len() as f64)
}

impl FromConfig for Rerank {
    type Config = RerankConfig;

    fn plan(config: &RerankConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        let max_score = config.max_score;
        check(max_score.is_finite() && max_score > 0.0, "objective.max_score", max_score, "above 0")?;
        let fields = PairFields::of(setup)?;
        // A head with one output is kept as it is.
        let base = setup.base.encoder()?;
        let (head, labels) = match (base.head(), base.labels()) {
            (head @ EncoderHead::Classify { .. }, [label]) => (head, vec![label.clone()]),
            _ => (EncoderHead::Classify { problem: Problem::OneLabel }, vec!["LABEL_0".to_owned()]),
        };
        let (model, start) = setup.base.start_encoder(head, &labels)?;
        let tokenizer = setup.open_tokenizer()?;
        let max_length = setup.max_length(model.max_positions());
        let typed = model.n_token_types() > 1;
        let mut columns = text_columns(typed);
        columns.push((columns::VALUES, ColumnType::Numbers));
        let queries = RefCell::new(HashMap::<String, u32>::new());
        let number = |query: &str| {
            let mut queries = queries.borrow_mut();
            let next = queries.len() as u32;
            *queries.entry(query.to_owned()).or_insert(next)
        };
        let record = |query: &str, text: &str, score: f32| -> Result<Record<'static>, EncodeFault> {
            let framed = tokenizer.frame(query, Some(text), max_length)?;
            if framed.ids.is_empty() {
                return Err(RowFault::Empty { field: "text".to_owned() }.into());
            }
            let record = Record::default()
                .with_ids(columns::IDS, framed.ids)
                .with_numbers(columns::VALUES, vec![score, number(query) as f32]);
            Ok(if typed { record.with_ids(columns::TYPE_IDS, framed.type_ids) } else { record })
        };
        let encode = |example: Pairs| -> Result<Vec<Record<'static>>, EncodeFault> {
            match example {
                Pairs::Group(group) => {
                    let positives = group.positives.iter().map(|text| (text, 1.0));
                    let texts = positives.chain(group.negatives.iter().map(|text| (text, 0.0)));
                    texts.map(|(text, score)| record(&group.anchor, text, score)).collect()
                }
                Pairs::Scored(ScoredPair { texts: [query, text], score }) => {
                    let share = score / max_score;
                    if !(0.0..=1.0).contains(&share) {
                        let wanted = "a score from 0 to objective.max_score: set that to the highest score";
                        return Err(fields.bad_score(score, wanted).into());
                    }
                    Ok(vec![record(&query, &text, share)?])
                }
            }
        };
        let encoding = Encoding {
            shape: fields.clone(),
            columns: &columns,
            settings: json!({ "max_length": max_length, "max_score": max_score }),
            vocabularies: &[(columns::IDS, model.vocab_size())],
            encode: &encode,
        };
        let collator = collate::Classify { target: Target::Values(2), pad: model.pad_token_id() };
        let data = setup.records(&encoding, Arc::new(collator))?;
        Ok(Plan { objective: Self { config: model }, start, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_ranked_by_themselves() {
        let pair = |query, score, logit| ScoredQuery { query, score, logit };
        let pairs = [
            pair(0, 1.0, 0.5),
            pair(1, 0.0, 0.9),
            pair(0, 0.0, 0.1),
            pair(1, 1.0, 0.2),
            // The negative of the same output comes first.
            pair(1, 0.0, 0.2),
            // Neither a query without a positive nor one with a single text is ranked.
            pair(2, 0.0, 0.2),
            pair(2, 0.0, 0.3),
            pair(3, 1.0, 0.3),
        ];
        let expected = (1.0 + 1.0 / 3.0) / 2.0;
        assert!((mean_reciprocal_rank(&pairs).unwrap() - expected).abs() < 1e-12);
        assert_eq!(mean_reciprocal_rank(&pairs[5..]), None);
    }
}
