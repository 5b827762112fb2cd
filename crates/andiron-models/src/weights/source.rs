//! Sources of weights.

use andiron_core::quant::Format;

use super::FileError;

/// Tensors under Hugging Face's names, read one at a time.
pub(crate) trait TensorSource {
    /// Names and shapes of all tensors.
    fn tensors(&self) -> Vec<(String, Vec<usize>)>;

    /// A tensor's elements as f32, row-major.
    fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, FileError>;

    /// The bytes of a block-quantized matrix that can be used as stored, `[out, in]`; `None` for any other.
    fn read_stored(&mut self, _name: &str) -> Result<Option<(Format, Vec<u8>)>, FileError> {
        Ok(None)
    }

    /// Whether there is a tensor of this name.
    fn has(&self, name: &str) -> bool {
        self.tensors().iter().any(|(there, _)| there == name)
    }
}

impl<S: TensorSource + ?Sized> TensorSource for Box<S> {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        (**self).tensors()
    }

    fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, FileError> {
        (**self).read_f32(name)
    }

    fn read_stored(&mut self, name: &str) -> Result<Option<(Format, Vec<u8>)>, FileError> {
        (**self).read_stored(name)
    }

    fn has(&self, name: &str) -> bool {
        (**self).has(name)
    }
}
