//! What this processor can do, and how much of it a call may use.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// A set of vector instructions; those of one architecture go from the plainest to the widest.
///
/// Every kernel has a version for each member; asking for more than the machine has, or for a set of another
/// architecture, is harmless, see [`Cpu`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, one number at a time: the reference all other versions are tested against.
    Scalar,
    /// 8 numbers at a time: AVX2 with fused multiply-add.
    Avx2,
    /// 16 numbers at a time: AVX-512F.
    Avx512,
    /// The same, and products of pairs of bf16 and of fours of bytes: AVX-512 with F, BW, VL, VNNI and BF16.
    Avx512Bf16,
    /// The same, and products of whole tiles of bf16 or bytes: AMX with TILE, BF16 and INT8, where the system lets a
    /// process use it.
    Amx,
    /// 8 numbers at a time, in two vectors of 4: NEON, which every processor of AArch64 has.
    Neon,
    /// The same, and products of fours of bytes: NEON with DotProd.
    NeonDot,
}

impl Isa {
    /// The members that a processor of the architecture compiled for can have, plainest first.
    #[cfg(target_arch = "x86_64")]
    pub const ALL: &[Self] = &[Self::Scalar, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];
    /// The members that a processor of the architecture compiled for can have, plainest first.
    #[cfg(target_arch = "aarch64")]
    pub const ALL: &[Self] = &[Self::Scalar, Self::Neon, Self::NeonDot];
    /// The members that a processor of the architecture compiled for can have, plainest first.
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

    /// Whether it multiplies numbers rounded to bf16 faster than others.
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

/// What the factors of a matrix product are rounded to; its sums are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// Factors are rounded to bf16 (8 bits of mantissa instead of 24), where that is of use: a product that is
    /// bound by memory, such as one with few rows, stays as it is. With weights stored in blocks of whole numbers,
    /// few rows are rounded to whole numbers, too; see [`quant`](crate::quant). What lies between two products of tiles
    /// and is a factor of the second, activations and the probabilities of attention, is computed to 11 bits.
    ///
    /// Source: Kalamkar et al. 2019, "A Study of BFLOAT16 for Deep Learning Training",
    /// <https://arxiv.org/abs/1905.12322>.
    Mixed,
}

impl Precision {
    /// The one that trains fastest on this machine without harm: mixed where products of bf16 are tiles, or instructions
    /// that are as fast as those of f32 and do twice as much. Intel's take four times as long (79 against 141 GFLOP/s on a
    /// Xeon with AVX-512).
    pub fn fastest() -> Self {
        match Isa::best() {
            Isa::Amx => Self::Mixed,
            Isa::Avx512Bf16 if is_amd() => Self::Mixed,
            _ => Self::F32,
        }
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

/// What a kernel call may use: instructions, threads, and rounding.
///
/// Results never depend on `threads`. They may differ in the last bits between instruction sets, because
/// sums are taken in another order. A kernel runs with the best set that is neither above `isa` nor above
/// what the machine has, or with the best of all where `isa` is of another architecture, so any value of this struct is
/// safe to use.
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
    /// How exact matrix products are.
    pub precision: Precision,
}

impl Cpu {
    /// The best instructions of this machine on at most `threads` threads, without rounding.
    pub fn detect(threads: usize) -> Self {
        Self::new(Isa::best(), threads)
    }

    /// These instructions, or what the machine has of them, on at most `threads` threads, without rounding.
    pub fn new(isa: Isa, threads: usize) -> Self {
        Self { isa, threads, precision: Precision::F32 }
    }

    /// The same with this rounding.
    pub fn at(self, precision: Precision) -> Self {
        Self { precision, ..self }
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

/// Whether the processor calls itself one of AMD's.
#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_amd() -> bool {
    false
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Isa {
    use std::arch::is_aarch64_feature_detected;
    // Lanes and bytes in the order of memory are all that the kernels were written for.
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

    #[test]
    fn the_plain_set_is_always_supported() {
        assert_eq!(Isa::supported().next(), Some(Isa::Scalar));
        assert_eq!(Isa::supported().last(), Some(Isa::best()));
    }

    /// All members, of every architecture.
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
    fn only_sets_of_this_architecture_are_supported() {
        for isa in Isa::supported() {
            let known = match isa {
                Isa::Scalar => true,
                Isa::Avx2 | Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => cfg!(target_arch = "x86_64"),
                Isa::Neon | Isa::NeonDot => cfg!(target_arch = "aarch64"),
            };
            assert!(known, "{isa}");
        }
        assert!(Isa::ALL.is_sorted());
    }
}
