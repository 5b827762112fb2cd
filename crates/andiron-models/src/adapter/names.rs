//! The modules of a model under Hugging Face's names, and the tensors of an adapter's file.

use andiron_core::ParamRole;
use andiron_core::ops::WeightLayout;
use andiron_core::role::WeightKind;
use andiron_core::weight::AdapterUse;
use burn::module::Module;
use serde_json::{Value, json};

use super::AdapterError;
use super::config::LoraConfig;
use crate::weights::{NameRules, ParamInfo, describe};

/// What `peft` puts before the paths of its base model.
pub(super) const PREFIX: &str = "base_model.model.";

/// Modules whose name in Hugging Face's class is not that of their tensors in files: theirs, ours.
const RENAMED: &[(&str, &str)] = &[("lm_head", "embed_out")];

/// What an adapter must know of a model besides its parameters: [`Bundle::adapter_names`](crate::Bundle::adapter_names).
#[derive(Clone, Copy, Debug)]
pub struct AdapterNames {
    pub(crate) class: &'static str,
    pub(crate) model_type: &'static str,
    pub(crate) rules: NameRules,
    /// `peft`'s name for the task of the class.
    pub(crate) task: Option<&'static str>,
    /// The head of the task; `peft` trains it in full.
    pub(crate) head: Option<&'static str>,
}

impl AdapterNames {
    /// Whether the model has a head for a task, such as labels, which an adapter trains in full.
    pub fn has_task_head(&self) -> bool {
        self.head.is_some()
    }

    /// `task_type` to write. `peft` expects the head of a classification task in the file, so without one there the task is
    /// left open.
    pub(super) fn task(&self, config: &LoraConfig) -> Option<&'static str> {
        self.task.filter(|_| self.head.is_none_or(|head| config.saves(head)))
    }

    /// `auto_mapping` to write: the class, where `task_type` does not say it.
    pub(super) fn auto_mapping(&self, config: &LoraConfig) -> Value {
        match self.task(config) {
            Some(_) => Value::Null,
            None => {
                let module = self.model_type.replace('-', "_");
                let module = module.strip_suffix("_text").unwrap_or(&module);
                json!({
                    "base_model_class": self.class,
                    "parent_library": format!("transformers.models.{module}.modeling_{module}"),
                })
            }
        }
    }

    /// Whether the class is a model without a head, whose modules have no prefix.
    fn is_bare(&self) -> bool {
        self.class.ends_with("Model") && !self.class.ends_with("LMHeadModel") && self.class != "MarianMTModel"
    }

    /// Hugging Face's name for the parameter or module `ours`.
    pub(super) fn theirs(&self, ours: &str) -> String {
        for (theirs, renamed) in RENAMED {
            if let Some(rest) = ours.strip_prefix(renamed) {
                return format!("{theirs}{rest}");
            }
        }
        let bare = ours.strip_prefix(self.rules.optional_prefix).filter(|_| self.is_bare());
        bare.unwrap_or(ours).to_owned()
    }

    /// The names under which a file may store `ours`, the usual one first.
    pub(super) fn forms(&self, ours: &str) -> Vec<String> {
        let mut forms = vec![self.theirs(ours), ours.to_owned()];
        forms.extend(ours.strip_prefix(self.rules.optional_prefix).map(str::to_owned));
        forms.dedup();
        forms
    }
}

/// A module that can have an adapter.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Site {
    /// Its names in Hugging Face's class, the usual one first.
    pub(super) names: Vec<String>,
    /// Its weight here.
    pub(super) param: String,
    pub(super) usage: AdapterUse,
    pub(super) n_inputs: usize,
    pub(super) n_outputs: usize,
    pub(super) layout: WeightLayout,
    /// Whether it is a projection other than an output head.
    pub(super) is_linear: bool,
    /// The module that shares its weight, if one does.
    pub(super) tied: Option<String>,
    /// Whether several lookups share its weight, as in encoder-decoders with one table.
    pub(super) is_shared: bool,
}

impl Site {
    /// The path in Hugging Face's class.
    pub(super) fn path(&self) -> &str {
        &self.names[0]
    }

    /// Name and shape in the file of the factors and the magnitude vector, with the names of the parameters.
    pub(super) fn tensors(&self, rank: usize, dora: bool) -> Vec<SiteTensor> {
        let [a, b, magnitude] = match self.usage {
            AdapterUse::Projection => ["lora_A.weight", "lora_B.weight", MAGNITUDE],
            AdapterUse::Lookup => ["lora_embedding_A", "lora_embedding_B", MAGNITUDE],
        };
        let params = self.usage.names().map(|name| format!("{}.{name}", self.param));
        let [a_param, b_param, magnitude_param] = params;
        let mut tensors = vec![
            SiteTensor { suffix: a, shape: vec![rank, self.n_inputs], param: a_param },
            SiteTensor { suffix: b, shape: vec![self.n_outputs, rank], param: b_param },
        ];
        if dora {
            let shape = vec![self.n_outputs];
            tensors.push(SiteTensor { suffix: magnitude, shape, param: magnitude_param });
        }
        tensors
    }
}

