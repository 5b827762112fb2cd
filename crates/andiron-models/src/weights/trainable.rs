//! Trainable parameters of a model: all, a part, or adapters only.

use andiron_core::ParamRole;
use andiron_core::weight::{self, AdapterConfig};
use andiron_kernels::random::Seed;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

use super::{ParamInfo, ParamPath};

/// Freezes the parameters for which `choose` is true: they get no gradients and no optimizer state.
pub fn freeze<M: Module>(model: M, choose: impl FnMut(&ParamInfo) -> bool) -> M {
    model.map(&mut Freeze { path: ParamPath::default(), choose })
}

/// Freezes `model` and adds trainable low-rank adapters to the weights for which `choose` is true, each initialized
/// from its own stream of `seed`.
///
/// The weights may be quantized. [`Module::materialize`] merges the adapters.
///
/// # Panics
/// If a chosen weight already has an adapter.
pub fn adapt<M: Module>(
    model: M,
    config: AdapterConfig,
    seed: Seed,
    choose: impl FnMut(&ParamInfo) -> bool,
) -> M {
    model.map(&mut Adapt { path: ParamPath::default(), config, seed, choose })
}

struct Freeze<F> {
    path: ParamPath,
    choose: F,
}

impl<F: FnMut(&ParamInfo) -> bool> ModuleMapper for Freeze<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match (self.choose)(&self.path.info(param.lazy_shape().to_vec())) {
            true => param.set_require_grad(false),
            false => param,
        }
    }
}

struct Adapt<F> {
    path: ParamPath,
    config: AdapterConfig,
    seed: Seed,
    choose: F,
}

impl<F: FnMut(&ParamInfo) -> bool> ModuleMapper for Adapt<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let info = self.path.info(param.lazy_shape().to_vec());
        let param = param.set_require_grad(false);
        match info.weight.is_some() && info.role != ParamRole::Adapter && (self.choose)(&info) {
            true => weight::adapted(param, self.config, self.seed.derive(&info.name)),
            false => param,
        }
    }
}
