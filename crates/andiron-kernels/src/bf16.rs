//! bf16 in memory: single values, and pairs in 32-bit words, as a bf16 dot product reads them.
//!
//! An operand of a mixed matmul is rounded to bf16 anyway. What a backward pass will multiply can therefore be kept in half the
//! memory of f32 without changing a result. Words are passed as f32, whatever their bits mean, because tensors hold f32.

use crate::gemm::panel_format;
use crate::parallel::{self, Shared};
use crate::simd::dispatch;
use crate::{Cpu, Precision};

/// A bf16: the upper half of an f32, so 8 bits of mantissa and the range of f32.
///
/// # Example
/// ```
/// use andiron_kernels::attention::Bf16;
/// assert_eq!(Bf16::from_f32(1.001).to_f32(), 1.0);
/// assert_eq!(Bf16::from_f32(-3.5).to_f32(), -3.5);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(u16);

impl Bf16 {
    /// The nearest bf16, ties to even; NaN stays NaN.
    #[inline]
    pub fn from_f32(x: f32) -> Self {
        Self(panel_format::bits(x))
    }

    /// The value, exactly.
    #[inline]
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// Cost of an element in units of [`parallel::rows`].
const WORK: usize = 2;
/// Elements at which parts of the work begin: whole vectors of words.
const STEP: usize = 64;

/// Rounds to bf16, as matmuls at mixed precision do: word `i` holds the elements `2i` and `2i + 1`, the first in the low half.
///
/// # Shape
/// `x`: an even number of elements, `words`: half as many.
///
/// # Panics
/// If the lengths do not agree.
pub fn round(cpu: Cpu, x: &[f32], words: &mut [f32]) {
    assert_eq!(x.len(), 2 * words.len(), "x does not have two elements for each word");
    let words = Shared::new(words);
    parallel::rows(cpu, x.len(), WORK, STEP, |part| {
        // SAFETY: the parts are disjoint, and begin at even elements.
        let words = unsafe { words.range(part.start / 2..part.end / 2) };
        round_part(cpu, &x[part], words);
    });
}

/// [`round`] on this thread.
pub(crate) fn round_part(cpu: Cpu, x: &[f32], words: &mut [f32]) {
    match cpu.isa.available() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `available` only names a set that this machine has.
        crate::Isa::Avx512Bf16 | crate::Isa::Amx => unsafe { x86::round(x, words) },
        _ => {
            for (pair, word) in x.chunks_exact(2).zip(words) {
                let [low, high] = [pair[0], pair[1]].map(|x| u32::from(panel_format::bits(x)));
                *word = f32::from_bits(high << 16 | low);
            }
        }
    }
}

/// The values of [`round`]'s words.
///
/// # Panics
/// If the lengths do not agree.
pub fn widen(cpu: Cpu, words: &[f32], x: &mut [f32]) {
    assert_eq!(x.len(), 2 * words.len(), "x does not have two elements for each word");
    let x = Shared::new(x);
    parallel::rows(cpu, x.len(), WORK, STEP, |part| {
        // SAFETY: the parts are disjoint.
        let x = unsafe { x.range(part.clone()) };
        widen_part(cpu.isa, &words[part.start / 2..part.end / 2], x);
    });
}

dispatch! {
    /// [`widen`] on this thread: two elements of `x` for each word.
    fn widen_part(words: &[f32], x: &mut [f32]) = plain_widen | vector_widen;
}
dispatch! {
    /// Rows of `x` from rows of words that begin `stride` words apart; `sizes` are the stride and the words of a row.
    pub(crate) fn widen_rows(words: &[f32], sizes: (usize, usize), x: &mut [f32])
        = plain_widen_rows | vector_widen_rows;
}

/// A loop that the compiler vectorizes.
#[inline(always)]
fn plain_widen(words: &[f32], x: &mut [f32]) {
    for (word, pair) in words.iter().zip(x.chunks_exact_mut(2)) {
        pair[0] = f32::from_bits(word.to_bits() << 16);
        pair[1] = f32::from_bits(word.to_bits() & 0xffff_0000);
    }
}

#[inline(always)]
fn plain_widen_rows(words: &[f32], (stride, width): (usize, usize), x: &mut [f32]) {
    for (row, x) in x.chunks_exact_mut((2 * width).max(1)).enumerate() {
        plain_widen(&words[row * stride..row * stride + width], x);
    }
}

#[inline(always)]
fn vector_widen_rows<S: crate::simd::Simd>(_: S, words: &[f32], sizes: (usize, usize), x: &mut [f32]) {
    plain_widen_rows(words, sizes, x);
}

#[inline(always)]
fn vector_widen<S: crate::simd::Simd>(_: S, words: &[f32], x: &mut [f32]) {
    plain_widen(words, x);
}

/// Whether matmuls round their operands to bf16 with this, so that operands may be kept rounded.
pub fn rounds(cpu: Cpu) -> bool {
    cpu.matmul_precision() == Precision::Mixed
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use crate::gemm::panel_format::halves;

    /// # Safety
    /// The machine has AVX-512 F, BW, VL and BF16.
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f")]
    pub(super) unsafe fn round(x: &[f32], words: &mut [f32]) {
        let len = x.len().min(2 * words.len());
        for at in (0..len).step_by(32) {
            let mask = |from: usize| ((1u32 << len.saturating_sub(from).min(16)) - 1) as __mmask16;
            // SAFETY: the masks keep every access below `len` elements, and half as many words.
            unsafe {
                let low = _mm512_maskz_loadu_ps(mask(at), x.as_ptr().wrapping_add(at));
                let high = _mm512_maskz_loadu_ps(mask(at + 16), x.as_ptr().wrapping_add(at + 16));
                let store = ((1u32 << (len - at).min(32).div_ceil(2)) - 1) as __mmask16;
                let to = words.as_mut_ptr().wrapping_add(at / 2).cast();
                _mm512_mask_storeu_epi32(to, store, halves(low, high));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bf16, every_cpu, numbers};

    #[test]
    fn every_bf16_round_trips_through_f32() {
        for bits in 0..=u16::MAX {
            let x = Bf16(bits).to_f32();
            match x.is_nan() {
                true => assert!(Bf16::from_f32(x).to_f32().is_nan()),
                false => assert_eq!(Bf16::from_f32(x), Bf16(bits)),
            }
        }
    }

    #[test]
    fn words_hold_the_nearest_bf16_on_every_path() {
        for len in [0, 2, 30, 34, 64, 1000, 70_000] {
            let x = numbers(1, len);
            let wanted: Vec<f32> = x.iter().copied().map(bf16).collect();
            for cpu in every_cpu().flat_map(|cpu| [1, 3].map(|threads| Cpu { threads, ..cpu })) {
                let (mut words, mut wide) = (vec![f32::NAN; len / 2], vec![f32::NAN; len]);
                round(cpu, &x, &mut words);
                widen(cpu, &words, &mut wide);
                assert_eq!(wide, wanted, "{cpu:?} {len}");
            }
        }
    }
}
