//! Adds adapters to a model: new ones, or those of a file.

use std::collections::{BTreeMap, BTreeSet};

use andiron_core::ParamRole;
use andiron_core::adapter_dropout::AdapterSite;
use andiron_core::weight::{AdapterConfig, AdapterUse, NewAdapter};
use andiron_kernels::random::Seed;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::AdapterError;
use super::config::{LoraConfig, Matcher, Targets};
use super::names::{AdapterNames, Site, refuse_shared, sites};
use crate::weights::{ParamPath, Trained, describe, train_only};

/// Freezes `model`, adds the adapters of `config` and leaves the modules trained in full trainable. The adapters change nothing
/// until they are trained; each is initialized from its own stream of `seed`.
///
/// `names` are those of the model's bundle. The model's weights may be quantized.
///
/// # Errors
/// If no module matches, a pattern is invalid, or what is asked for cannot be trained.
pub fn apply_lora<M: Module>(
    model: M,
    names: &AdapterNames,
    config: &LoraConfig,
    seed: Seed,
) -> Result<M, AdapterError> {
    config.check_trainable()?;
    let plan = Plan::new(&model, names, config)?;
    plan.check_saved(config)?;
    plan.check_dropout(config)?;
    Ok(plan.apply(model, seed))
}

/// Names of the parameters that are trained under `config`, in the order of the model: the factors of the adapters and the
/// modules trained in full.
///
/// # Errors
/// As [`apply_lora`].
pub fn lora_parameters<M: Module>(
    model: &M,
    names: &AdapterNames,
    config: &LoraConfig,
) -> Result<Vec<String>, AdapterError> {
    config.check_trainable()?;
    let plan = Plan::new(model, names, config)?;
    plan.check_saved(config)?;
    plan.check_dropout(config)?;
    let mut found = Vec::new();
    for info in describe(model) {
        if plan.saved.contains(&info.name) {
            found.push(info.name);
            continue;
        }
        for (site, adapter) in plan.targets.iter().filter(|(site, _)| site.param == info.name) {
            found.extend(site.tensors(adapter.rank, adapter.dora).into_iter().map(|tensor| tensor.param));
        }
    }
    Ok(found)
}

/// Where a configuration puts adapters in a model, and what it trains in full.
pub(super) struct Plan {
    pub(super) targets: Vec<(Site, AdapterConfig)>,
    /// Parameters of the modules that are trained in full.
    pub(super) saved: BTreeSet<String>,
    /// All modules that can have an adapter.
    pub(super) sites: Vec<Site>,
}

impl Plan {
    pub(super) fn new<M: Module>(
        model: &M,
        names: &AdapterNames,
        config: &LoraConfig,
    ) -> Result<Self, AdapterError> {
        match describe(model).iter().any(|info| info.role == ParamRole::Adapter) {
            true => Err(AdapterError::HasAdapter),
            false => Self::of_adapted(model, names, config),
        }
    }

    /// The plan by which the adapters of `model` were added.
    pub(super) fn of_adapted<M: Module>(
        model: &M,
        names: &AdapterNames,
        config: &LoraConfig,
    ) -> Result<Self, AdapterError> {
        let mut params = describe(model);
        params.retain(|info| info.role != ParamRole::Adapter);
        let (matcher, sites) = (Matcher::new(config)?, sites(model, names));
        let mut targets = find_targets(&sites, &matcher, |site| &site.names[..1])?;
        if targets.is_empty() {
            // The adapter may be one of the same model with another head, whose modules have another prefix.
            targets = find_targets(&sites, &matcher, |site| &site.names[1..])?;
        }
        let saves = |name: &str| names.forms(name).iter().any(|form| config.saves(form));
        let saved: BTreeSet<String> =
            params.into_iter().map(|info| info.name).filter(|name| saves(name)).collect();
        // A tied module has no parameter of its own; trained in full it would need one.
        for site in &sites {
            if let Some(partner) = &site.tied
                && config.saves(site.path())
            {
                let (module, partner) = (site.path().to_owned(), partner.clone());
                return Err(AdapterError::Tied { module, partner });
            }
        }
        if targets.is_empty() && saved.is_empty() {
            let targets = match &config.targets {
                Targets::AllLinear => "all-linear".to_owned(),
                Targets::Names(names) => names.join(", "),
                Targets::Pattern(pattern) => pattern.clone(),
            };
            let example = sites.iter().find(|site| site.is_linear).or(sites.first());
            let example = example.map(|site| site.path().to_owned()).unwrap_or_default();
            return Err(AdapterError::NoTarget { targets, example });
        }
        Ok(Self { targets, saved, sites })
    }

