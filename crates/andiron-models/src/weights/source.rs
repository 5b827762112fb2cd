//! Where weights come from.

use super::FileError;

/// Tensors under Hugging Face's names, read one at a time.
pub(crate) trait TensorSource {
    /// Names and shapes of all tensors.
    fn tensors(&self) -> Vec<(String, Vec<usize>)>;

    /// The elements of a tensor as f32, row by row.
    fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, FileError>;
}
