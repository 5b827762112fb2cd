//! Tensor elements in files, converted to f32.

use std::io::{self, Read};

use half::{bf16, f16};
use safetensors::Dtype;

/// Bytes per read, so that a tensor's bytes are never in memory beside its elements; a multiple of every element
/// size.
const BLOCK: usize = 1 << 18;

/// Supported element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elements {
    F32,
    F16,
    Bf16,
}

impl Elements {
    /// The type, if supported.
    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }

    fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    fn append(self, values: &mut Vec<f32>, bytes: &[u8]) {
        match self {
            Self::F32 => values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            Self::F16 => values.extend(bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
            Self::Bf16 => values.extend(bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32())),
        }
    }
}

/// Reads the next `count` elements of `file`. The caller has checked that the file holds them.
pub(super) fn read_elements(file: &mut impl Read, elements: Elements, count: usize) -> io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(count);
    let mut left = count * elements.width();
    let mut block = vec![0; BLOCK.min(left)];
    while left > 0 {
        let part = &mut block[..left.min(BLOCK)];
        file.read_exact(part)?;
        elements.append(&mut values, part);
        left -= part.len();
    }
    Ok(values)
}
