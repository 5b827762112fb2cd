//! Rotary positions for texts longer than those of training: the same pairs of channels, turned more slowly.

use std::f64::consts::TAU;

use burn::tensor::Device;

use super::rotary::{Angles, Rotary};
use crate::Forward;

/// How frequencies are lowered so that a model reads further than it was trained to.
///
/// Lengths are in tokens; factors say how many times as far it shall read.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Every frequency is divided by `factor`.
    ///
    /// Source: Chen et al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation",
    /// <https://arxiv.org/abs/2306.15595>.
    Linear {
        /// How many times as far.
        factor: f64,
    },
    /// The base of the frequencies grows with the text, once that is longer than those of training.
    ///
    /// A pass takes the frequencies for the length that each row has at its end. With a cache, keys therefore keep the
    /// angles of the pass that computed them, as they do in `transformers`: beyond `trained_len` a text continued
    /// token by token is not read quite like the same text read at once. Two things differ from `transformers`: there
    /// the frequencies of the longest text so far stay in use for shorter ones, and those of the longest row for the
    /// others.
    ///
    /// Source: Peng et al. 2023, "YaRN", section 3.3, <https://arxiv.org/abs/2309.00071>.
    Dynamic {
        /// How many times as far.
        factor: f64,
        /// Longest text of training.
        trained_len: usize,
    },
    /// Slow pairs are divided by `factor`, fast ones left alone, with a smooth transition between them.
    ///
    /// Source: Llama Team 2024, "The Llama 3 Herd of Models", <https://arxiv.org/abs/2407.21783>, and its code.
    Llama3 {
        /// How many times as far.
        factor: f64,
        /// Pairs that turn fewer times than this in a text of training are slow.
        slow_turns: f64,
        /// Pairs that turn more often than this in a text of training are fast.
        fast_turns: f64,
        /// Longest text of training.
        trained_len: usize,
    },
    /// The same idea with a linear transition over the pairs, and scores made sharper.
    ///
    /// Source: Peng et al. 2023, "YaRN", <https://arxiv.org/abs/2309.00071>.
    Yarn {
        /// How many times as far.
        factor: f64,
        /// Pairs that turn fewer times than this in a text of training are slow; 1 in the paper.
        slow_turns: f64,
        /// Pairs that turn more often than this in a text of training are fast; 32 in the paper.
        fast_turns: f64,
        /// Longest text of training.
        trained_len: usize,
        /// Whether the transition begins and ends at a pair, rather than between two.
        whole_pairs: bool,
        /// Multiplies sines and cosines; see [`yarn_amplitude`].
        amplitude: f64,
    },
}

/// What YaRN multiplies sines and cosines by: `0.1 · weight · ln(factor) + 1`, the weight being 1 in the paper.
pub fn yarn_amplitude(factor: f64, weight: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
}

/// Rotary positions of a model: a base, how many channels are turned, and how the frequencies are scaled.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaledRotary {
    theta: f64,
    n: usize,
    scaling: Option<RopeScaling>,
    /// For texts that are no longer than those of training.
    usual: Rotary,
}

impl ScaledRotary {
    /// Frequencies `theta^(−2i / n)` for the pairs of `n` channels, scaled.
    pub fn new(theta: f64, n: usize, scaling: Option<RopeScaling>) -> Self {
        let usual = match &scaling {
            Some(scaling) => scaling.rotary(theta, n, 0),
            None => Rotary::new(theta, n),
        };
        Self { theta, n, scaling, usual }
    }

    /// The frequencies for a text of `len` tokens.
    pub fn rotary(&self, len: usize) -> Rotary {
        match &self.scaling {
            Some(scaling @ RopeScaling::Dynamic { trained_len, .. }) if len > *trained_len => {
                scaling.rotary(self.theta, self.n, len)
            }
            _ => self.usual.clone(),
        }
    }

    /// The angles of the `columns` new tokens of a pass.
    pub fn angles(&self, columns: usize, cx: &Forward<'_>, device: &Device) -> Angles {
        let of_row = |positions: Vec<usize>| {
            let len = positions.last().map_or(0, |position| position + 1);
            (positions, self.rotary(len))
        };
        Angles::of(&cx.positions(columns).into_iter().map(of_row).collect::<Vec<_>>(), device)
    }
}

