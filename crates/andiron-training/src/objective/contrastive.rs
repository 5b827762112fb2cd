//! Contrastive learning of text embeddings, for encoders.

use std::sync::Arc;

use andiron_core::loss;
use andiron_data::batch::{HostBatch, Labels};
use andiron_data::collate;
use andiron_data::records::{ColumnType, Record, columns};
use andiron_data::rows::{Contrast, RowFault};
use andiron_eval::metric::correlation::{pearson, spearman};
use andiron_models::encoder::{EmbedPipeline, Similarity};
use andiron_models::{Encoder as _, EncoderConfig};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::pairs::{PairFields, Pairs, ScoredPair};
use super::{FromConfig, Measured, Metrics, ModelOf, Objective, Pass};
use crate::config::check;
use crate::plan::{Plan, Setup};
use crate::rows::{EncodeFault, Encoding};
use crate::trainer::TrainError;

/// Options of [`Contrastive`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveConfig {
    /// Factor of the cosines, one over the temperature.
    pub scale: f32,
    /// Negatives of an anchor; by default as many as every training row has. More are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negatives: Option<usize>,
    /// The loss of pairs with a score.
    pub scored_loss: ScoredLoss,
    /// The score of texts that mean the same.
    pub max_score: f32,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self { scale: 20.0, negatives: None, scored_loss: ScoredLoss::Cosent, max_score: 1.0 }
    }
}

/// The loss of pairs with a score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoredLoss {
    /// [`loss::cosent`]: cosines are to have the order of the scores of their batch.
    #[default]
    Cosent,
    /// [`loss::cosine_mean_squared_error`]: cosines are to equal the scores.
    Cosine,
}

/// For groups, cross-entropy of the anchor's positive among all positives and negatives of the batch
/// ([`loss::multiple_negatives_ranking`]); for pairs with a score, a [`ScoredLoss`].
///
/// Texts are read without prompts. Dense layers after the pooling stay as they are. A text that is the positive of two anchors
/// of a batch is a negative of each, and micro-batches do not see each other's texts: `data.rows` is what counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Contrastive {
    /// From hidden states to embeddings.
    pub pipeline: EmbedPipeline,
    /// Factor of the cosines.
    pub scale: f32,
    /// The loss of pairs with a score.
    pub scored_loss: ScoredLoss,
}

/// What contrastive learning collects over the validation data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContrastiveTally {
    /// Rank of each anchor's positive in its batch, from 1 on.
    pub ranks: Vec<u32>,
    /// Score and cosine of each pair.
    pub cosines: Vec<(f32, f32)>,
}

impl Contrastive {
    /// # Shape
    /// `[rows, d]`.
    fn embeddings(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<2> {
        let inputs = &batch.inputs;
        let mut cx = pass.context(inputs);
        let hidden_btd = model.hidden(pass.ids(inputs), pass.type_ids(inputs), &mut cx);
        self.pipeline.apply(hidden_btd, cx.padding_mask(), 0)
    }

    fn loss_of(&self, embeddings_nd: Tensor<2>, labels: &Labels, pass: &Pass<'_>) -> Tensor<1> {
        let Labels::Groups { size, scores } = labels else { panic!("a collator of groups") };
        let losses = match scores {
            None => loss::multiple_negatives_ranking(embeddings_nd, *size, self.scale),
            Some(scores) => {
                let scores_p = TensorData::new(scores.clone(), [scores.len()]);
                let scores_p = Tensor::from_data(scores_p, pass.device);
                match self.scored_loss {
                    ScoredLoss::Cosent => loss::cosent(embeddings_nd, scores_p, self.scale),
                    ScoredLoss::Cosine => loss::cosine_mean_squared_error(embeddings_nd, scores_p),
                }
            }
        };
        losses.sum().mul_scalar(pass.scale)
    }
}

impl Objective for Contrastive {
    type Family = EncoderConfig;
    type Tally = ContrastiveTally;
    const UNIT: &'static str = "rows";

    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        self.loss_of(self.embeddings(model, batch, pass), &batch.labels, pass)
    }

