//! Saves a module as a safetensors file that `transformers` reads.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{ElementConversion, Tensor};
use safetensors::Dtype;
use safetensors::tensor::View;
use serde_json::json;

use super::directory::{INDEX, SINGLE};
use super::{FileError, ParamPath, write_tensors};

/// Maximum bytes of tensors per file, as in `transformers`; a larger tensor gets its own file.
const SHARD_BYTES: usize = 5_000_000_000;

/// Writes all parameters of `model` as f32 into the directory `dir`, synced to disk: one file, or shards with an
/// index above 5 GB. Previous weights are removed.
///
/// Tensors are copied from their device one at a time. `values` are those of some parameters, in the place of the model's, or of
/// others that the model does not have.
pub(crate) fn save<M: Module>(
    model: &M,
    values: Vec<(&'static str, Tensor<2>)>,
    dir: &Path,
) -> Result<(), SaveError> {
    let mut tensors = parameters(model);
    for (name, value) in values {
        let parameter =
            Parameter { shape: value.dims().to_vec(), read: Box::new(move || floats(value.clone())) };
        match tensors.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = parameter,
            None => tensors.push((name.to_owned(), parameter)),
        }
    }
    save_in_shards(tensors, dir, SHARD_BYTES)
}

/// A tensor to write: name, shape, row-major elements.
pub(crate) type NamedTensor = (&'static str, Vec<usize>, Arc<[f32]>);

/// Writes tensors into the directory `dir`.
pub(crate) fn save_tensors(tensors: Vec<NamedTensor>, dir: &Path) -> Result<(), SaveError> {
    let parameter = |(name, shape, values): NamedTensor| {
        (name.to_owned(), Parameter { shape, read: Box::new(move || values.to_vec()) })
    };
    write_file(tensors.into_iter().map(parameter).collect(), &dir.join(SINGLE))
}

fn save_in_shards(
    tensors: Vec<(String, Parameter)>,
    dir: &Path,
    shard_bytes: usize,
) -> Result<(), SaveError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| SaveError::Io { path, source }
    };
    let mut shards: Vec<Vec<(String, Parameter)>> = vec![Vec::new()];
    let (mut in_shard, mut total) = (0, 0);
    for (name, parameter) in tensors {
        let bytes = parameter.data_len();
        if in_shard > 0 && in_shard + bytes > shard_bytes {
            shards.push(Vec::new());
            in_shard = 0;
        }
        in_shard += bytes;
        total += bytes;
        shards.last_mut().expect("there is at least one").push((name, parameter));
    }
    let n_shards = shards.len();
    let mut written = BTreeSet::new();
    let mut weight_map = BTreeMap::new();
    for (number, shard) in shards.into_iter().enumerate() {
        let file = match n_shards {
            1 => SINGLE.to_owned(),
            _ => format!("model-{:05}-of-{n_shards:05}.safetensors", number + 1),
        };
        weight_map.extend(shard.iter().map(|(name, _)| (name.clone(), file.clone())));
        write_file(shard, &dir.join(&file))?;
        written.insert(file);
    }
    let index = dir.join(INDEX);
    if n_shards > 1 {
        let content = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        andiron_files::replace(&index, format!("{content:#}\n").as_bytes()).map_err(failed(&index))?;
        written.insert(INDEX.to_owned());
    }
    // A reader must not find the previous model's weights beside these.
    for name in andiron_files::list(dir).map_err(failed(dir))? {
        let is_ours = name == SINGLE || name == INDEX || is_shard(&name);
        if is_ours && !written.contains(&name) {
            let path = dir.join(name);
            andiron_files::remove_file(&path).map_err(failed(&path))?;
        }
    }
    Ok(())
}

/// Whether a file is named like a shard: `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    let middle = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    middle.and_then(|middle| middle.split_once("-of-")).is_some_and(|(number, of)| {
        [number, of]
            .iter()
            .all(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

fn write_file(tensors: Vec<(String, Parameter)>, path: &Path) -> Result<(), SaveError> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(write_tensors(path, tensors, Some(metadata))?)
}

