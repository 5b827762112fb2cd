//! Trainable parameters of a model: all, a part, or adapters only.

use andiron_core::ParamRole;
use andiron_core::adapter_dropout::AdapterSite;
use andiron_core::weight::{self, AdapterConfig, AdapterUse, NewAdapter};
use andiron_kernels::random::Seed;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

use super::{ParamInfo, ParamPath};

/// Freezes the parameters for which `choose` is true: they get no gradients and no optimizer state.
pub fn freeze<M: Module>(model: M, mut choose: impl FnMut(&ParamInfo) -> bool) -> M {
    train_only(model, |info| if choose(info) { Trained::Not } else { Trained::Whole })
}

/// Freezes `model` and adds trainable low-rank adapters to the weights for which `choose` is true, each initialized
/// from its own stream of `seed`: to the lookups of embeddings, and to the projections of other weights.
///
/// The weights may be quantized. [`Module::materialize`] merges the adapters. An adapter that `peft` reads is made by
/// [`apply_lora`](crate::adapter::apply_lora).
///
/// # Panics
/// If a chosen weight already has an adapter.
pub fn adapt<M: Module>(
    model: M,
    config: AdapterConfig,
    seed: Seed,
    mut choose: impl FnMut(&ParamInfo) -> bool,
) -> M {
    train_only(model, |info| match info.weight.is_some() && info.role != ParamRole::Adapter && choose(info) {
        true => {
            let (usage, seed) = (AdapterUse::of_role(info.role), seed.derive(&info.name));
            let site = AdapterSite::new(&info.name);
            Trained::Adapters(vec![NewAdapter { config, usage, seed, site }])
        }
        false => Trained::Not,
    })
}

/// What is trained of a parameter.
#[derive(Clone, Debug)]
pub(crate) enum Trained {
    /// Nothing: it is frozen.
    Not,
    /// What was trainable.
    Whole,
    /// The parameter, as a dense one if it was quantized.
    Full,
    /// New adapters of a weight, which itself is frozen.
    Adapters(Vec<NewAdapter>),
}

/// Freezes the parameters of `model` and adds adapters to its weights as `choose` says.
pub(crate) fn train_only<M: Module>(model: M, choose: impl FnMut(&ParamInfo) -> Trained) -> M {
    model.map(&mut TrainOnly { path: ParamPath::default(), choose })
}

struct TrainOnly<F> {
    path: ParamPath,
    choose: F,
}

impl<F: FnMut(&ParamInfo) -> Trained> ModuleMapper for TrainOnly<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let info = self.path.info(param.lazy_shape().to_vec());
        match (self.choose)(&info) {
            Trained::Whole => param,
            Trained::Full => Param::initialized(param.id, param.val().detach()).set_require_grad(true),
            Trained::Not => param.set_require_grad(false),
            Trained::Adapters(adapters) => weight::adapted(param.set_require_grad(false), adapters),
        }
    }
}
