//! The result of validation.

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::observe::ConfusionMatrix;

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
    /// How often each label was predicted for each label, for a classification.
    pub confusion: Option<ConfusionMatrix>,
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

#[cfg(test)]
mod tests {
    use super::*;

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
