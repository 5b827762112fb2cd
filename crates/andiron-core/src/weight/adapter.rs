//! Low-rank adapters: `y = x · W + scale · (x · A) · B`, of which only `A` and `B` are trained.
//!
//! The dense sum `W + scale · A · B` is never formed, neither in the forward pass nor for the gradients, which have the
//! shapes of the factors.

use andiron_kernels::random::Seed;
use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::Weight;
use crate::init;
use crate::ops::{self, WeightLayout};
use crate::role::{ParamRole, WeightKind};

/// Names of the factors below the name of the weight.
const NAMES: [&str; 2] = ["lora_a", "lora_b"];

/// Size of a low-rank adapter.
///
/// Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", <https://arxiv.org/abs/2106.09685>.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// Rank of the factors.
    pub rank: usize,
    /// The adapter's output is scaled by `alpha / rank`.
    pub alpha: f32,
}

/// A frozen weight and its low-rank adapter.
#[derive(Clone, Debug)]
pub(super) struct Adapted {
    /// Dense or quantized.
    pub(super) base: Weight,
    pub(super) adapter: Adapter,
}

/// The factors of an adapter.
#[derive(Clone, Debug)]
pub(super) struct Adapter {
    /// `[d_input, rank]`.
    a: Param<Tensor<2>>,
    /// `[rank, d_output]`.
    b: Param<Tensor<2>>,
    scale: f32,
}

impl Adapter {
    /// Draws `a` from N(0, 1 / `d_input`), so that `x · a` is about as large as `x`, and sets `b` to zero.
    pub(super) fn new(
        AdapterConfig { rank, alpha }: AdapterConfig,
        [d_input, d_output]: [usize; 2],
        seed: Seed,
        device: &Device,
    ) -> Self {
        assert!(rank > 0, "an adapter has a rank of at least 1");
        Self {
            a: init::normal([d_input, rank], 1.0 / (d_input as f32).sqrt(), seed, device),
            b: init::zeros([rank, d_output], device),
            scale: alpha / rank as f32,
        }
    }

    /// The adapter's output, added to `x · W`.
    pub(super) fn project<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let inner = ops::linear(x, self.a.val(), None, WeightLayout::InOut);
        ops::linear(inner, self.b.val(), None, WeightLayout::InOut) * self.scale
    }

    /// The adapter's rows, `Bᵀ · Aᵀ`, added to rows of `Wᵀ`.
    pub(super) fn lookup(&self, ids_bt: Tensor<2, Int>) -> Tensor<3> {
        let inner = ops::embedding(self.b.val().transpose(), ids_bt);
        ops::linear(inner, self.a.val(), None, WeightLayout::OutIn) * self.scale
    }

    /// The adapter's matrix, added to `W`, in its layout.
    pub(super) fn product(&self, layout: WeightLayout) -> Tensor<2> {
        let product = self.a.val().matmul(self.b.val()) * self.scale;
        match layout {
            WeightLayout::InOut => product,
            WeightLayout::OutIn => product.transpose(),
        }
    }

    fn container() -> String {
        WeightKind::new(ParamRole::Adapter, WeightLayout::InOut).container()
    }

    pub(super) fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        let container = Self::container();
        for (name, param) in NAMES.into_iter().zip([&self.a, &self.b]) {
            visitor.enter_module(name, &container);
            param.visit(visitor);
            visitor.exit_module(name, &container);
        }
    }

    pub(super) fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let container = Self::container();
        let mut mapped = |name, param: Param<Tensor<2>>| {
            mapper.enter_module(name, &container);
            let param = Module::map(param, mapper);
            mapper.exit_module(name, &container);
            param
        };
        Self { a: mapped(NAMES[0], self.a), b: mapped(NAMES[1], self.b), scale: self.scale }
    }

    fn each(self, change: impl Fn(Param<Tensor<2>>) -> Param<Tensor<2>>) -> Self {
        Self { a: change(self.a), b: change(self.b), scale: self.scale }
    }
}

impl Adapted {
    pub(super) fn collect_devices(&self, devices: Devices) -> Devices {
        let devices = self.base.collect_devices(devices);
        self.adapter.b.collect_devices(self.adapter.a.collect_devices(devices))
    }

    pub(super) fn fork(self, device: &Device) -> Self {
        Self { base: self.base.fork(device), adapter: self.adapter.each(|param| param.fork(device)) }
    }

    pub(super) fn moved_to(self, device: &Device) -> Self {
        Self {
            base: self.base.to_device(device),
            adapter: self.adapter.each(|param| param.to_device(device)),
        }
    }

    pub(super) fn valid(&self) -> Self {
        Self { base: self.base.valid(), adapter: self.adapter.clone().each(|param| param.valid()) }
    }

    pub(super) fn train(self) -> Self {
        Self { base: self.base.train(), adapter: self.adapter.each(Module::train) }
    }
}
