//! What a kernel call may use: instructions, threads, and precision.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::bf16_rate::Bf16Rate;

/// An instruction set. Those of one architecture are ordered from the plainest to the widest.
///
/// Every kernel has a version for each. Asking for more than the machine has, or for a set of another architecture, is
/// harmless, see [`Cpu`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, one element at a time: the reference that all other versions are tested against.
    Scalar,
    /// Vectors of 8 f32: AVX2 with FMA.
    Avx2,
    /// Vectors of 16 f32: AVX-512F.
    Avx512,
    /// The same, with dot products of pairs of bf16 and of groups of 4 bytes: AVX-512 with F, BW, VL, VNNI and BF16.
    Avx512Bf16,
    /// The same, with matmuls of bf16 tiles and of byte tiles: AMX with TILE, BF16 and INT8, where the operating system
    /// lets a process use it.
    Amx,
    /// 8 f32 at a time, in two vectors of 4: NEON, which every AArch64 processor has.
    Neon,
    /// The same, with dot products of groups of 4 bytes: NEON with DotProd.
    NeonDot,
}

impl Isa {
    /// The sets of the architecture that this was compiled for, plainest first.
    #[cfg(target_arch = "x86_64")]
    pub const ALL: &[Self] = &[Self::Scalar, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];
    /// The sets of the architecture that this was compiled for, plainest first.
    #[cfg(target_arch = "aarch64")]
    pub const ALL: &[Self] = &[Self::Scalar, Self::Neon, Self::NeonDot];
    /// The sets of the architecture that this was compiled for, plainest first.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub const ALL: &[Self] = &[Self::Scalar];

    /// The widest set this machine has; detected once per process.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(detect)
    }

    /// The sets this machine has, plainest first.
    pub fn supported() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|isa| *isa <= Self::best())
    }

    /// This set if the machine has it, else the best it has.
    pub(crate) fn available(self) -> Self {
        if Self::ALL.contains(&self) { self.min(Self::best()) } else { Self::best() }
    }

    /// Whether it has bf16 matmul instructions.
    pub(crate) fn multiplies_bf16(self) -> bool {
        matches!(self, Self::Avx512Bf16 | Self::Amx)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::NeonDot => "neon-dot",
        })
    }
}

/// How exact matmuls are. Sums are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Operands are f32; nothing is rounded.
    #[default]
    F32,
    /// At least the accuracy of bf16 (8 bits of mantissa instead of 24): operands may be rounded to bf16.
    ///
    /// They are rounded where that makes a matmul faster: on processors with fast bf16 instructions (see [`Bf16Dot`]), and
    /// with enough rows to be bound by arithmetic, not by reading weights. Everywhere else operands stay f32
    /// and the result is that of [`F32`](Self::F32), bit for bit. With block-quantized weights and few rows, activations
    /// are quantized to int8, on every processor; see [`quant`](crate::quant). Intermediate values that feed a second bf16
    /// matmul (activations, attention probabilities) are computed with 11-bit accuracy.
    ///
    /// For the backward pass, what a bf16 matmul reads is kept in bf16, which changes no result: the inputs of projections and
    /// the queries, keys and values of attention. What goes into an activation function is kept in bf16 as well, which rounds
    /// the slope by which gradients are multiplied.
    ///
    /// Source: Kalamkar et al. 2019, "A Study of BFLOAT16 for Deep Learning Training",
    /// <https://arxiv.org/abs/1905.12322>.
    Mixed,
}

impl Precision {
    /// The default of training on this machine: mixed where the processor has fast bf16 instructions, see
    /// [`Bf16Dot::Fastest`], else f32.
    pub fn fastest() -> Self {
        Cpu::detect(1).at(Self::Mixed).matmul_precision()
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Mixed => "mixed",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f32" => Ok(Self::F32),
            "mixed" => Ok(Self::Mixed),
            _ => Err(format!("{name:?} is no precision: choose f32 or mixed")),
        }
    }
}

/// Which instructions multiply at [`Precision::Mixed`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Bf16Dot {
    /// The faster ones. AMX tiles of bf16 always are. AVX-512-BF16 is twice as fast as FMA on some processors and half as
    /// fast on others, so its rate is measured, once per process; see [`Bf16Rate`].
    #[default]
    Fastest,
    /// bf16 instructions wherever the instruction set has them, with operands rounded to bf16.
    Native,
    /// f32 instructions: operands stay f32, and weights stored in bf16 are widened to f32.
    Widened,
}

/// Which kernel multiplies, and attends, where one is for few rows and another for many.
///
/// Kernels for few rows are bound by reading the weights, those for many by arithmetic. They sum in different orders, and
/// round differently at [`Precision::Mixed`]. Fixing the choice makes a row's result independent of the number of rows
/// ("batch invariance"), bit for bit: of the sequences that are decoded with it, and of the chunks that its prompt is read in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KernelChoice {
    /// The faster one for the number of rows: training and evaluation.
    #[default]
    Fastest,
    /// Those for many rows: prompts.
    Prefill,
    /// Those for few rows: generated tokens.
    Decode,
}

