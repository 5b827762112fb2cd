//! Matmul of more than a few rows with AMX tiles of bf16.
//!
//! Up to [`MANY`] rows, the weights are the left operand. bf16 weights are multiplied in place; others are dequantized to
//! bf16, as many at a time as fit the L2 cache. `x` is packed once, as columns, and the result is stored transposed. From
//! [`MANY`] rows on, weights are packed, straight from their stored format.

use std::arch::x86_64::*;
use std::ops::Range;

use super::dot::{self, UNIT};
use super::{Format, QuantRef};
use crate::gemm::amx::{
    Columns, Lanes, Operand, Rows, SQUARE, STEPS, STRIP, TILE, TILE_WORDS, Tiles, TransposedProduct,
    in_parts, room, transpose_words,
};
use crate::gemm::pack::Scratch;
use crate::gemm::panel_format::halves;
use crate::gemm::{Epilogue, MatRef};
use crate::parallel;
use crate::{Cpu, KernelChoice};

/// Weights dequantized at a time: 512 KiB of bf16.
const WEIGHTS: usize = 1 << 18;
/// Rows of `x` from which on packing the weights pays: packed columns are multiplied faster.
const MANY: usize = 512;

/// `y = x wᵀ + bias`, operands rounded to bf16.
///
/// # Safety
/// The machine has tiles of bf16. No size is 0, and lengths are those that [`super::matmul`] has looked at.
pub(super) unsafe fn matmul(cpu: Cpu, x: &[f32], w: QuantRef, bias: Option<&[f32]>, y: &mut [f32]) {
    let m = y.len() / w.rows;
    let tiles = tiles(w);
    if m >= MANY && cpu.kernels == KernelChoice::Fastest {
        let sizes = [m, tiles, w.rows];
        let epilogue = Epilogue { bias, accumulate: false };
        // SAFETY: the rows exist, and there is room for them.
        return unsafe {
            let pack_x = |rows, to| pack::<true>(cpu, (x, rows), w, to);
            let pack_w = |rows, to| pack_weights(cpu, w, rows, to);
            in_parts(cpu, sizes, (pack_x, pack_w), epilogue, y)
        };
    }
    let mut scratch = Scratch::take(room(m, tiles * STEPS));
    let start = scratch.pointer().cast();
    // SAFETY: there is room, and `x` has the rows.
    unsafe { pack::<false>(cpu, (x, 0..m), w, start) };
    let columns = Operand { start, tiles };
    let bias = bias.map_or(std::ptr::null(), <[f32]>::as_ptr);
    let to = Columns { to: y.as_mut_ptr(), stride: w.rows, bias };
    let product = TransposedProduct { columns, count: m, to };
    // A weight costs about as much as a vector multiply-add; tiles do thirty in that time.
    let work = w.cols + w.cols * m / 32;
    parallel::rows(cpu, w.rows, work, SQUARE, |rows| {
        // SAFETY: the caller's promise; the ranges of rows are disjoint.
        unsafe {
            let _tiles = Tiles::configure();
            multiply(w, rows, &product);
        }
    });
}

/// Tiles of a row: blocks are dequantized in whole units.
fn tiles(w: QuantRef) -> usize {
    let multiple = if w.format.block_len() > 1 { UNIT } else { STEPS };
    w.cols.next_multiple_of(multiple) / STEPS
}

/// Packs rows of `x` in the order in which `w` is dequantized, as rows of a left operand if `LANES`, else as columns of a
/// right one.
///
/// # Safety
/// The rows exist, and `to` has room for whole squares of them; the machine has tiles of bf16.
unsafe fn pack<const LANES: bool>(cpu: Cpu, (x, rows): (&[f32], Range<usize>), w: QuantRef, to: *mut u32) {
    let x = &x[rows.start * w.cols..rows.end * w.cols];
    // SAFETY: the caller's promise.
    unsafe {
        match w.format.block_len() {
            1 => Lanes::rows(MatRef::row_major(x, rows.len(), w.cols)).pack_to::<LANES>(cpu, to),
            _ => pack_in_order::<LANES>(cpu, x, w.cols, to),
        }
    }
}