/// All parameters of `model` by name; elements are fetched on demand.
pub(crate) fn parameters<M: Module>(model: &M) -> Vec<(String, Parameter)> {
    let mut collected = Parameters { path: ParamPath::default(), found: Vec::new() };
    model.visit(&mut collected);
    collected.found
}

struct Parameters {
    path: ParamPath,
    found: Vec<(String, Parameter)>,
}

impl ModuleVisitor for Parameters {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (param, shape) = (param.clone(), param.lazy_shape().to_vec());
        let read = Box::new(move || floats(param.val()));
        self.found.push((self.path.name(), Parameter { shape, read }));
    }
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().map(|value| value.elem()).collect()
}

/// A parameter with elements fetched on write.
pub(crate) struct Parameter {
    pub(crate) shape: Vec<usize>,
    pub(crate) read: Box<dyn Fn() -> Vec<f32>>,
}

impl View for Parameter {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned((self.read)().iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

/// Errors of saving a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The weights cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model cannot be written as a GGUF file.
    #[error(transparent)]
    Gguf(#[from] super::gguf::GgufError),
    /// An adapter cannot be merged.
    #[error(
        "the adapter of {owner} cannot be merged: it changes one of {owner} and {tied}, which are one matrix in the files; \
         merge into a model directory if it is a decoder, use the adapter beside its base model, or untie the base model \
         before training (tie_word_embeddings: false, with a weight for each)"
    )]
    TiedAdapter {
        /// The name of the other use.
        tied: &'static str,
        /// The weight with the adapter.
        owner: &'static str,
    },
    /// Another file cannot be written.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::fs;

    use andiron_core::DeviceSpec;
    use andiron_kernels::random::Seed;

    use super::*;
    use crate::RunPrecision;
    use crate::catalog::Architecture as _;
    use crate::decoder::gpt2::Gpt2Config;
    use crate::weights::{load_from, open};

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn shards_hold_what_one_file_holds_and_replace_it() {
        let device = DeviceSpec::parse("ndarray").and_then(DeviceSpec::open).expect("built with ndarray");
        let config = Gpt2Config { n_embd: 8, n_head: 2, n_layer: 2, ..Gpt2Config::nano(11) };
        let model = config.init(Seed::new(3), &device);
        let dir = tempfile::tempdir().expect("a directory");
        let elements = |dir: &Path| -> Vec<(String, Vec<f32>)> {
            let mut files = open(dir).unwrap_or_else(|error| panic!("{error}"));
            let (model, rules) = (config.init(Seed::new(4), &device), config.name_rules());
            let model = load_from(model, &mut files, rules, RunPrecision::F32, &device);
            let model = model.unwrap_or_else(|error| panic!("{error}"));
            parameters(&model).into_iter().map(|(name, parameter)| (name, (parameter.read)())).collect()
        };
        save(&model, Vec::new(), dir.path()).expect("it can be written");
        assert_eq!(files(dir.path()), [SINGLE]);
        let whole = elements(dir.path());
        save_in_shards(parameters(&model), dir.path(), 2000).expect("it can be written");
        let shards = files(dir.path());
        assert!(shards.len() > 3 && shards.contains(&INDEX.to_owned()), "{shards:?}");
        assert!(shards.iter().all(|name| name == INDEX || is_shard(name)), "{shards:?}");
        assert_eq!(elements(dir.path()), whole);
        // Saving fewer shards, or one file, leaves none of the earlier shards.
        save_in_shards(parameters(&model), dir.path(), 4000).expect("it can be written");
        assert!(files(dir.path()).len() < shards.len());
        assert_eq!(elements(dir.path()), whole);
        fs::write(dir.path().join("model-card.safetensors"), "not ours").expect("it can be written");
        save(&model, Vec::new(), dir.path()).expect("it can be written");
        assert_eq!(files(dir.path()), ["model-card.safetensors", SINGLE]);
    }
}
