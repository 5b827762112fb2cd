//! Two groups of 32 at a time: AVX-512 with BW, VL and VNNI.

use std::arch::x86_64::*;

use super::bytes::{Bytes, Floats, each};
use crate::simd::Avx512;

/// Proof that the machine has AVX-512 F, BW, VL and VNNI.
#[derive(Clone, Copy)]
pub(super) struct Vnni(Avx512);

impl Vnni {
    /// # Safety
    /// The machine has AVX-512 F, BW, VL and VNNI, AVX2 and FMA.
    pub(super) unsafe fn new() -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { Avx512::new() })
    }
}

macro_rules! lanes {
    ($(fn $name:ident($($arg:ident),*) = $intrinsic:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: __m512i),*) -> __m512i {
            // SAFETY: `self` proves that the instruction exists.
            unsafe { $intrinsic($($arg),*) }
        }
    )*};
}

/// A value for each lane.
#[inline(always)]
fn indices(_: Vnni, index: impl Fn(usize) -> i32) -> __m512i {
    let indices: [i32; 16] = each(index);
    // SAFETY: the token proves that the instruction exists, and the array has 16 elements.
    unsafe { _mm512_loadu_si512(indices.as_ptr().cast()) }
}

impl Bytes for Vnni {
    type Simd = Avx512;
    type Bytes = __m512i;
    type Ints = __m512i;
    type Table = __m512;
    const RUNS: usize = 2;
    const SIGNED: bool = false;

    lanes! {
        fn and(x, y) = _mm512_and_si512;
        fn or(x, y) = _mm512_or_si512;
        fn xor(x, y) = _mm512_xor_si512;
        fn sub(x, y) = _mm512_sub_epi8;
        fn sub_ints(x, y) = _mm512_sub_epi32;
    }

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn splat(self, byte: u8) -> __m512i {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm512_set1_epi8(byte as i8) }
    }

    #[inline(always)]
    fn zeros(self) -> __m512i {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const u8, step: usize) -> __m512i {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let first = _mm512_castsi256_si512(_mm256_loadu_si256(from.cast()));
            _mm512_inserti64x4::<1>(first, _mm256_loadu_si256(from.add(step).cast()))
        }
    }

    #[inline(always)]
    unsafe fn load_twice(self, from: *const u8, step: usize) -> __m512i {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let first = _mm512_castsi256_si512(_mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast())));
            let second = _mm256_broadcastsi128_si256(_mm_loadu_si128(from.add(step).cast()));
            _mm512_inserti64x4::<1>(first, second)
        }
    }

    #[inline(always)]
    unsafe fn sixteens(self, from: *const u8, step: usize) -> __m512i {
        // SAFETY: `self` proves that the instruction exists; the memory is the caller's promise.
        unsafe {
            let first = from.cast::<u32>().read_unaligned();
            let second = from.add(step).cast::<u32>().read_unaligned();
            _mm512_maskz_set1_epi8(u64::from(second) << 32 | u64::from(first), 16)
        }
    }

    #[inline(always)]
    fn half(self, bits: u16) -> f32 {
        // SAFETY: `self` proves that the instructions exist.
        unsafe { _mm_cvtss_f32(_mm_maskz_cvtph_ps(1, _mm_cvtsi32_si128(i32::from(bits)))) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u8) -> Floats<Self> {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u8) -> Floats<Self> {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    fn shift_right(self, x: __m512i, count: impl Fn(usize) -> i32) -> __m512i {
        // Rotated, so that counts of both signs are one instruction.
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm512_rorv_epi32(x, indices(self, |lane| count(lane / 4) & 31)) }
    }

    #[inline(always)]
    fn multiply_add(self, x: __m512i, y: __m512i, sum: __m512i) -> __m512i {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm512_dpbusd_epi32(sum, x, y) }
    }

    #[inline(always)]
    fn to_floats(self, x: __m512i) -> Floats<Self> {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm512_cvtepi32_ps(x) }
    }

    #[inline(always)]
    fn signed(self, x: __m512i, place: u32) -> Floats<Self> {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let top = _mm512_sll_epi32(x, _mm_cvtsi32_si128(24 - 8 * place as i32));
            _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(top))
        }
    }

    #[inline(always)]
    fn table(self, bytes: [u8; 16], factors: [f32; 2]) -> __m512 {
        // SAFETY: `self` proves that the instructions exist; the array is as long as what is read.
        unsafe {
            let numbers = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().cast())));
            let factors =
                _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(factors[0]), _mm512_set1_ps(factors[1]));
            _mm512_mul_ps(numbers, factors)
        }
    }

    #[inline(always)]
    fn table_of_halves(self, words: [u32; 8]) -> __m512 {
        // SAFETY: `self` proves that the instructions exist; the array is as long as what is read.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(words.as_ptr().cast())) }
    }

    #[inline(always)]
    fn spread(self, table: &__m512, index: impl Fn(usize) -> usize) -> Floats<Self> {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm512_permutexvar_ps(indices(self, |lane| index(lane) as i32), *table) }
    }
}
