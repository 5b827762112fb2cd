//! Projections of the last axis, and several of them fused.

use andiron_kernels::random::Seed;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::ops::{self, Activation, FeedForwardOptions, KeptInput, WeightLayout};
use crate::role::{PackedProjections, ParamRole, WeightKind};
use crate::{Weight, init};

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
    /// Order of the weight's axes, in memory and in the checkpoint.
    pub layout: WeightLayout,
}

impl LinearConfig {
    /// Draws the weight from N(0, `std`²), sets the bias to zero.
    pub fn init(&self, std: f32, seed: Seed, device: &Device) -> Linear {
        let shape = match self.layout {
            WeightLayout::InOut => [self.d_input, self.d_output],
            WeightLayout::OutIn => [self.d_output, self.d_input],
        };
        let kind = WeightKind::new(ParamRole::Matrix, self.layout);
        Linear {
            weight: Weight::dense(init::normal(shape, std, seed, device), kind),
            bias: self.bias.then(|| init::zeros([self.d_output], device)),
        }
    }
}

/// A projection: `x · W + b` on the last axis.
#[derive(Module, Debug)]
pub struct Linear {
    /// The weight.
    pub weight: Weight,
    /// The bias, `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// The same layer with its weight in another role: an output head is a [`ParamRole::Head`].
    #[must_use]
    pub fn with_role(self, role: ParamRole) -> Self {
        Self { weight: self.weight.with_role(role), ..self }
    }

    /// The same layer, whose weight holds several projections, such as a fused QKV.
    #[must_use]
    pub fn with_packed(self, packed: PackedProjections) -> Self {
        let kind = WeightKind { packed, ..self.weight.kind() };
        Self { weight: self.weight.with_kind(kind), ..self }
    }

    /// Projects the last axis.
    ///
    /// # Shape
    /// `[.., d_input]` → `[.., d_output]`.
    ///
    /// # Panics
    /// If the last axis is not `d_input`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_kept(x, None)
    }

    /// [`forward`](Self::forward) of an input that other projections read as well: see [`Weight::project_kept`].
    ///
    /// # Shape
    /// `[.., d_input]` → `[.., d_output]`.
    ///
    /// # Panics
    /// If the last axis is not `d_input`.
    pub fn forward_kept<const D: usize>(&self, x: Tensor<D>, kept: Option<&KeptInput>) -> Tensor<D> {
        self.weight.project_kept(x, self.bias.as_ref().map(Param::val), kept)
    }

    fn layout(&self) -> WeightLayout {
        self.weight.kind().layout
    }
}

/// Several projections of one input. If some have adapters, the input is kept once for all of them.
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]` each.
///
/// # Panics
/// If the widths do not match.
pub fn projections<const D: usize, const N: usize>(
    x: Tensor<D>,
    projections: [&Linear; N],
) -> [Tensor<D>; N] {
    let kept = projections.iter().any(|one| one.weight.is_adapted()).then(|| ops::keep_input(&x));
    projections.map(|one| one.forward_kept(x.clone(), kept.as_ref()))
}

/// From this many positions on, concatenating (copying) the weights pays off.
const FUSED_POSITIONS: usize = 512;

/// Several projections of one input by one matmul, their outputs concatenated on the last axis: the input is read, and
/// rounded, once. `None` if that does not pay, because there are few positions or a weight is not dense, or if the
/// projections differ in more than the width of their output.
///
/// # Shape
/// `[.., d_input]` → `[.., sum of d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn fused_qkv<const D: usize, const N: usize>(
    x: &Tensor<D>,
    projections: [&Linear; N],
) -> Option<Tensor<D>> {
    let positions: usize = x.dims()[..D - 1].iter().product();
    let layout = projections[0].layout();
    let has_bias = projections[0].bias.is_some();
    let alike = projections.iter().all(|one| one.layout() == layout && one.bias.is_some() == has_bias);
    if positions < FUSED_POSITIONS || !alike {
        return None;
    }
    let weights: Option<Vec<Tensor<2>>> = projections.iter().map(|one| one.weight.as_dense()).collect();
    let outputs = match layout {
        WeightLayout::InOut => 1,
        WeightLayout::OutIn => 0,
    };
    let weight = Tensor::cat(weights?, outputs);
    let biases = projections.iter().filter_map(|one| one.bias.as_ref().map(Param::val));
    let bias = has_bias.then(|| Tensor::cat(biases.collect(), 0));
    Some(ops::linear(x.clone(), weight, bias, layout))
}

/// Feed-forward part of a transformer layer, `down(activate(up(x)))`. With biases and dense weights it is one fused
/// operation, [`ops::feed_forward`].
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
    match (up.weight.as_dense(), down.weight.as_dense(), &up.bias, &down.bias) {
        (Some(up_weight), Some(down_weight), Some(up_bias), Some(down_bias)) => ops::feed_forward(
            x,
            [up_weight, down_weight],
            [up_bias.val(), down_bias.val()],
            FeedForwardOptions { activation, layouts: [up.layout(), down.layout()] },
        ),
        _ => {
            let (inner, kept) = ops::activate_kept(up.forward(x), activation);
            down.forward_kept(inner, Some(&kept))
        }
    }
}

/// Gated feed-forward part of a transformer layer, `down(activate(gate(x)) · up(x))`. Without biases and with dense
/// weights it is one fused operation, [`ops::gated_feed_forward`].
///
/// # Shape
/// `[.., d_input]` → `[.., d_output]`.
///
/// # Panics
/// If the widths do not match.
pub fn gated_feed_forward<const D: usize>(
    x: Tensor<D>,
    projections: [&Linear; 3],
    activation: Activation,
) -> Tensor<D> {
    let [gate, up, down] = projections;
    let has_bias = projections.iter().any(|one| one.bias.is_some());
    match projections.map(|one| one.weight.as_dense()) {
        [Some(gate_weight), Some(up_weight), Some(down_weight)]
            if !has_bias && gate.layout() == up.layout() =>
        {
            let options = FeedForwardOptions { activation, layouts: [up.layout(), down.layout()] };
            ops::gated_feed_forward(x, [gate_weight, up_weight, down_weight], options)
        }
        _ => {
            let [gate, up] = self::projections(x, [gate, up]);
            let (inner, kept) = ops::gate_kept(gate, up, activation);
            down.forward_kept(inner, Some(&kept))
        }
    }
}