    /// CoSENT is one loss of a whole batch.
    fn weight(&self, batch: &HostBatch) -> f64 {
        match (&batch.labels, self.scored_loss) {
            (Labels::Groups { scores: Some(_), .. }, ScoredLoss::Cosent) => 1.0,
            _ => batch.weight(),
        }
    }

    fn compares_rows(&self) -> bool {
        true
    }

    fn measure(
        &self,
        model: &ModelOf<Self>,
        batch: &HostBatch,
        pass: &Pass<'_>,
        tally: &mut ContrastiveTally,
    ) -> Tensor<1> {
        let embeddings_nd = self.embeddings(model, batch, pass);
        let loss = self.loss_of(embeddings_nd.clone(), &batch.labels, pass);
        let d = embeddings_nd.dims()[1];
        let values = embeddings_nd.into_data().try_into_vec::<f32>().expect("embeddings are f32");
        let texts: Vec<&[f32]> = values.chunks_exact(d).collect();
        match &batch.labels {
            Labels::Groups { size, scores: None } => tally.ranks.extend(ranks(&texts, *size)),
            Labels::Groups { scores: Some(scores), .. } => {
                let cosines = texts.chunks_exact(2).map(|pair| Similarity::Cosine.of(pair[0], pair[1]));
                tally.cosines.extend(scores.iter().copied().zip(cosines));
            }
            _ => {}
        }
        loss
    }

    /// Of pairs with a score, the correlations of scores and cosines; else how often an anchor's positive is the nearest text of
    /// its batch, and its mean reciprocal rank.
    fn metrics(&self, _: &Measured, tally: &ContrastiveTally) -> Metrics {
        let values = if tally.cosines.is_empty() {
            let n = tally.ranks.len().max(1) as f64;
            let first = tally.ranks.iter().filter(|&&rank| rank == 1).count() as f64;
            let reciprocal: f64 = tally.ranks.iter().map(|&rank| 1.0 / f64::from(rank)).sum();
            vec![("batch_accuracy", Some(first / n)), ("batch_mrr", Some(reciprocal / n))]
        } else {
            let (scores, cosines): (Vec<f64>, Vec<f64>) =
                tally.cosines.iter().map(|&(score, cosine)| (f64::from(score), f64::from(cosine))).unzip();
            vec![("spearman", spearman(&scores, &cosines)), ("pearson", pearson(&scores, &cosines))]
        };
        let values = values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        Metrics { values, confusion: None }
    }
}

/// The rank of each group's positive among the positives and negatives of all groups, by the cosine to its anchor. Of equal
/// cosines, that of the positive counts as the greatest.
fn ranks(texts: &[&[f32]], size: usize) -> Vec<u32> {
    let candidates = || texts.iter().enumerate().filter(|(at, _)| at % size != 0);
    let rank = |group: &[&[f32]]| {
        let own = Similarity::Cosine.of(group[0], group[1]);
        let nearer = candidates().filter(|(_, text)| Similarity::Cosine.of(group[0], text) > own);
        1 + nearer.count() as u32
    };
    texts.chunks_exact(size).map(rank).collect()
}

impl FromConfig for Contrastive {
    type Config = ContrastiveConfig;

