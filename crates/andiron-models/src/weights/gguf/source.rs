//! The tensors of a GGUF file under Hugging Face's names.

use std::borrow::{Borrow, BorrowMut};
use std::collections::BTreeMap;
use std::path::Path;

use andiron_core::quant::Format;

use super::config::{ROPE_FACTORS, model_type, n_heads};
use super::file::{GgufError, GgufFile};
use super::names::{Layout, hf_name};
use crate::weights::FileError;
use crate::weights::source::TensorSource;

/// A GGUF file, owned or borrowed, with tensors in Hugging Face's names, shapes and layouts.
#[derive(Debug)]
pub struct GgufWeights<F = GgufFile> {
    file: F,
    /// By Hugging Face's name: GGUF's name and layout.
    names: BTreeMap<String, (String, Layout)>,
}

impl<F: Borrow<GgufFile>> GgufWeights<F> {
    /// Maps the names of all tensors in `file`.
    ///
    /// A tensor unknown to the architecture keeps its name.
    ///
    /// # Errors
    /// If the architecture is unknown, or heads do not divide a tensor's rows.
    pub fn new(source: F) -> Result<Self, GgufError> {
        let file = source.borrow();
        let model_type = model_type(file)?;
        let n_heads = n_heads(file)?;
        let mut names = BTreeMap::new();
        // The configuration contains what this tensor holds.
        for tensor in file.tensors().filter(|tensor| tensor.name != ROPE_FACTORS) {
            let layout = Layout::of(model_type, &tensor.name, n_heads);
            if !layout.fits(&tensor.shape) {
                let reason = format!("its shape {:?} does not fit {n_heads:?} heads", tensor.shape);
                let (path, what) = (file.path().to_owned(), tensor.name.clone());
                return Err(GgufError::Malformed { path, what, reason });
            }
            let theirs = hf_name(model_type, &tensor.name).unwrap_or_else(|| tensor.name.clone());
            names.insert(theirs, (tensor.name.clone(), layout));
        }
        Ok(Self { file: source, names })
    }

    /// The file.
    pub fn file(&self) -> &GgufFile {
        self.file.borrow()
    }

    /// Names and shapes of all tensors, as Hugging Face has them.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Vec<usize>)> {
        self.names.iter().filter_map(|(theirs, (ours, layout))| {
            Some((theirs.as_str(), layout.shape(&self.file().tensor(ours)?.shape)))
        })
    }

    /// The elements of the tensor that Hugging Face calls `name`, as f32, row-major.
    ///
    /// # Errors
    /// If there is no such tensor.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, GgufError> {
        let (ours, layout) = self.place(name)?;
        let values = self.file().read_f32(&ours)?;
        let shape = self.file().tensor(&ours).map(|tensor| tensor.shape.as_slice()).unwrap_or_default();
        Ok(layout.to_hf(values, shape))
    }

    /// The stored name and layout of the tensor that Hugging Face calls `name`.
    fn place(&self, name: &str) -> Result<(String, Layout), GgufError> {
        let missing = || GgufError::NoTensor { path: self.file().path().to_owned(), tensor: name.to_owned() };
        self.names.get(name).cloned().ok_or_else(missing)
    }
}

impl<F: BorrowMut<GgufFile>> TensorSource for GgufWeights<F> {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors().map(|(name, shape)| (name.to_owned(), shape)).collect()
    }

    fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, FileError> {
        let (ours, layout) = self.place(name)?;
        let values = self.file.borrow_mut().read_f32_once(&ours)?;
        let shape = self.file().tensor(&ours).map(|tensor| tensor.shape.as_slice()).unwrap_or_default();
        Ok(layout.to_hf(values, shape))
    }

    fn read_stored(&mut self, name: &str) -> Result<Option<(Format, Vec<u8>)>, FileError> {
        let (ours, layout) = self.place(name)?;
        let Some(tensor) = self.file().tensor(&ours) else { return Ok(None) };
        let (Some(format), 2) = (tensor.element.stored(), tensor.shape.len()) else { return Ok(None) };
        let shape = tensor.shape.clone();
        Ok(Some((format, layout.rows_to_hf(self.file.borrow_mut().read_bytes_once(&ours)?, &shape))))
    }
}

/// Whether `path` ends in `.gguf`.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}
