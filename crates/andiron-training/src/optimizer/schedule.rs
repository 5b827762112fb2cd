//! The learning rate as a function of the step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// Shape of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Constant.
    Constant,
    /// Linear decay to the end of the run.
    Linear,
    /// Cosine decay to the end of the run.
    ///
    /// Source: Loshchilov and Hutter 2017, "SGDR", <https://arxiv.org/abs/1608.03983>.
    Cosine,
    /// Warm-up, stable, decay: constant, then linear decay over the last steps.
    ///
    /// Source: Hu et al. 2024, "MiniCPM", <https://arxiv.org/abs/2404.06395>; the fall is linear as in Hägele et
    /// al. 2024, <https://arxiv.org/abs/2405.18392>.
    Wsd,
}

/// The learning rate as a function of the step: it has no state, so there is nothing to save.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end.
    pub min_lr: f64,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// Steps of decay at the end of [`ScheduleKind::Wsd`].
    pub decay_steps: u64,
    /// Length of the run.
    pub steps: u64,
}

impl Schedule {
    /// The learning rate of step `step`, counted from 0.
    ///
    /// In the warm-up it is `lr · (step + 1) / (warmup_steps + 1)`, so the first step has a learning rate above 0 and the first
    /// one after the warm-up has the full rate, as in nanoGPT. Beyond the end it stays `min_lr`.
    ///
    /// # Example
    /// ```
    /// use andiron_training::optimizer::{Schedule, ScheduleKind};
    /// let schedule = Schedule {
    ///     kind: ScheduleKind::Cosine,
    ///     lr: 1e-3,
    ///     min_lr: 1e-4,
    ///     warmup_steps: 100,
    ///     decay_steps: 0,
    ///     steps: 2000,
    /// };
    /// assert_eq!(schedule.at(100), 1e-3);
    /// assert_eq!(schedule.at(2000), 1e-4);
    /// ```
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.lr * (step + 1) as f64 / (self.warmup_steps + 1) as f64;
        }
        let decay_starts = match self.kind {
            ScheduleKind::Constant => return self.lr,
            ScheduleKind::Linear | ScheduleKind::Cosine => self.warmup_steps,
            ScheduleKind::Wsd => self.steps.saturating_sub(self.decay_steps),
        };
        if step < decay_starts {
            return self.lr;
        }
        if step >= self.steps {
            return self.min_lr;
        }
        let done = (step - decay_starts) as f64 / (self.steps - decay_starts) as f64;
        let left = match self.kind {
            ScheduleKind::Cosine => 0.5 * (1.0 + (PI * done).cos()),
            _ => 1.0 - done,
        };
        self.min_lr + left * (self.lr - self.min_lr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule { kind, lr: 1.0, min_lr: 0.1, warmup_steps: 4, decay_steps: 6, steps: 24 }
    }

    #[track_caller]
    fn check_at(kind: ScheduleKind, points: &[(u64, f64)]) {
        for &(step, expected) in points {
            let found = schedule(kind).at(step);
            assert!((found - expected).abs() < 1e-12, "step {step}: {found}, expected {expected}");
        }
    }

    #[test]
    fn the_warm_up_rises_to_just_below_the_whole_rate() {
        for kind in [ScheduleKind::Constant, ScheduleKind::Linear, ScheduleKind::Cosine, ScheduleKind::Wsd] {
            check_at(kind, &[(0, 0.2), (1, 0.4), (2, 0.6), (3, 0.8), (4, 1.0)]);
        }
    }

    #[test]
    fn constant_stays() {
        check_at(ScheduleKind::Constant, &[(5, 1.0), (24, 1.0), (1000, 1.0)]);
    }

    #[test]
    fn linear_falls_evenly() {
        check_at(ScheduleKind::Linear, &[(14, 0.55), (24, 0.1), (99, 0.1)]);
    }

    #[test]
    fn cosine_is_halfway_in_the_middle() {
        let quarter = 0.1 + 0.45 * (1.0 + std::f64::consts::FRAC_1_SQRT_2);
        check_at(ScheduleKind::Cosine, &[(9, quarter), (14, 0.55), (24, 0.1), (99, 0.1)]);
    }

    #[test]
    fn wsd_is_stable_until_its_last_steps() {
        check_at(ScheduleKind::Wsd, &[(5, 1.0), (17, 1.0), (18, 1.0), (21, 0.55), (24, 0.1)]);
    }

    #[test]
    fn a_run_that_is_all_warm_up_or_all_decay_divides_by_nothing() {
        let all_warm = Schedule { warmup_steps: 24, ..schedule(ScheduleKind::Cosine) };
        assert_eq!((all_warm.at(24), all_warm.at(23)), (0.1, 24.0 / 25.0));
        let longer = Schedule { warmup_steps: 99, ..schedule(ScheduleKind::Cosine) };
        assert_eq!((longer.at(23), longer.at(99)), (0.24, 0.1));
        let no_decay = Schedule { decay_steps: 0, ..schedule(ScheduleKind::Wsd) };
        assert_eq!((no_decay.at(23), no_decay.at(24)), (1.0, 0.1));
    }
}
