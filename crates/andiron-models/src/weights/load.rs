//! Loads files into a module: first every tensor is accounted for, then tensors are read one at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use andiron_core::ops::WeightLayout;
use andiron_core::quant::{Format, QuantMatrix};
use andiron_core::role::WeightKind;
use andiron_core::{ParamRole, weight};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::file::FileError;
use super::source::TensorSource;
use super::{NameRules, ParamPath, names};
use crate::RunPrecision;

/// Maximum number of names in an error.
const LISTED: usize = 8;

/// Loads the weights in `files` into `model`, stored at `precision`.
///
/// No weight is allocated before every tensor is accounted for. Peak memory is the model and one block of a file.
pub(crate) fn load_from<M: Module, S: TensorSource>(
    model: M,
    files: &mut [S],
    rules: NameRules,
    precision: RunPrecision,
    device: &Device,
) -> Result<M, LoadError> {
    let accounts = account(&names(&model), files, rules)?;
    check_repeats(files, &accounts)?;
    let places = &accounts.places;
    let mut filler = Filler { path: ParamPath::default(), files, places, device, failed: None };
    let model = if precision.is_stored() {
        let mut quantizer = Quantizer { filler, precision };
        let model = model.map(&mut quantizer);
        filler = quantizer.filler;
        model
    } else {
        model.map(&mut filler)
    };
    match filler.failed {
        Some(error) => Err(error.into()),
        None => Ok(model),
    }
}

/// Checks that `files` hold exactly these tensors.
pub(crate) fn check_names<S: TensorSource>(
    wanted: &[(String, Vec<usize>)],
    files: &[S],
) -> Result<(), LoadError> {
    account(wanted, files, NameRules::default()).map(drop)
}

/// The tensors in a model's files, to infer what its configuration leaves open.
pub struct StoredTensors<'a, 'f>(pub(crate) &'a mut [Box<dyn TensorSource + 'f>]);

impl StoredTensors<'_, '_> {
    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|file| file.has(name))
    }

    /// Whether a tensor's name has this suffix.
    pub(crate) fn has_ending(&self, ending: &str) -> bool {
        self.0.iter().flat_map(|file| file.tensors()).any(|(name, _)| name.ends_with(ending))
    }

    /// Whether two existing tensors have the same elements.
    pub(crate) fn same(&mut self, name: &str, other: &str) -> Result<bool, FileError> {
        Ok(self.read(name)? == self.read(other)?)
    }

    fn read(&mut self, name: &str) -> Result<Option<Vec<f32>>, FileError> {
        self.0.iter_mut().find(|file| file.has(name)).map(|file| file.read_f32(name)).transpose()
    }
}

impl fmt::Debug for StoredTensors<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().flat_map(|file| file.tensors())).finish()
    }
}

/// Location of a parameter: file index, name in the file.
type Places = BTreeMap<String, (usize, String)>;

/// An assignment of every stored tensor to a parameter.
struct Accounts {
    places: Places,
    /// Redundantly stored tied tensors: file index, name, and the parameter they must equal.
    repeats: Vec<(usize, String, &'static str)>,
}

/// Finds every parameter in the files; a missing, unused or mis-shaped tensor is an error.
fn account<S: TensorSource>(
    wanted: &[(String, Vec<usize>)],
    files: &[S],
    rules: NameRules,
) -> Result<Accounts, LoadError> {
    // By current name: file index, stored name, shape.
    let mut stored: BTreeMap<String, (usize, String, Vec<usize>)> = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        for (name, shape) in file.tensors() {
            let entry = (number, name.clone(), shape);
            if stored.insert(rules.current_name(&name), entry).is_some() {
                return Err(LoadError::Twice { tensor: name });
            }
        }
    }
    let mut places = Places::new();
    let mut missing = Vec::new();
    for (name, shape) in wanted {
        // A file may store a tied parameter only under its other name.
        let twins = rules.tied.iter().filter(|(_, owner)| owner == name).map(|(tied, _)| *tied);
        let mut forms = std::iter::once(name.as_str()).chain(twins).flat_map(|name| rules.forms(name));
        let Some((number, key, found)) = forms.find_map(|form| stored.remove(form)) else {
            if !rules.optional.contains(&name.as_str()) {
                missing.push(name.clone());
            }
            continue;
        };
        if &found != shape {
            return Err(LoadError::Shape { tensor: key, found, wanted: shape.clone() });
        }
        places.insert(name.clone(), (number, key));
    }
    if !missing.is_empty() {
        return Err(LoadError::Missing { count: missing.len(), names: list(&missing) });
    }
    let repeat = |&(tied, owner): &(&'static str, &'static str)| {
        let (number, key, _) = rules.forms(tied).find_map(|form| stored.remove(form))?;
        Some((number, key, owner))
    };
    let repeats = rules.tied.iter().filter_map(repeat).collect();
    let unused: Vec<String> = stored.into_keys().filter(|name| !rules.ignores(name)).collect();
    if !unused.is_empty() {
        return Err(LoadError::Unused { count: unused.len(), names: list(&unused) });
    }
    Ok(Accounts { places, repeats })
}

/// A redundantly stored tied tensor must equal its parameter; otherwise it is another model.
fn check_repeats<S: TensorSource>(files: &mut [S], accounts: &Accounts) -> Result<(), LoadError> {
    for (number, tied, owner) in &accounts.repeats {
        let (owner_number, owner_key) = &accounts.places[*owner];
        if files[*number].read_f32(tied)? != files[*owner_number].read_f32(owner_key)? {
            return Err(LoadError::NotTied { tensor: tied.clone(), owner });
        }
    }
    Ok(())
}

