//! The vector types that kernels are written against, and how a call reaches the right version.
//!
//! A kernel is one generic function over [`Simd`]. [`dispatch!`] compiles it once per instruction set and
//! picks at run time. A value of a `Simd` type is the proof that the machine has the instructions: only
//! `dispatch!` makes one, after it has asked the processor.

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
    /// A vector of [`LANES`](Self::LANES) numbers.
    type Vector: Copy;
    /// A yes or no per lane.
    type Mask: Copy;
    /// Its name.
    const ISA: Isa;
    /// Numbers per vector.
    const LANES: usize;
    /// Vectors that the registers hold.
    const REGISTERS: usize;

    fn splat(self, x: f32) -> Self::Vector;
    /// 0, 1, 2, … as numbers.
    fn indices(self) -> Self::Vector;
    /// # Safety
    /// `from` is readable for `LANES` numbers.
    unsafe fn load_from(self, from: *const f32) -> Self::Vector;
    /// # Safety
    /// `to` is writable for `LANES` numbers.
    unsafe fn store_to(self, to: *mut f32, x: Self::Vector);
    /// Numbers whose upper halves lie in memory, as bf16 do.
    ///
    /// # Safety
    /// `from` is readable for `LANES` halves.
    unsafe fn load_bf16_from(self, from: *const u16) -> Self::Vector;
    /// The first `count` lanes from memory, zero in the others.
    ///
    /// # Safety
    /// `from` is readable for `count <= LANES` numbers.
    unsafe fn load_part_from(self, from: *const f32, count: usize) -> Self::Vector;
    /// # Safety
    /// `to` is writable for `count <= LANES` numbers.
    unsafe fn store_part_to(self, to: *mut f32, x: Self::Vector, count: usize);

    /// Asks for memory that will be read soon, if there is such memory.
    fn prefetch<T>(self, from: *const T);

    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `1 / x` with a relative error of at most 2^-14, of an `x` whose inverse is no smaller than a normal number.
    #[inline(always)]
    fn inverse_for_bf16(self, x: Self::Vector) -> Self::Vector {
        self.div(self.splat(1.0), x)
    }
    /// The smaller of each pair; `b` where either is not a number.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The larger of each pair; `b` where either is not a number.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// To the nearest whole number, ties to even.
    fn round(self, x: Self::Vector) -> Self::Vector;
    /// `x * 2^n` for whole `n` of magnitude up to 252, without overflow on the way.
    fn scale(self, x: Self::Vector, n: Self::Vector) -> Self::Vector;
    /// Where `a >= b`; no where either is not a number.
    fn at_least(self, a: Self::Vector, b: Self::Vector) -> Self::Mask;
    fn select(self, mask: Self::Mask, yes: Self::Vector, no: Self::Vector) -> Self::Vector;
    /// Where bit `bit`, below 32, of a word is set.
    ///
    /// # Safety
    /// `words` is readable for `LANES` words.
    unsafe fn has_bit(self, words: *const u32, bit: usize) -> Self::Mask;
    /// Which words are below `bound`: a bit each, the lowest for the first.
    fn below(self, words: &[u32; 16], bound: u32) -> u16;
    /// The sum of all lanes, in a fixed order.
    fn sum(self, x: Self::Vector) -> f32;
    /// The sums of four vectors, each in a fixed order, which need not be that of [`sum`](Self::sum).
    fn sums(self, x: [Self::Vector; 4]) -> [f32; 4];
    /// The largest lane.
    fn largest(self, x: Self::Vector) -> f32;

    /// The first [`LANES`](Self::LANES) numbers of `from`.
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

    /// All numbers of `from`, at most [`LANES`](Self::LANES), zero in the other lanes.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::Vector {
        assert!(from.len() <= Self::LANES);
        // SAFETY: exactly the slice is read.
        unsafe { self.load_part_from(from.as_ptr(), from.len()) }
    }

    /// Fills `to`, at most [`LANES`](Self::LANES) numbers.
    #[inline(always)]
    fn store_part(self, to: &mut [f32], x: Self::Vector) {
        assert!(to.len() <= Self::LANES);
        // SAFETY: exactly the slice is written.
        unsafe { self.store_part_to(to.as_mut_ptr(), x, to.len()) }
    }
}

