//! Normalisation of the last axis.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{init, ops};

/// Sizes of a [`LayerNorm`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerNormConfig {
    /// Width of the axis that is normalised.
    pub d_model: usize,
    /// Added to the variance before the root.
    pub eps: f64,
}

impl LayerNormConfig {
    /// Gain 1, offset 0.
    pub fn init(&self, device: &Device) -> LayerNorm {
        LayerNorm {
            weight: init::ones([self.d_model], device),
            bias: init::zeros([self.d_model], device),
            eps: self.eps,
        }
    }
}

/// `(x − mean) / √(variance + eps) · weight + bias` over the last axis.
///
/// Source: Ba, Kiros, Hinton 2016, "Layer Normalization", <https://arxiv.org/abs/1607.06450>.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Gain, `[d_model]`.
    pub weight: Param<Tensor<1>>,
    /// Offset, `[d_model]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl LayerNorm {
    /// Normalises each position.
    ///
    /// # Shape
    /// `[.., d_model]` → the same.
    ///
    /// # Panics
    /// If the last axis is not `d_model`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }
}
