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
    /// Weight 1, bias 0.
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
    /// `[d_model]`.
    pub weight: Param<Tensor<1>>,
    /// `[d_model]`.
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

    /// The same at the start of a residual branch, whose skip connection feeds `x` to [`ops::residual`]: see
    /// [`ops::layer_norm_of_branch`].
    ///
    /// # Shape
    /// `[.., d_model]` → the same.
    ///
    /// # Panics
    /// If the last axis is not `d_model`; in the backward pass, if `x` has no other consumer.
    pub fn branch<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm_of_branch(x, self.weight.val(), self.bias.val(), self.eps)
    }

    /// Normalises `x + added`: see [`ops::layer_norm_of_sum`].
    ///
    /// # Shape
    /// `[.., d_model]` each → the same.
    ///
    /// # Panics
    /// If the shapes differ, or the last axis is not `d_model`.
    pub fn of_sum<const D: usize>(&self, x: Tensor<D>, added: Tensor<D>) -> Tensor<D> {
        ops::layer_norm_of_sum(x, added, (self.weight.val(), self.bias.val()), self.eps)
    }

    /// `x + added`, which ends a residual branch, and its norm at the start of the next: see
    /// [`ops::layer_norm_between_branches`].
    ///
    /// # Shape
    /// `[.., d_model]` each → the same, twice.
    ///
    /// # Panics
    /// If the shapes differ, or the last axis is not `d_model`; in the backward pass, if the sum has no other consumer.
    pub fn between_branches<const D: usize>(&self, x: Tensor<D>, added: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
        ops::layer_norm_between_branches(x, added, (self.weight.val(), self.bias.val()), self.eps)
    }
}

/// Sizes of an [`RmsNorm`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RmsNormConfig {
    /// Width of the axis that is normalised.
    pub d_model: usize,
    /// Added to the mean square before the root.
    pub eps: f64,
    /// Whether values are multiplied by `1 + weight`, as in Gemma.
    pub unit_offset: bool,
}

impl RmsNormConfig {
    /// Effective weight 1.
    pub fn init(&self, device: &Device) -> RmsNorm {
        let weight = match self.unit_offset {
            true => init::zeros([self.d_model], device),
            false => init::ones([self.d_model], device),
        };
        RmsNorm { weight, eps: self.eps, unit_offset: self.unit_offset }
    }
}

/// `x / √(mean of x² + eps) · weight` over the last axis.
///
/// Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", <https://arxiv.org/abs/1910.07467>.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[d_model]`; with `unit_offset` values are multiplied by `1 + weight`.
    pub weight: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
    #[module(skip)]
    unit_offset: bool,
}

impl RmsNorm {
    /// Normalises each position.
    ///
    /// # Shape
    /// `[.., d_model]` → the same.
    ///
    /// # Panics
    /// If the last axis is not `d_model`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::rms_norm(x, self.scale(), self.eps)
    }

    /// The same at the start of a residual branch, whose skip connection feeds `x` to [`ops::residual`]: see
    /// [`ops::rms_norm_of_branch`].
    ///
    /// # Shape
    /// `[.., d_model]` → the same.
    ///
    /// # Panics
    /// If the last axis is not `d_model`; in the backward pass, if `x` has no other consumer.
    pub fn branch<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::rms_norm_of_branch(x, self.scale(), self.eps)
    }

    /// `x + added`, which ends a residual branch, and its norm at the start of the next: see
    /// [`ops::rms_norm_between_branches`].
    ///
    /// # Shape
    /// `[.., d_model]` each → the same, twice.
    ///
    /// # Panics
    /// If the shapes differ, or the last axis is not `d_model`; in the backward pass, if the sum has no other consumer.
    pub fn between_branches<const D: usize>(&self, x: Tensor<D>, added: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
        ops::rms_norm_between_branches(x, added, self.scale(), self.eps)
    }

    fn scale(&self) -> Tensor<1> {
        match self.unit_offset {
            true => self.weight.val() + 1.0,
            false => self.weight.val(),
        }
    }
}
