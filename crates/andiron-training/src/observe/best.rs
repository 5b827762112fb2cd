//! The best value of each metric of the validation over a run.

use super::StepRecord;

/// The best value of a metric, and when it was reached.
#[derive(Clone, Debug, PartialEq)]
pub struct BestValue {
    /// The metric; `loss` is the validation loss.
    pub name: String,
    /// Its best value.
    pub value: f64,
    /// Steps after which it was first reached.
    pub step: u64,
}

/// Metrics that say which of the models of a run is the best: the first that the validation has, else the loss.
const DECISIVE: [&str; 7] =
    ["f1", "accuracy", "micro_f1", "chrf", "spearman", "batch_accuracy", "reward_accuracy"];

/// The best value of each metric so far. Metrics that are good neither high nor low have none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BestValues(Vec<BestValue>);

impl BestValues {
    /// Takes the validation after a step into account, if there was one.
    pub(crate) fn push(&mut self, record: &StepRecord) {
        let loss = record.valid_loss.map(|loss| ("loss", loss));
        let others = record.valid_metrics.iter().map(|(name, &value)| (name.as_str(), value));
        for (name, value) in loss.into_iter().chain(others).filter(|(_, value)| value.is_finite()) {
            let Some(goal) = Goal::of(name) else { continue };
            match self.0.iter_mut().find(|best| best.name == name) {
                Some(best) if goal.is_better(value, best.value) => {
                    (best.value, best.step) = (value, record.step)
                }
                Some(_) => {}
                None => self.0.push(BestValue { name: name.to_owned(), value, step: record.step }),
            }
        }
    }

    /// Steps after which the model was the best.
    pub(crate) fn step(&self) -> Option<u64> {
        let named = |name: &str| self.0.iter().find(|best| best.name == name);
        DECISIVE.into_iter().chain(["loss"]).find_map(named).map(|best| best.step)
    }

    /// The values, the loss first.
    pub(crate) fn values(&self) -> Vec<BestValue> {
        self.0.clone()
    }
}

/// Which values of a metric are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Low,
    High,
}

impl Goal {
    fn of(name: &str) -> Option<Self> {
        match name {
            "loss" | "perplexity" | "bits_per_token" | "bits_per_byte" => Some(Self::Low),
            // One is to rise, the other to fall, but both may fall as the margin between them grows.
            "chosen_reward" | "rejected_reward" => None,
            _ => Some(Self::High),
        }
    }

    fn is_better(self, value: f64, than: f64) -> bool {
        match self {
            Self::Low => value < than,
            Self::High => value > than,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64, loss: f64, metrics: &[(&str, f64)]) -> StepRecord {
        StepRecord {
            step,
            first_batch: 0,
            loss: 1.0,
            lr: 0.1,
            grad_norm: 1.0,
            tokens: step,
            skipped: false,
            valid_loss: Some(loss),
            valid_metrics: metrics.iter().map(|&(name, value)| (name.to_owned(), value)).collect(),
            tokens_per_s: 1.0,
            rows_per_s: None,
            step_s: 0.5,
            data_wait_s: 0.001,
            elapsed_s: 1.0,
        }
    }

    #[test]
    fn losses_are_best_when_low_and_scores_when_high() {
        let mut best = BestValues::default();
        best.push(&record(10, 0.5, &[("accuracy", 0.8), ("perplexity", 1.6), ("chosen_reward", 1.0)]));
        best.push(&record(20, 0.3, &[("accuracy", 0.7), ("perplexity", 1.3), ("chosen_reward", 2.0)]));
        best.push(&record(30, 0.4, &[("accuracy", 0.8), ("perplexity", f64::NAN)]));
        best.push(&StepRecord { valid_loss: None, ..record(40, 0.1, &[]) });
        let values: Vec<_> =
            best.values().into_iter().map(|best| (best.name, best.value, best.step)).collect();
        let named = |name: &str, value, step| (name.to_owned(), value, step);
        assert_eq!(
            values,
            [named("loss", 0.3, 20), named("accuracy", 0.8, 10), named("perplexity", 1.3, 20)]
        );
        assert_eq!(best.step(), Some(10));
        let mut losses = BestValues::default();
        assert_eq!(losses.step(), None);
        losses.push(&record(10, 0.5, &[("reward_margin", 0.1)]));
        losses.push(&record(20, 0.3, &[("reward_margin", 0.0)]));
        assert_eq!(losses.step(), Some(20));
    }
}
