//! The element types of keys and values in a cache.

use crate::bf16::Bf16;
use crate::simd::Simd;

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
