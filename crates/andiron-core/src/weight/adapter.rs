//! Low-rank adapters: `y = x · W + scale · (x · A) · B`, of which only `A` and `B` are trained.
//!
//! The dense sum `W + scale · A · B` is never formed, neither in the forward pass nor for the gradients, which have the
//! shapes of the factors.
//!
//! With a magnitude vector (DoRA) the output is `m / ‖W + scale · A · B‖ · (x · W + scale · (x · A) · B)`, where the norm is
//! that of each output. It is a constant to the backward pass and needs no dense sum either:
//! `‖w + s · A · b‖² = ‖w‖² + 2 · s · (wᵀ · A) · b + s² · bᵀ · (Aᵀ · A) · b`.
//!
//! A weight that is used in two ways, token embeddings tied to the output head, can have an adapter for each
//! ([`AdapterUse`]): an adapter of the embeddings does not change the head.

use std::sync::{Arc, OnceLock};

use andiron_kernels::random::Seed;
use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::Weight;
use crate::adapter_dropout::AdapterSite;
use crate::init;
use crate::ops::{self, KeptInput, LowRank, WeightLayout};
use crate::precision::{Precision, with_precision};
use crate::role::{MAGNITUDE_CONTAINER, ParamRole, WeightKind};

/// Size and form of a low-rank adapter. The default has rank 8 and scale 1.
///
/// Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", <https://arxiv.org/abs/2106.09685>.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// Rank of the factors.
    pub rank: usize,
    /// The adapter's output is scaled by `alpha / rank`.
    pub alpha: f32,
    /// Whether it is scaled by `alpha / √rank` instead.
    ///
    /// Source: Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA",
    /// <https://arxiv.org/abs/2312.03732>.
    #[serde(default)]
    pub rslora: bool,
    /// Whether the magnitude of each output is trained apart from its direction.
    ///
    /// Source: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", <https://arxiv.org/abs/2402.09353>.
    #[serde(default)]
    pub dora: bool,
    /// Dropout probability of the factors' input, in training. A lookup has no input to drop.
    #[serde(default)]
    pub dropout: f32,
}

impl Default for AdapterConfig {
    fn default() -> Self {
        Self { rank: 8, alpha: 8.0, rslora: false, dora: false, dropout: 0.0 }
    }
}

impl AdapterConfig {
    /// The factor of the adapter's output.
    pub fn scale(self) -> f32 {
        match self.rslora {
            true => self.alpha / (self.rank as f32).sqrt(),
            false => self.alpha / self.rank as f32,
        }
    }
}

/// The use of a weight that an adapter changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterUse {
    /// [`Weight::project`].
    Projection,
    /// [`Weight::lookup`].
    Lookup,
}

impl AdapterUse {
    /// The use of a weight in this role: embeddings are looked up.
    pub fn of_role(role: ParamRole) -> Self {
        match role {
            ParamRole::Embedding | ParamRole::SourceEmbedding | ParamRole::Table => Self::Lookup,
            _ => Self::Projection,
        }
    }

    /// Names of the factors and the magnitude vector below the name of the weight.
    pub fn names(self) -> [&'static str; 3] {
        match self {
            Self::Projection => ["lora_a", "lora_b", "lora_magnitude"],
            Self::Lookup => ["lora_embedding_a", "lora_embedding_b", "lora_embedding_magnitude"],
        }
    }
}

/// An adapter to add to a weight.
#[derive(Clone, Copy, Debug)]
pub struct NewAdapter {
    /// Size and form.
    pub config: AdapterConfig,
    /// The use that it changes.
    pub usage: AdapterUse,
    /// The weight's own seed, for the factor that does not begin at zero.
    pub seed: Seed,
    /// Where the adapter is in the model: another one for each. The dropout masks of a pass follow from it.
    pub site: AdapterSite,
}

/// A frozen weight and its low-rank adapters, one for each use.
#[derive(Clone, Debug)]
pub(super) struct Adapted {
    /// Dense or quantized.
    pub(super) base: Weight,
    pub(super) projection: Option<Adapter>,
    pub(super) lookup: Option<Adapter>,
}

