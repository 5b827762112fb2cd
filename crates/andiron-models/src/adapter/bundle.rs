//! Adapters of a [`Bundle`].

use std::path::Path;

use andiron_core::ParamRole;
use andiron_kernels::random::Seed;

use super::{AdapterError, AdapterFiles, AdapterNames, LoraConfig, apply_lora, files, lora_parameters};
use crate::any::{AnyBundle, AnyConfig};
use crate::bundle::{Bundle, FamilyConfig};
use crate::decoder::DecoderBundle;
use crate::decoder::classifier::{ClassifierBundle, ClassifierConfig};
use crate::encoder::{EncoderBundle, EncoderConfig};
use crate::weights::{NameRules, SaveError, describe, names};

/// A matrix of two uses: its name in files, and the name that the other use would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tie {
    /// The name of the other use, such as the output head.
    pub tied: &'static str,
    /// The name of the matrix.
    pub owner: &'static str,
}

impl<C: FamilyConfig> Bundle<C> {
    /// What an adapter must know of the model besides its parameters.
    pub fn adapter_names(&self) -> AdapterNames {
        self.config.adapter_names()
    }

    /// The model with the adapter in the directory `dir`. The base model may be quantized; it is frozen.
    ///
    /// # Errors
    /// If the directory is no adapter, or not one of this model.
    pub fn with_adapter(self, dir: &Path) -> Result<Self, AdapterError> {
        self.with_adapter_files(AdapterFiles::open(dir)?)
    }

    /// As above, for files whose configuration has been read.
    ///
    /// # Errors
    /// If it is not an adapter of this model.
    pub fn with_adapter_files(mut self, files: AdapterFiles) -> Result<Self, AdapterError> {
        let names = self.adapter_names();
        if let Some(config) = files.model_config()
            && config.class_name() != names.class
        {
            return Err(AdapterError::OtherClass { wanted: config.class_name(), found: names.class });
        }
        self.unknown_keys.extend(files.unknown_keys().names().iter().cloned());
        let model = files.apply(self.model, &names)?;
        Ok(Self { model, ..self })
    }

    /// The model with a new adapter to train: [`apply_lora`].
    ///
    /// # Errors
    /// As [`apply_lora`].
    pub fn with_lora(self, config: &LoraConfig, seed: Seed) -> Result<Self, AdapterError> {
        let names = self.adapter_names();
        let model = apply_lora(self.model, &names, config, seed)?;
        Ok(Self { model, ..self })
    }

    /// Names of the parameters that are trained under `config`: [`lora_parameters`].
    ///
    /// # Errors
    /// As [`apply_lora`].
    pub fn lora_parameters(&self, config: &LoraConfig) -> Result<Vec<String>, AdapterError> {
        lora_parameters(&self.model, &self.adapter_names(), config)
    }

    /// Writes the adapter as the directory `dir`: [`save_adapter`](super::save_adapter). With a head for a task goes the `config.json` that describes
    /// it, by which [`AnyBundle::with_adapter`] finds the head over a base model without one.
    ///
    /// # Errors
    /// As [`save_adapter`](super::save_adapter).
    ///
    /// # Panics
    /// If the model lacks the adapters of `config`.
    pub fn save_adapter(&self, config: &LoraConfig, dir: &Path) -> Result<(), AdapterError> {
        self.save_adapter_with(config, &[], dir)
    }

    /// [`save_adapter`](Self::save_adapter) with other files, by name, such as those of the tokenizer.
    ///
    /// # Errors
    /// As [`save_adapter`](super::save_adapter).
    ///
    /// # Panics
    /// If the model lacks the adapters of `config`.
    pub fn save_adapter_with(
        &self,
        config: &LoraConfig,
        others: &[(&str, Vec<u8>)],
        dir: &Path,
    ) -> Result<(), AdapterError> {
        let names = self.adapter_names();
        let has_head = names.head.is_some_and(|head| config.saves(head));
        let model_config = has_head.then(|| C::config_json(self));
        files::save(&self.model, &names, (config, model_config), others, dir)
    }

    /// Modules of a head, as [`LoraConfig::modules_to_save`] takes them: those outside of the backbone.
    pub fn head_modules(&self) -> Vec<String> {
        let NameRules { optional_prefix, .. } = self.config.name_rules();
        let params = describe(&self.model);
        let heads = params.iter().filter(|info| !info.name.starts_with(optional_prefix));
        let mut modules: Vec<String> =
            heads.filter_map(|info| Some(info.name.split_once('.')?.0.to_owned())).collect();
        modules.dedup();
        modules
    }

