//! Rotary position embeddings (RoPE): pairs of a head's channels are rotated by an angle proportional to the position.
//!
//! Source: Su et al. 2021, "RoFormer", <https://arxiv.org/abs/2104.09864>. A pair is channels `i` and `i + n/2` of the
//! `n` rotated ones, as in Hugging Face's checkpoints; in the paper pairs are adjacent channels.

use burn::tensor::{Device, Tensor, TensorData};

use crate::{Forward, ops};

/// Frequencies of the rotated pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Angle per position of each pair, in radians.
    pub frequencies: Vec<f32>,
    /// Multiplies sines and cosines; 1 except with YaRN scaling.
    pub amplitude: f32,
}

impl Rotary {
    /// The usual frequencies, `theta^(−2i / n)` for the pairs of `n` channels.
    pub fn new(theta: f64, n: usize) -> Self {
        let frequency = |i: usize| theta.powf(-(2.0 * i as f64) / n as f64) as f32;
        Self { frequencies: (0..n / 2).map(frequency).collect(), amplitude: 1.0 }
    }

    /// The angles of the `columns` new tokens of a pass.
    pub fn angles(&self, columns: usize, cx: &Forward<'_>, device: &Device) -> Angles {
        let rows = cx.positions(columns);
        let of_row = |positions| (positions, self.clone());
        Angles::of(rows.len(), &rows.into_iter().map(of_row).collect::<Vec<_>>(), device)
    }
}

/// Cosines and sines of the angles of some positions, computed once for all layers of a pass.
#[derive(Clone, Debug)]
pub struct Angles {
    pub(crate) cos_bt1k: Tensor<4>,
    pub(crate) sin_bt1k: Tensor<4>,
}

impl Angles {
    /// The angles of the positions of `rows` rows of one length, one run of them after the other, with frequencies per run. A
    /// single row is shared by all.
    pub(super) fn of(rows: usize, runs: &[(Vec<usize>, Rotary)], device: &Device) -> Self {
        let pairs = runs.first().map_or(0, |(_, rotary)| rotary.frequencies.len());
        let positions: usize = runs.iter().map(|(positions, _)| positions.len()).sum();
        let shape = [rows, positions / rows.max(1), 1, pairs];
        let table = |of: fn(f32) -> f32| {
            let mut values = Vec::with_capacity(shape.iter().product());
            for (positions, rotary) in runs {
                for &position in positions {
                    let angles = rotary.frequencies.iter().map(|frequency| position as f32 * frequency);
                    values.extend(angles.map(|angle| of(angle) * rotary.amplitude));
                }
            }
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        Self { cos_bt1k: table(f32::cos), sin_bt1k: table(f32::sin) }
    }

    /// Rotates the first `2 · frequencies` channels of every head; the rest are copied.
    ///
    /// # Shape
    /// `[batch, t, heads, width]` → the same.
    ///
    /// # Panics
    /// If the heads are narrower than the rotated channels.
    pub fn turn(&self, x_bthk: Tensor<4>) -> Tensor<4> {
        ops::rotate(x_bthk, self.cos_bt1k.clone(), self.sin_bt1k.clone())
    }
}
