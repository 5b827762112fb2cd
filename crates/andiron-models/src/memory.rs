//! Memory needs of a model, estimated from the headers of its files.

use std::path::Path;

use crate::RunPrecision;
use crate::model_files::ModelFiles;
use crate::weights::gguf::{self, GgufFile, TensorEntry};
use crate::weights::{self, FileError, LoadError, SMALLEST, TensorSource};

/// Memory that a model takes while it is opened and run. Requests need more: mainly their KV caches, with `2 · layers
/// · key/value heads · head width` elements per position, of 4 bytes in f32 and 2 in bf16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelMemory {
    /// Bytes of the weights, plus the largest of them in f32 during conversion.
    pub weights: u64,
    /// Bytes of memory-mapped files, which are page cache and need no memory of their own.
    pub mapped: u64,
}

impl ModelMemory {
    /// Memory of the model directory or GGUF file `path` on the CPU at `precision`. Exact to a few percent:
    /// embeddings that are kept at higher precision than other matrices are counted at that of the others.
    ///
    /// # Errors
    /// If the headers cannot be read or contradict themselves.
    pub fn of(path: &Path, precision: RunPrecision) -> Result<Self, LoadError> {
        if gguf::is_gguf(path) && !path.is_dir() {
            return Ok(Self::of_gguf(&GgufFile::open(path).map_err(FileError::from)?, precision));
        }
        Self::of_directory(path, precision)
    }

    /// As above, for files whose configuration has already been read.
    ///
    /// # Errors
    /// As [`ModelMemory::of`].
    pub fn of_files(files: &ModelFiles, precision: RunPrecision) -> Result<Self, LoadError> {
        match files.gguf() {
            Some(file) => Ok(Self::of_gguf(file, precision)),
            None => Self::of_directory(files.folder(), precision),
        }
    }

    fn of_gguf(file: &GgufFile, precision: RunPrecision) -> Self {
        let mapped = file.n_bytes();
        let stays = |tensor: &&TensorEntry| {
            let stored = tensor
                .element
                .stored()
                .is_some_and(|format| format.block_len() > 1 || precision == RunPrecision::Bf16);
            precision.is_stored() && stored && tensor.shape.len() == 2
        };
        let (as_they_are, others): (Vec<_>, Vec<_>) = file.tensors().partition(stays);
        let as_they_are: u64 = as_they_are.iter().map(|tensor| tensor.bytes.len() as u64).sum();
        let others: Vec<Vec<usize>> = others.iter().map(|tensor| tensor.shape.clone()).collect();
        Self { weights: as_they_are.saturating_add(kept(&others, precision)), mapped }
    }

    fn of_directory(path: &Path, precision: RunPrecision) -> Result<Self, LoadError> {
        let shapes: Vec<Vec<usize>> =
            weights::open(path)?.iter().flat_map(|file| file.tensors()).map(|(_, shape)| shape).collect();
        Ok(Self { weights: kept(&shapes, precision), mapped: 0 })
    }
}

/// Bytes of tensors of these shapes at `precision`.
fn kept(shapes: &[Vec<usize>], precision: RunPrecision) -> u64 {
    let elements =
        |shape: &[usize]| shape.iter().fold(1_u64, |product, &size| product.saturating_mul(size as u64));
    let bytes = |shape: &Vec<usize>| {
        let all = elements(shape);
        let plain = all.saturating_mul(4);
        match (precision.format(false), shape.as_slice()) {
            (Some(format), &[rows, columns]) if all >= SMALLEST as u64 => {
                let in_bf16 = all.saturating_mul(2);
                format.row_bytes(columns).map_or(in_bf16, |row| (row as u64).saturating_mul(rows as u64))
            }
            _ => plain,
        }
    };
    let largest = shapes.iter().map(|shape| elements(shape).saturating_mul(4)).max().unwrap_or(0);
    let converted = if precision.is_stored() { largest } else { 0 };
    shapes.iter().map(bytes).fold(converted, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_take_what_their_precision_says() {
        let shapes = [vec![64, 32], vec![64], vec![32, 7]];
        let [big, small] = [64 * 32, 64 + 32 * 7];
        let bytes = |precision| kept(&shapes, precision);
        assert_eq!(bytes(RunPrecision::F32), 4 * (big + small));
        assert_eq!(bytes(RunPrecision::Mixed), 4 * (big + small));
        // The largest is there in f32 while it is converted; small matrices and vectors stay f32.
        assert_eq!(bytes(RunPrecision::Bf16), 4 * big + 2 * big + 4 * small);
        assert_eq!(bytes(RunPrecision::Int8), 4 * big + big * 34 / 32 + 4 * small);
        assert_eq!(bytes(RunPrecision::Int4), 4 * big + big * 18 / 32 + 4 * small);
    }

    #[test]
    fn no_shape_makes_it_overflow() {
        assert_eq!(kept(&[vec![usize::MAX, usize::MAX]], RunPrecision::F32), u64::MAX);
    }
}
