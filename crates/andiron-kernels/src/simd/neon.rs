//! Eight lanes: NEON, two registers of four at a time.
//!
//! There are 32 registers. A `gemm` tile two vectors wide has 24 accumulators either way. With four lanes it has twelve rows
//! and 14 loads per step. With eight lanes it has six rows and 10 loads, and takes 29 registers: the accumulators, four
//! for columns, one for a row. Eight lanes also match a group of 32 bytes in `quant::dot`, and a loop with one accumulator
//! has two independent chains of additions.

use std::arch::aarch64::*;

use super::Simd;
use crate::Isa;

/// Proof that the machine has NEON.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// # Safety
    /// The machine has NEON.
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

/// Lanes 0 to 3 and 4 to 7.
#[derive(Clone, Copy)]
pub(crate) struct Pair<T>(pub(crate) T, pub(crate) T);

macro_rules! lanes {
    ($(fn $name:ident($($arg:ident),*) -> $out:ty = $intrinsic:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Pair<float32x4_t>),*) -> Pair<$out> {
            // SAFETY: `self` proves that the instructions exist.
            unsafe { Pair($intrinsic($($arg.0),*), $intrinsic($($arg.1),*)) }
        }
    )*};
}

/// `a` where it is smaller, else `b`. (The `vmin` instruction returns NaN if either operand is NaN.)
///
/// # Safety
/// The machine has NEON.
#[inline(always)]
unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
}

/// `a` where it is larger, else `b`.
///
/// # Safety
/// The machine has NEON.
#[inline(always)]
unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

/// `x * 2^n` as [`Simd::scale`] says.
///
/// # Safety
/// The machine has NEON.
#[inline(always)]
unsafe fn scale(x: float32x4_t, n: float32x4_t) -> float32x4_t {
    // Two factors, because 2^n alone may overflow f32 where `x * 2^n` does not.
    // SAFETY: the caller's promise.
    unsafe {
        let n = vcvtnq_s32_f32(n);
        let half = vshrq_n_s32::<1>(n);
        let rest = vsubq_s32(n, half);
        let bias = vdupq_n_s32(127);
        let half = vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(half, bias)));
        let rest = vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(rest, bias)));
        vmulq_f32(vmulq_f32(x, half), rest)
    }
}

/// The first `count` of four lanes from memory; 0 in the others.
///
/// # Safety
/// The machine has NEON; `from` is readable for `count` elements, at most four.
#[inline(always)]
unsafe fn load_first(from: *const f32, count: usize) -> float32x4_t {
    // SAFETY: the caller's promise; each arm reads `count` elements.
    unsafe {
        let zero = vdupq_n_f32(0.0);
        match count {
            0 => zero,
            1 => vld1q_lane_f32::<0>(from, zero),
            2 => vcombine_f32(vld1_f32(from), vget_low_f32(zero)),
            3 => vld1q_lane_f32::<2>(from.add(2), vcombine_f32(vld1_f32(from), vget_low_f32(zero))),
            _ => vld1q_f32(from),
        }
    }
}

/// # Safety
/// The machine has NEON; `to` is writable for `count` elements, at most four.
#[inline(always)]
unsafe fn store_first(to: *mut f32, x: float32x4_t, count: usize) {
    // SAFETY: the caller's promise; each arm writes `count` elements.
    unsafe {
        match count {
            0 => {}
            1 => vst1q_lane_f32::<0>(to, x),
            2 => vst1_f32(to, vget_low_f32(x)),
            3 => {
                vst1_f32(to, vget_low_f32(x));
                vst1q_lane_f32::<2>(to.add(2), x);
            }
            _ => vst1q_f32(to, x),
        }
    }
}

impl Simd for Neon {
    type Vector = Pair<float32x4_t>;
    type Mask = Pair<uint32x4_t>;
    const ISA: Isa = Isa::Neon;
    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    lanes! {
        fn add(a, b) -> float32x4_t = vaddq_f32;
        fn sub(a, b) -> float32x4_t = vsubq_f32;
        fn mul(a, b) -> float32x4_t = vmulq_f32;
        fn div(a, b) -> float32x4_t = vdivq_f32;
        fn min(a, b) -> float32x4_t = min;
        fn max(a, b) -> float32x4_t = max;
        fn round(x) -> float32x4_t = vrndnq_f32;
        fn scale(x, n) -> float32x4_t = scale;
        fn at_least(a, b) -> uint32x4_t = vcgeq_f32;
    }

