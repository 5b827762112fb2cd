//! Element types: plain, or block-quantized. The kernels have their own matmuls for some of them.
//!
//! Source: the block layouts of `ggml-quants.c` in <https://github.com/ggml-org/ggml>. Arithmetic is in f32, in the
//! order of the format's reference reader in Python, so that results are bit-identical.

use andiron_core::quant::Format;
use andiron_kernels::Cpu;
use andiron_kernels::quant::{self, QuantRef};
use half::f16;

/// Elements of a block of the "K" types.
const K: usize = 256;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// bf16.
    Bf16,
    /// Blocks of 32 4-bit integers with a scale.
    Q4_0,
    /// Blocks of 32 4-bit integers with a scale and a minimum.
    Q4_1,
    /// Blocks of 32 5-bit integers with a scale.
    Q5_0,
    /// Blocks of 32 5-bit integers with a scale and a minimum.
    Q5_1,
    /// Blocks of 32 8-bit integers with a scale.
    Q8_0,
    /// Blocks of 256 2-bit integers, a scale and a minimum for each 16.
    Q2K,
    /// Blocks of 256 3-bit integers, a scale for each 16.
    Q3K,
    /// Blocks of 256 4-bit integers, a scale and a minimum for each 32.
    Q4K,
    /// Blocks of 256 5-bit integers, a scale and a minimum for each 32.
    Q5K,
    /// Blocks of 256 6-bit integers, a scale for each 16.
    Q6K,
}

impl ElementType {
    /// The type with this id in a tensor table, if supported.
    pub(super) fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// The type's id in a tensor table.
    pub fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2K => 10,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// Elements per block; 1 if not blocked.
    pub fn block_len(self) -> usize {
        match (self.stored(), self) {
            (Some(format), _) => format.block_len(),
            (None, Self::Q2K | Self::Q3K) => K,
            (None, _) => 1,
        }
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        match (self.stored(), self) {
            (Some(format), _) => format.block_bytes(),
            (None, Self::Q2K) => 84,
            (None, Self::Q3K) => 110,
            (None, _) => 4,
        }
    }

    /// The matching kernel format, if there is a matmul for this type.
    pub(crate) fn stored(self) -> Option<Format> {
        Some(match self {
            Self::F16 => Format::F16,
            Self::Bf16 => Format::Bf16,
            Self::Q4_0 => Format::Q4_0,
            Self::Q4_1 => Format::Q4_1,
            Self::Q5_0 => Format::Q5_0,
            Self::Q5_1 => Format::Q5_1,
            Self::Q8_0 => Format::Q8_0,
            Self::Q4K => Format::Q4K,
            Self::Q5K => Format::Q5K,
            Self::Q6K => Format::Q6K,
            Self::F32 | Self::Q2K | Self::Q3K => return None,
        })
    }

    /// Dequantizes whole blocks.
    pub(super) fn to_f32(self, bytes: &[u8]) -> Vec<f32> {
        match (self.stored(), self) {
            (Some(format), _) => {
                let mut values = vec![0.0; bytes.len() / self.block_bytes() * self.block_len()];
                let matrix = QuantRef::new(format, 1, values.len(), bytes);
                quant::dequantize(Cpu::detect(1), matrix, 0..1, &mut values);
                values
            }
            (None, Self::Q2K) => blocks(bytes, q2_k),
            (None, Self::Q3K) => blocks(bytes, q3_k),
            (None, _) => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        }
    }
}

/// Dequantizes each block of `BYTES` bytes to `LEN` elements.
fn blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    decode: fn(&[u8; BYTES], &mut [f32; LEN]),
) -> Vec<f32> {
    let (blocks, rest) = bytes.as_chunks::<BYTES>();
    debug_assert!(rest.is_empty(), "a tensor is a whole number of blocks");
    let mut values = vec![0.0; blocks.len() * LEN];
    for (block, out) in blocks.iter().zip(values.as_chunks_mut::<LEN>().0) {
        decode(block, out);
    }
    values
}

/// The f16 at byte `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q2_k(block: &[u8; 84], out: &mut [f32; K]) {
    let (scales, low) = (&block[..16], &block[16..80]);
    let (d, d_min) = (half_at(block, 80), half_at(block, 82));
    for (index, value) in out.iter_mut().enumerate() {
        let scale = scales[index / 16];
        let (dl, ml) = (d * f32::from(scale & 15), d_min * f32::from(scale >> 4));
        *value = dl * f32::from(two_bits(low, index)) - ml;
    }
}

fn q3_k(block: &[u8; 110], out: &mut [f32; K]) {
    let (mask, low, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half_at(block, 108);
    for (index, value) in out.iter_mut().enumerate() {
        let group = index / 16;
        let nibble = (scales[group % 8] >> (4 * (group / 8))) & 15;
        let upper = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
        let dl = d * (f32::from(nibble | upper << 4) - 32.0);
        // The third bit is stored inverted: where it is not set, 4 is taken off.
        let offset = if (mask[index % 32] >> (index / 32)) & 1 == 1 { 0.0 } else { 4.0 };
        *value = dl * (f32::from(two_bits(low, index)) - offset);
    }
}

/// Element `index` of 256 2-bit integers: each 32 bytes hold 4 runs of 32, lowest bits first.
fn two_bits(bytes: &[u8], index: usize) -> u8 {
    let (half, within) = (index / 128, index % 128);
    (bytes[half * 32 + within % 32] >> (2 * (within / 32))) & 3
}
