//! Dequantization to f32.
//!
//! The functions for one block are plain Rust and the definition of each format. Compiled for wider vectors they give the
//! same bits, because each value is rounded in the same order.

use super::Format;
use super::half::f16_to_f32;
use crate::simd::{Simd, dispatch};

dispatch! {
    /// Dequantizes whole blocks to f32.
    pub(super) fn expand(format: Format, blocks: &[u8], out: &mut [f32]) = plain | vector;
}

#[inline(always)]
fn vector<S: Simd>(_: S, format: Format, blocks: &[u8], out: &mut [f32]) {
    plain(format, blocks, out);
}

#[inline(always)]
pub(super) fn plain(format: Format, blocks: &[u8], out: &mut [f32]) {
    match format {
        Format::F16 => each(blocks, out, |block: &[u8; 2], out: &mut [f32; 1]| out[0] = half_at(block, 0)),
        Format::Bf16 => each(blocks, out, |block: &[u8; 2], out: &mut [f32; 1]| {
            out[0] = f32::from_bits(u32::from(u16::from_le_bytes(*block)) << 16);
        }),
        Format::Q8_0 => each(blocks, out, q8_0),
        Format::Q4_0 => each(blocks, out, q4_0),
        Format::Q4_1 => each(blocks, out, q4_1),
        Format::Q5_0 => each(blocks, out, q5_0),
        Format::Q5_1 => each(blocks, out, q5_1),
        Format::Q4K => each(blocks, out, q4_k),
        Format::Q5K => each(blocks, out, q5_k),
        Format::Q6K => each(blocks, out, q6_k),
    }
}

#[inline(always)]
fn each<const BYTES: usize, const LEN: usize>(
    blocks: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (bytes, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
        block(bytes, out);
    }
}

/// The f16 at byte `at`.
#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

#[inline(always)]
fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for l in 0..32 {
        out[l] = f32::from(block[2 + l] as i8) * d;
    }
}

#[inline(always)]
fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for l in 0..16 {
        out[l] = d * (f32::from(block[2 + l] & 15) - 8.0);
        out[l + 16] = d * (f32::from(block[2 + l] >> 4) - 8.0);
    }
}

#[inline(always)]
fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    for l in 0..16 {
        out[l] = d * f32::from(block[4 + l] & 15) + m;
        out[l + 16] = d * f32::from(block[4 + l] >> 4) + m;
    }
}

/// The fifth bits of 32 values, each shifted to its place.
#[inline(always)]
fn fifths(bits: &[u8]) -> [u8; 32] {
    let bits = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
    let mut fifths = [0; 32];
    for (l, fifth) in fifths.iter_mut().enumerate() {
        *fifth = ((bits >> l & 1) << 4) as u8;
    }
    fifths
}

#[inline(always)]
fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half_at(block, 0);
    let fifths = fifths(&block[2..6]);
    for l in 0..16 {
        out[l] = d * (f32::from(block[6 + l] & 15 | fifths[l]) - 16.0);
        out[l + 16] = d * (f32::from(block[6 + l] >> 4 | fifths[l + 16]) - 16.0);
    }
}

#[inline(always)]
fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    let fifths = fifths(&block[4..8]);
    for l in 0..16 {
        out[l] = d * f32::from(block[8 + l] & 15 | fifths[l]) + m;
        out[l + 16] = d * f32::from(block[8 + l] >> 4 | fifths[l + 16]) + m;
    }
}

/// The 6-bit scales and minima of the eight groups of 32 in a block, a byte each.
///
/// The first four of each are in the low bits of eight bytes; the high bits of these and the last four bytes hold the rest.
#[inline(always)]
pub(super) fn scales_and_minima(packed: [u8; 12]) -> ([u8; 8], [u8; 8]) {
    let word = |at: usize| u32::from_le_bytes([packed[at], packed[at + 1], packed[at + 2], packed[at + 3]]);
    let (first, second, third) = (word(0), word(4), word(8));
    let upper = |word: u32| (word >> 6 & 0x0303_0303) << 4;
    let both = |low: u32, high: u32| (u64::from(high) << 32 | u64::from(low)).to_le_bytes();
    let scales = both(first & 0x3f3f_3f3f, third & 0x0f0f_0f0f | upper(first));
    let minima = both(second & 0x3f3f_3f3f, third >> 4 & 0x0f0f_0f0f | upper(second));
    (scales, minima)
}

#[inline(always)]
fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, d_min) = (half_at(block, 0), half_at(block, 2));
    let (scales, minima) = scales_and_minima(*block[4..].first_chunk().expect("a block is longer"));
    for pair in 0..4 {
        for (side, shift) in [(0, 0), (1, 4)] {
            let run = 2 * pair + side;
            let (dl, ml) = (d * f32::from(scales[run]), d_min * f32::from(minima[run]));
            for l in 0..32 {
                out[run * 32 + l] = dl * f32::from(block[16 + pair * 32 + l] >> shift & 15) - ml;
            }
        }
    }
}

#[inline(always)]
fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, d_min) = (half_at(block, 0), half_at(block, 2));
    let (scales, minima) = scales_and_minima(*block[4..].first_chunk().expect("a block is longer"));
    for pair in 0..4 {
        for (side, shift) in [(0, 0), (1, 4)] {
            let run = 2 * pair + side;
            let (dl, ml) = (d * f32::from(scales[run]), d_min * f32::from(minima[run]));
            for l in 0..32 {
                let fifth = (block[16 + l] >> run & 1) << 4;
                out[run * 32 + l] = dl * f32::from(block[48 + pair * 32 + l] >> shift & 15 | fifth) - ml;
            }
        }
    }
}

#[inline(always)]
fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half_at(block, 208);
    for run in 0..16 {
        let dl = d * f32::from(block[192 + run] as i8);
        // Half a block has 64 bytes of low bits, read twice, and 32 bytes of high bits, read four times.
        let (half, quarter, start) = (run / 8, run % 8 / 2, run % 2 * 16);
        for l in start..start + 16 {
            let low = block[64 * half + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15;
            let high = block[128 + 32 * half + l] >> (2 * quarter) & 3;
            out[128 * half + 32 * quarter + l] = dl * (f32::from(low | high << 4) - 32.0);
        }
    }
}
