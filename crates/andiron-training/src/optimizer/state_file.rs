//! The state of optimizer and moving average as files: safetensors of f32 tensors under the names of parameters.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use andiron_models::weights::{self, write_tensors};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensors};

use super::Optimizer;
use super::slot::{AWAY, Slot};
use crate::files::{self, FileError};

impl Optimizer {
    /// Writes the moments as a safetensors file with the keys `<parameter>.<moment>`. AdamW has the moments `mean` and
    /// `square`, Muon `momentum`, Lion `mean`; Adafactor has `square_rows` and `square_columns` of a matrix, `square` of a vector,
    /// and `mean` with its `beta1`. Frozen parameters have none.
    ///
    /// # Errors
    /// If the file cannot be written.
    ///
    /// # Panics
    /// If this is a share of an optimizer.
    pub fn save(&self, path: &Path) -> Result<(), OptimizerError> {
        let values = self.slots.iter().flat_map(|slot| slot.moments.as_ref().expect(AWAY).iter().cloned());
        write(path, self.keys().into_iter().zip(values))
    }

    /// Loads the moments, of a share its own, from a file that [`save`](Self::save) wrote after `updates` updates.
    ///
    /// # Errors
    /// If the file cannot be read, or is not for exactly these parameters and this kind of optimizer.
    pub fn load(&mut self, path: &Path, updates: u64, device: &Device) -> Result<(), OptimizerError> {
        let rank = self.share.rank;
        let is_held = self
            .slots
            .iter()
            .flat_map(|slot| slot.moment_shapes().into_iter().map(move |_| slot.owner == rank));
        let is_held: Vec<bool> = is_held.collect();
        let mut values = read_some(path, &self.keys(), &is_held, device)?.into_iter();
        for slot in &mut self.slots {
            let of_slot: Vec<_> = values.by_ref().take(slot.moment_shapes().len()).collect();
            slot.moments = of_slot.into_iter().collect();
        }
        self.updates = updates;
        Ok(())
    }

    /// Key and shape of each moment.
    fn keys(&self) -> Vec<(String, Vec<usize>)> {
        let of_slot = |slot: &Slot| {
            let key = |(moment, shape)| (format!("{}.{moment}", slot.name), shape);
            slot.moment_shapes().into_iter().map(key).collect::<Vec<_>>()
        };
        self.slots.iter().flat_map(of_slot).collect()
    }
}

/// Writes tensors, each with its key and shape.
pub(super) fn write(
    path: &Path,
    tensors: impl Iterator<Item = ((String, Vec<usize>), Tensor<1>)>,
) -> Result<(), OptimizerError> {
    let tensors = tensors.map(|((key, shape), values)| (key, Stored { shape, values }));
    Ok(write_tensors(path, tensors.collect(), None)?)
}

/// Reads a file with exactly these tensors, in this order.
pub(super) fn read(
    path: &Path,
    wanted: &[(String, Vec<usize>)],
    device: &Device,
) -> Result<Vec<Tensor<1>>, OptimizerError> {
    let values = read_some(path, wanted, &vec![true; wanted.len()], device)?;
    Ok(values.into_iter().flatten().collect())
}

/// The same, keeping only some of them.
fn read_some(
    path: &Path,
    wanted: &[(String, Vec<usize>)],
    is_kept: &[bool],
    device: &Device,
) -> Result<Vec<Option<Tensor<1>>>, OptimizerError> {
    let bytes = files::read_bounded(path, u64::MAX - 1)?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|source| OptimizerError::Malformed { path: path.to_owned(), source })?;
    if file.len() != wanted.len() {
        let (found, wanted) = (file.len(), wanted.len());
        return Err(OptimizerError::Count { path: path.to_owned(), found, wanted });
    }
    let one = |((key, shape), &is_kept): (&(String, Vec<usize>), &bool)| {
        let found = file.tensor(key).ok();
        match found.filter(|view| view.dtype() == Dtype::F32 && view.shape() == shape) {
            Some(_) if !is_kept => Ok(None),
            Some(view) => {
                let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
                let len = values.len();
                Ok(Some(Tensor::from_data(TensorData::new(values, [len]), device)))
            }
            None => {
                Err(OptimizerError::Tensor { path: path.to_owned(), key: key.clone(), shape: shape.clone() })
            }
        }
    };
    wanted.iter().zip(is_kept).map(one).collect()
}

/// A tensor that is copied from its device when it is written.
struct Stored {
    shape: Vec<usize>,
    values: Tensor<1>,
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.values.clone().into_data().convert::<f32>();
        let values = values.as_slice::<f32>().expect("just converted to f32");
        Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

/// Why the state of the optimizer or of the moving average cannot be saved or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptimizerError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] weights::FileError),
    /// The file is not a safetensors file.
    #[error("{} is not a safetensors file", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: safetensors::SafeTensorError,
    },
    /// The file has more or fewer tensors than the model needs.
    #[error("{} has {found} tensors, this model and optimizer need {wanted}", path.display())]
    Count {
        /// The file.
        path: PathBuf,
        /// Tensors in the file.
        found: usize,
        /// Tensors of the model.
        wanted: usize,
    },
    /// A tensor is missing or of another shape.
    #[error("{} has no f32 tensor {key} of shape {shape:?}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Its key.
        key: String,
        /// Its shape.
        shape: Vec<usize>,
    },
}
