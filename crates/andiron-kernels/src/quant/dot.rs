//! Products of a row of weights with numbers, expanding a few weights at a time.

use super::Format;
use super::expand::plain;
use crate::simd::{Simd, dispatch};

/// Weights expanded at a time: one block of the longest, 1 KiB of the first-level cache.
const PART: usize = 256;

dispatch! {
    /// `Σ_l weights[l] x[l]` over whole blocks.
    pub(super) fn dot(format: Format, weights: &[u8], x: &[f32]) -> f32 = dot_scalar | dot_vector;
}

fn dot_scalar(format: Format, weights: &[u8], x: &[f32]) -> f32 {
    let mut room = [0.0; PART];
    let mut sum = 0.0;
    for (weights, x) in weights.chunks(part_bytes(format)).zip(x.chunks(PART)) {
        let room = &mut room[..x.len()];
        plain(format, weights, room);
        sum += room.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
    }
    sum
}

#[inline(always)]
fn dot_vector<S: Simd>(s: S, format: Format, weights: &[u8], x: &[f32]) -> f32 {
    // One branch for the whole row; each format then has a loop of its own.
    match format {
        Format::F16 => by_parts::<S, 2>(s, Format::F16, weights, x),
        Format::Bf16 => by_parts::<S, 2>(s, Format::Bf16, weights, x),
        Format::Q8_0 => by_parts::<S, 34>(s, Format::Q8_0, weights, x),
        Format::Q4_0 => by_parts::<S, 18>(s, Format::Q4_0, weights, x),
        Format::Q4_1 => by_parts::<S, 20>(s, Format::Q4_1, weights, x),
        Format::Q5_0 => by_parts::<S, 22>(s, Format::Q5_0, weights, x),
        Format::Q5_1 => by_parts::<S, 24>(s, Format::Q5_1, weights, x),
        Format::Q4K => by_parts::<S, 144>(s, Format::Q4K, weights, x),
        Format::Q5K => by_parts::<S, 176>(s, Format::Q5K, weights, x),
        Format::Q6K => by_parts::<S, 210>(s, Format::Q6K, weights, x),
    }
}

/// `BYTES` are those of a block.
#[inline(always)]
fn by_parts<S: Simd, const BYTES: usize>(s: S, format: Format, weights: &[u8], x: &[f32]) -> f32 {
    let mut room = [0.0; PART];
    let mut sums = [s.splat(0.0); 4];
    let mut rest = 0.0;
    for (weights, x) in weights.chunks(PART / format.block_len() * BYTES).zip(x.chunks(PART)) {
        let room = &mut room[..x.len()];
        plain(format, weights, room);
        let whole = x.len() / (4 * S::LANES) * (4 * S::LANES);
        for at in (0..whole).step_by(4 * S::LANES) {
            for (v, sum) in sums.iter_mut().enumerate() {
                let at = at + v * S::LANES;
                *sum = s.fma(s.load(&room[at..]), s.load(&x[at..]), *sum);
            }
        }
        rest += room[whole..].iter().zip(&x[whole..]).map(|(w, x)| w * x).sum::<f32>();
    }
    let [a, b, c, d] = sums;
    s.sum(s.add(s.add(a, b), s.add(c, d))) + rest
}

fn part_bytes(format: Format) -> usize {
    PART / format.block_len() * format.block_bytes()
}
