//! One group of 32 at a time: NEON, with byte dot products if `DOT`.

use std::arch::aarch64::*;

use super::bytes::{Bytes, Floats, each};
use crate::simd::{Neon, Pair, Simd};

/// Proof that the machine has NEON, and DotProd if `DOT`.
#[derive(Clone, Copy)]
pub(super) struct NeonBytes<const DOT: bool>(Neon);

impl<const DOT: bool> NeonBytes<DOT> {
    /// # Safety
    /// The machine has NEON, and DotProd if `DOT`.
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { Neon::new() })
    }
}

macro_rules! lanes {
    ($(fn $name:ident($($arg:ident),*) -> $type:ty = $intrinsic:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Pair<$type>),*) -> Pair<$type> {
            // SAFETY: `self` proves that the instruction exists.
            unsafe { Pair($intrinsic($($arg.0),*), $intrinsic($($arg.1),*)) }
        }
    )*};
}

/// Adds a dot product of four neighbours to each lane.
///
/// # Safety
/// The machine has DotProd.
#[inline(always)]
unsafe fn dot(x: int8x16_t, y: int8x16_t, sum: int32x4_t) -> int32x4_t {
    let mut sum = sum;
    // The function for this instruction is not stable. Neither is it allowed, without the directive, where functions that
    // were not inlined are compiled.
    // SAFETY: the caller's promise; nothing but the sum is changed.
    unsafe {
        std::arch::asm!(
            ".arch_extension dotprod",
            "sdot {sum:v}.4s, {x:v}.16b, {y:v}.16b",
            sum = inout(vreg) sum, x = in(vreg) x, y = in(vreg) y,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// As [`dot`], where no `y` is -128.
///
/// # Safety
/// The machine has NEON.
#[inline(always)]
unsafe fn widened_dot(x: int8x16_t, y: int8x16_t, sum: int32x4_t) -> int32x4_t {
    // SAFETY: the caller's promise. Two products of -128 and 127 are just within 16 bits.
    unsafe {
        let (low, high) = (vmull_s8(vget_low_s8(x), vget_low_s8(y)), vmull_high_s8(x, y));
        vpadalq_s16(sum, vpaddq_s16(low, high))
    }
}

impl<const DOT: bool> Bytes for NeonBytes<DOT> {
    type Simd = Neon;
    type Bytes = Pair<uint8x16_t>;
    type Ints = Pair<int32x4_t>;
    /// In memory, from where any element is broadcast as it is read.
    type Table = [f32; 16];
    const RUNS: usize = 1;
    const SIGNED: bool = true;

    lanes! {
        fn and(x, y) -> uint8x16_t = vandq_u8;
        fn or(x, y) -> uint8x16_t = vorrq_u8;
        fn xor(x, y) -> uint8x16_t = veorq_u8;
        fn sub(x, y) -> uint8x16_t = vsubq_u8;
        fn sub_ints(x, y) -> int32x4_t = vsubq_s32;
    }

    #[inline(always)]
    fn simd(self) -> Neon {
        self.0
    }

    #[inline(always)]
    fn splat(self, byte: u8) -> Self::Bytes {
        // SAFETY: `self` proves that the instruction exists.
        let bytes = unsafe { vdupq_n_u8(byte) };
        Pair(bytes, bytes)
    }

    #[inline(always)]
    fn zeros(self) -> Self::Ints {
        // SAFETY: `self` proves that the instruction exists.
        let zeros = unsafe { vdupq_n_s32(0) };
        Pair(zeros, zeros)
    }

    #[inline(always)]
    unsafe fn load(self, from: *const u8, _: usize) -> Self::Bytes {
        // SAFETY: `self` proves that the instruction exists; the memory is the caller's promise.
        unsafe { Pair(vld1q_u8(from), vld1q_u8(from.add(16))) }
    }

    #[inline(always)]
    unsafe fn load_twice(self, from: *const u8, _: usize) -> Self::Bytes {
        // SAFETY: `self` proves that the instruction exists; the memory is the caller's promise.
        let bytes = unsafe { vld1q_u8(from) };
        Pair(bytes, bytes)
    }

    #[inline(always)]
    unsafe fn sixteens(self, from: *const u8, _: usize) -> Self::Bytes {
        // Byte `l` gets the byte of bits that holds its own, `l / 8`, and looks at that one.
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let bits = vreinterpretq_u8_u32(vdupq_n_u32(from.cast::<u32>().read_unaligned()));
            let own = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            let sixteen = vdupq_n_u8(16);
            let half = |first: u8| {
                let source = vcombine_u8(vdup_n_u8(first), vdup_n_u8(first + 1));
                vandq_u8(vtstq_u8(vqtbl1q_u8(bits, source), own), sixteen)
            };
            Pair(half(0), half(2))
        }
    }

    #[inline(always)]
    fn half(self, bits: u16) -> f32 {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { vgetq_lane_f32::<0>(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits)))) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u8) -> Floats<Self> {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let halves = vreinterpretq_f16_u8(vld1q_u8(from));
            Pair(vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves))
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u8) -> Floats<Self> {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let halves = vreinterpretq_u16_u8(vld1q_u8(from));
            let (low, high) = (vshll_n_u16::<16>(vget_low_u16(halves)), vshll_high_n_u16::<16>(halves));
            Pair(vreinterpretq_f32_u32(low), vreinterpretq_f32_u32(high))
        }
    }

    #[inline(always)]
    fn shift_right(self, x: Self::Bytes, count: impl Fn(usize) -> i32) -> Self::Bytes {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let shift = |x, count: i32| vshlq_u8(x, vdupq_n_s8(-count as i8));
            Pair(shift(x.0, count(0)), shift(x.1, count(1)))
        }
    }

    #[inline(always)]
    fn multiply_add(self, x: Self::Bytes, y: Self::Bytes, sum: Self::Ints) -> Self::Ints {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let add = |x, y, sum| {
                let (x, y) = (vreinterpretq_s8_u8(x), vreinterpretq_s8_u8(y));
                if DOT { dot(x, y, sum) } else { widened_dot(x, y, sum) }
            };
            Pair(add(x.0, y.0, sum.0), add(x.1, y.1, sum.1))
        }
    }

    #[inline(always)]
    fn to_floats(self, x: Self::Ints) -> Floats<Self> {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { Pair(vcvtq_f32_s32(x.0), vcvtq_f32_s32(x.1)) }
    }

    #[inline(always)]
    fn signed(self, x: Self::Bytes, place: u32) -> Floats<Self> {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let number = |x| {
                let top = vshlq_s32(vreinterpretq_s32_u8(x), vdupq_n_s32(24 - 8 * place as i32));
                vcvtq_f32_s32(vshrq_n_s32::<24>(top))
            };
            Pair(number(x.0), number(x.1))
        }
    }

    #[inline(always)]
    fn table(self, bytes: [u8; 16], factors: [f32; 2]) -> [f32; 16] {
        each(|index| f32::from(bytes[index] as i8) * factors[index / 8])
    }

    #[inline(always)]
    fn table_of_halves(self, words: [u32; 8]) -> [f32; 16] {
        let (halves, mut table) = (words.as_ptr().cast::<u8>(), [0.0; 16]);
        for (part, to) in table.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            // SAFETY: the array has sixteen halves.
            self.0.store(to, unsafe { self.load_f16(halves.add(16 * part)) });
        }
        table
    }

    #[inline(always)]
    fn spread(self, table: &[f32; 16], index: impl Fn(usize) -> usize) -> Floats<Self> {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { Pair(vdupq_n_f32(table[index(0)]), vdupq_n_f32(table[index(4)])) }
    }
}