    /// The model as it is saved: dense, with adapters merged.
    ///
    /// # Errors
    /// If an adapter changes one use of a weight that has two, so that merging would change both.
    pub(crate) fn plain_model(&self) -> Result<C::Model, SaveError> {
        match self.split_by_adapter() {
            Some(Tie { tied, owner }) => Err(SaveError::TiedAdapter { tied, owner }),
            None => Ok(self.precision.plain(&self.model)),
        }
    }

    /// The weight of two uses of which an adapter changes one, if there is one. Merged, the two are no longer the same matrix:
    /// [`save`](Self::save) writes one for each.
    pub fn split_by_adapter(&self) -> Option<Tie> {
        let params = describe(&self.model);
        if params.iter().all(|info| info.role != ParamRole::Adapter) {
            return None;
        }
        let has = |name: &str| params.iter().any(|info| info.name == name);
        let is_split = |(tied, owner): &&(&str, &str)| {
            let below = format!("{owner}.lora_");
            !has(tied) && params.iter().any(|info| info.name.starts_with(&below))
        };
        let (tied, owner) = self.adapter_names().rules.tied.iter().find(is_split)?;
        Some(Tie { tied, owner })
    }
}

impl AnyBundle {
    /// The model with the adapter in the directory `dir`: [`Bundle::with_adapter`]. An encoder, or a decoder, gets the head for
    /// labels that the adapter was trained with.
    ///
    /// # Errors
    /// If the directory is no adapter, or not one of this model.
    pub fn with_adapter(self, dir: &Path) -> Result<Self, AdapterError> {
        let files = AdapterFiles::open(dir)?;
        Ok(match self {
            Self::Decoder(bundle) => match files.model_config() {
                Some(AnyConfig::Classifier(wanted)) if is_head_for(&bundle, wanted, files.config()) => {
                    let head = ClassifierBundle::of_decoder(&bundle, wanted.clone(), Seed::new(0));
                    let (precision, kv_cache_dtype) = (bundle.precision, bundle.kv_cache_dtype);
                    let bundle = ClassifierBundle { precision, kv_cache_dtype, ..head };
                    Self::Classifier(bundle.with_adapter_files(files)?)
                }
                _ => Self::Decoder(bundle.with_adapter_files(files)?),
            },
            Self::Classifier(bundle) => Self::Classifier(bundle.with_adapter_files(files)?),
            Self::Encoder(bundle) => {
                let bundle = match files.model_config() {
                    Some(AnyConfig::Encoder(wanted)) => with_head_of(bundle, wanted, files.config())?,
                    _ => bundle,
                };
                Self::Encoder(bundle.with_adapter_files(files)?)
            }
            Self::EncoderDecoder(bundle) => Self::EncoderDecoder(bundle.with_adapter_files(files)?),
        })
    }
}

/// Whether an adapter holds the whole head of `wanted`, and the decoder is of its architecture.
fn is_head_for(bundle: &DecoderBundle, wanted: &ClassifierConfig, config: &LoraConfig) -> bool {
    bundle.config.model_type() == wanted.model_type()
        && wanted.adapter_names().head.is_some_and(|head| config.saves(head))
}

/// The encoder with the head of `wanted`, unless it has that. The adapter must hold all of a new one.
fn with_head_of(
    bundle: EncoderBundle,
    wanted: &EncoderConfig,
    config: &LoraConfig,
) -> Result<EncoderBundle, AdapterError> {
    let same = bundle.config.head() == wanted.head() && bundle.config.labels() == wanted.labels();
    if same || bundle.config.model_type() != wanted.model_type() {
        return Ok(bundle);
    }
    let before = names(&bundle.model);
    let bundle = bundle.with_head(wanted.head(), wanted.labels().to_vec(), Seed::new(0))?;
    let prefix = bundle.config.name_rules().optional_prefix;
    let is_new = |param: &(String, Vec<usize>)| !param.0.starts_with(prefix) || !before.contains(param);
    match names(&bundle.model).into_iter().find(|param| is_new(param) && !config.saves(&param.0)) {
        Some((param, _)) => Err(AdapterError::Missing { tensor: bundle.adapter_names().theirs(&param) }),
        None => Ok(bundle),
    }
}
