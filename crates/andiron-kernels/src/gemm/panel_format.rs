//! The element formats of packed panels: what a 32-bit word holds, and how two words are multiplied.

use super::block::Strided;
use super::pack;
use crate::simd::Simd;

/// An element format of packed operands. Vectors of words are passed as vectors of f32, whatever their bits mean.
pub(crate) trait PanelFormat<S: Simd>: Copy {
    /// Steps of the depth in a word.
    const STEPS: usize;
    /// Whether a word is an f32 as in the unpacked matrix, so that operands may be read in place.
    const PLAIN: bool;

    /// `sum + x y`, over all steps of each word.
    fn multiply_add(self, s: S, x: S::Vector, y: S::Vector, sum: S::Vector) -> S::Vector;

    /// Packs `lanes` lanes of `depth` elements into panels of `W` lanes, `depth / STEPS` words deep, rounded up;
    /// whole panels and words are filled up with 0.
    ///
    /// # Safety
    /// `from` is readable for these lanes and depths, `to` writable for `lanes` rounded up to a multiple of `W`
    /// times the words of the depth.
    unsafe fn panels<const W: usize>(self, from: Strided, lanes: usize, depth: usize, to: *mut f32);

    /// Elements that are contiguous along the depth, as words in `room`; nothing if words are f32, as they are already.
    ///
    /// # Safety
    /// `from` is readable for `len` elements, a multiple of 32, `room` writable for `len / STEPS` if words are not
    /// [`PLAIN`](PanelFormat::PLAIN).
    unsafe fn along(self, from: *const f32, len: usize, room: *mut f32);

    /// Two vectors that are contiguous along the depth, as words.
    ///
    /// # Safety
    /// `to` is writable for their words.
    unsafe fn row(self, s: S, row: [S::Vector; 2], to: *mut f32);

    /// Two steps of the depth of a panel that is two vectors wide, as [`panels`](PanelFormat::panels) packs them.
    ///
    /// # Safety
    /// `to` is writable for the words of two steps.
    unsafe fn two_steps(self, s: S, steps: [[S::Vector; 2]; 2], to: *mut f32);
}

/// Stores four vectors, one after the other.
///
/// # Safety
/// `to` is writable for four vectors.
#[inline(always)]
unsafe fn store_steps<S: Simd>(s: S, [[a, b], [c, d]]: [[S::Vector; 2]; 2], to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        s.store_to(to, a);
        s.store_to(to.add(S::LANES), b);
        s.store_to(to.add(2 * S::LANES), c);
        s.store_to(to.add(3 * S::LANES), d);
    }
}

/// f32: one element per word.
#[derive(Clone, Copy)]
pub(crate) struct F32Panels;

impl<S: Simd> PanelFormat<S> for F32Panels {
    const STEPS: usize = 1;
    const PLAIN: bool = true;

    #[inline(always)]
    fn multiply_add(self, s: S, x: S::Vector, y: S::Vector, sum: S::Vector) -> S::Vector {
        s.fma(x, y, sum)
    }

    #[inline(always)]
    unsafe fn panels<const W: usize>(self, from: Strided, lanes: usize, depth: usize, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { pack::panels::<W>(from, lanes, depth, to) };
    }

    #[inline(always)]
    unsafe fn along(self, _: *const f32, _: usize, _: *mut f32) {}

    #[inline(always)]
    unsafe fn row(self, s: S, [low, high]: [S::Vector; 2], to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            s.store_to(to, low);
            s.store_to(to.add(S::LANES), high);
        }
    }

    #[inline(always)]
    unsafe fn two_steps(self, s: S, steps: [[S::Vector; 2]; 2], to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { store_steps(s, steps, to) };
    }
}

/// The bits of the nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn bits(x: f32) -> u16 {
    let bits = x.to_bits();
    // Adds half of the last kept bit, less one if that bit is 0; a NaN is made quiet, for its payload may be lost.
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    if x.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use bf16::Bf16Panels;
#[cfg(target_arch = "x86_64")]
pub(super) use bf16::first;
#[cfg(target_arch = "x86_64")]
pub(crate) use bf16::{halves, interleaved};

#[cfg(target_arch = "x86_64")]
mod bf16 {
    use std::arch::x86_64::*;

    use super::{PanelFormat, Strided, bits};
    use crate::simd::Avx512;

    /// Bf16Panels of bf16 that are neighbours along the depth, multiplied and summed by one instruction, which flushes
    /// subnormal values to 0.
    #[derive(Clone, Copy)]
    pub(crate) struct Bf16Panels(());

