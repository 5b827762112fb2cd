//! Matmul of `q8_0` weights with up to sixteen rows, with AMX tiles of int8.
//!
//! Sixteen rows of weights are a left operand in place: 32 bytes of each row, at a fixed stride. `x`, quantized by
//! [`round`], is the right one. A tile multiplication is one block deep; its integer sums are converted to f32, scaled, and
//! added to those of the previous blocks.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::factors::round;
use crate::Cpu;
use crate::gemm::amx::{Columns, TILE, Tiles};
use crate::gemm::pack::{Line, Scratch};
use crate::parallel;
use crate::quant::QuantRef;

/// More rows than this are left to bf16 tiles: the cost of scaling grows with the rows of `x`, that of converting weights to
/// bf16 does not.
pub(in crate::quant) const MAX_ROWS: usize = TILE;

/// Wider rows are left to bf16 tiles, too: the offsets of sixteen of them must fit 32 bits.
pub(in crate::quant) const MAX_COLS: usize = 1 << 26;

/// Values of a block, and its bytes, of which the first two are the scale.
const BLOCK: usize = 32;
const BYTES: usize = 34;

/// The part of all rows of `x` that one block is multiplied by.
#[repr(C, align(64))]
struct Run {
    /// Four values of each row, then the next four.
    numbers: [[u32; TILE]; BLOCK / 4],
    scales: Line,
}

/// `y = x wᵀ + bias`, `x` quantized to int8.
///
/// # Safety
/// The machine has tiles and the weights are `q8_0`; no size is 0, `x` has at most [`MAX_ROWS`] rows of at most
/// [`MAX_COLS`] columns, and the lengths were checked by [`crate::quant::matmul`].
pub(in crate::quant) unsafe fn matmul(cpu: Cpu, x: &[f32], w: QuantRef, bias: Option<&[f32]>, y: &mut [f32]) {
    // Blocks are multiplied in pairs.
    let runs = (w.cols() / BLOCK).next_multiple_of(2);
    let mut scratch = Scratch::take(runs * size_of::<Run>() / 4);
    // SAFETY: the room is aligned to a cache line, and any bits are valid elements; the machine has the vectors.
    let columns = unsafe {
        let columns = std::slice::from_raw_parts_mut(scratch.pointer().cast::<Run>(), runs);
        pack(x, w.cols(), columns);
        &*columns
    };
    let bias = bias.map_or(std::ptr::null(), <[f32]>::as_ptr);
    let to = Columns { to: y.as_mut_ptr(), stride: w.rows(), bias };
    let product = Product { columns, m: x.len() / w.cols(), w, to };
    // A weight costs about as much as a vector multiply-add.
    parallel::rows(cpu, w.rows(), w.cols(), TILE, |rows| {
        // SAFETY: the caller's promise; the ranges of rows are disjoint.
        unsafe { product.multiply(rows) };
    });
}

/// Quantizes the rows of `x`, padded with zeros.
///
/// # Safety
/// The machine has the vectors that come with tiles.
#[target_feature(enable = "avx512vl,avx512bw,avx512f,avx2,fma")]
unsafe fn pack(x: &[f32], cols: usize, columns: &mut [Run]) {
    for (i, x) in x.chunks_exact(cols).enumerate() {
        let mut runs = x.as_chunks().0.iter();
        for to in &mut *columns {
            let (numbers, scale) = round(runs.next().unwrap_or(&[0.0; BLOCK]));
            for (to, four) in to.numbers.iter_mut().zip(numbers.as_chunks::<4>().0) {
                to[i] = u32::from_ne_bytes(four.map(|x| x as u8));
            }
            to.scales.0[i] = scale;
        }
    }
}

struct Product<'a> {
    columns: &'a [Run],
    m: usize,
    w: QuantRef<'a>,
    to: Columns,
}