    /// Checks that every module to be trained in full exists. `peft` lists heads of several architectures, so a file may name
    /// more.
    fn check_saved(&self, config: &LoraConfig) -> Result<(), AdapterError> {
        let one = |name: &String| LoraConfig { modules_to_save: vec![name.clone()], ..config.clone() };
        let missing =
            config.modules_to_save.iter().find(|name| !self.saved.iter().any(|param| one(name).saves(param)));
        match missing {
            Some(name) => Err(AdapterError::NothingToSave { name: name.clone() }),
            None => Ok(()),
        }
    }

    /// Checks that no output head has an adapter with dropout: a loss reads the values of such a head, and drops no input of it.
    fn check_dropout(&self, config: &LoraConfig) -> Result<(), AdapterError> {
        let is_head =
            |(site, _): &&(Site, AdapterConfig)| !site.is_linear && site.usage == AdapterUse::Projection;
        match self.targets.iter().find(is_head).filter(|_| config.dropout > 0.0) {
            Some((site, _)) => Err(AdapterError::DropoutOfHead { module: site.path().to_owned() }),
            None => Ok(()),
        }
    }

    /// Adds the adapters, and freezes what is not trained.
    pub(super) fn apply<M: Module>(&self, model: M, seed: Seed) -> M {
        let mut adapters: BTreeMap<&str, Vec<NewAdapter>> = BTreeMap::new();
        for (site, config) in &self.targets {
            let name = format!("{}.{}", site.param, site.usage.names()[0]);
            let (seed, place) = (seed.derive(&name), AdapterSite::new(&name));
            let new = NewAdapter { config: *config, usage: site.usage, seed, site: place };
            adapters.entry(&site.param).or_default().push(new);
        }
        train_only(model, |info| match adapters.get(info.name.as_str()) {
            Some(adapters) => Trained::Adapters(adapters.clone()),
            None if self.saved.contains(&info.name) => Trained::Full,
            None => Trained::Not,
        })
    }
}

/// The sites that are targets by one of the given names, each with its adapter.
fn find_targets(
    sites: &[Site],
    matcher: &Matcher<'_>,
    names: impl Fn(&Site) -> &[String],
) -> Result<Vec<(Site, AdapterConfig)>, AdapterError> {
    let mut targets = Vec::new();
    for site in sites {
        for name in names(site) {
            if matcher.is_target(name, site.is_linear)? {
                refuse_shared(site)?;
                targets.push((site.clone(), matcher.adapter(name)?));
                break;
            }
        }
    }
    Ok(targets)
}

/// Replaces the values of some parameters by name; all must exist.
pub(super) fn set_values<M: Module>(model: M, values: BTreeMap<String, Vec<f32>>, device: &Device) -> M {
    let mut set = SetValues { path: ParamPath::default(), values, device };
    let model = model.map(&mut set);
    debug_assert!(set.values.is_empty(), "no such parameters: {:?}", set.values.keys());
    model
}

struct SetValues<'a> {
    path: ParamPath,
    values: BTreeMap<String, Vec<f32>>,
    device: &'a Device,
}

impl ModuleMapper for SetValues<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.values.remove(&self.path.name()) {
            Some(values) => {
                let data = TensorData::new(values, param.lazy_shape());
                Param::from_tensor(Tensor::from_data(data, self.device))
            }
            None => param,
        }
    }
}