/// Makes a function that runs the best allowed version of a kernel.
///
/// `fn name(args) -> T = scalar_function | generic_function;` gives `fn name(isa: Isa, args) -> T`, where
/// `scalar_function(args)` is plain Rust and `generic_function(s, args)` is generic over [`Simd`] and
/// marked `#[inline(always)]`. Write `unsafe fn` for both if the kernel has a contract of its own.
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
                // SAFETY: `available` never names a set that this machine lacks.
                $crate::Isa::Avx2 => unsafe { avx2($crate::simd::Avx2::new(), $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `available` never names a set that this machine lacks.
                $crate::Isa::Avx512 | $crate::Isa::Avx512Bf16 | $crate::Isa::Amx => unsafe { avx512($crate::simd::Avx512::new(), $($arg),*) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: `available` never names a set that this machine lacks.
                $crate::Isa::Neon | $crate::Isa::NeonDot => unsafe { neon($crate::simd::Neon::new(), $($arg),*) },
                // Plain Rust, for `available` never names a set of another architecture.
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
                // SAFETY: the contract of the kernel is the caller's.
                unsafe { $vector(s, $($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx512f,avx2,fma")]
            unsafe fn avx512(s: $crate::simd::Avx512, $($arg: $type),*) $(-> $out)? {
                // SAFETY: the contract of the kernel is the caller's.
                unsafe { $vector(s, $($arg),*) }
            }
            #[cfg(target_arch = "aarch64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "neon")]
            unsafe fn neon(s: $crate::simd::Neon, $($arg: $type),*) $(-> $out)? {
                // SAFETY: the contract of the kernel is the caller's.
                unsafe { $vector(s, $($arg),*) }
            }
            match isa.available() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `available` never names a set that this machine lacks.
                $crate::Isa::Avx2 => unsafe { avx2($crate::simd::Avx2::new(), $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `available` never names a set that this machine lacks.
                $crate::Isa::Avx512 | $crate::Isa::Avx512Bf16 | $crate::Isa::Amx => unsafe { avx512($crate::simd::Avx512::new(), $($arg),*) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: `available` never names a set that this machine lacks.
                $crate::Isa::Neon | $crate::Isa::NeonDot => unsafe { neon($crate::simd::Neon::new(), $($arg),*) },
                // Plain Rust, for `available` never names a set of another architecture.
                // SAFETY: the contract of the kernel is the caller's.
                _ => unsafe { $scalar($($arg),*) },
            }
        }
    };
}
pub(crate) use dispatch;

/// Makes a function that runs the best allowed version of a matmul kernel, at the precision asked for.
///
/// `unsafe fn name(args) = scalar_function | generic_function;` gives `unsafe fn name((isa, precision), args)`, where
/// `scalar_function(args)` is plain Rust and `generic_function(s, words, args)` is generic over [`Simd`] and
/// [`Words`](crate::gemm::words::Words) and marked `#[inline(always)]`. `precision` is that of
/// [`Cpu::matmul_precision`](crate::Cpu::matmul_precision): mixed only where bf16 instructions are to be used.
macro_rules! dispatch_products {
    ($(#[$doc:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $scalar:path | $vector:path;) => {
        $(#[$doc])*
        $vis unsafe fn $name((isa, precision): ($crate::Isa, $crate::Precision), $($arg: $type),*) {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            mod versions {
                use super::*;
                use $crate::{gemm::words, simd};

                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma")]
                pub(super) unsafe fn avx2(s: simd::Avx2, words: words::Whole, $($arg: $type),*) {
                    // SAFETY: the contract of the kernel is the caller's.
                    unsafe { $vector(s, words, $($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f,avx2,fma")]
                pub(super) unsafe fn avx512(s: simd::Avx512, words: words::Whole, $($arg: $type),*) {
                    // SAFETY: the contract of the kernel is the caller's.
                    unsafe { $vector(s, words, $($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
                pub(super) unsafe fn pairs(s: simd::Avx512, words: words::Pairs, $($arg: $type),*) {
                    // SAFETY: the contract of the kernel is the caller's.
                    unsafe { $vector(s, words, $($arg),*) }
                }
                #[cfg(target_arch = "aarch64")]
                #[target_feature(enable = "neon")]
                pub(super) unsafe fn neon(s: simd::Neon, words: words::Whole, $($arg: $type),*) {
                    // SAFETY: the contract of the kernel is the caller's.
                    unsafe { $vector(s, words, $($arg),*) }
                }
            }
            // SAFETY: `available` never names a set that this machine lacks; the contract of the kernel is the
            // caller's.
            unsafe {
                #[allow(unused_imports)]
                use $crate::{Isa, Precision::*, gemm::words, simd};
                match (isa.available(), precision) {
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512Bf16 | Isa::Amx, Mixed) => {
                        versions::pairs(simd::Avx512::new(), words::Pairs::new(), $($arg),*);
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx, _) => {
                        versions::avx512(simd::Avx512::new(), words::Whole, $($arg),*);
                    }
                    #[cfg(target_arch = "x86_64")]
                    (Isa::Avx2, _) => versions::avx2(simd::Avx2::new(), words::Whole, $($arg),*),
                    #[cfg(target_arch = "aarch64")]
                    (Isa::Neon | Isa::NeonDot, _) => versions::neon(simd::Neon::new(), words::Whole, $($arg),*),
                    // Plain Rust, for `available` never names a set of another architecture.
                    _ => $scalar($($arg),*),
                }
            }
        }
    };
}
pub(crate) use dispatch_products;
