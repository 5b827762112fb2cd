//! The learning rate as a function of the step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::RelativeStep;

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
    /// Decay with the inverse square root of the step; it does not depend on the length of the run.
    ///
    /// Source: Vaswani et al. 2017, "Attention Is All You Need", <https://arxiv.org/abs/1706.03762>; with a time scale,
    /// Zhai et al. 2022, "Scaling Vision Transformers", <https://arxiv.org/abs/2106.04560>.
    InverseSqrt,
}

/// The learning rate as a function of the step: it has no state, so there is nothing to save.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end; the lower bound of [`ScheduleKind::InverseSqrt`].
    pub min_lr: f64,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// Steps of decay at the end of [`ScheduleKind::Wsd`].
    pub decay_steps: u64,
    /// Steps after the warm-up in which the rate of [`ScheduleKind::InverseSqrt`] falls by a factor of √2; above 0.
    pub timescale: u64,
    /// Length of the run.
    pub steps: u64,
    /// Adafactor's relative step, a further factor.
    pub relative: Option<RelativeStep>,
}

impl Schedule {
    /// The learning rate of step `step`, counted from 0.
    ///
    /// In the warm-up it is `lr · (step + 1) / (warmup_steps + 1)`, so the first step has a learning rate above 0 and the first
    /// one after the warm-up has the full rate, as in nanoGPT. Beyond the end it stays `min_lr`.
    ///
    /// From the end of the warm-up on, rates are those of `get_scheduler` of `transformers` 5.24 (`cosine_with_min_lr`,
    /// `warmup_stable_decay` with a linear decay, `inverse_sqrt` and so on). In the warm-up they differ: there it is
    /// `lr · step / warmup_steps`, so that the first step has the rate 0 and changes nothing.
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
    ///     timescale: 100,
    ///     steps: 2000,
    ///     relative: None,
    /// };
    /// assert_eq!(schedule.at(100), 1e-3);
    /// assert_eq!(schedule.at(2000), 1e-4);
    /// ```
    pub fn at(&self, step: u64) -> f64 {
        self.relative.map_or(1.0, |relative| relative.at(step)) * self.scheduled(step)
    }

    fn scheduled(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.lr * (step + 1) as f64 / (self.warmup_steps + 1) as f64;
        }
        let decay_starts = match self.kind {
            ScheduleKind::Constant => return self.lr,
            ScheduleKind::InverseSqrt => {
                let distance = 1.0 + (step - self.warmup_steps) as f64 / self.timescale as f64;
                return (self.lr / distance.sqrt()).max(self.min_lr);
            }
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
        Schedule {
            kind,
            lr: 1.0,
            min_lr: 0.1,
            warmup_steps: 4,
            decay_steps: 6,
            timescale: 4,
            steps: 24,
            relative: None,
        }
    }

    #[track_caller]
    fn check_at(kind: ScheduleKind, points: &[(u64, f64)]) {
        for &(step, expected) in points {
            let found = schedule(kind).at(step);
            assert!((found - expected).abs() < 1e-11, "step {step}: {found}, expected {expected}");
        }
    }

    #[test]
    fn the_warm_up_rises_to_just_below_the_whole_rate() {
        for kind in [
            ScheduleKind::Constant,
            ScheduleKind::Linear,
            ScheduleKind::Cosine,
            ScheduleKind::Wsd,
            ScheduleKind::InverseSqrt,
        ] {
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
    fn inverse_sqrt_is_halved_when_the_distance_is_four_times_as_long() {
        check_at(ScheduleKind::InverseSqrt, &[(4, 1.0), (16, 0.5), (64, 0.25), (400, 0.1), (9999, 0.1)]);
        let slow = Schedule { timescale: 100, ..schedule(ScheduleKind::InverseSqrt) };
        assert_eq!([4, 304].map(|step| slow.at(step)), [1.0, 0.5]);
    }

    #[test]
    fn a_relative_step_is_a_factor() {
        let relative = Some(RelativeStep { warmup_init: false });
        let schedule = Schedule { relative, ..schedule(ScheduleKind::Linear) };
        assert!((schedule.at(14) - 0.55 * 1e-2).abs() < 1e-12);
    }

    /// Rates of `get_scheduler` of transformers 5.24 for a peak of 1, a minimum of 0.1 and 24 steps, 4 of them warm-up and 6
    /// of them decay, after so many steps.
    #[test]
    fn after_the_warm_up_rates_are_those_of_transformers() {
        const AFTER: [u64; 8] = [4, 5, 9, 17, 18, 21, 23, 24];
        for (kind, rates) in [
            (ScheduleKind::Constant, [1.0; 8]),
            (
                ScheduleKind::Cosine,
                [
                    1.0,
                    0.994459753268,
                    0.868198051534,
                    0.345704275117,
                    0.285496636468,
                    0.149047064115,
                    0.105540246732,
                    0.1,
                ],
            ),
            (ScheduleKind::Wsd, [1.0, 1.0, 1.0, 1.0, 1.0, 0.55, 0.25, 0.1]),
            (
                ScheduleKind::InverseSqrt,
                [
                    1.0,
                    0.894427191,
                    0.666666666667,
                    0.485071250073,
                    0.471404520791,
                    0.436435780472,
                    0.417028828114,
                    0.408248290464,
                ],
            ),
        ] {
            check_at(kind, &AFTER.into_iter().zip(rates).collect::<Vec<_>>());
        }
        // It has no linear schedule with a minimum.
        let linear = Schedule { min_lr: 0.0, ..schedule(ScheduleKind::Linear) };
        let slow = Schedule { timescale: 100, ..schedule(ScheduleKind::InverseSqrt) };
        for (schedule, rates) in [
            (linear, [1.0, 0.95, 0.75, 0.35, 0.3, 0.15, 0.05, 0.0]),
            (
                slow,
                [
                    1.0,
                    0.99503719021,
                    0.975900072949,
                    0.940720868384,
                    0.936585811582,
                    0.924500327042,
                    0.916698497028,
                    0.912870929175,
                ],
            ),
        ] {
            for (step, rate) in AFTER.into_iter().zip(rates) {
                assert!((schedule.at(step) - rate).abs() < 1e-11, "{schedule:?} after {step} steps");
            }
        }
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
