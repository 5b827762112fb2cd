//! An adapter's directory: reading, checking against a model, and writing.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use andiron_core::ops::WeightLayout;
use andiron_files::PartialDirectory;
use andiron_kernels::random::Seed;
use burn::module::Module;
use serde_json::Value;

use super::AdapterError;
use super::apply::{Plan, set_values};
use super::config::LoraConfig;
use super::names::{AdapterNames, PREFIX, Site, SiteTensor, Stored};
use super::peft_json::{self, CONFIG};
use crate::any::AnyConfig;
use crate::hf_config::ConfigError;
use crate::json_file::{is_there, write_json};
use crate::key_rules::{ConfigFile, UnknownKeys};
use crate::model_files::{CONFIG as MODEL_CONFIG, read_config};
use crate::weights::{Parameter, SaveError, TensorSource, WeightFile, describe, parameters, write_tensors};

const WEIGHTS: &str = "adapter_model.safetensors";
const TORCH_WEIGHTS: &str = "adapter_model.bin";

/// Files that a saved adapter may replace.
const OURS: &[&str] = &[CONFIG, WEIGHTS, TORCH_WEIGHTS, MODEL_CONFIG, "README.md"];

/// An adapter's directory whose configuration has been read.
pub struct AdapterFiles {
    config: LoraConfig,
    unknown_keys: UnknownKeys,
    model_config: Option<AnyConfig>,
    weights: WeightFile,
}

impl fmt::Debug for AdapterFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdapterFiles").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The files of the adapter in the directory `dir`: its configuration and its weights.
///
/// # Errors
/// If one is not there.
pub fn paths(dir: &Path) -> Result<[PathBuf; 2], AdapterError> {
    let none = || AdapterError::NotAnAdapter { path: dir.to_owned() };
    let unreadable = |source| ConfigError::Read { path: dir.to_owned(), source };
    let config = dir.join(CONFIG);
    if !andiron_files::is_directory(dir).map_err(unreadable)? || !is_there(&config)? {
        return Err(none());
    }
    for name in [WEIGHTS, TORCH_WEIGHTS] {
        let weights = dir.join(name);
        if is_there(&weights)? {
            return Ok([config, weights]);
        }
    }
    Err(none())
}

/// The tensors of an adapter, assigned to the parameters of a model.
struct Accounts {
    plan: Plan,
    /// By parameter: the tensor's name in the file, and whether it is stored transposed.
    places: BTreeMap<String, (String, Option<[usize; 2]>)>,
    /// Tensors stored beside another of the same parameter: a table and the head tied to it. Their values must be the same.
    repeats: Vec<(String, String)>,
}

impl AdapterFiles {
    /// Opens the directory `dir`, as `peft` writes it.
    ///
    /// # Errors
    /// If it is none, or the configuration asks for something that is not supported.
    pub fn open(dir: &Path) -> Result<Self, AdapterError> {
        let [path, weights] = paths(dir)?;
        let ConfigFile { config, unknown_keys } = peft_json::read(&path)?;
        let model_config = read_head(&dir.join(MODEL_CONFIG))?;
        Ok(Self { config, unknown_keys, model_config, weights: WeightFile::open(&weights)? })
    }

    /// Size, form and targets.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// Keys of the configuration that no release of `peft` reads.
    pub fn unknown_keys(&self) -> &UnknownKeys {
        &self.unknown_keys
    }

    /// Configuration of the model with the head that the adapter was trained with: `config.json` beside the adapter, which
    /// [`Bundle::save_adapter`](crate::Bundle::save_adapter) writes with a head and `peft` does not.
    pub fn model_config(&self) -> Option<&AnyConfig> {
        self.model_config.as_ref()
    }

