//! From a module into a safetensors file that `transformers` reads.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{ElementConversion, Tensor};
use safetensors::tensor::View;
use safetensors::{Dtype, serialize_to_file};

use super::{FileError, ParamPath};

/// Writes all parameters of `model` to `path` as f32 and makes sure that they are on the disk.
///
/// Tensors are read from their device one at a time, as they are written.
pub(crate) fn save<M: Module>(model: &M, path: &Path) -> Result<(), SaveError> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let write = |source| FileError::Write { path: path.to_owned(), source };
    serialize_to_file(parameters(model), Some(metadata), path).map_err(write)?;
    let sync = |source| SaveError::Io { path: path.to_owned(), source };
    File::open(path).and_then(|file| file.sync_all()).map_err(sync)
}

/// All parameters of `model` with their names. Elements are fetched when they are asked for.
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
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let shape = value.dims().to_vec();
        let read = Box::new(move || floats(value.clone()));
        self.found.push((self.path.name(), Parameter { shape, read }));
    }
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().map(|value| value.elem()).collect()
}

/// A parameter whose elements are fetched when they are written.
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

/// Why a model cannot be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The weights cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model cannot be written as a GGUF file.
    #[error(transparent)]
    Gguf(#[from] super::gguf::GgufError),
    /// Another file cannot be written.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}
