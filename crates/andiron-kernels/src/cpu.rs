//! What this processor can do, and how much of it a call may use.

use std::fmt;
use std::sync::OnceLock;

/// A set of vector instructions, from the plainest to the widest.
///
/// Every kernel has one version per member; asking for more than the machine has is harmless, see [`Cpu`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust, one number at a time: the reference all other versions are tested against.
    Scalar,
    /// 8 numbers at a time: AVX2 with fused multiply-add.
    Avx2,
    /// 16 numbers at a time: AVX-512F.
    Avx512,
}

impl Isa {
    /// All members, plainest first.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// The widest set this machine has; detected once per process.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(detect)
    }

    /// The sets this machine has, plainest first.
    pub fn supported() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| *isa <= Self::best())
    }

    /// This set if the machine has it, else the best it has.
    pub(crate) fn available(self) -> Self {
        self.min(Self::best())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

/// What a kernel call may use: instructions and threads.
///
/// Results never depend on `threads`. They may differ in the last bits between instruction sets, because
/// sums are taken in another order. A kernel runs with the best set that is neither above `isa` nor above
/// what the machine has, so any value of this struct is safe to use.
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
}

impl Cpu {
    /// The best instructions of this machine on at most `threads` threads.
    pub fn detect(threads: usize) -> Self {
        Self { isa: Isa::best(), threads }
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    match avx2 {
        true if is_x86_feature_detected!("avx512f") => Isa::Avx512,
        true => Isa::Avx2,
        false => Isa::Scalar,
    }
}

#[cfg(not(target_arch = "x86_64"))]
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

    #[test]
    fn a_set_the_machine_lacks_falls_back() {
        assert_eq!(Isa::Avx512.available(), Isa::best());
        assert_eq!(Isa::Scalar.available(), Isa::Scalar);
    }
}
