//! Settings of Lion.

use serde::{Deserialize, Serialize};

/// Settings of Lion. Every element moves by the learning rate, so that the rate should be three to ten times smaller than
/// AdamW's, and the weight decay as much larger.
///
/// Source: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", <https://arxiv.org/abs/2302.06675>. Weight
/// decay is per unit of learning rate, as there and in optax; lion-pytorch does the same unless
/// `decoupled_weight_decay` is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LionConfig {
    /// Share of the running mean in the mixture with the gradient whose sign is the direction.
    pub beta1: f64,
    /// Decay of the running mean of gradients.
    pub beta2: f64,
}

impl Default for LionConfig {
    /// Those of the paper.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.99 }
    }
}
