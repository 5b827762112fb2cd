//! Matmul whose left operand is bf16 rows in place, and whose result is stored transposed.
//!
//! A tile loads its lanes with a stride, and the lanes of a left operand are rows. So rows that are bf16 already need no
//! packing.

use std::arch::asm;
use std::arch::x86_64::*;

use super::packing::transpose_words;
use super::square::{Factors, Pair, Start, Sums};
use super::{Operand, SQUARE, TILE};
use crate::gemm::pack::Line;
use crate::gemm::panel_format::first;

/// Rows multiplied at a time if there are at most [`TILE`] columns.
pub(crate) const STRIP: usize = 4 * TILE;

/// bf16 rows whose length is whole tiles.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) start: *const u8,
    /// Bytes from a row to the next.
    pub(crate) stride: usize,
}

impl Rows {
    /// The rows from this one on.
    pub(crate) fn from(self, row: usize) -> Self {
        Self { start: self.start.wrapping_add(row * self.stride), ..self }
    }

    /// The first rows, those of two tiles.
    fn pair(self) -> Pair {
        Pair { first: self.start, second: self.from(TILE).start, line: self.stride, step: 4 * TILE }
    }

    /// Multiplies [`STRIP`] rows by [`TILE`] columns, row-major.
    ///
    /// # Safety
    /// The rows and `b` are `depth` tiles long; tiles are configured.
    #[inline(always)]
    unsafe fn column(self, b: Operand, depth: usize, sums: &mut [Line; STRIP]) {
        // SAFETY: the caller's promise; the sums have room for four tiles.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm6, [{b} + {line}]",
                "tileloadd tmm4, [{a0} + {stride}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {stride}]",
                "tdpbf16ps tmm1, tmm5, tmm6",
                "tileloadd tmm4, [{a2} + {stride}]",
                "tdpbf16ps tmm2, tmm4, tmm6",
                "tileloadd tmm5, [{a3} + {stride}]",
                "tdpbf16ps tmm3, tmm5, tmm6",
                "add {a0}, 64",
                "add {a1}, 64",
                "add {a2}, 64",
                "add {a3}, 64",
                "add {b}, 1024",
                "dec {depth}",
                "jnz 2b",
                "tilestored [{to} + {line}], tmm0",
                "tilestored [{to} + {line} + 1024], tmm1",
                "tilestored [{to} + {line} + 2048], tmm2",
                "tilestored [{to} + {line} + 3072], tmm3",
                a0 = inout(reg) self.start => _,
                a1 = inout(reg) self.from(TILE).start => _,
                a2 = inout(reg) self.from(2 * TILE).start => _,
                a3 = inout(reg) self.from(3 * TILE).start => _,
                b = inout(reg) b.start => _,
                depth = inout(reg) depth => _,
                stride = in(reg) self.stride,
                line = in(reg) 64usize,
                to = in(reg) sums.as_mut_ptr(),
                options(nostack),
            );
        }
    }
}

/// Where columns of the result are stored, as rows.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub(crate) to: *mut f32,
    /// Elements from a column to the next.
    pub(crate) stride: usize,
    /// Added to every column, an element per row of the result; null if there is none.
    pub(crate) bias: *const f32,
}

// SAFETY: `bias` is only read, and every row of sums is stored by one thread.
unsafe impl Sync for Columns {}

impl Columns {
    /// From this row and column of the result on.
    pub(crate) fn from(self, row: usize, column: usize) -> Self {
        let to = self.to.wrapping_add(column * self.stride + row);
        Self { to, bias: if self.bias.is_null() { self.bias } else { self.bias.wrapping_add(row) }, ..self }
    }

    /// Stores the rows and columns of a square that exist.
    ///
    /// # Safety
    /// As for [`store`](Self::store).
    #[inline]
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn store_square(self, sums: &Sums, rows: usize, cols: usize) {
        for (i, j) in [(0, 0), (0, TILE), (TILE, 0), (TILE, TILE)] {
            let line = |row: usize| &sums.0[2 * (i + row) + j / TILE];
            // SAFETY: the caller's promise, for a tile of the square; lines are vectors.
            unsafe {
                let row = |row: usize| _mm512_load_si512(line(row).0.as_ptr().cast());
                self.from(i, j).store(row, rows.saturating_sub(i), cols.saturating_sub(j));
            }
        }
    }

    /// Stores sixteen rows and columns, as far as they exist.
    ///
    /// # Safety
    /// `to` is writable for those that exist, and `bias` has an element for each of the rows; the machine has the
    /// vectors that come with tiles.
    #[inline]
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    pub(crate) unsafe fn store(self, row: impl Fn(usize) -> __m512i, rows: usize, cols: usize) {
        let mask = first(rows);
        // SAFETY: masks keep within the rows, and columns that do not exist are not stored.
        unsafe {
            let bias = match self.bias.is_null() {
                true => _mm512_setzero_ps(),
                false => _mm512_maskz_loadu_ps(mask, self.bias),
            };
            transpose_words(row, |column, sums| {
                if column < cols {
                    let sums = _mm512_add_ps(_mm512_castsi512_ps(sums), bias);
                    _mm512_mask_storeu_ps(self.to.add(column * self.stride), mask, sums);
                }
            });
        }
    }
}

/// A matmul with packed columns.
pub(crate) struct TransposedProduct {
    pub(crate) columns: Operand,
    /// How many there are.
    pub(crate) count: usize,
    pub(crate) to: Columns,
}

// SAFETY: the columns are only read.
unsafe impl Sync for TransposedProduct {}

impl TransposedProduct {
    /// Multiplies `count` rows, of which the first is `row` in the result.
    ///
    /// # Safety
    /// `rows` are readable in whole multiples of [`STRIP`] and as long as the columns. The result has these rows, and
    /// no other thread writes them. Tiles are configured.
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    pub(crate) unsafe fn multiply(&self, rows: Rows, count: usize, row: usize) {
        let depth = self.columns.tiles;
        let mut strip = [Line([0.0; 16]); STRIP];
        let mut square = Sums([Line([0.0; 16]); SQUARE * SQUARE / 16]);
        for j in (0..self.count).step_by(SQUARE) {
            let (to, cols) = (self.to.from(row, j), self.count - j);
            // SAFETY: the columns exist, and the rest is the caller's promise.
            unsafe {
                let b = self.columns.from(j, 0);
                if cols <= TILE {
                    for i in (0..count).step_by(STRIP) {
                        rows.from(i).column(b, depth, &mut strip);
                        for (tile, lines) in strip.as_chunks::<TILE>().0.iter().enumerate() {
                            let i = i + tile * TILE;
                            let line = |row: usize| _mm512_load_si512(lines[row].0.as_ptr().cast());
                            to.from(i, 0).store(line, count.saturating_sub(i), cols);
                        }
                    }
                } else {
                    for i in (0..count).step_by(SQUARE) {
                        let factors = Factors { a: rows.from(i).pair(), b, depth };
                        factors.run(Start::Zero, (square.0.as_mut_ptr().cast(), SQUARE), |_| ());
                        to.from(i, 0).store_square(&square, count - i, cols);
                    }
                }
            }
        }
    }
}