/// What a kernel call may use: instructions, threads, and precision.
///
/// Results never depend on `threads`. They may differ between instruction sets: in the last bits, because sums are taken
/// in another order, and at [`Precision::Mixed`] by the rounding of operands to bf16, which only some processors do. A
/// kernel runs with the best set that is neither above `isa` nor above what the machine has, or with the best of all
/// where `isa` is of another architecture, so any value of this struct is safe to use.
///
/// # Example
/// ```
/// use andiron_kernels::{Cpu, Isa};
/// let cpu = Cpu::detect(2);
/// assert_eq!((cpu.isa, cpu.threads), (Isa::best(), 2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// The widest instructions allowed.
    pub isa: Isa,
    /// The most threads of the current rayon pool (the caller's thread included) that may work at once;
    /// 0 counts as 1.
    pub threads: usize,
    /// How exact matmuls are.
    pub precision: Precision,
    /// Which instructions multiply at [`Precision::Mixed`].
    pub bf16_dot: Bf16Dot,
    /// Which kernel multiplies where it could depend on the number of rows.
    pub kernels: KernelChoice,
}

impl Cpu {
    /// The best instructions of this machine on at most `threads` threads, in f32.
    pub fn detect(threads: usize) -> Self {
        Self::new(Isa::best(), threads)
    }

    /// These instructions, or what the machine has of them, on at most `threads` threads, in f32.
    pub fn new(isa: Isa, threads: usize) -> Self {
        Self {
            isa,
            threads,
            precision: Precision::F32,
            bf16_dot: Bf16Dot::Fastest,
            kernels: KernelChoice::Fastest,
        }
    }

    /// The same at this precision.
    pub fn at(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The same with these instructions for [`Precision::Mixed`].
    pub fn with_bf16_dot(self, bf16_dot: Bf16Dot) -> Self {
        Self { bf16_dot, ..self }
    }

    /// The same with this choice of kernels.
    pub fn with_kernels(self, kernels: KernelChoice) -> Self {
        Self { kernels, ..self }
    }

    /// The precision that matmuls have with this: mixed if it was asked for and bf16 instructions are used, so that operands
    /// are rounded; else f32.
    ///
    /// # Example
    /// ```
    /// use andiron_kernels::{Bf16Dot, Cpu, Precision};
    /// let cpu = Cpu::detect(1).at(Precision::Mixed).with_bf16_dot(Bf16Dot::Widened);
    /// assert_eq!(cpu.matmul_precision(), Precision::F32);
    /// ```
    pub fn matmul_precision(self) -> Precision {
        if self.precision == Precision::F32 || self.bf16_dot == Bf16Dot::Widened {
            return Precision::F32;
        }
        let native = match self.isa.available() {
            Isa::Avx512Bf16 if self.bf16_dot == Bf16Dot::Fastest => {
                Bf16Rate::of_this_machine().is_some_and(Bf16Rate::pays)
            }
            isa => isa.multiplies_bf16(),
        };
        if native { Precision::Mixed } else { Precision::F32 }
    }

    /// Whether matmuls use AMX tiles of bf16.
    pub(crate) fn uses_tiles(self) -> bool {
        self.isa.available() == Isa::Amx && self.matmul_precision() == Precision::Mixed
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    use crate::gemm::amx;
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = avx2 && is_x86_feature_detected!("avx512f");
    let bf16 = is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx512bf16");
    match (avx2, avx512) {
        (_, true) if bf16 && amx::available() => Isa::Amx,
        (_, true) if bf16 => Isa::Avx512Bf16,
        (_, true) => Isa::Avx512,
        (true, false) => Isa::Avx2,
        (false, false) => Isa::Scalar,
    }
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Isa {
    use std::arch::is_aarch64_feature_detected;
    // The kernels were written for little-endian lanes and bytes.
    let neon = cfg!(target_endian = "little") && is_aarch64_feature_detected!("neon");
    match (neon, is_aarch64_feature_detected!("dotprod")) {
        (true, true) => Isa::NeonDot,
        (true, false) => Isa::Neon,
        (false, _) => Isa::Scalar,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Isa {
    Isa::Scalar
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All sets, of every architecture.
    const EVERY: [Isa; 7] =
        [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx, Isa::Neon, Isa::NeonDot];

    #[test]
    fn a_set_the_machine_lacks_falls_back() {
        for isa in EVERY {
            let has = Isa::supported().any(|supported| supported == isa);
            assert_eq!(isa.available(), if has { isa } else { Isa::best() });
        }
    }

    #[test]
    fn only_native_bf16_instructions_round() {
        for isa in EVERY {
            let rounds = |precision, bf16_dot| {
                let cpu = Cpu::new(isa, 1).at(precision).with_bf16_dot(bf16_dot);
                cpu.matmul_precision() == Precision::Mixed
            };
            for bf16_dot in [Bf16Dot::Fastest, Bf16Dot::Native, Bf16Dot::Widened] {
                assert!(!rounds(Precision::F32, bf16_dot), "{isa} {bf16_dot:?}");
            }
            assert_eq!(
                rounds(Precision::Mixed, Bf16Dot::Native),
                matches!(isa.available(), Isa::Avx512Bf16 | Isa::Amx),
                "{isa}"
            );
            assert!(!rounds(Precision::Mixed, Bf16Dot::Widened), "{isa}");
        }
    }

    #[test]
    fn the_measured_rate_decides_between_fma_and_bf16_dot() {
        let fastest = Cpu::new(Isa::Avx512Bf16, 1).at(Precision::Mixed).matmul_precision();
        match Bf16Rate::of_this_machine() {
            Some(rate) => assert_eq!(fastest == Precision::Mixed, rate.pays(), "{rate:?}"),
            None => assert_eq!(fastest, Precision::F32),
        }
    }
}
