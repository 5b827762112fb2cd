//! Axes: the range of a chart and the round numbers on it.

use crate::text;

/// One axis of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Values and labels of the ticks, in order.
    pub ticks: Vec<(f64, String)>,
}

/// A linear axis is used for values that differ by less than this factor.
const LOGARITHMIC_FROM: f64 = 100.0;

/// Largest size of a value on an axis, so that no difference overflows.
const MAX: f64 = 1e300;

impl Axis {
    /// An axis of steps from `first` to `last`, with about `n` ticks at whole numbers.
    pub fn steps(first: u64, last: u64, n: usize) -> Self {
        // Step 1 beside an axis that begins at 0 reads better than an axis that begins at 1.
        let low = if first <= last / 20 + 1 { 0.0 } else { first as f64 };
        let high = (last as f64).max(low + 1.0);
        let step = nice_step((high - low) / n as f64).max(1.0);
        Self { low, high, logarithmic: false, ticks: ticks(low, high, step) }
    }

    /// A linear axis that begins and ends at a tick, with about `n` of them. It holds `low` and `high`.
    pub fn linear(low: f64, high: f64, n: usize) -> Self {
        let (low, high) = (low.clamp(-MAX, MAX), high.clamp(-MAX, MAX));
        let size = low.abs().max(high.abs());
        // One value, or several that a label cannot tell apart, are in the middle.
        let (low, high) = match high - low > size * 1e-6 {
            true => (low, high),
            false if size == 0.0 => (0.0, 1.0),
            false => (low - 0.1 * size, high + 0.1 * size),
        };
        let step = nice_step((high - low) / n as f64);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        Self { low, high, logarithmic: false, ticks: ticks(low, high, step) }
    }

    /// A logarithmic axis with ticks at powers of ten if the values are positive and differ by orders of magnitude; else a linear one.
    pub fn fitting(low: f64, high: f64, n: usize) -> Self {
        let (low, high) = (if low > 0.0 { low.max(1.0 / MAX) } else { low }, high.min(MAX));
        if low <= 0.0 || high / low < LOGARITHMIC_FROM {
            return Self::linear(low, high, n);
        }
        let (first, last) = (low.log10().ceil() as i32, high.log10().floor() as i32);
        let stride = (last.abs_diff(first) as usize + 1).div_ceil(n + 1);
        let ticks = (first..=last).filter(|power| power.rem_euclid(stride as i32) == 0);
        let ticks = ticks.map(|power| 10f64.powi(power)).map(|value| (value, text::power_of_ten(value)));
        Self { low: low * 0.9, high: high * 1.1, logarithmic: true, ticks: ticks.collect() }
    }

    /// Where a value is, from 0 at the beginning of the axis to 1 at its end. Values outside of it are at its nearest end.
    pub fn position(&self, value: f64) -> f64 {
        let position = if self.logarithmic {
            (value.max(self.low).ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        position.clamp(0.0, 1.0)
    }

    /// Whether the axis holds the value.
    pub fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// The smallest of 1, 2 and 5, times a power of ten, that is at least `step`.
fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// The multiples of `step` from `low` to `high`.
fn ticks(low: f64, high: f64, step: f64) -> Vec<(f64, String)> {
    /// No axis has so many; a bound in case of rounding.
    const MAX_TICKS: usize = 50;
    let first = (low / step - 1e-6).ceil();
    let values = (0..MAX_TICKS).map(|index| (first + index as f64) * step);
    let values = values.take_while(|value| *value <= high + step * 1e-6);
    values.map(|value| (value, text::tick(value, step))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_labels(axis: &Axis, expected: &str) {
        let labels: Vec<_> = axis.ticks.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels.join(" "), expected);
    }

    #[test]
    fn ticks_are_round_and_hold_the_values() {
        let axis = Axis::linear(1.43, 4.17, 6);
        check_labels(&axis, "1.0 1.5 2.0 2.5 3.0 3.5 4.0 4.5");
        assert!(axis.holds(1.43) && axis.holds(4.17));
        assert_eq!((axis.position(1.0), axis.position(2.75), axis.position(4.5)), (0.0, 0.5, 1.0));
        check_labels(&Axis::linear(0.0, 1e-3, 4), "0 5e-4 1e-3");
        check_labels(&Axis::linear(0.0, 13_400.0, 4), "0 5000 10k 15k");
        check_labels(&Axis::linear(-0.3, 0.42, 4), "-0.4 -0.2 0 0.2 0.4 0.6");
    }

    #[test]
    fn one_value_is_in_the_middle() {
        check_labels(&Axis::linear(2.0, 2.0, 4), "1.8 1.9 2.0 2.1 2.2");
        check_labels(&Axis::linear(0.0, 0.0, 4), "0 0.5 1.0");
        assert!((Axis::linear(2.0, 2.0, 4).position(2.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn steps_are_whole() {
        check_labels(&Axis::steps(1, 1, 8), "0 1");
        check_labels(&Axis::steps(1, 3, 8), "0 1 2 3");
        check_labels(&Axis::steps(1, 50, 8), "0 10 20 30 40 50");
        check_labels(&Axis::steps(1, 100_000, 8), "0 20k 40k 60k 80k 100k");
        check_labels(&Axis::steps(9000, 10_000, 4), "9000 9500 10k");
    }

    #[test]
    fn orders_of_magnitude_get_powers_of_ten() {
        let axis = Axis::fitting(0.02, 300.0, 4);
        check_labels(&axis, "0.1 1 10 100");
        assert!(axis.position(1.0) > 0.3 && axis.holds(0.02) && axis.holds(300.0));
        check_labels(&Axis::fitting(1e-12, 1e12, 4), "1e-10 1e-5 1 1e5 1e10");
        check_labels(&Axis::fitting(0.0, 300.0, 4), "0 100 200 300");
        check_labels(&Axis::fitting(1.0, 10.0, 4), "0 5 10");
    }

    #[test]
    fn no_range_breaks_an_axis() {
        let ranges =
            [(f64::MIN, f64::MAX), (1e9, 1e9 + 1e-7), (-1e-320, 1e-320), (5e-324, f64::MAX), (3.0, 3.0)];
        for (low, high) in ranges {
            for axis in [Axis::linear(low, high, 6), Axis::fitting(low, high, 4)] {
                assert!((2..=50).contains(&axis.ticks.len()), "{low} {high} {axis:?}");
                for value in [low, high] {
                    assert!((0.0..=1.0).contains(&axis.position(value)), "{low} {high} {axis:?}");
                }
            }
        }
        assert!(!Axis::steps(u64::MAX - 1, u64::MAX, 8).ticks.is_empty());
    }
}