    fn plan(config: &ContrastiveConfig, setup: &Setup<'_>) -> Result<Plan<Self>, TrainError> {
        let ContrastiveConfig { scale, negatives, scored_loss, max_score } = *config;
        check(scale.is_finite() && scale > 0.0, "objective.scale", scale, "above 0")?;
        check(max_score.is_finite() && max_score > 0.0, "objective.max_score", max_score, "above 0")?;
        let fields = PairFields::of(setup)?;
        let pipeline = setup.base.embed_pipeline()?;
        let (model, start) = setup.base.start_embedder(pipeline.clone())?;
        let is_scored = matches!(fields, PairFields::Scored(_));
        let negatives = match negatives {
            _ if is_scored => 0,
            Some(negatives) => negatives,
            None => fewest_negatives(&fields, setup)?,
        };
        let longest = pipeline.max_tokens.unwrap_or(usize::MAX).min(model.max_positions());
        let max_length = setup.max_length(longest);
        let tokenizer = setup.open_tokenizer()?;
        let framed = |text: &str| -> Result<Record<'static>, EncodeFault> {
            let lower = pipeline.lower_case.then(|| text.to_lowercase());
            let framed = tokenizer.frame(lower.as_deref().unwrap_or(text), None, max_length)?;
            if framed.ids.is_empty() {
                return Err(RowFault::Empty { field: "text".to_owned() }.into());
            }
            Ok(Record::default().with_ids(columns::IDS, framed.ids))
        };
        let encode = |example: Pairs| -> Result<Vec<Record<'static>>, EncodeFault> {
            let Contrast { anchor, positives, negatives: own } = match example {
                Pairs::Group(group) => group,
                Pairs::Scored(ScoredPair { texts, score }) => {
                    let score = score / max_score;
                    if scored_loss == ScoredLoss::Cosine && score.abs() > 1.0 {
                        let wanted = "a cosine: set objective.max_score to the highest score";
                        return Err(fields.bad_score(score * max_score, wanted).into());
                    }
                    let pair: Record<'_> = texts
                        .iter()
                        .map(|text| framed(text))
                        .collect::<Result<Vec<_>, _>>()?
                        .into_iter()
                        .collect();
                    return Ok(vec![pair.with_numbers(columns::VALUES, vec![score])]);
                }
            };
            if own.len() < negatives {
                return Err(RowFault::Lengths {
                    first: fields.judged().to_owned(),
                    n_first: own.len(),
                    second: "objective.negatives".to_owned(),
                    n_second: negatives,
                }
                .into());
            }
            let (anchor, own) = (framed(&anchor)?, own.iter().take(negatives).map(|text| framed(text)));
            let own = own.collect::<Result<Vec<_>, _>>()?;
            let group = |positive: &String| -> Result<Record<'static>, EncodeFault> {
                let texts = [anchor.clone(), framed(positive)?].into_iter();
                Ok(texts.chain(own.iter().cloned()).collect())
            };
            positives.iter().map(group).collect()
        };
        let mut columns = vec![(columns::IDS, ColumnType::Ids), (columns::LENGTHS, ColumnType::Ids)];
        if is_scored {
            columns.push((columns::VALUES, ColumnType::Numbers));
        }
        let encoding = Encoding {
            shape: fields.clone(),
            columns: &columns,
            settings: json!({ "max_length": max_length, "negatives": negatives, "max_score": max_score }),
            vocabularies: &[(columns::IDS, model.vocab_size())],
            encode: &encode,
        };
        let collator = collate::Contrastive { size: 2 + negatives, pad: model.pad_token_id() };
        let data = setup.records(&encoding, Arc::new(collator))?;
        Ok(Plan { objective: Self { pipeline, scale, scored_loss }, start, data })
    }
}

/// How many negatives every training row has.
fn fewest_negatives(fields: &PairFields, setup: &Setup<'_>) -> Result<usize, TrainError> {
    let mut fewest = usize::MAX;
    for found in setup.examples(&setup.config.data.train, fields.clone()) {
        if let (Pairs::Group(group), _) = found? {
            fewest = fewest.min(group.negatives.len());
        }
    }
    if fewest == usize::MAX {
        return Err(TrainError::NoRows { path: setup.config.data.train.clone() });
    }
    Ok(fewest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_positive_is_ranked_among_all_positives_and_negatives_of_its_batch() {
        let (east, north): (&[f32], &[f32]) = (&[1.0, 0.0], &[0.0, 1.0]);
        let between: &[f32] = &[1.0, 1.0];
        // Anchor, positive, negative.
        assert_eq!(ranks(&[east, east, north, north, between, north], 3), [1, 3]);
        assert_eq!(ranks(&[east, between, north, east], 2), [2, 2]);
    }
}