impl Product<'_> {
    /// # Safety
    /// The machine has tiles, and no other thread writes the products of these rows.
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn multiply(&self, rows: Range<usize>) {
        let Self { columns, m, w, to } = *self;
        let sums = (TILE as u8, 4 * TILE as u16);
        let (left, right) = ((TILE as u8, BLOCK as u16), (BLOCK as u8 / 4, 4 * TILE as u16));
        // SAFETY: the caller's promise; whoever called uses no tiles.
        let _tiles = unsafe { Tiles::shaped([sums, sums, left, left, right, right, sums, sums]) };
        let (own, padded) = (w.cols() / BLOCK * BYTES, columns.len() * BYTES);
        let mut scratch = Scratch::take(columns.len() * TILE);
        let scales = scratch.pointer();
        let mut room = None;
        for start in rows.clone().step_by(TILE) {
            let part = start..rows.end.min(start + TILE);
            let count = part.len();
            let bytes = w.bytes(part);
            // SAFETY: blocks are read where all exist, else from room for sixteen rows of them.
            unsafe {
                let sums = if count == TILE && own == padded {
                    strip(columns, bytes.as_ptr(), own, scales)
                } else {
                    let room = room.get_or_insert_with(|| vec![0; TILE * padded]);
                    for (to, row) in room.chunks_exact_mut(padded).zip(bytes.chunks_exact(own)) {
                        to[..own].copy_from_slice(row);
                    }
                    strip(columns, room.as_ptr(), padded, scales)
                };
                to.from(start, 0).store(|row| _mm512_castps_si512(sums[row]), count, m);
            }
        }
    }
}

/// Multiplies sixteen rows of weights, `stride` bytes apart, by sixteen rows of `x`.
///
/// # Safety
/// The weights have as many blocks as there are runs, and `scales` has room for one of each; tiles have the shapes that
/// [`Product::multiply`] gives them.
#[inline]
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
unsafe fn strip(columns: &[Run], weights: *const u8, stride: usize, scales: *mut f32) -> [__m512; TILE] {
    /// Pairs of blocks whose sums are in flight from the tiles.
    const AHEAD: usize = 2;
    /// A power of two above that.
    const WAITING: usize = 4;
    let rows = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let rows = _mm512_mullo_epi32(rows, _mm512_set1_epi32(stride as i32));
    for run in 0..columns.len() {
        // SAFETY: each row has such a block, of which four bytes are read.
        unsafe {
            let heads = _mm512_i32gather_epi32::<1>(rows, weights.add(run * BYTES).cast());
            _mm512_store_ps(scales.add(run * TILE), _mm512_cvtph_ps(_mm512_cvtepi32_epi16(heads)));
        }
    }
    let mut products = [[[Line([0.0; 16]); TILE]; 2]; WAITING];
    let mut sums = [_mm512_setzero_ps(); TILE];
    let pairs = columns.len() / 2;
    for pair in 0..pairs + AHEAD {
        // SAFETY: both blocks of the pair exist; lines are vectors.
        unsafe {
            if pair < pairs {
                // The next rows are contiguous to these, with as many bytes.
                let ahead = weights.wrapping_add(TILE * (stride + pair * 2 * BYTES));
                for line in (0..TILE * 2 * BYTES).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line).cast());
                }
                asm!(
                    "tilezero tmm0",
                    "tileloadd tmm2, [{a} + {stride} + 2]",
                    "tileloadd tmm4, [{b} + {line}]",
                    "tdpbssd tmm0, tmm2, tmm4",
                    "tilezero tmm1",
                    "tileloadd tmm3, [{a} + {stride} + 36]",
                    "tileloadd tmm5, [{b} + {line} + 576]",
                    "tdpbssd tmm1, tmm3, tmm5",
                    "tilestored [{to} + {line}], tmm0",
                    "tilestored [{to} + {line} + 1024], tmm1",
                    a = in(reg) weights.add(pair * 2 * BYTES),
                    b = in(reg) columns[2 * pair..].as_ptr(),
                    to = in(reg) products[pair % WAITING].as_mut_ptr(),
                    stride = in(reg) stride,
                    line = in(reg) 64usize,
                    options(nostack, preserves_flags),
                );
            }
            if let Some(pair) = pair.checked_sub(AHEAD) {
                for (half, products) in products[pair % WAITING].iter().enumerate() {
                    let run = 2 * pair + half;
                    let x_scales = _mm512_load_ps(columns[run].scales.0.as_ptr());
                    for row in 0..TILE {
                        let product = _mm512_cvtepi32_ps(_mm512_load_si512(products[row].0.as_ptr().cast()));
                        let scale = _mm512_mul_ps(x_scales, _mm512_set1_ps(*scales.add(run * TILE + row)));
                        sums[row] = _mm512_fmadd_ps(product, scale, sums[row]);
                    }
                }
            }
        }
    }
    sums
}
