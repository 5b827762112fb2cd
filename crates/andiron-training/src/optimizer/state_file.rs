//! The optimizer's state as a file: safetensors, one tensor for each moment of each trainable parameter.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use andiron_models::weights::{self, write_tensors};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::View;
use safetensors::{Dtype, SafeTensors};

use super::{AWAY, Optimizer, Slot};
use crate::files::{self, FileError};

impl Optimizer {
    /// Writes the moments as a safetensors file with the keys `<parameter>.mean` and `<parameter>.square`, or
    /// `<parameter>.momentum` for those that Muon updates. Frozen parameters have none.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), OptimizerError> {
        let tensors = self.slots.iter().flat_map(|slot| {
            let moments = slot.moments.as_ref().expect(AWAY);
            slot.keys().iter().zip(moments).map(|(moment, values)| {
                (key(slot, moment), Moment { shape: slot.shape.clone(), values: values.clone() })
            })
        });
        Ok(write_tensors(path, tensors.collect(), None)?)
    }

    /// Loads the moments from a file that [`save`](Self::save) wrote after `updates` updates.
    ///
    /// # Errors
    /// If the file cannot be read, or is not for exactly these parameters and this kind of optimizer.
    pub fn load(&mut self, path: &Path, updates: u64, device: &Device) -> Result<(), OptimizerError> {
        let bytes = files::read_bounded(path, u64::MAX - 1)?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|source| OptimizerError::Malformed { path: path.to_owned(), source })?;
        let wanted = self.slots.iter().map(|slot| slot.keys().len()).sum();
        if file.len() != wanted {
            return Err(OptimizerError::Count { found: file.len(), wanted });
        }
        for slot in &mut self.slots {
            let read = |moment: &&str| {
                let key = key(slot, moment);
                let found = file.tensor(&key).ok();
                match found.filter(|view| view.dtype() == Dtype::F32 && view.shape() == slot.shape) {
                    Some(view) => {
                        let values: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
                        Ok(Tensor::from_data(TensorData::new(values, [slot.len()]), device))
                    }
                    None => Err(OptimizerError::Tensor { key, shape: slot.shape.clone() }),
                }
            };
            slot.moments = Some(slot.keys().iter().map(read).collect::<Result<_, _>>()?);
        }
        self.updates = updates;
        Ok(())
    }
}

fn key(slot: &Slot, moment: &str) -> String {
    format!("{}.{moment}", slot.name)
}

/// A moment, which is copied from its device when it is written.
struct Moment {
    shape: Vec<usize>,
    values: Tensor<1>,
}

impl View for Moment {
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

/// Why the optimizer's state cannot be saved or loaded.
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
    /// The file has more or fewer tensors than the model has moments.
    #[error("the optimizer state has {found} tensors, the model wants {wanted}")]
    Count {
        /// Tensors in the file.
        found: usize,
        /// Moments of the model.
        wanted: usize,
    },
    /// A moment is missing or of another shape.
    #[error("the optimizer state has no f32 tensor {key} of shape {shape:?}")]
    Tensor {
        /// Its key.
        key: String,
        /// Its shape.
        shape: Vec<usize>,
    },
}