/// The factors of an adapter.
#[derive(Clone, Debug)]
pub(super) struct Adapter {
    usage: AdapterUse,
    /// `[n_inputs, rank]`; the inputs of a lookup are the rows.
    a: Param<Tensor<2>>,
    /// `[rank, n_outputs]`.
    b: Param<Tensor<2>>,
    magnitude: Option<Magnitude>,
    scale: f32,
    dropout: f32,
    site: AdapterSite,
}

/// The magnitude vector of an adapter.
#[derive(Clone, Debug)]
struct Magnitude {
    /// `[n_outputs]`.
    param: Param<Tensor<1>>,
    /// Norms of the outputs of the sum. Made of the base and the factors, so whatever changes those begins with an empty one.
    norms: Arc<OnceLock<Tensor<1>>>,
}

impl Magnitude {
    fn of(param: Param<Tensor<1>>) -> Self {
        Self { param, norms: Arc::default() }
    }
}

impl Adapter {
    /// An adapter that initially changes nothing: one factor is zero. `A` is drawn as the weight of a PyTorch `Linear`, uniform
    /// within `±1 / √n_inputs`; for lookups `B` is drawn as that of an `Embedding`, from N(0, 1). Both as `peft` does.
    pub(super) fn new(new: NewAdapter, base: &Weight) -> Self {
        let NewAdapter { config, usage, seed, site } = new;
        assert!(config.rank > 0, "an adapter has a rank of at least 1");
        let (rank, device) = (config.rank, base.device());
        let [first, second] = base.dims();
        let (a, b) = match usage {
            AdapterUse::Projection => {
                let [n_inputs, n_outputs] = match base.kind().layout {
                    WeightLayout::InOut => [first, second],
                    WeightLayout::OutIn => [second, first],
                };
                let bound = 1.0 / (n_inputs as f32).sqrt();
                let a = init::uniform([n_inputs, rank], bound, seed, &device);
                (a, init::zeros([rank, n_outputs], &device))
            }
            AdapterUse::Lookup => {
                assert_eq!(base.kind().layout, WeightLayout::OutIn, "embeddings have a row for each entry");
                let b = init::normal([rank, second], 1.0, seed, &device);
                (init::zeros([first, rank], &device), b)
            }
        };
        let AdapterConfig { dropout, .. } = config;
        let plain = Self { usage, a, b, magnitude: None, scale: config.scale(), dropout, site };
        let magnitude = config.dora.then(|| {
            // One factor is zero: these are the norms of the base.
            let norms = plain.norms(base);
            Magnitude::of(Param::from_tensor(norms))
        });
        Self { magnitude, ..plain }
    }

    /// `x · W + b` with the adapter.
    pub(super) fn project<const D: usize>(
        &self,
        base: &Weight,
        x: Tensor<D>,
        bias: Option<Tensor<1>>,
        kept: Option<&KeptInput>,
    ) -> Tensor<D> {
        let dropout = self.site.dropout(self.dropout);
        let low_rank = LowRank { a: self.a.val(), b: self.b.val(), scale: self.scale, dropout };
        match &self.magnitude {
            None => ops::low_rank(x, kept, base.as_frozen(), bias, low_rank),
            Some(magnitude) => {
                let sum = ops::low_rank(x, kept, base.as_frozen(), None, low_rank);
                let y = self.scaled(magnitude, base, sum);
                match bias {
                    Some(bias) => y + bias.unsqueeze(),
                    None => y,
                }
            }
        }
    }

    /// Rows with the adapter.
    pub(super) fn lookup(&self, base: &Weight, ids_bt: Tensor<2, Int>) -> Tensor<3> {
        let inner = ops::embedding(self.a.val(), ids_bt.clone());
        let sum = base.lookup(ids_bt) + self.second(inner);
        match &self.magnitude {
            None => sum,
            Some(magnitude) => self.scaled(magnitude, base, sum),
        }
    }

    /// `scale · inner · B`.
    fn second<const D: usize>(&self, inner: Tensor<D>) -> Tensor<D> {
        ops::linear(inner * self.scale, self.b.val(), None, WeightLayout::InOut)
    }

