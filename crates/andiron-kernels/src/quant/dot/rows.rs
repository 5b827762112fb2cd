//! Dequantizes blocks to bf16 rows, for AMX tiles.
//!
//! The values of two groups of 32 stay in the order in which byte vectors unpack them: that of [`order`].

use std::arch::x86_64::*;
use std::ops::Range;

use super::blocks::{Blocks, EightRuns, Group, OneRun, SixBits};
use super::bytes::{Bytes, each};
use super::vnni::Vnni;
use crate::gemm::panel_format::halves;
use crate::quant::{Format, QuantRef};
use crate::simd::Simd;

/// Values of two groups of 32.
pub(in crate::quant) const UNIT: usize = 64;

/// Which value of a unit is at a place: first each first of four values, then each second, and so on.
pub(in crate::quant) const fn order(place: usize) -> usize {
    place % 16 * 4 + place / 16
}

/// Rows at a time, so that their scales are unpacked together.
const ROWS: usize = 4;

/// Dequantizes rows to bf16, rounded from the values that the format defines, each row in whole units. If a row ends in the
/// middle of a unit, that has the last group twice.
///
/// # Safety
/// The rows exist. `to` is writable for as many rows, rounded up to a multiple of 4, `stride` bytes and a multiple of 64
/// apart. The machine has tiles of bf16 and the vectors that come with them.
pub(in crate::quant) unsafe fn expand(w: QuantRef, rows: Range<usize>, to: *mut u8, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match w.format() {
            Format::Q8_0 => blocks::<OneRun<8, false>>(w, rows, to, stride),
            Format::Q4_0 => blocks::<OneRun<4, false>>(w, rows, to, stride),
            Format::Q4_1 => blocks::<OneRun<4, true>>(w, rows, to, stride),
            Format::Q5_0 => blocks::<OneRun<5, false>>(w, rows, to, stride),
            Format::Q5_1 => blocks::<OneRun<5, true>>(w, rows, to, stride),
            Format::Q4K => blocks::<EightRuns<4>>(w, rows, to, stride),
            Format::Q5K => blocks::<EightRuns<5>>(w, rows, to, stride),
            Format::Q6K => blocks::<SixBits>(w, rows, to, stride),
            Format::F16 | Format::Bf16 => unreachable!("halves have no blocks"),
        }
    }
}

/// # Safety
/// As for [`expand`].
#[target_feature(enable = "avx512bf16,avx512vnni,avx512vl,avx512bw,avx512f,avx2,fma")]
unsafe fn blocks<F: Blocks>(w: QuantRef, rows: Range<usize>, to: *mut u8, stride: usize) {
    // SAFETY: the caller's promise.
    let b = unsafe { Vnni::new() };
    let s = b.simd();
    let runs = w.cols() / 32;
    let group_runs = Vnni::RUNS.max(F::RUNS);
    let group_bytes = group_runs / F::RUNS * F::BYTES;
    let ahead = ROWS * runs / F::RUNS * F::BYTES;
    for row in rows.clone().step_by(ROWS) {
        let weights: [_; ROWS] = each(|n| {
            let row = (row + n).min(rows.end - 1);
            w.bytes(row..row + 1).as_ptr()
        });
        // SAFETY: there is room for four rows.
        let to = unsafe { to.add((row - rows.start) * stride) };
        for first in (0..runs).step_by(group_runs) {
            let step = if first + group_runs <= runs { F::BYTES } else { 0 };
            // SAFETY: the group begins in the row.
            let start = |n: usize| unsafe { weights[n].add(first / F::RUNS * F::BYTES) };
            let groups: [_; ROWS] = each(|n| Group { start: start(n), step });
            // The same place in the rows that follow, all lines of it.
            for group in groups {
                for line in (0..group_bytes).step_by(64) {
                    s.prefetch(group.start.wrapping_add(ahead + line));
                }
            }
            // SAFETY: the blocks of the group lie in the row.
            let heads = unsafe { F::heads(b, groups) };
            for unit in 0..group_runs / Vnni::RUNS {
                let at = (first + unit * Vnni::RUNS) * 64;
                // Not a loop, which would not be unrolled and would compute the place of the scales each time.
                macro_rules! row {
                    ($n:literal) => {
                        // SAFETY: the blocks lie in the row, and its unit in the room.
                        unsafe {
                            let numbers = F::numbers(b, groups[$n], unit);
                            let scales = F::scales::<Vnni, ROWS>(b, &heads, $n, unit);
                            let minima = F::minima::<Vnni, ROWS>(b, &heads, $n, unit);
                            write::<F>(numbers, scales, minima, to.add($n * stride + at));
                        }
                    };
                }
                row!(0);
                row!(1);
                row!(2);
                row!(3);
            }
        }
    }
}

/// Writes a unit.
///
/// # Safety
/// As for [`expand`]. The caller is compiled for the vectors, or each instruction is a call.
#[inline(always)]
unsafe fn write<F: Blocks>(numbers: __m512i, scales: __m512, minima: __m512, to: *mut u8) {
    /// The scale of an integer in the highest byte of a word.
    const TOP: f32 = 1.0 / (1 << 24) as f32;
    // SAFETY: the caller's promise.
    unsafe {
        let numbers = _mm512_sub_epi8(numbers, _mm512_set1_epi8(F::OFFSET as i8));
        let scales = _mm512_mul_ps(scales, _mm512_set1_ps(TOP));
        let [x0, x1, x2, x3] = each(|place| {
            // Byte `place` of each word, as the highest byte of an integer.
            let source = each::<_, 4>(|word| ((4 * word + place) << 24 | 0x80_8080) as i32);
            let source = _mm512_set4_epi32(source[3], source[2], source[1], source[0]);
            let x = _mm512_cvtepi32_ps(_mm512_shuffle_epi8(numbers, source));
            // Scales have so few bits that the product is exact: this rounds once, as the definition does.
            if F::MINIMA { _mm512_fmadd_ps(x, scales, minima) } else { _mm512_mul_ps(x, scales) }
        });
        _mm512_store_si512(to.cast(), halves(x0, x1));
        _mm512_store_si512(to.add(64).cast(), halves(x2, x3));
    }
}