fn list(names: &[String]) -> String {
    let mut text = names.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED {
        text.push_str(", …");
    }
    text
}

struct Filler<'a, S> {
    path: ParamPath,
    files: &'a mut [S],
    places: &'a Places,
    device: &'a Device,
    failed: Option<FileError>,
}

impl<S: TensorSource> ModuleMapper for Filler<'_, S> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failed.is_some() {
            return param;
        }
        let Some((number, key)) = self.places.get(&self.path.name()) else {
            return param; // Optional, and not in the files.
        };
        match self.files[*number].read_f32(key) {
            Ok(values) => {
                let data = TensorData::new(values, param.lazy_shape());
                Param::from_tensor(Tensor::from_data(data, self.device))
            }
            Err(error) => {
                self.failed = Some(error);
                param
            }
        }
    }
}

/// Smaller matrices stay f32: reading them takes no time.
pub(crate) const SMALLEST: usize = 1 << 10;

/// Quantizes matrices and leaves the rest to a [`Filler`]: norms, biases, and position and token type embeddings,
/// whose rows differ by little.
struct Quantizer<'a, S> {
    filler: Filler<'a, S>,
    precision: RunPrecision,
}

impl<S: TensorSource> Quantizer<'_, S> {
    /// The matrix `[out, in]` at the current path, if it should be quantized.
    fn matrix(
        &mut self,
        kind: WeightKind,
        [first, second]: [usize; 2],
    ) -> Result<Option<QuantMatrix>, FileError> {
        let Some((number, key)) = self.filler.places.get(&self.filler.path.name()) else { return Ok(None) };
        if first * second < SMALLEST || kind.role == ParamRole::Table {
            return Ok(None);
        }
        let [outputs, inputs] = match kind.layout {
            WeightLayout::InOut => [second, first],
            WeightLayout::OutIn => [first, second],
        };
        let file = &mut self.filler.files[*number];
        let wanted = self.precision.format(kind.role.is_vocabulary());
        if let Some((format, rows)) = file.read_stored(key)?
            && (format.block_len() > 1 || wanted == Some(Format::Bf16))
        {
            return Ok(Some(QuantMatrix::new(format, [outputs, inputs], rows.into())));
        }
        let format = match wanted {
            Some(format) if format.row_bytes(inputs).is_some() => format,
            Some(_) => Format::Bf16,
            None => return Ok(None),
        };
        let mut values = file.read_f32(key)?;
        if kind.layout == WeightLayout::InOut {
            let of = |at: usize| values[at % inputs * outputs + at / inputs];
            values = (0..values.len()).map(of).collect();
        }
        Ok(Some(QuantMatrix::quantize(format, &values, inputs)))
    }
}

impl<S: TensorSource> ModuleMapper for Quantizer<'_, S> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.filler.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.filler.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.filler.failed.is_none()
            && let Some(kind) = self.filler.path.weight()
            && let [first, second] = param.lazy_shape()[..]
        {
            match self.matrix(kind, [first, second]) {
                Ok(Some(matrix)) => return weight::quantized(param, matrix),
                Ok(None) => {}
                Err(error) => self.filler.failed = Some(error),
            }
        }
        self.filler.map_float(param)
    }
}

/// Errors of loading a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file is unreadable or malformed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The configuration cannot be read or built.
    #[error("cannot use the model's configuration")]
    Config(#[from] crate::hf_config::ConfigError),
    /// The directory does not exist.
    #[error(
        "{} is not a model directory: it must hold config.json and model.safetensors, or be a .gguf file",
        path.display()
    )]
    NotADirectory {
        /// The path given.
        path: PathBuf,
    },
    /// A directory without supported weights.
    #[error(
        "{}/model.safetensors is not there, nor pytorch_model.bin, nor shards of either with an index, which are the weights \
         that are read{}",
        path.display(), found.as_deref().unwrap_or_default()
    )]
    NoWeights {
        /// The directory.
        path: PathBuf,
        /// Unsupported weights found instead, if any.
        found: Option<String>,
    },
    /// Parameters without a stored tensor.
    #[error("{count} tensors are missing from the weights: {names}")]
    Missing {
        /// How many.
        count: usize,
        /// The first of them.
        names: String,
    },
    /// Stored tensors without a parameter.
    #[error(
        "{count} tensors in the weights have no place in the model: {names}; does config.json belong to them?"
    )]
    Unused {
        /// How many.
        count: usize,
        /// The first of them.
        names: String,
    },
    /// A tensor with the wrong shape.
    #[error(
        "{tensor}: file has shape {found:?}, model wants {wanted:?}; does config.json belong to the weights?"
    )]
    Shape {
        /// The tensor's name in the file.
        tensor: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape in the model.
        wanted: Vec<usize>,
    },
    /// A tensor stored by two shards.
    #[error("{tensor} is stored in two shards")]
    Twice {
        /// The tensor.
        tensor: String,
    },
    /// A tied tensor stored with different values.
    #[error(
        "{tensor} differs from {owner} although the configuration ties them: set tie_word_embeddings to false"
    )]
    NotTied {
        /// The tied tensor.
        tensor: String,
        /// The parameter that it should equal.
        owner: &'static str,
    },
}