    /// `m / ‖W + scale · A · B‖ · y`.
    fn scaled<const D: usize>(&self, magnitude: &Magnitude, base: &Weight, y: Tensor<D>) -> Tensor<D> {
        y * self.factors(magnitude, base).unsqueeze()
    }

    /// `[n_outputs]`.
    fn factors(&self, magnitude: &Magnitude, base: &Weight) -> Tensor<1> {
        let norms = magnitude.norms.get_or_init(|| self.norms(base));
        magnitude.param.val() / norms.clone()
    }

    /// `‖W + scale · A · B‖` of each output, in f32 and without a gradient.
    ///
    /// # Shape
    /// `[n_outputs]`.
    fn norms(&self, base: &Weight) -> Tensor<1> {
        // Both factors are multiplied by the dense values: with few rows, a quantized product would round the factors.
        let values = base.val().detach();
        let layout = match self.usage {
            AdapterUse::Projection => base.kind().layout,
            AdapterUse::Lookup => WeightLayout::InOut,
        };
        let (a, b) = (self.a.val().detach(), self.b.val().detach());
        let n_outputs = b.dims()[1];
        let inputs = match layout {
            WeightLayout::InOut => 0,
            WeightLayout::OutIn => 1,
        };
        with_precision(Precision::F32, || {
            let a_t = a.clone().transpose();
            let cross = ops::linear(a_t.clone(), values.clone(), None, layout) * b.clone();
            let gram = a_t.matmul(a);
            let quadratic = gram.matmul(b.clone()) * b;
            let added = (cross * (2.0 * self.scale) + quadratic * (self.scale * self.scale)).sum_dim(0);
            let squares = (values.clone() * values).sum_dim(inputs).reshape([n_outputs]);
            (squares + added.reshape([n_outputs])).clamp_min(0.0).sqrt().detach()
        })
    }

    /// `W`, with axes in the order of `layout`, with the adapter merged.
    fn merged(&self, base: &Weight, values: Tensor<2>, layout: WeightLayout) -> Tensor<2> {
        let product = self.a.val().matmul(self.b.val()) * self.scale;
        // Dequantized values come without autodiff.
        let values = match product.is_autodiff() && !values.is_autodiff() {
            true => values.autodiff(),
            false => values,
        };
        let outputs_are_rows = self.usage == AdapterUse::Projection && layout == WeightLayout::OutIn;
        let sum = values + if outputs_are_rows { product.transpose() } else { product };
        match &self.magnitude {
            None => sum,
            Some(magnitude) => {
                let factors: Tensor<2> = self.factors(magnitude, base).unsqueeze();
                sum * if outputs_are_rows { factors.transpose() } else { factors }
            }
        }
    }

