//! Unpacks the block formats in vectors: integers in bytes, with scales and minima in f32.

use super::bytes::{Bytes, Floats, each};
use crate::quant::expand::scales_and_minima;
use crate::simd::Simd;

/// The place of the blocks that are read together: one block of eight groups of 32, or as many of one group as a vector has.
#[derive(Clone, Copy)]
pub(super) struct Group {
    /// The first block.
    pub(super) start: *const u8,
    /// The distance to the next block; 0 if there is none, so that the same one is read again.
    pub(super) step: usize,
}

/// A format with blocks. A group has units of as many runs as a vector of bytes has.
///
/// # Safety
/// Functions that take a [`Group`] read no more than its blocks.
pub(super) trait Blocks {
    /// Bytes of a block.
    const BYTES: usize;
    /// Groups of 32 values in a block.
    const RUNS: usize;
    /// What is subtracted from the bytes of [`numbers`](Self::numbers).
    const OFFSET: u8;
    /// Whether a minimum is added to the scaled values.
    const MINIMA: bool;
    /// What is read once per group, of `N` outputs.
    type Heads<B: Bytes, const N: usize>: Copy;

    unsafe fn heads<B: Bytes, const N: usize>(b: B, groups: [Group; N]) -> Self::Heads<B, N>;
    /// The integers of a unit, as unsigned bytes.
    unsafe fn numbers<B: Bytes>(b: B, group: Group, unit: usize) -> B::Bytes;
    /// The scale of each lane of a unit of output `n`.
    fn scales<B: Bytes, const N: usize>(b: B, heads: &Self::Heads<B, N>, n: usize, unit: usize) -> Floats<B>;
    /// What is added to each value of a lane after scaling, if there are [`MINIMA`](Self::MINIMA).
    fn minima<B: Bytes, const N: usize>(b: B, heads: &Self::Heads<B, N>, n: usize, unit: usize) -> Floats<B>;
}

/// Blocks of one group of 32 with a scale, a minimum if `MINIMA`, and integers of `BITS` bits.
pub(super) struct OneRun<const BITS: u32, const MINIMA: bool>;

impl<const BITS: u32, const MINIMA: bool> OneRun<BITS, MINIMA> {
    const FIFTHS: usize = if MINIMA { 4 } else { 2 };
    const NUMBERS: usize = Self::FIFTHS + if BITS == 5 { 4 } else { 0 };
}

impl<const BITS: u32, const MINIMA: bool> Blocks for OneRun<BITS, MINIMA> {
    const BYTES: usize = Self::NUMBERS + if BITS == 8 { 32 } else { 16 };
    const RUNS: usize = 1;
    const OFFSET: u8 = if MINIMA { 0 } else { 1 << (BITS - 1) };
    const MINIMA: bool = MINIMA;
    /// The first two f16 of each block: a scale, and a minimum if there is one.
    type Heads<B: Bytes, const N: usize> = B::Table;

    #[inline(always)]
    unsafe fn heads<B: Bytes, const N: usize>(b: B, groups: [Group; N]) -> B::Table {
        const { assert!(N * B::RUNS <= 8, "a table holds the halves of eight blocks") };
        let mut words = [0; 8];
        for (index, word) in words[..N * B::RUNS].iter_mut().enumerate() {
            let Group { start, step } = groups[index / B::RUNS];
            // SAFETY: a block is longer than 4 bytes.
            *word = unsafe { start.add(index % B::RUNS * step).cast::<u32>().read_unaligned() };
        }
        b.table_of_halves(words)
    }

    #[inline(always)]
    unsafe fn numbers<B: Bytes>(b: B, Group { start, step }: Group, _: usize) -> B::Bytes {
        // SAFETY: the offsets are inside the blocks.
        unsafe {
            let numbers = start.add(Self::NUMBERS);
            if BITS == 8 {
                return b.xor(b.load(numbers, step), b.splat(1 << 7));
            }
            let shifted = b.shift_right(b.load_twice(numbers, step), |lane| (lane % 2 * 4) as i32);
            let low = b.and(shifted, b.splat(15));
            if BITS == 5 { b.or(low, b.sixteens(start.add(Self::FIFTHS), step)) } else { low }
        }
    }

    #[inline(always)]
    fn scales<B: Bytes, const N: usize>(b: B, heads: &B::Table, n: usize, _: usize) -> Floats<B> {
        b.spread(heads, |lane| 2 * (n * B::RUNS + lane / 8))
    }

    #[inline(always)]
    fn minima<B: Bytes, const N: usize>(b: B, heads: &B::Table, n: usize, _: usize) -> Floats<B> {
        b.spread(heads, |lane| 2 * (n * B::RUNS + lane / 8) + 1)
    }
}

/// The place of the group of 32 that 16 bytes of a unit belong to.
#[inline(always)]
fn run_of<B: Bytes>(_: B, unit: usize, sixteen: usize) -> usize {
    unit * B::RUNS + sixteen / 2
}

