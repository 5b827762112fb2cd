//! Classification of whole texts, with one label or several, and regression: for encoders and decoders.

mod data;

use andiron_core::{ids, loss};
use andiron_data::batch::{HostBatch, Labels};
use andiron_eval::metric::classification::{Average, ClassCounts, LabelCounts};
use andiron_eval::metric::correlation::{pearson, spearman};
use andiron_models::encoder::{Head, Problem};
use andiron_models::{ClassifierConfig, Encoder as _, EncoderConfig, EncoderHead, FamilyConfig};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{Measured, Metrics, ModelOf, Objective, Pass};
use crate::observe::ConfusionMatrix;

/// Options of [`Classify`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifyConfig {
    /// What the labels of a text are; by default one of several, or a number if the rows have numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Names of the labels, in the order of the head's outputs; by default those of the rows, sorted, or those of the model
    /// if it has the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
}

/// A family whose models may have a head for labels of texts.
pub trait TextClassifier: FamilyConfig {
    /// Label logits, or raw outputs for regression.
    ///
    /// # Shape
    /// `[rows, labels]`.
    fn logits(&self, model: &Self::Model, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<2>;

    /// Problem type of the head.
    fn problem(&self) -> Problem;

    /// Names of the labels.
    fn label_names(&self) -> &[String];
}

impl TextClassifier for EncoderConfig {
    fn logits(&self, model: &Self::Model, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<2> {
        let inputs = &batch.inputs;
        let mut cx = pass.context(inputs);
        let hidden_btd = model.hidden(pass.ids(inputs), pass.type_ids(inputs), &mut cx);
        match model.head() {
            Head::SequenceClassification(head) => head.forward(hidden_btd, &mut cx),
            _ => panic!("an encoder with a head for labels of texts"),
        }
    }

    fn problem(&self) -> Problem {
        match self.head() {
            EncoderHead::Classify { problem } => problem,
            _ => panic!("an encoder with a head for labels of texts"),
        }
    }

    fn label_names(&self) -> &[String] {
        self.labels()
    }
}

impl TextClassifier for ClassifierConfig {
    fn logits(&self, model: &Self::Model, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<2> {
        let inputs = &batch.inputs;
        let length = |row: usize| inputs.lengths.as_ref().map_or(inputs.columns, |lengths| lengths[row]);
        let last: Vec<usize> =
            (0..inputs.rows).map(|row| self.last_token(&inputs.row(row)[..length(row)])).collect();
        model.sequence_logits(pass.ids(inputs), &last, &mut pass.causal_context())
    }

    fn problem(&self) -> Problem {
        self.problem()
    }

    fn label_names(&self) -> &[String] {
        self.labels()
    }
}

/// Cross-entropy of the label of each text; binary cross-entropy, averaged over the labels, if a text has several; squared
/// error, averaged over the outputs, for regression.
///
/// Source: the losses of Hugging Face's `…ForSequenceClassification`.
#[derive(Clone, Debug)]
pub struct Classify<C> {
    /// The configuration of the model, with the head's labels.
    pub config: C,
}

/// What a classification collects over the validation data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassifyTally {
    /// Class and predicted class of each row.
    pub classes: Vec<(u32, u32)>,
    /// Value and predicted value of each output of each row.
    pub values: Vec<(f32, f32)>,
}

impl<C: TextClassifier> Classify<C> {
    /// The sum of the losses of the rows.
    fn loss_of(&self, logits_bl: Tensor<2>, labels: &Labels) -> Tensor<1> {
        let (shape, device) = (logits_bl.dims(), logits_bl.device());
        match labels {
            Labels::Classes(classes) => {
                let classes_b = ids::upload(classes, [classes.len()], &device);
                loss::cross_entropy(logits_bl, classes_b, 0.0).sum()
            }
            Labels::Values { values, width } => {
                assert_eq!(*width, shape[1], "a value for each output");
                let values_bl = Tensor::from_data(TensorData::new(values.clone(), shape), &device);
                match self.config.problem() {
                    Problem::MultiLabel => loss::binary_cross_entropy(logits_bl, values_bl).sum(),
                    _ => loss::mean_squared_error(logits_bl, values_bl).sum(),
                }
            }
            _ => panic!("a collator of classes or values"),
        }
    }
}

impl<C: TextClassifier> Objective for Classify<C> {
    type Family = C;
    type Tally = ClassifyTally;
    const UNIT: &'static str = "rows";

    fn loss(&self, model: &ModelOf<Self>, batch: &HostBatch, pass: &Pass<'_>) -> Tensor<1> {
        self.loss_of(self.config.logits(model, batch, pass), &batch.labels).mul_scalar(pass.scale)
    }

    fn measure(
        &self,
        model: &ModelOf<Self>,
        batch: &HostBatch,
        pass: &Pass<'_>,
        tally: &mut ClassifyTally,
    ) -> Tensor<1> {
        let logits_bl = self.config.logits(model, batch, pass);
        let loss = self.loss_of(logits_bl.clone(), &batch.labels).mul_scalar(pass.scale);
        let n_labels = logits_bl.dims()[1];
        let logits = logits_bl.into_data().try_into_vec::<f32>().expect("logits are f32");
        match &batch.labels {
            Labels::Classes(classes) => {
                let predicted = logits.chunks_exact(n_labels).map(greatest);
                tally.classes.extend(classes.iter().copied().zip(predicted));
            }
            Labels::Values { values, .. } => tally.values.extend(values.iter().copied().zip(logits)),
            _ => {}
        }
        loss
    }

    fn metrics(&self, _: &Measured, tally: &ClassifyTally) -> Metrics {
        let names = self.config.label_names();
        let (values, confusion) = match self.config.problem() {
            Problem::SingleLabel => {
                let pairs =
                    tally.classes.iter().map(|&(label, predicted)| (label as usize, predicted as usize));
                let counts = LabelCounts::new(names.len(), pairs);
                let values = vec![
                    ("accuracy", Some(counts.accuracy())),
                    ("macro_f1", Some(counts.average(Average::Macro).f1)),
                ];
                (values, Some(ConfusionMatrix::of_pairs(names, &tally.classes)))
            }
            Problem::MultiLabel => (vec![("micro_f1", Some(micro_f1(&tally.values)))], None),
            Problem::Regression | Problem::OneLabel => {
                let column = |of: fn(&(f32, f32)) -> f32| -> Vec<f64> {
                    tally.values.iter().map(|pair| f64::from(of(pair))).collect()
                };
                let (values, predicted) = (column(|pair| pair.0), column(|pair| pair.1));
                let correlations = vec![
                    ("pearson", pearson(&values, &predicted)),
                    ("spearman", spearman(&values, &predicted)),
                ];
                (correlations, None)
            }
        };
        let values = values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        Metrics { values, confusion }
    }
}

/// Index of the greatest value, the first of equal ones.
pub(super) fn greatest(row: &[f32]) -> u32 {
    let mut best = 0;
    for (at, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = at;
        }
    }
    best as u32
}

/// F1 score of all labels together; a label is predicted if its logit is above 0.
fn micro_f1(values: &[(f32, f32)]) -> f64 {
    let mut counts = ClassCounts::default();
    for (value, logit) in values {
        let (given, predicted) = (*value > 0.5, *logit > 0.0);
        counts.support += u64::from(given);
        counts.predicted += u64::from(predicted);
        counts.correct += u64::from(given && predicted);
    }
    counts.scores().f1
}