    #[inline(always)]
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { Pair(vfmaq_f32(c.0, a.0, b.0), vfmaq_f32(c.1, a.1, b.1)) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Vector {
        // SAFETY: `self` proves that the instruction exists.
        let x = unsafe { vdupq_n_f32(x) };
        Pair(x, x)
    }

    #[inline(always)]
    fn indices(self) -> Self::Vector {
        const INDICES: [f32; 8] = [0., 1., 2., 3., 4., 5., 6., 7.];
        self.load(&INDICES)
    }

    #[inline(always)]
    unsafe fn load_from(self, from: *const f32) -> Self::Vector {
        // SAFETY: `self` proves that the instruction exists; the memory is the caller's promise.
        unsafe { Pair(vld1q_f32(from), vld1q_f32(from.add(4))) }
    }

    #[inline(always)]
    unsafe fn load_bf16_from(self, from: *const u16) -> Self::Vector {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let halves = vld1q_u16(from);
            let (low, high) = (vmovl_u16(vget_low_u16(halves)), vmovl_high_u16(halves));
            let (low, high) = (vshlq_n_u32::<16>(low), vshlq_n_u32::<16>(high));
            Pair(vreinterpretq_f32_u32(low), vreinterpretq_f32_u32(high))
        }
    }

    #[inline(always)]
    unsafe fn store_to(self, to: *mut f32, x: Self::Vector) {
        // SAFETY: `self` proves that the instruction exists; the memory is the caller's promise.
        unsafe {
            vst1q_f32(to, x.0);
            vst1q_f32(to.add(4), x.1);
        }
    }

    #[inline(always)]
    unsafe fn load_part_from(self, from: *const f32, count: usize) -> Self::Vector {
        let (low, high) = (count.min(4), count.saturating_sub(4));
        // SAFETY: `self` proves that the instructions exist; the two parts are `count` elements.
        unsafe { Pair(load_first(from, low), load_first(from.add(low), high)) }
    }

    #[inline(always)]
    unsafe fn store_part_to(self, to: *mut f32, x: Self::Vector, count: usize) {
        let (low, high) = (count.min(4), count.saturating_sub(4));
        // SAFETY: `self` proves that the instructions exist; the two parts are `count` elements.
        unsafe {
            store_first(to, x.0, low);
            store_first(to.add(low), x.1, high);
        }
    }

    #[inline(always)]
    fn prefetch<T>(self, from: *const T) {
        #[cfg(miri)]
        let _ = from;
        #[cfg(not(miri))]
        // SAFETY: a hint, which any address may be given to.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) from.addr(), options(nomem, nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn select(self, mask: Self::Mask, yes: Self::Vector, no: Self::Vector) -> Self::Vector {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { Pair(vbslq_f32(mask.0, yes.0, no.0), vbslq_f32(mask.1, yes.1, no.1)) }
    }

    #[inline(always)]
    unsafe fn has_bit(self, words: *const u32, bit: usize) -> Self::Mask {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let bit = vdupq_n_u32(1 << bit);
            Pair(vtstq_u32(vld1q_u32(words), bit), vtstq_u32(vld1q_u32(words.add(4)), bit))
        }
    }

    #[inline(always)]
    fn below(self, words: &[u32; 16], bound: u32) -> u16 {
        let mut bits = 0;
        for (quarter, words) in words.chunks_exact(4).enumerate() {
            // SAFETY: `self` proves that the instructions exist; there are four words, and four bits.
            unsafe {
                let is_below = vcltq_u32(vld1q_u32(words.as_ptr()), vdupq_n_u32(bound));
                let each = vld1q_u32([1, 2, 4, 8].as_ptr());
                bits |= (vaddvq_u32(vandq_u32(is_below, each)) as u16) << (4 * quarter);
            }
        }
        bits
    }

    #[inline(always)]
    fn sum(self, x: Self::Vector) -> f32 {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { vaddvq_f32(vaddq_f32(x.0, x.1)) }
    }

    #[inline(always)]
    fn sums(self, [a, b, c, d]: [Self::Vector; 4]) -> [f32; 4] {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let (a, b) = (vaddq_f32(a.0, a.1), vaddq_f32(b.0, b.1));
            let (c, d) = (vaddq_f32(c.0, c.1), vaddq_f32(d.0, d.1));
            let sums = vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
            std::mem::transmute::<float32x4_t, [f32; 4]>(sums)
        }
    }

    #[inline(always)]
    fn largest(self, x: Self::Vector) -> f32 {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(x.0, x.1)) }
    }
}