    impl Bf16Panels {
        /// # Safety
        /// The machine has AVX-512 F, BW, VL and BF16.
        pub(crate) unsafe fn new() -> Self {
            Self(())
        }
    }

    impl PanelFormat<Avx512> for Bf16Panels {
        const STEPS: usize = 2;
        const PLAIN: bool = false;

        #[inline(always)]
        fn multiply_add(self, _: Avx512, x: __m512, y: __m512, sum: __m512) -> __m512 {
            // SAFETY: `self` proves that the instruction exists; the types differ only in what their bits mean.
            unsafe {
                _mm512_dpbf16_ps(
                    sum,
                    std::mem::transmute::<__m512, __m512bh>(x),
                    std::mem::transmute::<__m512, __m512bh>(y),
                )
            }
        }

        #[inline(always)]
        unsafe fn panels<const W: usize>(self, from: Strided, lanes: usize, depth: usize, to: *mut f32) {
            let words = depth.div_ceil(2);
            let mut lane = 0;
            while lane < lanes {
                let count = W.min(lanes - lane);
                // SAFETY: the panel's lanes exist in `from`, its room in `to`; `self` proves the instructions.
                unsafe {
                    let from = Strided { start: from.start.add(lane * from.lane), ..from };
                    let to = to.add(lane * words).cast::<u32>();
                    match (from.lane, from.depth) {
                        (1, _) => side_by_side::<W>(from, count, depth, to),
                        (_, 1) => one_after_another::<W>(from, count, depth, to),
                        _ => scattered::<W>(from, count, depth, to),
                    }
                }
                lane += W;
            }
        }

        #[inline(always)]
        unsafe fn along(self, from: *const f32, len: usize, room: *mut f32) {
            for at in (0..len).step_by(32) {
                // SAFETY: `at + 32 <= len`; `self` proves the instructions.
                unsafe {
                    let (low, high) = (_mm512_loadu_ps(from.add(at)), _mm512_loadu_ps(from.add(at + 16)));
                    _mm512_storeu_si512(room.add(at / 2).cast(), halves(low, high));
                }
            }
        }

        #[inline(always)]
        unsafe fn row(self, _: Avx512, [low, high]: [__m512; 2], to: *mut f32) {
            // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
            unsafe { _mm512_storeu_si512(to.cast(), halves(low, high)) };
        }

        #[inline(always)]
        unsafe fn two_steps(self, _: Avx512, [[a, b], [c, d]]: [[__m512; 2]; 2], to: *mut f32) {
            // SAFETY: `self` proves that the instructions exist; the memory is the caller's promise.
            unsafe {
                _mm512_storeu_si512(to.cast(), interleaved(a, c));
                _mm512_storeu_si512(to.add(16).cast(), interleaved(b, d));
            }
        }
    }

    /// The first `count` lanes of 16.
    #[inline(always)]
    pub(in crate::gemm) fn first(count: usize) -> __mmask16 {
        ((1u32 << count.min(16)) - 1) as __mmask16
    }

    /// 32 f32 rounded to bf16, those of `low` first.
    ///
    /// # Safety
    /// The machine has AVX-512 BF16.
    #[inline(always)]
    pub(crate) unsafe fn halves(low: __m512, high: __m512) -> __m512i {
        // SAFETY: the caller's promise; the types differ only in what their bits mean.
        unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
    }