/// Blocks of eight groups of 32 with scales and minima of 6 bits, and integers of `BITS` bits.
pub(super) struct EightRuns<const BITS: u32>;

impl<const BITS: u32> Blocks for EightRuns<BITS> {
    const BYTES: usize = 16 + 32 * BITS as usize;
    const RUNS: usize = 8;
    const OFFSET: u8 = 0;
    const MINIMA: bool = true;
    /// Eight scales and eight minima.
    type Heads<B: Bytes, const N: usize> = [B::Table; N];

    #[inline(always)]
    unsafe fn heads<B: Bytes, const N: usize>(b: B, groups: [Group; N]) -> [B::Table; N] {
        each(|n| {
            let start = groups[n].start;
            // SAFETY: the block begins with two halves and 12 bytes of scales and minima.
            let (halves, packed) = unsafe {
                (start.cast::<[u16; 2]>().read_unaligned(), start.add(4).cast::<[u8; 12]>().read())
            };
            let (scales, minima) = scales_and_minima(packed);
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&scales);
            bytes[8..].copy_from_slice(&minima);
            b.table(bytes, [b.half(halves[0]), -b.half(halves[1])])
        })
    }

    #[inline(always)]
    unsafe fn numbers<B: Bytes>(b: B, Group { start, .. }: Group, unit: usize) -> B::Bytes {
        // Two groups share 32 bytes of low bits, all groups the 32 bytes of fifth bits.
        let pair = run_of(b, unit, 0) / 2 * 32;
        // SAFETY: the block has these bytes.
        unsafe {
            let low = b.load(start.add(16 + if BITS == 5 { 32 } else { 0 } + pair), 0);
            let low = b.shift_right(low, |sixteen| (run_of(b, unit, sixteen) % 2 * 4) as i32);
            let low = b.and(low, b.splat(15));
            if BITS == 4 {
                return low;
            }
            let fifths = b.load(start.add(16), 0);
            let fifths = b.shift_right(fifths, |sixteen| run_of(b, unit, sixteen) as i32 - 4);
            b.or(low, b.and(fifths, b.splat(16)))
        }
    }

    #[inline(always)]
    fn scales<B: Bytes, const N: usize>(b: B, heads: &[B::Table; N], n: usize, unit: usize) -> Floats<B> {
        b.spread(&heads[n], |lane| unit * B::RUNS + lane / 8)
    }

    #[inline(always)]
    fn minima<B: Bytes, const N: usize>(b: B, heads: &[B::Table; N], n: usize, unit: usize) -> Floats<B> {
        b.spread(&heads[n], |lane| 8 + unit * B::RUNS + lane / 8)
    }
}

/// Blocks of eight groups of 32 with two scales of 8 bits each, and integers of 6 bits.
pub(super) struct SixBits;

impl Blocks for SixBits {
    const BYTES: usize = 210;
    const RUNS: usize = 8;
    const OFFSET: u8 = 32;
    const MINIMA: bool = false;
    /// Sixteen scales.
    type Heads<B: Bytes, const N: usize> = [B::Table; N];

    #[inline(always)]
    unsafe fn heads<B: Bytes, const N: usize>(b: B, groups: [Group; N]) -> [B::Table; N] {
        each(|n| {
            let start = groups[n].start;
            // SAFETY: the block ends with 16 scales and a half.
            let (scales, half) = unsafe {
                (start.add(192).cast::<[u8; 16]>().read(), start.add(208).cast::<u16>().read_unaligned())
            };
            b.table(scales, [b.half(half); 2])
        })
    }

    #[inline(always)]
    unsafe fn numbers<B: Bytes>(b: B, Group { start, .. }: Group, unit: usize) -> B::Bytes {
        // Four groups share 64 bytes of low bits, each two the same ones, and 32 bytes of high bits.
        let (half, quarter) = (run_of(b, unit, 0) / 4, run_of(b, unit, 0) % 4);
        let quarter_of = |sixteen| (run_of(b, unit, sixteen) % 4) as i32;
        // SAFETY: the block has these bytes.
        unsafe {
            let low = b.load(start.add(64 * half + quarter % 2 * 32), 32);
            let low = b.shift_right(low, |sixteen| quarter_of(sixteen) / 2 * 4);
            let high = b.load(start.add(128 + 32 * half), 0);
            let high = b.shift_right(high, |sixteen| 2 * quarter_of(sixteen) - 4);
            b.or(b.and(low, b.splat(0x0f)), b.and(high, b.splat(0x30)))
        }
    }

    #[inline(always)]
    fn scales<B: Bytes, const N: usize>(b: B, heads: &[B::Table; N], n: usize, unit: usize) -> Floats<B> {
        b.spread(&heads[n], |lane| 2 * unit * B::RUNS + lane / 4)
    }

    #[inline(always)]
    fn minima<B: Bytes, const N: usize>(b: B, _: &[B::Table; N], _: usize, _: usize) -> Floats<B> {
        b.simd().splat(0.0)
    }
}
