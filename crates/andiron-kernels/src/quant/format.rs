//! The storage formats of quantized matrices.

use std::fmt;

/// How the values of a matrix are stored.
///
/// In the block formats, `d` is the block's scale and `m` its minimum, both f16. Values of 4 bits are nibbles, the first half
/// of a group in the low ones. The layouts are those of GGUF files.
///
/// Source: `ggml-common.h` and `ggml-quants.c` in <https://github.com/ggml-org/ggml>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
#[non_exhaustive]
pub enum Format {
    /// 16-bit floats: 11 bits of mantissa, up to 65504.
    F16,
    /// The upper 16 bits of f32: 8 bits of mantissa, the range of f32.
    Bf16,
    /// 32 integers `q` of 8 bits: `d q`. 8.5 bits per value.
    Q8_0,
    /// 32 integers of 4 bits: `d (q - 8)`. 4.5 bits per value.
    Q4_0,
    /// 32 integers of 4 bits: `d q + m`. 5 bits per value.
    Q4_1,
    /// 32 integers of 5 bits: `d (q - 16)`. 5.5 bits per value.
    Q5_0,
    /// 32 integers of 5 bits: `d q + m`. 6 bits per value.
    Q5_1,
    /// 256 integers of 4 bits; each 32 have a scale `s` and a minimum `n` of 6 bits: `(d s) q - m n`.
    /// 4.5 bits per value.
    Q4K,
    /// As [`Q4K`](Self::Q4K) with 5 bits; 5.5 bits per value.
    Q5K,
    /// 256 integers of 6 bits; each 16 have a scale `s` of 8 bits: `(d s) (q - 32)`. 6.5625 bits per value.
    Q6K,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 10] = [
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Values in a block; 1 for the formats without blocks.
    pub fn block_len(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `cols` values; `None` unless they are whole blocks.
    ///
    /// # Example
    /// ```
    /// use andiron_kernels::quant::Format;
    /// assert_eq!(Format::Q8_0.row_bytes(64), Some(68));
    /// assert_eq!(Format::Q8_0.row_bytes(65), None);
    /// ```
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let whole = cols.is_multiple_of(self.block_len());
        if whole { (cols / self.block_len()).checked_mul(self.block_bytes()) } else { None }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
        })
    }
}
