//! How elements are stored: plain, or in blocks that share a scale.
//!
//! Source: the block layouts of `ggml-quants.c` in <https://github.com/ggml-org/ggml>. Products and sums are in f32,
//! in the order of the format's reference reader in Python, so that results are the same to the last bit.

use andiron_core::quant::Format;
use half::{bf16, f16};

/// Elements of a block of the "K" types.
const K: usize = 256;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElementType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// The upper halves of 32-bit floats.
    Bf16,
    /// Blocks of 32 4-bit numbers with a scale.
    Q4_0,
    /// Blocks of 32 4-bit numbers with a scale and a minimum.
    Q4_1,
    /// Blocks of 32 5-bit numbers with a scale.
    Q5_0,
    /// Blocks of 32 5-bit numbers with a scale and a minimum.
    Q5_1,
    /// Blocks of 32 bytes with a scale.
    Q8_0,
    /// Blocks of 256 2-bit numbers, scales and minima for each 16.
    Q2K,
    /// Blocks of 256 3-bit numbers, scales for each 16.
    Q3K,
    /// Blocks of 256 4-bit numbers, scales and minima for each 32.
    Q4K,
    /// Blocks of 256 5-bit numbers, scales and minima for each 32.
    Q5K,
    /// Blocks of 256 6-bit numbers, scales for each 16.
    Q6K,
}

impl ElementType {
    /// The type that a tensor table means by `id`, if it is one that can be read here.
    pub fn from_id(id: u32) -> Option<Self> {
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

    /// The type's number in a tensor table.
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

    /// Elements in a block; 1 if elements stand alone.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => K,
        }
    }

    /// Bytes that a block takes.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// The same for kernels that multiply with such elements as they are; `None` of those that none multiplies with.
    pub(super) fn stored(self) -> Option<Format> {
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

    /// The elements of whole blocks as f32.
    pub(super) fn to_f32(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Self::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Self::Bf16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            Self::Q4_0 => blocks(bytes, q4_0),
            Self::Q4_1 => blocks(bytes, q4_1),
            Self::Q5_0 => blocks(bytes, q5_0),
            Self::Q5_1 => blocks(bytes, q5_1),
            Self::Q8_0 => blocks(bytes, q8_0),
            Self::Q2K => blocks(bytes, q2_k),
            Self::Q3K => blocks(bytes, q3_k),
            Self::Q4K => blocks(bytes, q4_k),
            Self::Q5K => blocks(bytes, q5_k),
            Self::Q6K => blocks(bytes, q6_k),
        }
    }
}

/// Decodes each block of `BYTES` bytes into `LEN` elements.
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

fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (l, &byte) in block[2..].iter().enumerate() {
        out[l] = d * (f32::from(byte & 15) - 8.0);
        out[l + 16] = d * (f32::from(byte >> 4) - 8.0);
    }
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for (l, &byte) in block[4..].iter().enumerate() {
        out[l] = d * f32::from(byte & 15) + m;
        out[l + 16] = d * f32::from(byte >> 4) + m;
    }
}

/// The fifth bit of element `index`, in its place.
fn fifth(bits: &[u8], index: usize) -> u8 {
    ((bits[index / 8] >> (index % 8)) & 1) << 4
}

fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    let high = &block[2..6];
    for (l, &byte) in block[6..].iter().enumerate() {
        out[l] = d * (f32::from(byte & 15 | fifth(high, l)) - 16.0);
        out[l + 16] = d * (f32::from(byte >> 4 | fifth(high, l + 16)) - 16.0);
    }
}

fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let high = &block[4..8];
    for (l, &byte) in block[8..].iter().enumerate() {
        out[l] = d * f32::from(byte & 15 | fifth(high, l)) + m;
        out[l + 16] = d * f32::from(byte >> 4 | fifth(high, l + 16)) + m;
    }
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (value, &byte) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(byte as i8) * d;
    }
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

/// Element `index` of 256 2-bit numbers: each 32 bytes hold 4 runs of 32, lowest bits first.
fn two_bits(bytes: &[u8], index: usize) -> u8 {
    let (half, within) = (index / 128, index % 128);
    (bytes[half * 32 + within % 32] >> (2 * (within / 32))) & 3
}

/// Scale and minimum of each 32 elements: 6 bits each, the upper ones of the last four beside the first four.
fn scales_and_minima(packed: &[u8]) -> [(f32, f32); 8] {
    std::array::from_fn(|j| {
        let (scale, min) = if j < 4 {
            (packed[j] & 63, packed[j + 4] & 63)
        } else {
            let upper = |byte: u8| (byte >> 2) & 0x30;
            (packed[j + 4] & 15 | upper(packed[j - 4]), packed[j + 4] >> 4 | upper(packed[j]))
        };
        (f32::from(scale), f32::from(min))
    })
}

fn q4_k(block: &[u8; 144], out: &mut [f32; K]) {
    let (d, d_min) = (half_at(block, 0), half_at(block, 2));
    let low = &block[16..];
    for (group, (scale, min)) in scales_and_minima(&block[4..16]).into_iter().enumerate() {
        let (dl, ml) = (d * scale, d_min * min);
        for l in 0..32 {
            let nibble = (low[group / 2 * 32 + l] >> (4 * (group % 2))) & 15;
            out[group * 32 + l] = dl * f32::from(nibble) - ml;
        }
    }
}

fn q5_k(block: &[u8; 176], out: &mut [f32; K]) {
    let (d, d_min) = (half_at(block, 0), half_at(block, 2));
    let (high, low) = (&block[16..48], &block[48..]);
    for (group, (scale, min)) in scales_and_minima(&block[4..16]).into_iter().enumerate() {
        let (dl, ml) = (d * scale, d_min * min);
        for l in 0..32 {
            let nibble = (low[group / 2 * 32 + l] >> (4 * (group % 2))) & 15;
            let bit = (high[l] >> group) & 1;
            out[group * 32 + l] = dl * f32::from(nibble | bit << 4) - ml;
        }
    }
}

fn q6_k(block: &[u8; 210], out: &mut [f32; K]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for (index, value) in out.iter_mut().enumerate() {
        let dl = d * f32::from(scales[index / 16] as i8);
        let (half, within) = (index / 128, index % 128);
        let nibble = (low[half * 64 + within % 64] >> (4 * (within / 64))) & 15;
        let bits = two_bits(high, index);
        *value = dl * (f32::from(nibble | bits << 4) - 32.0);
    }
}
