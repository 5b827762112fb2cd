//! Portable vector types, and run-time dispatch to an instruction set.
//!
//! A kernel is one generic function over [`Simd`]. [`dispatch!`] compiles it once per instruction set and chooses one at
//! run time. A value of a `Simd` type is proof that the processor has the instructions: only `dispatch!` makes one, after
//! checking the CPU features.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod math;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use math::{exp, exp2_for_bf16, normal_cdf, plain_normal_cdf, sigmoid};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{Neon, Pair};

use crate::Isa;

/// Vectors of f32 of one instruction set.
///
/// Every method is inlined into a function compiled for that set; see [`dispatch!`].
pub(crate) trait Simd: Copy {
    /// A vector of [`LANES`](Self::LANES) f32.
    type Vector: Copy;
    /// A boolean per lane.
    type Mask: Copy;
    /// The instruction set.
    const ISA: Isa;
    /// Lanes per vector.
    const LANES: usize;
    /// Vector registers.
    const REGISTERS: usize;

    fn splat(self, x: f32) -> Self::Vector;
    /// 0, 1, 2, … as f32.
    fn indices(self) -> Self::Vector;
    /// # Safety
    /// `from` is readable for `LANES` elements.
    unsafe fn load_from(self, from: *const f32) -> Self::Vector;
    /// # Safety
    /// `to` is writable for `LANES` elements.
    unsafe fn store_to(self, to: *mut f32, x: Self::Vector);
    /// bf16 values, widened.
    ///
    /// # Safety
    /// `from` is readable for `LANES` values.
    unsafe fn load_bf16_from(self, from: *const u16) -> Self::Vector;
    /// The first `count` lanes from memory; 0 in the others.
    ///
    /// # Safety
    /// `from` is readable for `count <= LANES` elements.
    unsafe fn load_part_from(self, from: *const f32, count: usize) -> Self::Vector;
    /// # Safety
    /// `to` is writable for `count <= LANES` elements.
    unsafe fn store_part_to(self, to: *mut f32, x: Self::Vector, count: usize);

    /// Prefetches a cache line; any address is allowed.
    fn prefetch<T>(self, from: *const T);

    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `1 / x` with a relative error of at most 2^-14, for `x` whose reciprocal is not subnormal.
    #[inline(always)]
    fn inverse_for_bf16(self, x: Self::Vector) -> Self::Vector {
        self.div(self.splat(1.0), x)
    }
    /// The minimum per lane; `b` where either is NaN.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The maximum per lane; `b` where either is NaN.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// To the nearest integer, ties to even.
    fn round(self, x: Self::Vector) -> Self::Vector;
    /// `x * 2^n` for integer `n` of magnitude up to 252, without intermediate overflow.
    fn scale(self, x: Self::Vector, n: Self::Vector) -> Self::Vector;
    /// `a >= b` per lane; false where either is NaN.
    fn at_least(self, a: Self::Vector, b: Self::Vector) -> Self::Mask;
    fn select(self, mask: Self::Mask, yes: Self::Vector, no: Self::Vector) -> Self::Vector;
    /// Whether bit `bit` (below 32) of each word is set.
    ///
    /// # Safety
    /// `words` is readable for `LANES` words.
    unsafe fn has_bit(self, words: *const u32, bit: usize) -> Self::Mask;
    /// Whether each word is below `bound`: one bit each, the lowest for the first.
    fn below(self, words: &[u32; 16], bound: u32) -> u16;
    /// The sum of all lanes, in a fixed order.
    fn sum(self, x: Self::Vector) -> f32;
    /// The sums of four vectors, each in a fixed order that may differ from that of [`sum`](Self::sum).
    fn sums(self, x: [Self::Vector; 4]) -> [f32; 4];
    /// The largest lane.
    fn largest(self, x: Self::Vector) -> f32;

    /// The first [`LANES`](Self::LANES) elements of `from`.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::Vector {
        assert!(from.len() >= Self::LANES);
        // SAFETY: the slice is long enough.
        unsafe { self.load_from(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32], x: Self::Vector) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: the slice is long enough.
        unsafe { self.store_to(to.as_mut_ptr(), x) }
    }

    /// All elements of `from`, at most [`LANES`](Self::LANES); 0 in the other lanes.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::Vector {
        assert!(from.len() <= Self::LANES);
        // SAFETY: exactly the slice is read.
        unsafe { self.load_part_from(from.as_ptr(), from.len()) }
    }

    /// Fills `to`, at most [`LANES`](Self::LANES) elements.
    #[inline(always)]
    fn store_part(self, to: &mut [f32], x: Self::Vector) {
        assert!(to.len() <= Self::LANES);
        // SAFETY: exactly the slice is written.
        unsafe { self.store_part_to(to.as_mut_ptr(), x, to.len()) }
    }
}