impl RopeScaling {
    /// Frequencies for the pairs of `n` channels and a text of `len` tokens, `theta` being the base without scaling.
    pub fn rotary(&self, theta: f64, n: usize, len: usize) -> Rotary {
        let rotary = |frequency: &dyn Fn(usize, f64) -> f64, amplitude: f64| {
            let usual = |pair: usize| theta.powf(-(2.0 * pair as f64) / n as f64);
            let frequencies = (0..n / 2).map(|pair| frequency(pair, usual(pair)) as f32).collect();
            Rotary { frequencies, amplitude: amplitude as f32 }
        };
        match *self {
            Self::Linear { factor } => rotary(&|_, usual| usual / factor, 1.0),
            Self::Dynamic { factor, trained_len } => {
                let stretch = len.max(trained_len) as f64 / trained_len as f64;
                let growth = factor * stretch - (factor - 1.0);
                // A single pair turns at the rate of 1 whatever the base.
                let exponent = if n > 2 { n as f64 / (n as f64 - 2.0) } else { 1.0 };
                Rotary::new(theta * growth.powf(exponent), n)
            }
            Self::Llama3 { factor, slow_turns, fast_turns, trained_len } => {
                let scaled = |_, usual: f64| {
                    let turns = trained_len as f64 * usual / TAU;
                    if turns > fast_turns {
                        usual
                    } else if turns < slow_turns {
                        usual / factor
                    } else {
                        let kept = (turns - slow_turns) / (fast_turns - slow_turns);
                        (1.0 - kept) * usual / factor + kept * usual
                    }
                };
                rotary(&scaled, 1.0)
            }
            Self::Yarn { factor, slow_turns, fast_turns, trained_len, whole_pairs, amplitude } => {
                // Between which pairs a pair would stand that turns so often.
                let place =
                    |turns: f64| n as f64 * (trained_len as f64 / (turns * TAU)).ln() / (2.0 * theta.ln());
                let (mut first, mut last) = (place(fast_turns), place(slow_turns));
                if whole_pairs {
                    (first, last) = (first.floor(), last.ceil());
                }
                let (first, mut last) = (first.max(0.0), last.min(n as f64 - 1.0));
                if first == last {
                    last += 0.001;
                }
                let scaled = |pair: usize, usual: f64| {
                    let slowed = ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
                    usual / factor * slowed + usual * (1.0 - slowed)
                };
                rotary(&scaled, amplitude)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{RopeScaling, ScaledRotary, yarn_amplitude};
    use crate::position::rotary::Rotary;

    #[track_caller]
    fn check(scaling: RopeScaling, len: usize, expected: &[f32]) {
        let ours = ScaledRotary::new(10_000.0, 8, Some(scaling)).rotary(len).frequencies;
        assert_eq!(ours.len(), expected.len());
        for (a, b) in ours.iter().zip(expected) {
            assert!((a / b - 1.0).abs() < 1e-6, "{ours:?} is not {expected:?}");
        }
    }

    // The expected numbers are what `transformers` 5.23 computes for a base of 10000 and heads of width 8.

    #[test]
    fn linear_divides_every_frequency() {
        check(RopeScaling::Linear { factor: 4.0 }, 999, &[0.25, 0.025, 0.0025, 0.00025]);
    }

    #[test]
    fn dynamic_is_the_usual_until_the_text_is_longer() {
        let scaling = RopeScaling::Dynamic { factor: 2.0, trained_len: 16 };
        check(scaling.clone(), 16, &Rotary::new(10_000.0, 8).frequencies);
        check(scaling, 24, &[1.0, 0.079_370_05, 0.006_299_605, 0.000_5]);
    }

    #[test]
    fn llama3_slows_slow_pairs_only() {
        let scaling = RopeScaling::Llama3 { factor: 8.0, slow_turns: 1.0, fast_turns: 4.0, trained_len: 128 };
        check(scaling, 999, &[1.0, 0.042_751_18, 0.001_25, 0.000_125]);
    }

    #[test]
    fn yarn_goes_over_from_fast_to_slow_pairs() {
        let yarn = |whole_pairs| RopeScaling::Yarn {
            factor: 4.0,
            slow_turns: 1.0,
            fast_turns: 32.0,
            trained_len: 2048,
            whole_pairs,
            amplitude: yarn_amplitude(4.0, 1.0),
        };
        check(yarn(true), 999, &[1.0, 0.1, 0.006_25, 0.000_25]);
        check(yarn(false), 999, &[1.0, 0.1, 0.005_056_972, 0.000_25]);
        assert!((yarn_amplitude(4.0, 1.0) - 1.138_629_4).abs() < 1e-6);
        assert_eq!(yarn_amplitude(0.5, 1.0), 1.0);
    }
}