/// Tiles that several threads write, each its own.
struct To(*mut u32);
// SAFETY: threads write disjoint tiles.
unsafe impl Sync for To {}

/// Packs some rows of weights as columns of a right operand.
///
/// # Safety
/// As for [`pack`].
unsafe fn pack_weights(cpu: Cpu, w: QuantRef, rows: Range<usize>, to: *mut u32) {
    let tiles = tiles(w);
    let as_they_lie = w.format == Format::Bf16 && w.cols.is_multiple_of(STEPS);
    let groups = rows.len().next_multiple_of(SQUARE) / TILE;
    let to = To(to);
    parallel::rows(cpu, groups, tiles << 10, 1, |groups| {
        let to = &to;
        let mut scratch = None;
        for group in groups {
            let part =
                (rows.start + group * TILE).min(rows.end)..rows.end.min(rows.start + (group + 1) * TILE);
            // SAFETY: existing rows are read in place or from the scratch memory; there is room for the tiles.
            unsafe {
                let (from, stride) = if as_they_lie {
                    (w.bytes(part.clone()).as_ptr(), 2 * w.cols)
                } else {
                    let stride = (tiles | 1) * 64;
                    let scratch = scratch.get_or_insert_with(|| Scratch::take(TILE * stride / 4));
                    let from = scratch.pointer().cast::<u8>();
                    write_bf16(w, part.clone(), from, stride);
                    (from.cast_const(), stride)
                };
                turn_rows((from, stride, part.len()), tiles, to.0.add(group * tiles * TILE_WORDS));
            }
        }
    });
}

/// Packs up to 16 bf16 rows, each of whole tiles.
///
/// # Safety
/// The rows are readable and `to` writable for `tiles` tiles; the machine has tiles of bf16.
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
unsafe fn turn_rows((from, stride, count): (*const u8, usize, usize), tiles: usize, to: *mut u32) {
    for tile in 0..tiles {
        // SAFETY: the caller's promise; rows that do not exist are not read.
        unsafe {
            let row = |i: usize| match i < count {
                true => _mm512_loadu_si512(from.add(i * stride + tile * 64).cast()),
                false => _mm512_setzero_si512(),
            };
            let to = to.add(tile * TILE_WORDS);
            transpose_words(row, |i, words| _mm512_store_si512(to.add(i * TILE).cast(), words));
        }
    }
}

/// # Safety
/// As for [`matmul`]; no other thread writes these rows of weights' outputs, and tiles are configured.
unsafe fn multiply(w: QuantRef, rows: Range<usize>, product: &TransposedProduct) {
    let tiles = product.columns.tiles;
    // Not a power of two of cache lines, which would map to the same cache sets.
    let stride = (tiles | 1) * 64;
    let at_a_time = (WEIGHTS / w.cols).clamp(STRIP, rows.len().max(STRIP)) / STRIP * STRIP;
    let as_they_lie = w.format == Format::Bf16 && w.cols.is_multiple_of(STEPS);
    let mut scratch = None;
    for start in rows.clone().step_by(at_a_time) {
        let part = start..rows.end.min(start + at_a_time);
        // SAFETY: rows are read where they exist in whole strips, else from the scratch memory, which has room.
        unsafe {
            let whole = if as_they_lie { part.len() / STRIP * STRIP } else { 0 };
            if whole > 0 {
                let rows = Rows { start: w.bytes(start..start + whole).as_ptr(), stride: 2 * w.cols };
                product.multiply(rows, whole, start);
            }
            let rest = start + whole..part.end;
            if !rest.is_empty() {
                let scratch = scratch.get_or_insert_with(|| Scratch::take(at_a_time * stride / 4));
                let to = scratch.pointer().cast::<u8>();
                write_bf16(w, rest.clone(), to, stride);
                product.multiply(Rows { start: to, stride }, rest.len(), rest.start);
            }
        }
    }
}