    /// The factors and the magnitude vector, for tests.
    #[cfg(test)]
    pub(super) fn parts(&self) -> (Tensor<2>, Tensor<2>, Tensor<1>) {
        let magnitude = self.magnitude.as_ref().expect("a magnitude vector");
        (self.a.val(), self.b.val(), magnitude.param.val())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        let [a, b, m] = self.usage.names();
        let container = factor_container();
        for (name, param) in [(a, &self.a), (b, &self.b)] {
            visitor.enter_module(name, &container);
            param.visit(visitor);
            visitor.exit_module(name, &container);
        }
        if let Some(Magnitude { param, .. }) = &self.magnitude {
            visitor.enter_module(m, MAGNITUDE_CONTAINER);
            param.visit(visitor);
            visitor.exit_module(m, MAGNITUDE_CONTAINER);
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let [a, b, m] = self.usage.names();
        let container = factor_container();
        let mut mapped = |name, param: Param<Tensor<2>>| {
            mapper.enter_module(name, &container);
            let param = Module::map(param, mapper);
            mapper.exit_module(name, &container);
            param
        };
        let (a, b) = (mapped(a, self.a), mapped(b, self.b));
        let magnitude = self.magnitude.map(|Magnitude { param, .. }| {
            mapper.enter_module(m, MAGNITUDE_CONTAINER);
            let param = Module::map(param, mapper);
            mapper.exit_module(m, MAGNITUDE_CONTAINER);
            Magnitude::of(param)
        });
        Self { a, b, magnitude, ..self }
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.b.collect_devices(self.a.collect_devices(devices))
    }

    /// The same with `matrix` applied to the factors and `vector` to the magnitude vector.
    fn each(
        self,
        matrix: impl Fn(Param<Tensor<2>>) -> Param<Tensor<2>>,
        vector: impl Fn(Param<Tensor<1>>) -> Param<Tensor<1>>,
    ) -> Self {
        let magnitude = self.magnitude.map(|Magnitude { param, .. }| Magnitude::of(vector(param)));
        Self { a: matrix(self.a), b: matrix(self.b), magnitude, ..self }
    }
}

fn factor_container() -> String {
    WeightKind::new(ParamRole::Adapter, WeightLayout::InOut).container()
}

impl Adapted {
    /// `base` with one more adapter.
    ///
    /// # Panics
    /// If there is one for this use already.
    pub(super) fn with(mut self, new: NewAdapter) -> Self {
        let place = match new.usage {
            AdapterUse::Projection => &mut self.projection,
            AdapterUse::Lookup => &mut self.lookup,
        };
        assert!(place.is_none(), "a weight has one adapter for each use");
        *place = Some(Adapter::new(new, &self.base));
        self
    }

    /// The effective matrix of one use, in the layout of the weight.
    pub(super) fn effective(&self, usage: AdapterUse) -> Tensor<2> {
        let values = self.base.val();
        let adapter = match usage {
            AdapterUse::Projection => &self.projection,
            AdapterUse::Lookup => &self.lookup,
        };
        match adapter {
            Some(adapter) => adapter.merged(&self.base, values, self.base.kind().layout),
            None => values,
        }
    }

    /// The matrix with whatever adapter there is; that of projections if there are two.
    pub(super) fn merged(&self) -> Tensor<2> {
        match &self.projection {
            Some(_) => self.effective(AdapterUse::Projection),
            None => self.effective(AdapterUse::Lookup),
        }
    }

    fn adapters(&self) -> impl Iterator<Item = &Adapter> {
        self.projection.iter().chain(&self.lookup)
    }

    pub(super) fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.base.visit(visitor);
        for adapter in self.adapters() {
            adapter.visit(visitor);
        }
    }

    pub(super) fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        // Frozen, whatever the mapper does to parameters at large.
        let base = self.base.map(mapper).frozen();
        assert!(!base.is_adapted(), "a weight has one adapter for each use");
        Self {
            base,
            projection: self.projection.map(|adapter| adapter.map(mapper)),
            lookup: self.lookup.map(|adapter| adapter.map(mapper)),
        }
    }

    pub(super) fn collect_devices(&self, devices: Devices) -> Devices {
        let devices = self.base.collect_devices(devices);
        self.adapters().fold(devices, |devices, adapter| adapter.collect_devices(devices))
    }

    pub(super) fn fork(self, device: &Device) -> Self {
        let base = self.base.clone().fork(device);
        self.each(base, |param| param.fork(device), |param| param.fork(device))
    }

    pub(super) fn moved_to(self, device: &Device) -> Self {
        let base = self.base.clone().to_device(device);
        self.each(base, |param| param.to_device(device), |param| param.to_device(device))
    }

    pub(super) fn valid(&self) -> Self {
        self.clone().each(self.base.valid(), |param| param.valid(), |param| param.valid())
    }

    pub(super) fn train(self) -> Self {
        let base = self.base.clone().train();
        self.each(base, Module::train, Module::train)
    }

    fn each(
        self,
        base: Weight,
        matrix: impl Fn(Param<Tensor<2>>) -> Param<Tensor<2>>,
        vector: impl Fn(Param<Tensor<1>>) -> Param<Tensor<1>>,
    ) -> Self {
        let of = |adapter: Option<Adapter>| adapter.map(|adapter| adapter.each(&matrix, &vector));
        Self { base, projection: of(self.projection), lookup: of(self.lookup) }
    }
}
