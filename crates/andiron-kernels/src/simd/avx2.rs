//! Eight lanes: AVX2 with fused multiply-add.

use std::arch::x86_64::*;

use super::Simd;
use crate::Isa;

/// Proof that the machine has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The machine has AVX2 and FMA.
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

macro_rules! lanes {
    ($(fn $name:ident($($arg:ident),*) = $intrinsic:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: __m256),*) -> __m256 {
            // SAFETY: `self` proves that the instruction exists.
            unsafe { $intrinsic($($arg),*) }
        }
    )*};
}

/// All bits set in the first `count` lanes.
#[inline(always)]
fn first(_: Avx2, count: usize) -> __m256i {
    const WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    let window = &WINDOW[8 - count..][..8];
    // SAFETY: the token proves that the instruction exists and the slice has eight elements.
    unsafe { _mm256_loadu_si256(window.as_ptr().cast()) }
}

impl Simd for Avx2 {
    type Vector = __m256;
    type Mask = __m256;
    const ISA: Isa = Isa::Avx2;
    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    lanes! {
        fn add(a, b) = _mm256_add_ps;
        fn sub(a, b) = _mm256_sub_ps;
        fn mul(a, b) = _mm256_mul_ps;
        fn div(a, b) = _mm256_div_ps;
        fn min(a, b) = _mm256_min_ps;
        fn max(a, b) = _mm256_max_ps;
        fn fma(a, b, c) = _mm256_fmadd_ps;
        fn round(x) = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>;
        fn at_least(a, b) = _mm256_cmp_ps::<_CMP_GE_OQ>;
    }

    #[inline(always)]
    fn scale(self, x: __m256, n: __m256) -> __m256 {
        // Two factors, because 2^n alone may overflow f32 where `x * 2^n` does not.
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let rest = _mm256_sub_epi32(n, half);
            let bias = _mm256_set1_epi32(127);
            let half = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias)));
            let rest = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias)));
            _mm256_mul_ps(_mm256_mul_ps(x, half), rest)
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn indices(self) -> __m256 {
        const INDICES: [f32; 8] = [0., 1., 2., 3., 4., 5., 6., 7.];
        self.load(&INDICES)
    }

    #[inline(always)]
    unsafe fn load_from(self, from: *const f32) -> __m256 {
        // SAFETY: `self` proves that the instruction exists; the memory is the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_bf16_from(self, from: *const u16) -> __m256 {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        }
    }

    #[inline(always)]
    unsafe fn store_to(self, to: *mut f32, x: __m256) {
        // SAFETY: `self` proves that the instruction exists; the memory is the caller's promise.
        unsafe { _mm256_storeu_ps(to, x) }
    }

    #[inline(always)]
    fn prefetch<T>(self, from: *const T) {
        // SAFETY: a hint, which any address may be given to.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_part_from(self, from: *const f32, count: usize) -> __m256 {
        // SAFETY: `self` proves that the instruction exists; masked lanes are not touched.
        unsafe { _mm256_maskload_ps(from, first(self, count)) }
    }

    #[inline(always)]
    unsafe fn store_part_to(self, to: *mut f32, x: __m256, count: usize) {
        // SAFETY: `self` proves that the instruction exists; masked lanes are not touched.
        unsafe { _mm256_maskstore_ps(to, first(self, count), x) }
    }

    #[inline(always)]
    fn select(self, mask: __m256, yes: __m256, no: __m256) -> __m256 {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm256_blendv_ps(no, yes, mask) }
    }

    #[inline(always)]
    unsafe fn has_bit(self, words: *const u32, bit: usize) -> __m256 {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let bit = _mm256_set1_epi32(1 << bit);
            let words = _mm256_and_si256(_mm256_loadu_si256(words.cast()), bit);
            _mm256_castsi256_ps(_mm256_cmpeq_epi32(words, bit))
        }
    }

    #[inline(always)]
    fn below(self, words: &[u32; 16], bound: u32) -> u16 {
        let mut bits = 0;
        for (half, words) in words.chunks_exact(8).enumerate() {
            // SAFETY: `self` proves that the instructions exist; there are eight words.
            unsafe {
                let words = _mm256_loadu_si256(words.as_ptr().cast());
                // AVX2 compares signed integers only, but has an unsigned maximum.
                let larger = _mm256_max_epu32(words, _mm256_set1_epi32(bound.cast_signed()));
                let is_not_below = _mm256_castsi256_ps(_mm256_cmpeq_epi32(words, larger));
                bits |= (!_mm256_movemask_ps(is_not_below) as u16 & 0xff) << (8 * half);
            }
        }
        bits
    }

    #[inline(always)]
    fn sum(self, x: __m256) -> f32 {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn sums(self, [a, b, c, d]: [__m256; 4]) -> [f32; 4] {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
            let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
            std::mem::transmute::<__m128, [f32; 4]>(sums)
        }
    }

    #[inline(always)]
    fn largest(self, x: __m256) -> f32 {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}
