//! In how many bits a model that is run keeps and multiplies its weights.

use std::fmt;
use std::str::FromStr;

use andiron_core::precision::with_precision;
use andiron_core::quant::Format;
use andiron_core::{KvCacheDtype, Precision};
use burn::module::Module;

/// How exact a model is run. What uses fewer bits is faster, because reading weights is what takes the time.
///
/// Matrices in a GGUF file that are stored in blocks stay as they are at [`Bf16`](Self::Bf16) and below: expanding them
/// would cost time and gain nothing. Norms, biases and tables of positions are f32 always. A matrix whose rows are no whole
/// number of blocks is kept in bf16.
///
/// With more than a few rows, both operands of a matmul are rounded to bf16, on processors whose bf16 instructions are faster
/// than f32. With few rows (four, up to sixteen for some formats, see [`andiron_kernels::quant`]) nothing is rounded, except
/// that activations are quantized to int8 if the weights are block-quantized. Outside f32, prefill and single-token decoding
/// can therefore give slightly different logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RunPrecision {
    /// Weights in f32, nothing rounded: the reference.
    #[default]
    F32,
    /// Weights in f32; operands of a matmul with many rows may be rounded to bf16.
    Mixed,
    /// Weights in bf16.
    Bf16,
    /// Weights in blocks of 8 bits: `q8_0`.
    Int8,
    /// Weights in blocks of 4 bits, `q4_0`; tables of tokens, which suffer more, in blocks of 8.
    Int4,
}

impl RunPrecision {
    /// All of them, the most exact first.
    pub const ALL: [Self; 5] = [Self::F32, Self::Mixed, Self::Bf16, Self::Int8, Self::Int4];

    /// How products of many rows are made.
    pub fn products(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            _ => Precision::Mixed,
        }
    }

    /// What keys and values are kept in, unless another choice is made: nothing is rounded in f32.
    pub fn kv_cache_dtype(self) -> KvCacheDtype {
        match self {
            Self::F32 => KvCacheDtype::F32,
            _ => KvCacheDtype::Bf16,
        }
    }

    /// Does `work` with its products made so; see [`with_precision`].
    pub fn run<T>(self, work: impl FnOnce() -> T) -> T {
        with_precision(self.products(), work)
    }

    /// Whether matrices are kept in fewer bits, which backends of the CPU multiply with as they are.
    pub fn is_stored(self) -> bool {
        self.format(false).is_some()
    }

    /// How a matrix is kept that is not in blocks already; `None` is f32.
    pub(crate) fn format(self, is_table: bool) -> Option<Format> {
        match self {
            Self::F32 | Self::Mixed => None,
            Self::Bf16 => Some(Format::Bf16),
            Self::Int4 if !is_table => Some(Format::Q4_0),
            Self::Int8 | Self::Int4 => Some(Format::Q8_0),
        }
    }

    /// `model`, opened at this precision, with all its weights as plain numbers, to be saved: a parameter's own are not
    /// what it stands for if they are stored in few bits.
    pub(crate) fn plain<M: Module>(self, model: &M) -> M {
        match self.is_stored() {
            true => model.clone().materialize(),
            false => model.clone(),
        }
    }
}

impl fmt::Display for RunPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Mixed => "mixed",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        })
    }
}

impl FromStr for RunPrecision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(|one| one.to_string()).join(", ");
        let found = Self::ALL.into_iter().find(|one| one.to_string() == name);
        found.ok_or_else(|| format!("{name:?} is no precision: choose one of {}", known()))
    }
}
