//! Muon: its settings, and the shape and learning rate of a step of each weight.

use andiron_core::ops::{Matrices, WeightLayout};
use andiron_core::role::{PackedProjections, WeightKind};
use serde::{Deserialize, Serialize};

/// Settings of Muon beyond those of AdamW, named as in `torch.optim.Muon`.
///
/// Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
/// <https://kellerjordan.github.io/posts/muon/>.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MuonConfig {
    /// Peak learning rate of the hidden matrices, which follow the schedule in proportion; if absent, it is
    /// `optimizer.lr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Decay of the running mean of gradients.
    pub momentum: f64,
    /// Nesterov momentum: the running mean is mixed with the gradient once more.
    pub nesterov: bool,
    /// Newton-Schulz iterations that orthogonalize the running mean, 1 to 99.
    pub ns_steps: usize,
    /// Polynomial of an iteration, `a x + b x³ + c x⁵` of each singular value.
    pub ns_coefficients: [f64; 3],
    /// Lower bound of the norm that the running mean is divided by.
    pub eps: f64,
    /// Scaling of the learning rate by the shape of a matrix.
    pub adjust_lr_fn: AdjustLr,
}

impl Default for MuonConfig {
    /// PyTorch's defaults, except for the scaling of the learning rate, which fits AdamW's learning rates.
    fn default() -> Self {
        Self {
            lr: None,
            momentum: 0.95,
            nesterov: true,
            ns_steps: 5,
            ns_coefficients: [3.4445, -4.7750, 2.0315],
            eps: 1e-7,
            adjust_lr_fn: AdjustLr::MatchRmsAdamw,
        }
    }
}

/// Factor of the learning rate of a matrix, whose step has singular values of about 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdjustLr {
    /// `√max(1, outputs / inputs)`, for learning rates of about 0.02; PyTorch's default.
    Original,
    /// `0.2 √max(outputs, inputs)`: updates have the RMS of AdamW's, so that its learning rate and weight decay fit.
    ///
    /// Source: Liu et al. 2025, "Muon is Scalable for LLM Training", <https://arxiv.org/abs/2502.16982>.
    MatchRmsAdamw,
    /// `√(outputs / inputs)`.
    ///
    /// Source: Bernstein 2025, "Deriving Muon", <https://jeremybernste.in/writing/deriving-muon>.
    SpectralUnclamped,
}

impl AdjustLr {
    fn factor(self, outputs: usize, inputs: usize) -> f64 {
        let (outputs, inputs) = (outputs as f64, inputs as f64);
        match self {
            Self::Original => (outputs / inputs).max(1.0).sqrt(),
            Self::MatchRmsAdamw => 0.2 * outputs.max(inputs).sqrt(),
            Self::SpectralUnclamped => (outputs / inputs).sqrt(),
        }
    }
}

/// The projections of a weight that Muon updates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct HiddenMatrices {
    pub(super) matrices: Matrices,
    /// Multiplies the learning rate.
    pub(super) lr_factor: f64,
}

impl HiddenMatrices {
    /// The projections in a weight of this shape, each of which is orthogonalized separately.
    pub(super) fn new([rows, cols]: [usize; 2], kind: WeightKind, adjust: AdjustLr) -> Self {
        let WeightKind { layout, packed: PackedProjections { count, interleaving }, .. } = kind;
        let (matrices, outputs, inputs) = match layout {
            WeightLayout::OutIn => {
                let outputs = rows / count;
                (Matrices { count, rows: outputs, cols, run: outputs / interleaving * cols }, outputs, cols)
            }
            WeightLayout::InOut => {
                let outputs = cols / count;
                (Matrices { count, rows, cols: outputs, run: outputs / interleaving }, outputs, rows)
            }
        };
        Self { matrices, lr_factor: adjust.factor(outputs, inputs) }
    }
}

#[cfg(test)]
mod tests {
    use andiron_core::ParamRole;

    use super::*;

    fn packed(layout: WeightLayout, count: usize, interleaving: usize) -> WeightKind {
        let packed = PackedProjections { count, interleaving };
        WeightKind { packed, ..WeightKind::new(ParamRole::Matrix, layout) }
    }

    /// Which projection each element of a weight `[2, 12]` or `[12, 2]` belongs to, row-major.
    fn owners(layout: WeightLayout, interleaving: usize) -> String {
        let shape = match layout {
            WeightLayout::InOut => [2, 12],
            WeightLayout::OutIn => [12, 2],
        };
        let kind = packed(layout, 3, interleaving);
        let Matrices { count, rows, cols, run } =
            HiddenMatrices::new(shape, kind, AdjustLr::Original).matrices;
        assert_eq!(count * rows * cols, 24);
        (0..24).map(|place| ["q", "k", "v"][place / run % count]).collect()
    }

    #[test]
    fn packed_projections_are_told_apart() {
        assert_eq!(owners(WeightLayout::InOut, 1), "qqqqkkkkvvvv".repeat(2));
        assert_eq!(owners(WeightLayout::InOut, 2), "qqkkvv".repeat(4));
        assert_eq!(owners(WeightLayout::OutIn, 1), "qqqqqqqqkkkkkkkkvvvvvvvv");
        assert_eq!(owners(WeightLayout::OutIn, 2), "qqqqkkkkvvvv".repeat(2));
    }

    #[test]
    fn a_step_is_as_long_as_the_source_says() {
        let alone = |layout| packed(layout, 1, 1);
        for (adjust, tall, wide) in [
            (AdjustLr::Original, 2.0, 1.0),
            (AdjustLr::MatchRmsAdamw, 3.2, 3.2),
            (AdjustLr::SpectralUnclamped, 2.0, 0.5),
        ] {
            let factor = |shape, layout| HiddenMatrices::new(shape, alone(layout), adjust).lr_factor;
            assert_eq!(factor([256, 64], WeightLayout::OutIn), tall, "{adjust:?}");
            assert_eq!(factor([64, 256], WeightLayout::OutIn), wide, "{adjust:?}");
            assert_eq!(factor([64, 256], WeightLayout::InOut), tall, "{adjust:?}");
        }
        let qkv = packed(WeightLayout::InOut, 3, 1);
        assert_eq!(HiddenMatrices::new([64, 192], qkv, AdjustLr::MatchRmsAdamw).lr_factor, 1.6);
    }
}