/// Defines a function that runs the best allowed version of a kernel.
///
/// `fn name(args) -> T = scalar_function | generic_function;` gives `fn name(isa: Isa, args) -> T`, where
/// `scalar_function(args)` is plain Rust and `generic_function(s, args)` is generic over [`Simd`] and
/// marked `#[inline(always)]`. Write `unsafe fn` for both if the kernel has safety requirements.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? = $scalar:path | $vector:path;) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::Isa, $($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx2,fma")]
            fn avx2(s: $crate::simd::Avx2, $($arg: $type),*) $(-> $out)? {
                $vector(s, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn avx512(s: $crate::simd::Avx512, $($arg: $type),*) $(-> $out)? {
                $vector(s, $($arg),*)
            }
            #[cfg(target_arch = "aarch64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "neon")]
            fn neon(s: $crate::simd::Neon, $($arg: $type),*) $(-> $out)? {
                $vector(s, $($arg),*)
            }
            match isa.available() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `available` only returns a set that this machine has.
                $crate::Isa::Avx2 => unsafe { avx2($crate::simd::Avx2::new(), $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `available` only returns a set that this machine has.
                $crate::Isa::Avx512 | $crate::Isa::Avx512Bf16 | $crate::Isa::Amx => unsafe { avx512($crate::simd::Avx512::new(), $($arg),*) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: `available` only returns a set that this machine has.
                $crate::Isa::Neon | $crate::Isa::NeonDot => unsafe { neon($crate::simd::Neon::new(), $($arg),*) },
                // Plain Rust: `available` only returns sets of this architecture.
                _ => $scalar($($arg),*),
            }
        }
    };
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? = $scalar:path | $vector:path;) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name(isa: $crate::Isa, $($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx2,fma")]
            unsafe fn avx2(s: $crate::simd::Avx2, $($arg: $type),*) $(-> $out)? {
                // SAFETY: the kernel's safety requirements are the caller's.
                unsafe { $vector(s, $($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx512f,avx2,fma")]
            unsafe fn avx512(s: $crate::simd::Avx512, $($arg: $type),*) $(-> $out)? {
                // SAFETY: the kernel's safety requirements are the caller's.
                unsafe { $vector(s, $($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "neon")]
            unsafe fn neon(s: $crate::simd::Neon, $($arg: $type),*) $(-> $out)? {
                // SAFETY: the kernel's safety requirements are the caller's.
                unsafe { $vector(s, $($arg),*) }
            }
            match isa.available() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `available` only returns a set that this machine has.
                $crate::Isa::Avx2 => unsafe { avx2($crate::simd::Avx2::new(), $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `available` only returns a set that this machine has.
                $crate::Isa::Avx512 | $crate::Isa::Avx512Bf16 | $crate::Isa::Amx => unsafe { avx512($crate::simd::Avx512::new(), $($arg),*) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: `available` only returns a set that this machine has.
                $crate::Isa::Neon | $crate::Isa::NeonDot => unsafe { neon($crate::simd::Neon::new(), $($arg),*) },
                // Plain Rust: `available` only returns sets of this architecture.
                // SAFETY: the kernel's safety requirements are the caller's.
                _ => unsafe { $scalar($($arg),*) },
            }
        }
    };
}
pub(crate) use dispatch;

/// Defines a function that runs the best allowed version of a matmul kernel at a given precision.
///
/// `unsafe fn name(args) = scalar_function | generic_function;` gives `unsafe fn name((isa, precision), args)`, where
/// `scalar_function(args)` is plain Rust and `generic_function(s, format, args)` is generic over [`Simd`] and
/// [`PanelFormat`](crate::gemm::panel_format::PanelFormat) and marked `#[inline(always)]`. `precision` is that of
/// [`Cpu::matmul_precision`](crate::Cpu::matmul_precision): mixed only where bf16 instructions are to be used.
macro_rules! dispatch_matmul {
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $scalar:path | $vector:path;) => {
        $(#[$doc])*
        $vis unsafe fn $name((isa, precision): ($crate::Isa, $crate::Precision), $($arg: $type),*) {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            mod versions {
                use super::*;
                use $crate::{gemm::panel_format, simd};

                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma")]
                pub(super) unsafe fn avx2(s: simd::Avx2, format: panel_format::F32Panels, $($arg: $type),*) {
                    // SAFETY: the kernel's safety requirements are the caller's.
                    unsafe { $vector(s, format, $($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f,avx2,fma")]
                pub(super) unsafe fn avx512(s: simd::Avx512, format: panel_format::F32Panels, $($arg: $type),*) {
                    // SAFETY: the kernel's safety requirements are the caller's.
                    unsafe { $vector(s, format, $($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
                pub(super) unsafe fn bf16(s: simd::Avx512, format: panel_format::Bf16Panels, $($arg: $type),*) {
                    // SAFETY: the kernel's safety requirements are the caller's.
                    unsafe { $vector(s, format, $($arg),*) }
                }
                #[cfg(target_arch = "aarch64")]
                #[target_feature(enable = "neon")]
                pub(super) unsafe fn neon(s: simd::Neon, format: panel_format::F32Panels, $($arg: $type),*) {
                    // SAFETY: the kernel's safety requirements are the caller's.
                    unsafe { $vector(s, format, $($arg),*) }
                }
            }
            // SAFETY: `available` only returns a set that this machine has; the contract of the kernel is the
            // caller's.
            unsafe {
                #[allow(unused_imports)]
                use $crate::{Isa, Precision::*, gemm::panel_format, simd};
                match (isa.available(), precision) {
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512Bf16 | Isa::Amx, Mixed) => {
                        versions::bf16(simd::Avx512::new(), panel_format::Bf16Panels::new(), $($arg),*);
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx, _) => {
                        versions::avx512(simd::Avx512::new(), panel_format::F32Panels, $($arg),*);
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx2, _) => versions::avx2(simd::Avx2::new(), panel_format::F32Panels, $($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    (Isa::Neon | Isa::NeonDot, _) => versions::neon(simd::Neon::new(), panel_format::F32Panels, $($arg),*),
                    // Plain Rust: `available` only returns sets of this architecture.
                    _ => $scalar($($arg),*),
                }
            }
        }
    };
}
pub(crate) use dispatch_matmul;
