//! Accuracy, F1, Matthews' correlation and confusion of predicted labels, as scikit-learn computes them.
//!
//! Values are those of scikit-learn 1.9. Classes are those that are a label or a prediction of some row. A class without a
//! prediction has precision 0, one without a label recall 0, and both F1 0, as with scikit-learn's `zero_division` of 0.

use std::collections::BTreeMap;

/// Counts of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// Rows of this class that are predicted as such.
    pub correct: u64,
    /// Rows that are predicted to be of this class.
    pub predicted: u64,
    /// Rows of this class.
    pub support: u64,
}

/// Precision, recall and F1, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PrecisionRecall {
    /// Part of the predictions that is right; 0 for none.
    pub precision: f64,
    /// Part of the labels that is found; 0 for none.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

impl ClassCounts {
    /// Precision, recall and F1 of the class.
    pub fn scores(&self) -> PrecisionRecall {
        let part = |correct: u64, of: u64| if of > 0 { correct as f64 / of as f64 } else { 0.0 };
        PrecisionRecall {
            precision: part(self.correct, self.predicted),
            recall: part(self.correct, self.support),
            f1: part(2 * self.correct, self.predicted + self.support),
        }
    }
}

/// How scores of several classes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Average {
    /// The mean over classes.
    Macro,
    /// The score of the sums of counts; of all classes together, F1 is the accuracy.
    Micro,
    /// The mean over classes, weighted by their support.
    Weighted,
}

/// Joins the counts of `classes`. Of no classes, every score is 0.
///
/// # Example
/// ```
/// use andiron_eval::metric::classification::{Average, ClassCounts, average};
/// let seen = ClassCounts { correct: 3, predicted: 4, support: 3 };
/// let absent = ClassCounts { correct: 0, predicted: 0, support: 1 };
/// assert_eq!(average([seen, absent], Average::Micro).precision, 0.75);
/// assert_eq!(average([seen, absent], Average::Macro).recall, 0.5);
/// ```
pub fn average(classes: impl IntoIterator<Item = ClassCounts>, average: Average) -> PrecisionRecall {
    let mut sum = ClassCounts::default();
    let mut scores = PrecisionRecall::default();
    let mut weights = 0.0;
    for class in classes {
        sum.correct += class.correct;
        sum.predicted += class.predicted;
        sum.support += class.support;
        let weight = if average == Average::Weighted { class.support as f64 } else { 1.0 };
        let of_class = class.scores();
        scores.precision += weight * of_class.precision;
        scores.recall += weight * of_class.recall;
        scores.f1 += weight * of_class.f1;
        weights += weight;
    }
    match average {
        Average::Micro => sum.scores(),
        _ if weights == 0.0 => PrecisionRecall::default(),
        _ => PrecisionRecall {
            precision: scores.precision / weights,
            recall: scores.recall / weights,
            f1: scores.f1 / weights,
        },
    }
}

/// Rows of one label and one prediction, as numbers of classes below `n_classes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelCounts {
    classes: Vec<ClassCounts>,
}

impl LabelCounts {
    /// Counts pairs of a label and a prediction.
    ///
    /// # Panics
    /// If a number is not below `n_classes`.
    pub fn new(n_classes: usize, pairs: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut classes = vec![ClassCounts::default(); n_classes];
        for (label, prediction) in pairs {
            classes[label].support += 1;
            classes[prediction].predicted += 1;
            classes[label].correct += u64::from(label == prediction);
        }
        Self { classes }
    }

    /// Counts of each class.
    pub fn classes(&self) -> &[ClassCounts] {
        &self.classes
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.classes.iter().map(|class| class.support).sum()
    }

    /// Part of the predictions that is right; NaN of no rows.
    pub fn accuracy(&self) -> f64 {
        self.classes.iter().map(|class| class.correct).sum::<u64>() as f64 / self.rows() as f64
    }

    /// Precision, recall and F1 over the classes that are a label or a prediction of some row.
    pub fn average(&self, how: Average) -> PrecisionRecall {
        let present = self.classes.iter().filter(|class| class.support + class.predicted > 0);
        average(present.copied(), how)
    }

    /// Matthews' correlation coefficient, from -1 to 1; 0 if all labels, or all predictions, are of one class.
    ///
    /// Source: Gorodkin 2004, "Comparing two K-category assignments by a K-category correlation coefficient",
    /// <https://doi.org/10.1016/j.compbiolchem.2004.09.006>.
    pub fn matthews(&self) -> f64 {
        let rows = self.rows() as f64;
        let sum = |term: &dyn Fn(&ClassCounts) -> f64| self.classes.iter().map(term).sum::<f64>();
        let correct = sum(&|class| class.correct as f64);
        let (support, predicted) = (|c: &ClassCounts| c.support as f64, |c: &ClassCounts| c.predicted as f64);
        let covariance = correct * rows - sum(&|class| support(class) * predicted(class));
        let of_predictions = rows * rows - sum(&|class| predicted(class).powi(2));
        let of_labels = rows * rows - sum(&|class| support(class).powi(2));
        match of_predictions * of_labels == 0.0 {
            true => 0.0,
            false => covariance / (of_predictions * of_labels).sqrt(),
        }
    }
}

/// How often each pair of a label and a prediction occurs; pairs that do not occur are left out.
pub fn confusion<K: Ord>(pairs: impl IntoIterator<Item = (K, K)>) -> BTreeMap<(K, K), u64> {
    let mut counts = BTreeMap::new();
    for pair in pairs {
        *counts.entry(pair).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rows_have_no_scores() {
        let counts = LabelCounts::default();
        assert!(counts.accuracy().is_nan());
        assert_eq!((counts.matthews(), counts.average(Average::Macro)), (0.0, PrecisionRecall::default()));
    }

    #[test]
    fn pairs_are_counted() {
        let counts = confusion([("a", "b"), ("a", "a"), ("a", "b")]);
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(("a", "a"), 1), (("a", "b"), 2)]);
    }
}
