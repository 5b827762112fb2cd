//! The result of validation.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

/// Loss and metrics of a model on the validation data.
///
/// Serialized as one flat object: the loss, the metrics by name, the number of targets under the name of their unit, and the
/// confusion matrix if there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean loss of a target.
    pub loss: f64,
    /// Metrics of the objective, by name.
    pub metrics: Vec<(String, f64)>,
    /// How often each class was taken for each other, for a classification.
    pub confusion: Option<Confusion>,
    /// Number of targets.
    pub n_targets: u64,
    /// What a target is, in the plural: `"tokens"`, `"rows"`.
    pub unit: &'static str,
}

impl Evaluation {
    /// A metric by its name.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

impl Serialize for Evaluation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("loss", &self.loss)?;
        for (name, value) in &self.metrics {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry(self.unit, &self.n_targets)?;
        if let Some(confusion) = &self.confusion {
            map.serialize_entry("confusion", confusion)?;
        }
        map.end()
    }
}

/// A confusion matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// Names of the classes.
    pub labels: Vec<String>,
    /// `counts[i][j]`: rows of class `i` that were taken for class `j`.
    pub counts: Vec<Vec<u64>>,
}

impl Confusion {
    /// Counts `(class, predicted class)` pairs.
    ///
    /// # Panics
    /// If a class has no label.
    pub fn new(labels: &[String], pairs: &[(u32, u32)]) -> Self {
        let mut counts = vec![vec![0; labels.len()]; labels.len()];
        for &(class, predicted) in pairs {
            counts[class as usize][predicted as usize] += 1;
        }
        Self { labels: labels.to_vec(), counts }
    }

    /// Share of rows that were taken for their own class; 0 without rows.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.counts.len()).map(|class| self.counts[class][class]).sum();
        share(right, self.counts.iter().flatten().sum())
    }

    /// Mean F1 score of the classes that occur or were predicted, each with the same weight; 0 without rows.
    ///
    /// Source: scikit-learn's `f1_score(average="macro")`.
    pub fn macro_f1(&self) -> f64 {
        let scores: Vec<f64> = (0..self.counts.len())
            .filter_map(|class| {
                let occurs: u64 = self.counts[class].iter().sum();
                let predicted: u64 = self.counts.iter().map(|row| row[class]).sum();
                (occurs + predicted > 0).then(|| share(2 * self.counts[class][class], occurs + predicted))
            })
            .collect();
        if scores.is_empty() { 0.0 } else { scores.iter().sum::<f64>() / scores.len() as f64 }
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scikit-learn 1.9.1: `accuracy_score` and `f1_score(average="macro")` of the same pairs; the fourth class, which
    /// neither occurs nor is predicted, is not known to it.
    #[test]
    fn a_confusion_matrix_gives_accuracy_and_f1() {
        let labels: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let pairs = [(0, 0), (0, 1), (1, 1), (1, 1), (2, 0), (2, 2), (0, 0)];
        let confusion = Confusion::new(&labels, &pairs);
        assert_eq!(confusion.counts, [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]);
        assert!((confusion.accuracy() - 5.0 / 7.0).abs() < 1e-12);
        assert!((confusion.macro_f1() - 0.711_111_111_111_111).abs() < 1e-12, "{}", confusion.macro_f1());
        assert_eq!(
            (Confusion::new(&labels, &[]).accuracy(), Confusion::new(&labels, &[]).macro_f1()),
            (0.0, 0.0)
        );
    }

    #[test]
    fn an_evaluation_is_one_flat_object() {
        let evaluation = Evaluation {
            loss: 0.5,
            metrics: vec![("accuracy".to_owned(), 0.75)],
            confusion: None,
            n_targets: 4,
            unit: "rows",
        };
        assert_eq!(evaluation.metric("accuracy"), Some(0.75));
        let json = serde_json::to_string(&evaluation).unwrap();
        assert_eq!(json, r#"{"loss":0.5,"accuracy":0.75,"rows":4}"#);
    }
}
