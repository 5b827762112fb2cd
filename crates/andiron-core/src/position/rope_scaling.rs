//! RoPE scaling: lower rotary frequencies, for contexts longer than in training.

use std::f64::consts::TAU;

use burn::tensor::Device;

use super::rotary::{Angles, Rotary};
use crate::Forward;

/// A method of RoPE scaling.
///
/// Lengths are in tokens; factors are ratios of the extended to the trained context length.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Position interpolation: every frequency is divided by `factor`.
    ///
    /// Source: Chen et al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation",
    /// <https://arxiv.org/abs/2306.15595>.
    Linear {
        /// Extended over trained context length.
        factor: f64,
    },
    /// Dynamic NTK: beyond the trained length, the base of the frequencies grows with the length of the text.
    ///
    /// A pass uses the frequencies for each row's length at its end. With a KV cache, keys keep the angles of the pass that
    /// computed them, as in `transformers`: beyond `trained_len`, decoding token by token differs slightly from one pass
    /// over the same text. Unlike `transformers`, frequencies depend neither on longer texts seen earlier nor on longer rows
    /// of the batch.
    ///
    /// Source: Peng et al. 2023, "YaRN", section 3.3, <https://arxiv.org/abs/2309.00071>.
    Dynamic {
        /// Extended over trained context length.
        factor: f64,
        /// Trained context length.
        trained_len: usize,
    },
    /// Low frequencies are divided by `factor`, high ones kept, with a linear transition between them.
    ///
    /// Source: Llama Team 2024, "The Llama 3 Herd of Models", <https://arxiv.org/abs/2407.21783>, and its code.
    Llama3 {
        /// Extended over trained context length.
        factor: f64,
        /// Pairs with fewer rotations than this within the trained length are low-frequency.
        slow_turns: f64,
        /// Pairs with more rotations than this within the trained length are high-frequency.
        fast_turns: f64,
        /// Trained context length.
        trained_len: usize,
    },
    /// YaRN: as Llama 3's, with a linear transition over pair indices, and scaled attention scores.
    ///
    /// Source: Peng et al. 2023, "YaRN", <https://arxiv.org/abs/2309.00071>.
    Yarn {
        /// Extended over trained context length.
        factor: f64,
        /// Pairs with fewer rotations than this within the trained length are low-frequency; 1 in the paper.
        slow_turns: f64,
        /// Pairs with more rotations than this within the trained length are high-frequency; 32 in the paper.
        fast_turns: f64,
        /// Trained context length.
        trained_len: usize,
        /// Whether the bounds of the transition are rounded to whole pairs.
        whole_pairs: bool,
        /// Multiplies sines and cosines; see [`yarn_amplitude`].
        amplitude: f64,
    },
}

/// YaRN's factor of sines and cosines: `0.1 · weight · ln(factor) + 1`; `weight` is 1 in the paper.
pub fn yarn_amplitude(factor: f64, weight: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
}

/// Rotary embeddings of a model: base, number of rotated channels, and scaling.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaledRotary {
    theta: f64,
    n: usize,
    scaling: Option<RopeScaling>,
    /// For texts up to the trained length.
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
        let rows = cx.positions(columns);
        // Positions fall only where a document begins. Padding before a row stays at position 0.
        let runs = rows.iter().flat_map(|row| row.chunk_by(|position, next| position <= next));
        let of_run = |positions: &[usize]| {
            let len = positions.last().map_or(0, |position| position + 1);
            (positions.to_vec(), self.rotary(len))
        };
        Angles::of(rows.len(), &runs.map(of_run).collect::<Vec<_>>(), device)
    }
}

impl RopeScaling {
    /// Frequencies for the pairs of `n` channels and a text of `len` tokens; `theta` is the unscaled base.
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
                // A single pair has frequency 1 for any base.
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
                // The fractional pair index that makes this many rotations within the trained length.
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
