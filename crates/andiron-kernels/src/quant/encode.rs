//! Quantization from f32.

use super::Format;
use super::half::{f16_to_f32, f32_to_f16};
use crate::gemm::panel_format;
use crate::simd::{Simd, dispatch};

dispatch! {
    /// Quantizes whole blocks.
    pub(super) fn encode(format: Format, values: &[f32], blocks: &mut [u8]) = plain | vector;
}

#[inline(always)]
fn vector<S: Simd>(_: S, format: Format, values: &[f32], blocks: &mut [u8]) {
    plain(format, values, blocks);
}

#[inline(always)]
fn plain(format: Format, values: &[f32], blocks: &mut [u8]) {
    match format {
        Format::F16 => each(values, blocks, |x: &[f32; 1], block: &mut [u8; 2]| put_half(block, 0, x[0])),
        Format::Bf16 => each(values, blocks, |x: &[f32; 1], block: &mut [u8; 2]| {
            *block = panel_format::bits(x[0]).to_le_bytes();
        }),
        Format::Q8_0 => each(values, blocks, q8_0),
        Format::Q4_0 => each(values, blocks, q4_0),
        Format::Q4_1 => each(values, blocks, q4_1),
        Format::Q5_0 => each(values, blocks, q5_0),
        Format::Q5_1 => each(values, blocks, q5_1),
        Format::Q4K => each(values, blocks, |x: &[f32; 256], block: &mut [u8; 144]| {
            let (head, low) = block.split_at_mut(16);
            with_minima::<15>(x, head, low, None);
        }),
        Format::Q5K => each(values, blocks, |x: &[f32; 256], block: &mut [u8; 176]| {
            let (head, rest) = block.split_at_mut(16);
            let (high, low) = rest.split_at_mut(32);
            with_minima::<31>(x, head, low, Some(high));
        }),
        Format::Q6K => each(values, blocks, q6_k),
    }
}

#[inline(always)]
fn each<const LEN: usize, const BYTES: usize>(
    values: &[f32],
    blocks: &mut [u8],
    block: impl Fn(&[f32; LEN], &mut [u8; BYTES]),
) {
    for (x, bytes) in values.as_chunks::<LEN>().0.iter().zip(blocks.as_chunks_mut::<BYTES>().0) {
        block(x, bytes);
    }
}

#[inline(always)]
fn put_half(block: &mut [u8], at: usize, x: f32) {
    block[at..at + 2].copy_from_slice(&f32_to_f16(x).to_le_bytes());
}

/// `1 / d`, or 0 for 0.
#[inline(always)]
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn largest_magnitude(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()))
}

/// The value of the largest magnitude, the first of equals.
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |extreme: f32, &x| if x.abs() > extreme.abs() { x } else { extreme })
}

fn range(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)))
}

#[inline(always)]
fn q8_0(x: &[f32; 32], block: &mut [u8; 34]) {
    let d = largest_magnitude(x) / 127.0;
    let by = inverse(d);
    put_half(block, 0, d);
    for (x, q) in x.iter().zip(&mut block[2..]) {
        *q = (x * by).round() as i8 as u8;
    }
}

/// 32 values of up to 5 bits: the nibbles of 16 bytes, and the fifth bits.
#[inline(always)]
fn put_halves(number: impl Fn(usize) -> u8, low: &mut [u8]) -> [u8; 4] {
    let mut fifths = 0u32;
    for (l, byte) in low.iter_mut().enumerate() {
        let (first, second) = (number(l), number(l + 16));
        *byte = first & 15 | second << 4;
        fifths |= u32::from(first >> 4) << l | u32::from(second >> 4) << (l + 16);
    }
    fifths.to_le_bytes()
}

#[inline(always)]
fn q4_0(x: &[f32; 32], block: &mut [u8; 18]) {
    // The value of the largest magnitude is stored as 0, which is exact: -8 has no positive counterpart.
    let d = extreme(x) / -8.0;
    let by = inverse(d);
    put_half(block, 0, d);
    put_halves(|l| ((x[l] * by + 8.5) as u8).min(15), &mut block[2..]);
}

#[inline(always)]
fn q4_1(x: &[f32; 32], block: &mut [u8; 20]) {
    let (low, high) = range(x);
    let d = (high - low) / 15.0;
    let by = inverse(d);
    put_half(block, 0, d);
    put_half(block, 2, low);
    put_halves(|l| (((x[l] - low) * by + 0.5) as u8).min(15), &mut block[4..]);
}

#[inline(always)]
fn q5_0(x: &[f32; 32], block: &mut [u8; 22]) {
    let d = extreme(x) / -16.0;
    let by = inverse(d);
    put_half(block, 0, d);
    let fifths = put_halves(|l| ((x[l] * by + 16.5) as u8).min(31), &mut block[6..]);
    block[2..6].copy_from_slice(&fifths);
}

#[inline(always)]
fn q5_1(x: &[f32; 32], block: &mut [u8; 24]) {
    let (low, high) = range(x);
    let d = (high - low) / 31.0;
    let by = inverse(d);
    put_half(block, 0, d);
    put_half(block, 2, low);
    let fifths = put_halves(|l| (((x[l] - low) * by + 0.5) as u8).min(31), &mut block[8..]);
    block[4..8].copy_from_slice(&fifths);
}

/// The nearest integer of `0..=max`.
#[inline(always)]
fn whole(x: f32, max: u8) -> u8 {
    ((x + 0.5) as u8).min(max)
}