const MAGNITUDE: &str = "lora_magnitude_vector";

/// A tensor of an adapter. Matrices are stored transposed: `lora_A` is `[rank, inputs]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SiteTensor {
    pub(super) suffix: &'static str,
    pub(super) shape: Vec<usize>,
    pub(super) param: String,
}

/// A tensor of a file by its name: the module and what the tensor is to it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stored<'a> {
    /// Of an adapter.
    Factor { module: &'a str, suffix: &'static str },
    /// A parameter of the base model, in full.
    Whole { param: String },
}

impl<'a> Stored<'a> {
    pub(super) fn of(name: &'a str) -> Self {
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        const SUFFIXES: [&str; 5] =
            ["lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B", MAGNITUDE];
        let module = |suffix: &'static str| {
            let module = name.strip_suffix(suffix)?.strip_suffix('.')?;
            Some(Self::Factor { module, suffix })
        };
        SUFFIXES.into_iter().find_map(module).unwrap_or_else(|| {
            // The table below an adapter of embeddings, which is saved with it.
            Self::Whole { param: name.replace(".base_layer.", ".") }
        })
    }
}

/// All modules of `model` that can have an adapter, and its other parameters.
pub(super) fn sites<M: Module>(model: &M, names: &AdapterNames) -> Vec<Site> {
    let params: Vec<ParamInfo> =
        describe(model).into_iter().filter(|info| info.role != ParamRole::Adapter).collect();
    let has = |name: &str| params.iter().any(|info| info.name == name);
    let tied_to = |name: &str| -> Vec<&'static str> {
        let tied = names.rules.tied.iter().filter(|(_, owner)| *owner == name).map(|(tied, _)| *tied);
        tied.filter(|tied| tied.ends_with(".weight") && !has(tied)).collect()
    };
    let module = |name: &str| name.strip_suffix(".weight").unwrap_or(name).to_owned();
    let mut found = Vec::new();
    for info in &params {
        let (Some(kind), [first, second]) = (info.weight, &info.shape[..]) else { continue };
        let tied = tied_to(&info.name);
        let is_lookup = |name: &&&str| name.ends_with("embed_tokens.weight");
        let (lookups, heads): (Vec<&str>, Vec<&str>) = tied.iter().partition(|name| is_lookup(name));
        let usage = AdapterUse::of_role(kind.role);
        let shared = !lookups.is_empty();
        let own = site(names, &info.name, (*first, *second), (kind, usage));
        let partner = heads.first().map(|head| module(head));
        for lookup in lookups {
            let names = names.forms(&module(lookup));
            found.push(Site { names, is_shared: true, ..own.clone() });
        }
        for head in heads {
            let head_site = site(names, &info.name, (*first, *second), (kind, AdapterUse::Projection));
            found.push(Site {
                names: names.forms(&module(head)),
                is_linear: false,
                tied: Some(own.path().to_owned()),
                ..head_site
            });
        }
        found.push(Site { tied: partner, is_shared: shared, ..own });
    }
    found
}

fn site(
    names: &AdapterNames,
    param: &str,
    (first, second): (usize, usize),
    (kind, usage): (WeightKind, AdapterUse),
) -> Site {
    let module = param.strip_suffix(".weight").unwrap_or(param);
    // The rows of embeddings are the inputs of a lookup, and the outputs of a head.
    let (n_inputs, n_outputs) = match (usage, kind.layout) {
        (AdapterUse::Lookup, _) | (_, WeightLayout::InOut) => (first, second),
        (AdapterUse::Projection, WeightLayout::OutIn) => (second, first),
    };
    Site {
        names: names.forms(module),
        param: param.to_owned(),
        usage,
        n_inputs,
        n_outputs,
        layout: kind.layout,
        is_linear: kind.role == ParamRole::Matrix,
        tied: None,
        is_shared: false,
    }
}

/// Refuses adapters of a table that encoder and decoder share: in `transformers` each half looks up in its own module.
pub(super) fn refuse_shared(site: &Site) -> Result<(), AdapterError> {
    match site.is_shared {
        true => Err(AdapterError::SharedTable { module: site.path().to_owned() }),
        false => Ok(()),
    }
}
