//! The activations that integer weights are multiplied by: as f32, or quantized to int8.

use super::bytes::{Bytes, Floats, each};
use crate::simd::Simd;

/// A format of `x` in units of as many groups of 32 as a byte vector has, in words of the size of an f32.
pub(super) trait Factors {
    /// Words of a group of 32.
    const RUN_WORDS: usize;
    /// A unit in registers.
    type Unit<B: Bytes>: Copy;

    /// Writes a unit of `x`, padded with 0.
    fn write<B: Bytes>(b: B, x: &[f32], to: &mut [f32]);
    /// Reads a unit, to be multiplied by bytes that are too large by `offset`.
    ///
    /// # Safety
    /// `from` is readable for the words of a unit.
    unsafe fn read<B: Bytes>(b: B, from: *const f32, offset: u8) -> Self::Unit<B>;
    /// Dot products with `bytes - offset`, for each lane.
    fn dot<B: Bytes>(b: B, x: Self::Unit<B>, bytes: B::Bytes, offset: u8) -> Floats<B>;
    /// Sums of `x`, for each lane.
    fn total<B: Bytes>(b: B, x: Self::Unit<B>) -> Floats<B>;
}

/// `x` in f32, regrouped: first each first of four values, then each second, and so on.
pub(super) struct Exact;

impl Factors for Exact {
    const RUN_WORDS: usize = 32;
    type Unit<B: Bytes> = [Floats<B>; 4];

    #[inline(always)]
    fn write<B: Bytes>(_: B, x: &[f32], to: &mut [f32]) {
        to.fill(0.0);
        for (lane, x) in x.as_chunks::<4>().0.iter().enumerate() {
            for (place, x) in x.iter().enumerate() {
                to[place * 8 * B::RUNS + lane] = *x;
            }
        }
    }

    #[inline(always)]
    unsafe fn read<B: Bytes>(b: B, from: *const f32, _: u8) -> Self::Unit<B> {
        // SAFETY: a unit is four vectors.
        each(|place| unsafe { b.simd().load_from(from.add(place * 8 * B::RUNS)) })
    }

    #[inline(always)]
    fn dot<B: Bytes>(b: B, x: Self::Unit<B>, bytes: B::Bytes, offset: u8) -> Floats<B> {
        let s = b.simd();
        let numbers = b.sub(bytes, b.splat(offset));
        let mut sum = s.mul(b.signed(numbers, 0), x[0]);
        for place in 1..4 {
            sum = s.fma(b.signed(numbers, place), x[place as usize], sum);
        }
        sum
    }

    #[inline(always)]
    fn total<B: Bytes>(b: B, x: Self::Unit<B>) -> Floats<B> {
        let s = b.simd();
        s.add(s.add(x[0], x[1]), s.add(x[2], x[3]))
    }
}

/// `x` quantized by [`round`]: the int8 values of a unit, then the scale of each lane.
pub(super) struct Rounded;

/// A unit of [`Rounded`].
pub(super) struct RoundedUnit<B: Bytes> {
    numbers: B::Bytes,
    scales: Floats<B>,
    /// Minus what the offset of the bytes adds to the dot products, unless it is subtracted before.
    excess: B::Ints,
}

impl<B: Bytes> Clone for RoundedUnit<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Bytes> Copy for RoundedUnit<B> {}

impl Factors for Rounded {
    const RUN_WORDS: usize = 16;
    type Unit<B: Bytes> = RoundedUnit<B>;

    #[inline(always)]
    fn write<B: Bytes>(_: B, x: &[f32], to: &mut [f32]) {
        let (numbers, scales) = to.split_at_mut(8 * B::RUNS);
        let runs = numbers.as_chunks_mut::<8>().0.iter_mut().zip(scales.as_chunks_mut::<8>().0);
        let mut x = x.as_chunks::<32>().0.iter();
        for (numbers, scales) in runs {
            let (rounded, scale) = round(x.next().unwrap_or(&[0.0; 32]));
            for (word, bytes) in numbers.iter_mut().zip(rounded.as_chunks::<4>().0) {
                *word = f32::from_bits(u32::from_ne_bytes(bytes.map(|x| x as u8)));
            }
            scales.fill(scale);
        }
    }

    #[inline(always)]
    unsafe fn read<B: Bytes>(b: B, from: *const f32, offset: u8) -> RoundedUnit<B> {
        // SAFETY: a unit has 32 bytes for each run and as many scales as lanes.
        let (numbers, scales) =
            unsafe { (b.load(from.cast(), 32), b.simd().load_from(from.add(8 * B::RUNS))) };
        let excess = match offset {
            1.. if !B::SIGNED => b.multiply_add(b.splat(offset), numbers, b.zeros()),
            _ => b.zeros(),
        };
        RoundedUnit { numbers, scales, excess: b.sub_ints(b.zeros(), excess) }
    }

    #[inline(always)]
    fn dot<B: Bytes>(b: B, x: RoundedUnit<B>, bytes: B::Bytes, offset: u8) -> Floats<B> {
        let bytes = if B::SIGNED { b.sub(bytes, b.splat(offset)) } else { bytes };
        b.simd().mul(b.to_floats(b.multiply_add(bytes, x.numbers, x.excess)), x.scales)
    }

    #[inline(always)]
    fn total<B: Bytes>(b: B, x: RoundedUnit<B>) -> Floats<B> {
        b.simd().mul(b.to_floats(b.multiply_add(b.splat(1), x.numbers, b.zeros())), x.scales)
    }
}

/// Quantizes 32 values to -127..=127 and a scale, that of the largest magnitude, ties to even.
///
/// If one is not finite, the scale is NaN. If all are below about 2^-121, the scale is 0, for its inverse would be infinite.
#[inline(always)]
pub(super) fn round(x: &[f32; 32]) -> ([i8; 32], f32) {
    // Without the sign bit, bits are ordered as the magnitudes are, infinities and NaN above all others.
    let largest = f32::from_bits(x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff)));
    if !largest.is_finite() {
        return ([0; 32], f32::NAN);
    }
    let by = 127.0 / largest;
    if !by.is_finite() {
        return ([0; 32], 0.0);
    }
    // Adding this moves the integer part to the lowest bits, rounded as sums are.
    const TO_WHOLE: f32 = 12_582_912.0;
    (x.map(|x| (x * by + TO_WHOLE).to_bits() as i8), largest / 127.0)
}

/// Replaces groups of 32 values by what they are quantized to.
pub(super) fn round_all(x: &mut [f32]) {
    for run in x.as_chunks_mut::<32>().0 {
        let (numbers, scale) = round(run);
        *run = numbers.map(|number| f32::from(number) * scale);
    }
}