    /// Number of elements in the file.
    pub fn n_parameters(&self) -> usize {
        self.weights.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Modules with an adapter in the file, by their path.
    pub fn modules(&self) -> Vec<String> {
        let tensors = self.weights.tensors();
        let mut modules: Vec<String> = tensors
            .iter()
            .filter_map(|(name, _)| match Stored::of(name) {
                Stored::Factor { module, .. } => Some(module.to_owned()),
                Stored::Whole { .. } => None,
            })
            .collect();
        modules.sort();
        modules.dedup();
        modules
    }

    /// Checks that the adapter is one of `model`: every tensor has a place, none is missing, and the shapes fit. Reads no values.
    ///
    /// # Errors
    /// The first tensor that does not fit.
    pub fn check<M: Module>(&self, model: &M, names: &AdapterNames) -> Result<(), AdapterError> {
        self.account(model, names).map(drop)
    }

    /// `model` with the adapter: frozen but for its factors and the modules trained in full.
    ///
    /// # Errors
    /// As [`check`](Self::check), and if the weights cannot be read.
    pub fn apply<M: Module>(mut self, model: M, names: &AdapterNames) -> Result<M, AdapterError> {
        let Accounts { plan, places, repeats } = self.account(&model, names)?;
        let device = model.devices().into_iter().next().expect("a model has parameters");
        let mut values = BTreeMap::new();
        for (param, (tensor, transposed)) in places {
            let mut read = self.weights.read_f32(&tensor)?;
            if read.iter().any(|value| !value.is_finite()) {
                return Err(AdapterError::NotFinite { tensor });
            }
            if let Some(shape) = transposed {
                read = transpose(&read, shape);
            }
            values.insert(param, read);
        }
        for (param, tensor) in repeats {
            if self.weights.read_f32(&tensor)? != values[&param] {
                return Err(AdapterError::Twice { tensor });
            }
        }
        // The seed is of no consequence: every factor is in the file.
        let model = plan.apply(model, Seed::new(0));
        Ok(set_values(model, values, &device))
    }

    /// Assigns every tensor of the file to a parameter.
    fn account<M: Module>(&self, model: &M, names: &AdapterNames) -> Result<Accounts, AdapterError> {
        let plan = Plan::new(model, names, &self.config)?;
        let mut stored: BTreeMap<String, Vec<usize>> = self.weights.tensors().into_iter().collect();
        let (mut places, mut repeats) = (BTreeMap::new(), Vec::new());
        for (site, adapter) in &plan.targets {
            for SiteTensor { suffix, shape, param } in site.tensors(adapter.rank, adapter.dora) {
                let tensor = take(&mut stored, &site.names, suffix, &shape)?;
                let transposed = if let [rows, columns] = shape[..] { Some([rows, columns]) } else { None };
                places.insert(param, (tensor, transposed));
            }
        }
        let shapes: BTreeMap<String, Vec<usize>> =
            describe(model).into_iter().map(|info| (info.name, info.shape)).collect();
        for param in &plan.saved {
            let tensor = take(&mut stored, &names.forms(param), "", &shapes[param])?;
            places.insert(param.clone(), (tensor, None));
        }
        // What is left may be the weight below an adapter of embeddings or of a head, which `peft` saves with it.
        for (tensor, found) in stored {
            let place = |wanted: &String| {
                let adapted = plan
                    .targets
                    .iter()
                    .find(|(site, _)| site.names.iter().any(|name| format!("{name}.weight") == *wanted))?;
                Some(adapted.0.param.clone())
            };
            let whole = match Stored::of(&tensor) {
                Stored::Whole { param } if tensor.contains(".base_layer.") => place(&param),
                _ => None,
            };
            let Some(param) = whole else { return Err(homeless(tensor, &plan, names, &shapes)) };
            check_shape(&tensor, &found, &shapes[&param])?;
            match places.contains_key(&param) {
                true => repeats.push((param, tensor)),
                false => drop(places.insert(param, (tensor, None))),
            }
        }
        Ok(Accounts { plan, places, repeats })
    }
}

/// The configuration in `path`, if it is one of a model with a head for a task.
fn read_head(path: &Path) -> Result<Option<AnyConfig>, ConfigError> {
    const HEADS: [&str; 3] = ["ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"];
    if !is_there(path)? {
        return Ok(None);
    }
    let fields = read_config(path)?;
    let class = fields.get("architectures").and_then(|classes| classes.get(0)).and_then(Value::as_str);
    match class.is_some_and(|class| HEADS.iter().any(|head| class.ends_with(head))) {
        true => Ok(Some(AnyConfig::from_object(fields, path)?.config)),
        false => Ok(None),
    }
}

/// Takes the tensor out of `stored` whose name is one of `names` and `suffix`.
fn take(
    stored: &mut BTreeMap<String, Vec<usize>>,
    names: &[String],
    suffix: &str,
    wanted: &[usize],
) -> Result<String, AdapterError> {
    let full = |name: &String| match suffix {
        "" => format!("{PREFIX}{name}"),
        _ => format!("{PREFIX}{name}.{suffix}"),
    };
    let mut found = names.iter().map(full).filter(|name| stored.contains_key(name));
    let Some(tensor) = found.next() else {
        return Err(AdapterError::Missing { tensor: full(&names[0]) });
    };
    let shape = stored.remove(&tensor).unwrap_or_default();
    check_shape(&tensor, &shape, wanted)?;
    Ok(tensor)
}

fn check_shape(tensor: &str, found: &[usize], wanted: &[usize]) -> Result<(), AdapterError> {
    match found == wanted {
        true => Ok(()),
        false => Err(AdapterError::Shape {
            tensor: tensor.to_owned(),
            found: found.to_vec(),
            wanted: wanted.to_vec(),
        }),
    }
}

/// Why a tensor has no place.
fn homeless(
    tensor: String,
    plan: &Plan,
    names: &AdapterNames,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> AdapterError {
    let has = |site: &Site, module: &str| site.names.iter().any(|name| name == module);
    let known = match Stored::of(&tensor) {
        Stored::Factor { module, .. } => plan.sites.iter().any(|site| has(site, module)),
        Stored::Whole { param } => {
            if let Some(module) = param.strip_suffix(".weight")
                && let Some(Site { tied: Some(partner), .. }) =
                    plan.sites.iter().find(|site| has(site, module) && !site.is_linear)
            {
                return AdapterError::Tied { module: module.to_owned(), partner: partner.clone() };
            }
            shapes.keys().any(|ours| names.forms(ours).contains(&param))
        }
    };
    match known {
        true => AdapterError::NotTargeted { tensor },
        false => AdapterError::NoPlace { tensor },
    }
}

/// Row-major `[rows, columns]` to `[columns, rows]`.
fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect()
}

/// Writes the adapter of `model` as the directory `dir`, for `peft`: the factors and the modules trained in full, under the
/// configuration it was made with. The directory appears whole or not at all, in the place of an earlier adapter.
///
/// # Errors
/// If it cannot be written, or holds files that are no adapter's.
///
/// # Panics
/// If the model lacks the adapters of `config`.
pub fn save_adapter<M: Module>(
    model: &M,
    names: &AdapterNames,
    config: &LoraConfig,
    dir: &Path,
) -> Result<(), AdapterError> {
    save(model, names, (config, None), &[], dir)
}

/// [`save_adapter`], with the `config.json` of the model and other files.
pub(super) fn save<M: Module>(
    model: &M,
    names: &AdapterNames,
    (config, model_config): (&LoraConfig, Option<Value>),
    others: &[(&str, Vec<u8>)],
    dir: &Path,
) -> Result<(), AdapterError> {
    let failed = |source| SaveError::Io { path: dir.to_owned(), source };
    if andiron_files::is_directory(dir).map_err(failed)? {
        let is_ours = |name: &str| OURS.contains(&name) || others.iter().any(|(other, _)| *other == name);
        let there = andiron_files::list(dir).map_err(failed)?;
        if let Some(name) = there.iter().find(|name| !is_ours(name)) {
            return Err(AdapterError::Foreign { path: dir.join(name) });
        }
    }
    let building = PartialDirectory::begin(dir).map_err(failed)?;
    write(model, names, config, building.path())?;
    if let Some(model_config) = model_config {
        write_json(&building.path().join(MODEL_CONFIG), &model_config)?;
    }
    for (name, bytes) in others {
        let path = building.path().join(name);
        andiron_files::replace(&path, bytes).map_err(|source| SaveError::Io { path, source })?;
    }
    Ok(building.publish().map_err(failed)?)
}

fn write<M: Module>(
    model: &M,
    names: &AdapterNames,
    config: &LoraConfig,
    dir: &Path,
) -> Result<(), AdapterError> {
    // The plan is that of the model without its adapters, which `sites` leaves out.
    let plan = Plan::of_adapted(model, names, config)?;
    let mut params: BTreeMap<String, Parameter> = parameters(model).into_iter().collect();
    let mut tensors = Vec::new();
    for (site, adapter) in &plan.targets {
        for SiteTensor { suffix, shape, param } in site.tensors(adapter.rank, adapter.dora) {
            let stored = params.remove(&param).expect("the model has the adapters of its configuration");
            let name = format!("{PREFIX}{}.{suffix}", site.path());
            let read: Box<dyn Fn() -> Vec<f32>> = match shape[..] {
                [rows, columns] => Box::new(move || transpose(&(stored.read)(), [columns, rows])),
                _ => stored.read,
            };
            tensors.push((name, Parameter { shape, read }));
        }
    }
    for name in &plan.saved {
        let stored = params.remove(name).expect("a parameter of the model");
        tensors.push((format!("{PREFIX}{}", names.theirs(name)), stored));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    write_tensors(&dir.join(WEIGHTS), tensors, Some(metadata))?;
    let mut targets: Vec<String> = plan.targets.iter().map(|(site, _)| site.path().to_owned()).collect();
    targets.sort();
    let fan_in_fan_out = plan.targets.iter().any(|(site, _)| site.layout == WeightLayout::InOut);
    let object = peft_json::to_value(config, names, targets, fan_in_fan_out);
    write_json(&dir.join(CONFIG), &object)?;
    Ok(())
}
