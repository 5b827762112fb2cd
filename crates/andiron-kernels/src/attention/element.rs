//! The element types of keys and values in a cache.

use crate::gemm::panel_format;
use crate::simd::Simd;

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

/// An element that kernels widen to f32 in registers.
pub(super) trait Element: Copy {
    /// Elements per cache line.
    const LINE: usize = 64 / size_of::<Self>();

    /// # Safety
    /// `from` is readable for a vector of elements.
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::Vector;

    /// The first `count` lanes; 0 in the others.
    ///
    /// # Safety
    /// `from` is readable for `count` elements, at most a vector.
    unsafe fn load_part<S: Simd>(s: S, from: *const Self, count: usize) -> S::Vector;

    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { s.load_from(from) }
    }

    #[inline(always)]
    unsafe fn load_part<S: Simd>(s: S, from: *const Self, count: usize) -> S::Vector {
        // SAFETY: the caller's promise.
        unsafe { s.load_part_from(from, count) }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Element for Bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::Vector {
        // SAFETY: the caller's promise; a `Bf16` is its bits.
        unsafe { s.load_bf16_from(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_part<S: Simd>(s: S, from: *const Self, count: usize) -> S::Vector {
        // Lanes of the widest vector.
        let mut bits = [0; 16];
        assert!(count <= S::LANES && S::LANES <= bits.len());
        // SAFETY: the caller's promise, and the array has room for `count` and a vector's lanes.
        unsafe {
            from.cast::<u16>().copy_to_nonoverlapping(bits.as_mut_ptr(), count);
            s.load_bf16_from(bits.as_ptr())
        }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
