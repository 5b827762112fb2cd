//! Affine map of the last axis, in either of the two layouts checkpoints use.

use andiron_kernels::random::Seed;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::init;
use crate::ops::{self, Activation, FeedForwardOptions, WeightLayout};
use crate::quant::QuantWeight;

/// Sizes of a [`Linear`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearConfig {
    /// Width of the input.
    pub d_input: usize,
    /// Width of the output.
    pub d_output: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// How the weight lies in memory, and in the checkpoint.
    pub layout: WeightLayout,
}

impl LinearConfig {
    /// Draws the weight from N(0, `std`²), sets the bias to zero.
    pub fn init(&self, std: f32, seed: Seed, device: &Device) -> Linear {
        let shape = match self.layout {
            WeightLayout::InOut => [self.d_input, self.d_output],
            WeightLayout::OutIn => [self.d_output, self.d_input],
        };
        Linear {
            weight: init::normal(shape, std, seed, device),
            bias: self.bias.then(|| init::zeros([self.d_output], device)),
            layout: self.layout,
        }
    }
}

/// `x · W + b` on the last axis.
#[derive(Module, Debug)]
pub struct Linear {
    /// The weight; its axes are in the order that `layout` says.
    pub weight: Param<Tensor<2>>,
    /// The bias, `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    layout: WeightLayout,
}

impl Linear {
    /// Maps the last axis.
    ///
    /// # Shape
    /// `[.., d_input]` → `[.., d_output]`.
    ///
    /// # Panics
    /// If the last axis is not `d_input`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        map(x, &self.weight, self.bias.as_ref().map(Param::val), self.layout)
    }
}

/// [`ops::linear`] by a parameter, in blocks if that is how it is stored.
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn map<const D: usize>(
    x: Tensor<D>,
    weight: &Param<Tensor<2>>,
    bias: Option<Tensor<1>>,
    layout: WeightLayout,
) -> Tensor<D> {
    match QuantWeight::of(weight) {
        Some(matrix) => ops::linear_quantized(x, matrix, bias),
        None => ops::linear(x, weight.val(), bias, layout),
    }
}

/// Positions from which on it pays to lay maps side by side, for which their weights are copied.
const JOINED: usize = 512;

/// What several maps make of one input, side by side on the last axis, by one product: the input is read, and rounded, once.
/// `None` if that does not pay, because there are few positions or maps are in blocks, or if the maps differ in more than
/// the width of their output.
///
/// # Shape
/// `[.., d_input]` → `[.., sum of d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn side_by_side<const D: usize, const N: usize>(x: &Tensor<D>, maps: [&Linear; N]) -> Option<Tensor<D>> {
    let positions: usize = x.dims()[..D - 1].iter().product();
    let layout = maps[0].layout;
    let has_bias = maps[0].bias.is_some();
    let alike = maps.iter().all(|map| map.layout == layout && map.bias.is_some() == has_bias);
    if positions < JOINED || !alike || in_blocks(&maps) {
        return None;
    }
    let outputs = match layout {
        WeightLayout::InOut => 1,
        WeightLayout::OutIn => 0,
    };
    let weight = Tensor::cat(maps.iter().map(|map| map.weight.val()).collect(), outputs);
    let biases = maps.iter().filter_map(|map| map.bias.as_ref().map(Param::val));
    let bias = has_bias.then(|| Tensor::cat(biases.collect(), 0));
    Some(ops::linear(x.clone(), weight, bias, layout))
}

/// `down(activate(up(x)))`: the part of a transformer layer that looks at one position at a time. Maps with biases that
/// are not in blocks go as one piece, [`ops::feed_forward`].
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn feed_forward<const D: usize>(
    x: Tensor<D>,
    [up, down]: [&Linear; 2],
    activation: Activation,
) -> Tensor<D> {
    match (&up.bias, &down.bias) {
        (Some(up_bias), Some(down_bias)) if !in_blocks(&[up, down]) => ops::feed_forward(
            x,
            [up.weight.val(), down.weight.val()],
            [up_bias.val(), down_bias.val()],
            FeedForwardOptions { activation, layouts: [up.layout, down.layout] },
        ),
        _ => down.forward(ops::activate(up.forward(x), activation)),
    }
}

/// `down(activate(gate(x)) · up(x))`: the same part where it is gated. Maps without biases that are not in blocks go as
/// one piece, [`ops::gated_feed_forward`].
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn gated_feed_forward<const D: usize>(
    x: Tensor<D>,
    maps: [&Linear; 3],
    activation: Activation,
) -> Tensor<D> {
    let [gate, up, down] = maps;
    let has_bias = maps.iter().any(|map| map.bias.is_some());
    if has_bias || gate.layout != up.layout || in_blocks(&maps) {
        return down.forward(ops::gate(gate.forward(x.clone()), up.forward(x), activation));
    }
    let options = FeedForwardOptions { activation, layouts: [up.layout, down.layout] };
    ops::gated_feed_forward(x, maps.map(|map| map.weight.val()), options)
}

fn in_blocks(maps: &[&Linear]) -> bool {
    maps.iter().any(|map| QuantWeight::of(&map.weight).is_some())
}