/// Writes rows as bf16, each padded with zeros to whole tiles.
///
/// # Safety
/// As for [`dot::expand`].
unsafe fn write_bf16(w: QuantRef, rows: Range<usize>, to: *mut u8, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match w.format {
            Format::F16 | Format::Bf16 => copy(w, rows, to, stride),
            _ => dot::expand(w, rows, to, stride),
        }
    }
}

/// [`write_bf16`] of f16 and bf16.
///
/// # Safety
/// As for [`dot::expand`].
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
unsafe fn copy(w: QuantRef, rows: Range<usize>, to: *mut u8, stride: usize) {
    for (n, row) in rows.enumerate() {
        let from = w.bytes(row..row + 1);
        for (at, part) in from.chunks(2 * STEPS).enumerate() {
            let mask = u32::MAX >> (STEPS - part.len() / 2);
            // SAFETY: the mask keeps within the row; the stride is whole tiles.
            unsafe {
                let bits = _mm512_maskz_loadu_epi16(mask, part.as_ptr().cast());
                let bf16 = match w.format {
                    Format::F16 => halves(
                        _mm512_cvtph_ps(_mm512_castsi512_si256(bits)),
                        _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(bits)),
                    ),
                    _ => bits,
                };
                _mm512_store_si512(to.add(n * stride + at * 64).cast(), bf16);
            }
        }
    }
}

/// [`pack`] in the order of dequantized blocks.
///
/// # Safety
/// `to` has room for the rows, as long as whole units; the machine has tiles of bf16.
unsafe fn pack_in_order<const LANES: bool>(cpu: Cpu, x: &[f32], cols: usize, to: *mut u32) {
    let tiles = cols.next_multiple_of(UNIT) / STEPS;
    let groups = (x.len() / cols).next_multiple_of(SQUARE) / TILE;
    let to = To(to);
    parallel::rows(cpu, groups, tiles << 10, 1, |groups| {
        let to = &to;
        for group in groups {
            let x = &x[(group * TILE * cols).min(x.len())..x.len().min((group + 1) * TILE * cols)];
            // SAFETY: the caller's promise.
            unsafe { pack_group::<LANES>(x, cols, to.0.add(group * tiles * TILE_WORDS)) };
        }
    });
}

/// # Safety
/// As for [`pack_in_order`], for up to 16 rows.
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
unsafe fn pack_group<const LANES: bool>(x: &[f32], cols: usize, to: *mut u32) {
    for unit in 0..cols.div_ceil(UNIT) {
        let start = unit * UNIT;
        for (half, order) in ORDER.iter().enumerate() {
            // SAFETY: rows that are missing are not read, and neither is a second run that is; there is room.
            unsafe {
                let source = _mm512_loadu_si512(order.as_ptr().cast());
                let to = to.add((2 * unit + half) * TILE_WORDS);
                let row = |i: usize| {
                    if i * cols >= x.len() {
                        return _mm512_setzero_si512();
                    }
                    let from = x.as_ptr().add(i * cols + start);
                    let first = halves(_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)));
                    let second = match start + STEPS < cols {
                        true => halves(_mm512_loadu_ps(from.add(32)), _mm512_loadu_ps(from.add(48))),
                        false => _mm512_setzero_si512(),
                    };
                    _mm512_permutex2var_epi16(first, source, second)
                };
                let store = |i: usize, words| _mm512_store_si512(to.add(i * TILE).cast(), words);
                match LANES {
                    true => (0..TILE).for_each(|i| store(i, row(i))),
                    false => transpose_words(row, store),
                }
            }
        }
    }
}

/// The element order of the tiles of a unit.
static ORDER: [[u16; STEPS]; 2] = {
    let mut order = [[0; STEPS]; 2];
    let mut place = 0;
    while place < UNIT {
        order[place / STEPS][place % STEPS] = dot::order(place) as u16;
        place += 1;
    }
    order
};