    /// PanelFormat of two steps of the depth: lane `i` of the first, then lane `i` of the second.
    ///
    /// # Safety
    /// The machine has AVX-512 F, BW and BF16.
    #[inline(always)]
    pub(crate) unsafe fn interleaved(first: __m512, second: __m512) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let order = _mm512_set_epi16(
                31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19,
                3, 18, 2, 17, 1, 16, 0,
            );
            _mm512_permutexvar_epi16(order, halves(first, second))
        }
    }

    /// How many steps of the depth ahead to prefetch.
    const AHEAD: usize = 24;

    /// A panel whose lanes are contiguous: two steps of the depth become one row of words.
    ///
    /// # Safety
    /// As for [`PanelFormat::panels`], for one panel, on a machine that has what [`Bf16Panels`] needs.
    #[inline(always)]
    unsafe fn side_by_side<const W: usize>(from: Strided, count: usize, depth: usize, to: *mut u32) {
        // SAFETY: masks keep every access within `count` lanes of `depth` steps and `W` words.
        unsafe {
            for d in (0..depth).step_by(2) {
                let row = from.start.add(d * from.depth);
                // Rows are far apart, where the hardware does not prefetch.
                for lane in (0..count).step_by(16) {
                    for ahead in [AHEAD, AHEAD + 1] {
                        _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(ahead * from.depth + lane).cast());
                    }
                }
                let pair = d + 1 < depth;
                for lane in (0..W).step_by(16) {
                    let mask = first(count.saturating_sub(lane));
                    let low = _mm512_maskz_loadu_ps(mask, row.wrapping_add(lane));
                    let high = _mm512_maskz_loadu_ps(
                        if pair { mask } else { 0 },
                        row.wrapping_add(from.depth + lane),
                    );
                    let words = interleaved(low, high);
                    _mm512_mask_storeu_epi32(to.add(d / 2 * W + lane).cast(), first(W - lane), words);
                }
            }
        }
    }

    /// A panel that is contiguous along the depth: eight lanes of sixteen steps at a time, transposed.
    ///
    /// # Safety
    /// As for [`side_by_side`].
    #[inline(always)]
    unsafe fn one_after_another<const W: usize>(from: Strided, count: usize, depth: usize, to: *mut u32) {
        // SAFETY: masks keep every access within `count` lanes of `depth` steps and `W` words.
        unsafe {
            for d in (0..depth).step_by(16) {
                let mask = first(depth - d);
                let words = (depth - d).div_ceil(2).min(8);
                for lane in (0..W).step_by(8) {
                    let mut rows = [_mm256_setzero_ps(); 8];
                    for (i, row) in rows.iter_mut().enumerate() {
                        if lane + i < count {
                            let start = from.start.add((lane + i) * from.lane + d);
                            let halves = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, start));
                            *row = std::mem::transmute::<__m256bh, __m256>(halves);
                        }
                    }
                    let store = first(W - lane) as __mmask8;
                    let columns = transpose_8x8(rows);
                    for (word, column) in columns.into_iter().enumerate().take(words) {
                        let to = to.add((d / 2 + word) * W + lane);
                        _mm256_mask_storeu_ps(to.cast(), store, column);
                    }
                }
            }
        }
    }

    /// The transpose of eight rows of eight words.
    ///
    /// # Safety
    /// The machine has AVX.
    #[inline(always)]
    unsafe fn transpose_8x8(rows: [__m256; 8]) -> [__m256; 8] {
        let [a, b, c, d, e, f, g, h] = rows;
        // SAFETY: the caller's promise.
        unsafe {
            let (ab, cd) = (
                (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)),
                (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d)),
            );
            let (ef, gh) = (
                (_mm256_unpacklo_ps(e, f), _mm256_unpackhi_ps(e, f)),
                (_mm256_unpacklo_ps(g, h), _mm256_unpackhi_ps(g, h)),
            );
            let four = |(x, y): ((__m256, __m256), (__m256, __m256))| {
                [
                    _mm256_shuffle_ps::<0x44>(x.0, y.0),
                    _mm256_shuffle_ps::<0xee>(x.0, y.0),
                    _mm256_shuffle_ps::<0x44>(x.1, y.1),
                    _mm256_shuffle_ps::<0xee>(x.1, y.1),
                ]
            };
            let (up, down) = (four((ab, cd)), four((ef, gh)));
            let low = |i: usize| _mm256_permute2f128_ps::<0x20>(up[i], down[i]);
            let high = |i: usize| _mm256_permute2f128_ps::<0x31>(up[i], down[i]);
            [low(0), low(1), low(2), low(3), high(0), high(1), high(2), high(3)]
        }
    }

    /// A panel with strides in both directions.
    ///
    /// # Safety
    /// As for [`side_by_side`].
    #[inline(always)]
    unsafe fn scattered<const W: usize>(from: Strided, count: usize, depth: usize, to: *mut u32) {
        for word in 0..depth.div_ceil(2) {
            for lane in 0..W {
                let at = |d: usize| {
                    if lane >= count || d >= depth {
                        return 0;
                    }
                    // SAFETY: the lane and the depth exist.
                    u32::from(bits(unsafe { *from.start.add(lane * from.lane + d * from.depth) }))
                };
                // SAFETY: the panel has `W` words for each two steps.
                unsafe { *to.add(word * W + lane) = at(2 * word) | at(2 * word + 1) << 16 };
            }
        }
    }
}
