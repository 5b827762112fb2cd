//! Storage and precision of weights when a model is run.

use std::fmt;
use std::str::FromStr;

use andiron_core::kernel_choice::with_kernels;
use andiron_core::precision::with_precision;
use andiron_core::quant::Format;
use andiron_core::{KernelChoice, KvCacheDtype, Precision};
use burn::module::Module;

/// Storage and precision of weights when a model is run. Fewer bits are faster, because reading weights takes the time.
///
/// Block-quantized matrices of a GGUF file stay as they are at [`Bf16`](Self::Bf16) and below: dequantizing them
/// would cost time and gain nothing. Norms, biases and position embeddings are always f32. A matrix whose row length
/// is not a multiple of the block size is stored in bf16.
///
/// In prefill, both operands of a matmul are rounded to bf16, on processors whose bf16 instructions are faster than f32. In
/// decode steps nothing is rounded, except that activations are quantized to int8 if the weights are block-quantized; with
/// AVX-512-VNNI and without AMX they are in prefill, too. So the logits of a token as part of a prompt differ slightly from those of the same token when it was generated. On CPU backends
/// they do not depend on anything else: not on how a prompt is divided into chunks, not on the sequences of a decode step.
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
    /// Weights in blocks of 4 bits, `q4_0`; token embeddings and heads, which suffer more, in blocks of 8.
    Int4,
}

impl RunPrecision {
    /// All precisions, the most exact first.
    pub const ALL: [Self; 5] = [Self::F32, Self::Mixed, Self::Bf16, Self::Int8, Self::Int4];

    /// Precision of matmuls with many rows.
    pub fn matmul_precision(self) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            _ => Precision::Mixed,
        }
    }

    /// The default element type of KV caches at this precision: f32 for [`F32`](Self::F32), else bf16.
    pub fn kv_cache_dtype(self) -> KvCacheDtype {
        match self {
            Self::F32 => KvCacheDtype::F32,
            _ => KvCacheDtype::Bf16,
        }
    }

    /// Runs `work` at this precision; see [`with_precision`].
    pub fn run<T>(self, work: impl FnOnce() -> T) -> T {
        with_precision(self.matmul_precision(), work)
    }

    /// Runs `work` at this precision by these kernels; see [`with_kernels`].
    pub(crate) fn run_with<T>(self, kernels: KernelChoice, work: impl FnOnce() -> T) -> T {
        self.run(|| with_kernels(kernels, work))
    }

    /// Whether weights are quantized; CPU backends multiply by them as they are stored.
    pub fn is_stored(self) -> bool {
        self.format(false).is_some()
    }

    /// Storage format of a matrix that is not block-quantized already; `None` is f32. `is_vocabulary` is true of
    /// token embeddings and heads.
    pub(crate) fn format(self, is_vocabulary: bool) -> Option<Format> {
        match self {
            Self::F32 | Self::Mixed => None,
            Self::Bf16 => Some(Format::Bf16),
            Self::Int4 if !is_vocabulary => Some(Format::Q4_0),
            Self::Int8 | Self::Int4 => Some(Format::Q8_0),
        }
    }

    /// `model` with dense weights, for saving: quantized weights are dequantized, adapters merged.
    pub(crate) fn plain<M: Module>(self, model: &M) -> M {
        model.clone().materialize()
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
