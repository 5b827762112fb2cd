//! Sixteen lanes: AVX-512F.

use std::arch::x86_64::*;

use super::Simd;
use crate::Isa;

/// Proof that the machine has AVX-512F.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The machine has AVX-512F, AVX2 and FMA.
    pub(crate) unsafe fn new() -> Self {
        Self(())
    }
}

macro_rules! lanes {
    ($(fn $name:ident($($arg:ident),*) = $intrinsic:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: __m512),*) -> __m512 {
            // SAFETY: `self` proves that the instruction exists.
            unsafe { $intrinsic($($arg),*) }
        }
    )*};
}

#[inline(always)]
fn first(count: usize) -> __mmask16 {
    debug_assert!(count <= 16);
    ((1u32 << count) - 1) as __mmask16
}

impl Simd for Avx512 {
    type Vector = __m512;
    type Mask = __mmask16;
    const ISA: Isa = Isa::Avx512;
    const LANES: usize = 16;
    const REGISTERS: usize = 32;

    lanes! {
        fn add(a, b) = _mm512_add_ps;
        fn sub(a, b) = _mm512_sub_ps;
        fn mul(a, b) = _mm512_mul_ps;
        fn div(a, b) = _mm512_div_ps;
        fn min(a, b) = _mm512_min_ps;
        fn max(a, b) = _mm512_max_ps;
        fn fma(a, b, c) = _mm512_fmadd_ps;
        fn round(x) = _mm512_roundscale_ps::<0x08>;
        fn scale(x, n) = _mm512_scalef_ps;
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn indices(self) -> __m512 {
        const INDICES: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
        self.load(&INDICES)
    }

    #[inline(always)]
    unsafe fn load_from(self, from: *const f32) -> __m512 {
        // SAFETY: `self` proves that the instruction exists; the memory is the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_bf16_from(self, from: *const u16) -> __m512 {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }

    #[inline(always)]
    unsafe fn store_to(self, to: *mut f32, x: __m512) {
        // SAFETY: `self` proves that the instruction exists; the memory is the caller's promise.
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    fn inverse_for_bf16(self, x: __m512) -> __m512 {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm512_rcp14_ps(x) }
    }

    #[inline(always)]
    fn prefetch<T>(self, from: *const T) {
        // SAFETY: a hint, which any address may be given to.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_part_from(self, from: *const f32, count: usize) -> __m512 {
        // SAFETY: `self` proves that the instruction exists; masked lanes are not touched.
        unsafe { _mm512_maskz_loadu_ps(first(count), from) }
    }

    #[inline(always)]
    unsafe fn store_part_to(self, to: *mut f32, x: __m512, count: usize) {
        // SAFETY: `self` proves that the instruction exists; masked lanes are not touched.
        unsafe { _mm512_mask_storeu_ps(to, first(count), x) }
    }

    #[inline(always)]
    fn at_least(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b) }
    }

    #[inline(always)]
    fn select(self, mask: __mmask16, yes: __m512, no: __m512) -> __m512 {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm512_mask_blend_ps(mask, no, yes) }
    }

    #[inline(always)]
    unsafe fn has_bit(self, words: *const u32, bit: usize) -> __mmask16 {
        // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
        unsafe { _mm512_test_epi32_mask(_mm512_loadu_si512(words.cast()), _mm512_set1_epi32(1 << bit)) }
    }

    #[inline(always)]
    fn below(self, words: &[u32; 16], bound: u32) -> u16 {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let words = _mm512_loadu_si512(words.as_ptr().cast());
            _mm512_cmplt_epu32_mask(words, _mm512_set1_epi32(bound.cast_signed()))
        }
    }

    #[inline(always)]
    fn sum(self, x: __m512) -> f32 {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            let high =
                _mm512_castpd_ps(_mm512_castpd256_pd512(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x))));
            let eight = _mm512_castps512_ps256(_mm512_add_ps(x, high));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn sums(self, [a, b, c, d]: [__m512; 4]) -> [f32; 4] {
        // SAFETY: `self` proves that the instructions exist.
        unsafe {
            // In each quarter the sums of two lanes of a, b, a, b; then of four lanes of a, b, c, d.
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
            let quarters = _mm512_add_ps(
                _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)),
            );
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(quarters)));
            let halves = _mm256_add_ps(_mm512_castps512_ps256(quarters), high);
            let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
            std::mem::transmute::<__m128, [f32; 4]>(sums)
        }
    }

    #[inline(always)]
    fn largest(self, x: __m512) -> f32 {
        // SAFETY: `self` proves that the instruction exists.
        unsafe { _mm512_reduce_max_ps(x) }
    }
}