/// Scale and minimum (to be subtracted) of a group: those with the smallest sum of squared errors among a few.
///
/// Smaller scales than that of the range clip an outlier and are finer for all others. For each candidate, least squares
/// give the best scale and minimum for the integers that it rounds to.
fn fit<const MAX: u8>(x: &[f32; 32]) -> (f32, f32) {
    let (low, high) = range(x);
    let low = low.min(0.0);
    if high <= low {
        return (0.0, -low);
    }
    let error = |scale: f32, low: f32| {
        let by = inverse(scale);
        x.iter().map(|x| (x - (scale * f32::from(whole((x - low) * by, MAX)) + low)).powi(2)).sum::<f32>()
    };
    let start = ((high - low) / f32::from(MAX), low);
    let mut best = (error(start.0, start.1), start);
    for step in 0..8 {
        let by = (f32::from(MAX) - 0.5 + 0.2 * step as f32) / (high - low);
        let (mut n, mut nn, mut xs, mut nx) = (0.0, 0.0, 0.0, 0.0);
        for x in x {
            let number = f32::from(whole((x - low) * by, MAX));
            (n, nn, xs, nx) = (n + number, nn + number * number, xs + x, nx + number * x);
        }
        let spread = 32.0 * nn - n * n;
        if spread <= 0.0 {
            continue;
        }
        let mut scale = (32.0 * nx - n * xs) / spread;
        let mut low = (xs - scale * n) / 32.0;
        if low > 0.0 {
            (scale, low) = (nx / nn, 0.0);
        }
        let error = error(scale, low);
        if scale > 0.0 && error < best.0 {
            best = (error, (scale, low));
        }
    }
    (best.1.0, -best.1.1)
}

/// Blocks of 256 with a scale and a minimum for each 32.
fn with_minima<const MAX: u8>(x: &[f32; 256], head: &mut [u8], low: &mut [u8], high: Option<&mut [u8]>) {
    let runs = x.as_chunks::<32>().0;
    let mut fits = [(0.0, 0.0); 8];
    for (fitted, run) in fits.iter_mut().zip(runs) {
        *fitted = fit::<MAX>(run);
    }
    let d = fits.iter().fold(0.0, |d: f32, fit| d.max(fit.0)) / 63.0;
    let d_min = fits.iter().fold(0.0, |d: f32, fit| d.max(fit.1)) / 63.0;
    put_half(head, 0, d);
    put_half(head, 2, d_min);
    let (d, d_min) = (f16_to_f32(f32_to_f16(d)), f16_to_f32(f32_to_f16(d_min)));
    let (by, by_min) = (inverse(d), inverse(d_min));
    head[4..16].fill(0);
    low.fill(0);
    let mut numbers = [[0; 32]; 8];
    for (run, ((scale, minimum), x)) in fits.into_iter().zip(runs).enumerate() {
        let (scale, minimum) = (whole(scale * by, 63), whole(minimum * by_min, 63));
        let packed = &mut head[4..16];
        if run < 4 {
            packed[run] |= scale;
            packed[run + 4] |= minimum;
        } else {
            packed[run + 4] = scale & 15 | minimum << 4;
            packed[run - 4] |= scale >> 4 << 6;
            packed[run] |= minimum >> 4 << 6;
        }
        let (by, offset) = (inverse(d * f32::from(scale)), d_min * f32::from(minimum));
        for (number, x) in numbers[run].iter_mut().zip(x) {
            *number = whole((x + offset) * by, MAX);
        }
        for (l, number) in numbers[run].iter().enumerate() {
            low[run / 2 * 32 + l] |= (number & 15) << (run % 2 * 4);
        }
    }
    if let Some(high) = high {
        for (l, byte) in high.iter_mut().enumerate() {
            *byte = numbers.iter().enumerate().fold(0, |byte, (run, numbers)| byte | numbers[l] >> 4 << run);
        }
    }
}

/// The scale of 16 values of -32..=31 with the smallest sum of squared errors among a few.
fn fit_signed(x: &[f32; 16]) -> f32 {
    let extreme = extreme(x);
    if extreme == 0.0 {
        return 0.0;
    }
    let mut best = (f32::INFINITY, extreme / -32.0);
    for step in 0..9 {
        let by = -(31.2 + 0.2 * step as f32) / extreme;
        let (mut nx, mut nn) = (0.0, 0.0);
        for x in x {
            let number = (x * by).round().clamp(-32.0, 31.0);
            (nx, nn) = (nx + number * x, nn + number * number);
        }
        let scale = nx / nn;
        let error =
            x.iter().map(|x| (x - scale * (x / scale).round().clamp(-32.0, 31.0)).powi(2)).sum::<f32>();
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

fn q6_k(x: &[f32; 256], block: &mut [u8; 210]) {
    let runs = x.as_chunks::<16>().0;
    let mut fits = [0.0; 16];
    for (fit, run) in fits.iter_mut().zip(runs) {
        *fit = fit_signed(run);
    }
    let d = extreme(&fits) / -128.0;
    put_half(block, 208, d);
    let d = f16_to_f32(f32_to_f16(d));
    let by = inverse(d);
    block[..192].fill(0);
    for (run, (fit, x)) in fits.into_iter().zip(runs).enumerate() {
        let scale = (fit * by).round().clamp(-128.0, 127.0) as i8;
        block[192 + run] = scale as u8;
        let by = inverse(d * f32::from(scale));
        let (half, quarter, start) = (run / 8, run % 8 / 2, run % 2 * 16);
        for (l, x) in (start..).zip(x) {
            let number = ((x * by).round().clamp(-32.0, 31.0) + 32.0) as u8;
            block[64 * half + quarter % 2 * 32 + l] |= (number & 15) << (quarter / 2 * 4);
            block[128 + 32 * half + l] |= number >> 4 << (2 * quarter);
        }
    }
}
