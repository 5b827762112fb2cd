//! One group of 32 at a time: AVX2.

use std::arch::x86_64::*;

use super::bytes::{Bytes, Floats, each};
use crate::quant::half::f16_to_f32;
use crate::simd::{Avx2, Simd};

macro_rules! lanes {
    ($(fn $name:ident($($arg:ident),*) = $intrinsic:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: __m256i),*) -> __m256i {
            // SAFETY: `self` proves that the instruction exists.
            unsafe { $intrinsic($($arg),*) }
        }
    )*};
}

/// A value for each lane.
#[inline(always)]
fn indices(_: Avx2, index: impl Fn(usize) -> i32) -> __m256i {
    let indices: [i32; 8] = each(index);
    // SAFETY: the token proves that the instruction exists, and the array has 8 elements.
    unsafe { _mm256_loadu_si256(indices.as_ptr().cast()) }
}

impl Bytes for Avx2 {
    type Simd = Self;
    type Bytes = __m256i;
    type Ints = __m256i;
    type Table = [__m256; 2];
    const RUNS: usize = 1;
    const SIGNED: bool = false;

    lanes! {
        fn and(x, y) = _mm256_and_si256;
        fn or(x, y) = _mm256_or_si256;
        fn xor(x, y) = _mm256_xor_si256;
        fn sub(x, y) = _mm256_sub_epi8;
        fn sub_ints(x, y) = _mm256_sub_epi32;
    }

    #[inline(always)]
    fn simd(self) -> Self {
        self
    }

    #[inline(always)]
    fn splat(self, byte: u8) -> __m256i {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm256_set1_epi8(byte as i8) }
    }

    #[inline(always)]
    fn zeros(self) -> __m256i {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const u8, _: usize) -> __m256i {
        // SAFETY: `self` proves that the instruction exists; the memory is the caller's promise.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_twice(self, from: *const u8, _: usize) -> __m256i {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn sixteens(self, from: *const u8, _: usize) -> __m256i {
        // Byte `l` gets the byte of bits that holds its own, `l / 8`, and keeps that one.
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let bits = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
            let source = indices(self, |lane| (lane / 2) as i32 * 0x0101_0101);
            let own = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let kept = _mm256_and_si256(_mm256_shuffle_epi8(bits, source), own);
            _mm256_and_si256(_mm256_cmpeq_epi8(kept, own), _mm256_set1_epi8(16))
        }
    }

    #[inline(always)]
    fn half(self, bits: u16) -> f32 {
        f16_to_f32(bits)
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u8) -> Floats<Self> {
        // As `f16_to_f32`: the instruction for it is in none of the sets that `self` stands for.
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            let magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fff));
            let sign = _mm256_slli_epi32::<16>(_mm256_xor_si256(bits, magnitude));
            let small = _mm256_castsi256_ps(_mm256_slli_epi32::<13>(magnitude));
            let lifted = _mm256_mul_ps(small, _mm256_castsi256_ps(_mm256_set1_epi32((127 + 112) << 23)));
            let special = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7bff));
            let exponent = _mm256_and_si256(special, _mm256_set1_epi32(0x7f80_0000));
            _mm256_or_ps(lifted, _mm256_castsi256_ps(_mm256_or_si256(sign, exponent)))
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u8) -> Floats<Self> {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }

    #[inline(always)]
    fn shift_right(self, x: __m256i, count: impl Fn(usize) -> i32) -> __m256i {
        let counts = indices(self, |lane| count(lane / 4).abs());
        // SAFETY: `self` proves that the instructions exist.
        unsafe { if count(0) < 0 { _mm256_sllv_epi32(x, counts) } else { _mm256_srlv_epi32(x, counts) } }
    }

    #[inline(always)]
    fn multiply_add(self, x: __m256i, y: __m256i, sum: __m256i) -> __m256i {
        // Pairs are summed in 16 bits, which hold 2 · 128 · 127, but not 2 · 255 · 127: the highest bit of `x` is multiplied
        // separately.
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let high = _mm256_set1_epi8(-128);
            let low_pairs = _mm256_maddubs_epi16(_mm256_andnot_si256(high, x), y);
            let high_pairs = _mm256_maddubs_epi16(_mm256_and_si256(high, x), y);
            let ones = _mm256_set1_epi16(1);
            let sum = _mm256_add_epi32(sum, _mm256_madd_epi16(low_pairs, ones));
            _mm256_add_epi32(sum, _mm256_madd_epi16(high_pairs, ones))
        }
    }

    #[inline(always)]
    fn to_floats(self, x: __m256i) -> Floats<Self> {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm256_cvtepi32_ps(x) }
    }

    #[inline(always)]
    fn signed(self, x: __m256i, place: u32) -> Floats<Self> {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let top = _mm256_sll_epi32(x, _mm_cvtsi32_si128(24 - 8 * place as i32));
            _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(top))
        }
    }

    #[inline(always)]
    fn table(self, bytes: [u8; 16], factors: [f32; 2]) -> [__m256; 2] {
        // SAFETY: `self` proves that the instructions exist; the array is as long as what is read.
        unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            let numbers = |bytes| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
            [
                _mm256_mul_ps(numbers(bytes), Simd::splat(self, factors[0])),
                _mm256_mul_ps(numbers(_mm_unpackhi_epi64(bytes, bytes)), Simd::splat(self, factors[1])),
            ]
        }
    }

    #[inline(always)]
    fn table_of_halves(self, words: [u32; 8]) -> [__m256; 2] {
        let halves = words.as_ptr().cast::<u8>();
        // SAFETY: the array has sixteen halves.
        unsafe { [self.load_f16(halves), self.load_f16(halves.add(16))] }
    }

    #[inline(always)]
    fn spread(self, table: &[__m256; 2], index: impl Fn(usize) -> usize) -> Floats<Self> {
        let half = table[index(0) / 8];
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm256_permutevar8x32_ps(half, indices(self, |lane| (index(lane) % 8) as i32)) }
    }
}
