//! The tile registers, and the square of accumulators that they hold.

use std::arch::asm;

use super::{Operand, SQUARE, TILE, TILE_WORDS};
use crate::gemm::pack::Line;
use crate::simd::Simd;

/// Configured tile registers: eight of 16 rows of 64 bytes.
pub(crate) struct Tiles;

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    pub(super) rows: [u8; 16],
}

impl Tiles {
    /// # Safety
    /// Tiles are available; nobody else on this thread uses tiles until the value is dropped.
    pub(crate) unsafe fn configure() -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::shaped([(TILE as u8, 4 * TILE as u16); 8]) }
    }

    /// The same with a shape for every tile: rows, and bytes of each.
    ///
    /// # Safety
    /// As for [`configure`](Self::configure).
    pub(crate) unsafe fn shaped(shapes: [(u8, u16); 8]) -> Self {
        let mut config =
            TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (tile, (rows, bytes)) in shapes.into_iter().enumerate() {
            (config.rows[tile], config.row_bytes[tile]) = (rows, bytes);
        }
        // SAFETY: the instruction exists and reads 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) };
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the instruction exists where a value was made. A thread without tiles is cheaper to switch.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Up to [`SQUARE`] rows and columns of the result.
#[derive(Clone, Copy)]
pub(super) struct Square {
    pub(super) factors: Factors,
    pub(super) c: *mut f32,
    pub(super) c_stride: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) bias: *const f32,
    pub(super) accumulate: bool,
}

/// Two rows of tiles in memory.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) first: *const u8,
    pub(super) second: *const u8,
    /// Bytes from a lane of a tile to the next.
    pub(super) line: usize,
    /// Bytes from a tile to the next along the depth.
    pub(super) step: usize,
}

/// The operands of a square.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    pub(super) a: Pair,
    pub(super) b: Operand,
    /// In tiles.
    pub(super) depth: usize,
}

/// Initial values of the accumulators.
#[derive(Clone, Copy)]
pub(super) enum Start {
    Zero,
    /// Rows `stride` elements apart.
    Rows {
        from: *const f32,
        stride: usize,
    },
}

impl Square {
    /// # Safety
    /// The factors have two rows of tiles each, `c` and `bias` what [`Product`] says; tiles are configured.
    #[inline(always)]
    pub(super) unsafe fn multiply(self) {
        let Self { factors, c, c_stride, rows, cols, bias, accumulate } = self;
        let whole = rows == SQUARE && cols == SQUARE;
        // SAFETY: the caller's promise; what starts from one row has a stride of 0.
        unsafe {
            match (bias.is_null(), accumulate) {
                (true, false) if whole => factors.run(Start::Zero, (c, c_stride), |_| ()),
                (true, true) if whole => {
                    factors.run(Start::Rows { from: c, stride: c_stride }, (c, c_stride), |_| ())
                }
                (false, false) if whole => {
                    factors.run(Start::Rows { from: bias, stride: 0 }, (c, c_stride), |_| ())
                }
                _ => self.at_an_edge(),
            }
        }
    }

    /// The same through a buffer of a whole square.
    ///
    /// # Safety
    /// As for [`multiply`](Self::multiply).
    #[inline(never)]
    unsafe fn at_an_edge(self) {
        let Self { factors, c, c_stride, rows, cols, bias, accumulate } = self;
        let mut room = [Line([0.0; 16]); 2 * SQUARE];
        let room: *mut f32 = room.as_mut_ptr().cast();
        // SAFETY: rows and columns that exist are read and written; the room has all.
        unsafe {
            for i in 0..rows {
                for j in 0..cols {
                    let bias = if bias.is_null() { 0.0 } else { *bias.add(j) };
                    let old = if accumulate { *c.add(i * c_stride + j) } else { 0.0 };
                    *room.add(i * SQUARE + j) = old + bias;
                }
            }
            factors.run(Start::Rows { from: room, stride: SQUARE }, (room, SQUARE), |_| ());
            for i in 0..rows {
                std::ptr::copy_nonoverlapping(room.add(i * SQUARE), c.add(i * c_stride), cols);
            }
        }
    }
}

impl Factors {
    /// `to = start + a b`. `meanwhile` is called after every step of the depth: its instructions overlap with the tile
    /// multiplication.
    ///
    /// # Safety
    /// `a` and `b` have two rows of `depth` tiles each; tiles are configured; `start` is readable and `to` writable for
    /// all rows and columns of a square.
    #[inline(always)]
    pub(super) unsafe fn run(
        self,
        start: Start,
        (to, to_stride): (*mut f32, usize),
        mut meanwhile: impl FnMut(usize),
    ) {
        let Self { a, b, depth } = self;
        // SAFETY: the caller's promise. The compiler never uses tiles, so that they keep their sums between the blocks.
        unsafe {
            start.load();
            for step in 0..depth {
                asm!(
                    "tileloadd tmm4, [{a0} + {a_line}]",
                    "tileloadd tmm6, [{b0} + {line}]",
                    "tileloadd tmm7, [{b1} + {line}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{a1} + {a_line}]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    a0 = in(reg) a.first.add(step * a.step),
                    a1 = in(reg) a.second.add(step * a.step),
                    a_line = in(reg) a.line,
                    b0 = in(reg) b.start.add(step * TILE_WORDS),
                    b1 = in(reg) b.start.add((b.tiles + step) * TILE_WORDS),
                    line = in(reg) 64usize,
                    options(nostack, readonly, preserves_flags),
                );
                meanwhile(step);
            }
            store(to, to_stride);
        }
    }
}

impl Start {
    /// Loads the accumulator tiles.
    ///
    /// # Safety
    /// The rows are readable; tiles are configured.
    #[inline(always)]
    unsafe fn load(self) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Start::Zero => asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nostack, nomem, preserves_flags),
                ),
                Start::Rows { from, stride } => asm!(
                    "tileloadd tmm0, [{upper} + {step}]",
                    "tileloadd tmm1, [{upper} + {step} + 64]",
                    "tileloadd tmm2, [{lower} + {step}]",
                    "tileloadd tmm3, [{lower} + {step} + 64]",
                    upper = in(reg) from,
                    lower = in(reg) from.add(TILE * stride),
                    step = in(reg) 4 * stride,
                    options(nostack, readonly, preserves_flags),
                ),
            }
        }
    }
}

/// Stores the accumulator tiles, rows `stride` elements apart.
///
/// # Safety
/// `to` is writable for a square; tiles are configured.
#[inline(always)]
unsafe fn store(to: *mut f32, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tilestored [{upper} + {step}], tmm0",
            "tilestored [{upper} + {step} + 64], tmm1",
            "tilestored [{lower} + {step}], tmm2",
            "tilestored [{lower} + {step} + 64], tmm3",
            upper = in(reg) to,
            lower = in(reg) to.add(TILE * stride),
            step = in(reg) 4 * stride,
            options(nostack, preserves_flags),
        );
    }
}

/// The elements of a square, row-major, in the L1 cache.
pub(crate) struct Sums(pub(super) [Line; SQUARE * SQUARE / 16]);

impl Sums {
    /// Row `row`, in two halves.
    #[inline(always)]
    pub(crate) fn row<S: Simd>(&self, s: S, row: usize) -> (S::Vector, S::Vector) {
        let [low, high] = [&self.0[2 * row].0, &self.0[2 * row + 1].0];
        (s.load(low), s.load(high))
    }
}
