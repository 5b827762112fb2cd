//! bf16 matmul with AMX tiles.
//!
//! A tile register holds 16 rows of 64 bytes. One instruction multiplies 16 rows of 16 words (two bf16 each) by 16
//! words of 16 columns and adds to 16 x 16 f32 accumulators. Both operands are packed into such tiles, contiguous along
//! the depth; four tiles of accumulators (32 x 32) stay in registers, so that each loaded tile is used twice.
//!
//! Source: Intel, "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 1, chapter 18.

mod packing;
mod square;
mod transposed;

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::block::Strided;
use super::pack::{Parts, Scratch};
use super::{Epilogue, MatRef};
use crate::Cpu;
use crate::parallel::{self, Shared};
use packing::pack;
use square::{Factors, Pair, Square, Start};

pub(crate) use packing::{Packing, pack_both_ways, room_for_both, store_transposed, transpose_words};
pub(crate) use square::{Sums, Tiles};
pub(crate) use transposed::{Columns, Rows, STRIP, TransposedProduct};

/// Lanes of a tile (rows or columns), and words of each.
pub(crate) const TILE: usize = 16;
/// Steps of the depth in a tile.
pub(crate) const STEPS: usize = 2 * TILE;
/// Words of a tile.
pub(crate) const TILE_WORDS: usize = TILE * TILE;
/// Rows and columns whose accumulators stay in registers.
pub(crate) const SQUARE: usize = 2 * TILE;
/// Depth of a block, in tiles: 32 rows and 32 columns of that depth just fill the L1 cache, and accumulators are not
/// loaded and stored too often.
const DEPTH: usize = 12;
/// Most columns, and most elements, of a thread's rectangle: with the operands of a block they fill two thirds of the L2
/// cache. It is wide, so that the result is written in long rows.
const COLS: usize = 1024;
const SUMS: usize = 1 << 17;
/// Elements of either operand that are packed at a time: 8 MiB of bf16.
const PACKED: usize = 1 << 22;

/// Whether this process may use bf16 and int8 tiles. It asks the operating system: their state is 8 KiB a thread.
pub(crate) fn available() -> bool {
    let leaf = __cpuid_count(7, 0);
    let [bf16, tiles, bytes] = [22, 24, 25].map(|bit| leaf.edx >> bit & 1);
    bf16 & tiles & bytes == 1 && permitted()
}

#[cfg(all(target_os = "linux", not(miri)))]
fn permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the system call takes two numbers and touches no memory of ours.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn permitted() -> bool {
    false
}

/// `c = a b`, operands rounded to bf16.
///
/// # Safety
/// [`available`] said yes on this machine; the shapes are those of [`super::matmul`], which has checked that the operands
/// lie in their slices.
pub(super) unsafe fn matmul(cpu: Cpu, a: MatRef, b: MatRef, epilogue: Epilogue, c: &mut [f32]) {
    let tiles = a.cols.div_ceil(STEPS);
    let packing = |matrix: MatRef, lanes: Range<usize>, to: *mut u32| {
        let start = matrix.data[lanes.start * matrix.row_stride..].as_ptr();
        let from = Strided { start, lane: matrix.row_stride, depth: matrix.col_stride };
        Packing { from, lanes: lanes.len(), depth: matrix.cols, tiles, to }
    };
    // SAFETY: the lanes exist, and `in_parts` has room for them.
    unsafe {
        let pack_a = |rows, to| pack::<true>(cpu, packing(a, rows, to));
        let pack_b = |columns, to| pack::<false>(cpu, packing(b.t(), columns, to));
        in_parts(cpu, [a.rows, tiles, b.cols], (pack_a, pack_b), epilogue, c);
    }
}

/// A matmul of `[m, depth]` tiles of rows and `[depth, n]` tiles of columns. As much of both operands as fits
/// [`PACKED`] is packed at a time, each element once, before anything is multiplied, since packing takes most of the
/// time. The packing functions get a range of rows or columns and room for whole squares of them.
///
/// # Safety
/// [`available`] said yes on this machine; the packing functions fill the room; `c` is `[m, n]`, and the bias is as wide.
pub(crate) unsafe fn in_parts(
    cpu: Cpu,
    [m, depth, n]: [usize; 3],
    (pack_a, pack_b): (impl Fn(Range<usize>, *mut u32), impl Fn(Range<usize>, *mut u32)),
    epilogue: Epilogue,
    c: &mut [f32],
) {
    let at_a_time = |lanes: usize| lanes.min((PACKED / (depth * STEPS)).max(SQUARE) / SQUARE * SQUARE);
    let (rows, cols) = (at_a_time(m), at_a_time(n));
    let [a_room, b_room] = [rows, cols].map(|lanes| room(lanes, depth * STEPS));
    let mut scratch = Scratch::take(a_room + b_room);
    let a_packed = scratch.pointer().cast::<u32>();
    // SAFETY: the scratch memory has room for both.
    let b_packed = unsafe { a_packed.add(a_room) };
    let c = Shared::new(c);
    for i in (0..m).step_by(rows) {
        let rows = i..m.min(i + rows);
        pack_a(rows.clone(), a_packed);
        for j in (0..n).step_by(cols) {
            let cols = j..n.min(j + cols);
            pack_b(cols.clone(), b_packed);
            let product = Product {
                m: rows.len(),
                n: cols.len(),
                depth,
                a: Operand { start: a_packed, tiles: depth },
                b: Operand { start: b_packed, tiles: depth },
                c: c.pointer(i * n + j),
                c_stride: n,
                bias: epilogue.bias.map_or(std::ptr::null(), |bias| bias[j..].as_ptr()),
                accumulate: epilogue.accumulate,
            };
            // SAFETY: both operands are packed.
            unsafe { product.multiply(cpu) };
        }
    }
}

/// Lanes of a matrix, packed over their whole depth.
pub(crate) struct Lanes {
    from: Strided,
    lanes: usize,
    depth: usize,
}

impl Lanes {
    /// The rows.
    pub(crate) fn rows(matrix: MatRef) -> Self {
        let from = Strided { start: matrix.data.as_ptr(), lane: matrix.row_stride, depth: matrix.col_stride };
        Self { from, lanes: matrix.rows, depth: matrix.cols }
    }

    /// The columns.
    pub(crate) fn columns(matrix: MatRef) -> Self {
        Self::rows(matrix.t())
    }

    /// Packs them, as rows of a left operand if `LANES`, else as columns of a right one.
    ///
    /// # Safety
    /// The matrix lives and lies in its slice; tiles are available.
    pub(crate) unsafe fn pack<const LANES: bool>(self, cpu: Cpu, parts: &mut Parts) -> Operand {
        let tiles = self.depth.div_ceil(STEPS);
        let to = parts.take(room(self.lanes, self.depth)).cast::<u32>();
        // SAFETY: the caller's promise, and there is room.
        unsafe { self.pack_to::<LANES>(cpu, to) };
        Operand { start: to, tiles }
    }

    /// The same, into memory of the caller.
    ///
    /// # Safety
    /// As for [`pack`](Self::pack); there is [`room`] for the lanes.
    pub(crate) unsafe fn pack_to<const LANES: bool>(self, cpu: Cpu, to: *mut u32) {
        let Self { from, lanes, depth } = self;
        // SAFETY: the caller's promise.
        unsafe { pack::<LANES>(cpu, Packing { from, lanes, depth, tiles: depth.div_ceil(STEPS), to }) };
    }

    /// Packs the lanes of two matrices as columns of one right operand, interleaved: 16 of the first, 16 of the second,
    /// and so on.
    ///
    /// # Safety
    /// As for [`pack`](Self::pack); both have as many lanes of one depth.
    pub(crate) unsafe fn pack_in_turn(both: [Self; 2], cpu: Cpu, parts: &mut Parts) -> Operand {
        let (to, tiles) =
            (parts.take(2 * room(both[0].lanes, both[0].depth)).cast::<u32>(), both[0].depth.div_ceil(STEPS));
        for (at, Self { from, lanes, depth }) in both.into_iter().enumerate() {
            // SAFETY: the caller's promise, and there is room; each matrix fills the groups that the other leaves out.
            unsafe {
                let to = to.add(at * tiles * TILE_WORDS);
                pack::<false>(cpu, Packing { from, lanes, depth, tiles: 2 * tiles, to });
            }
        }
        Operand { start: to, tiles }
    }
}

/// Words that lanes of this depth take when packed.
pub(crate) fn room(lanes: usize, depth: usize) -> usize {
    lanes.next_multiple_of(SQUARE) * depth.div_ceil(STEPS) * TILE
}

/// A packed operand: groups of 16 lanes, each `tiles` tiles deep.
#[derive(Clone, Copy)]
pub(crate) struct Operand {
    pub(crate) start: *const u32,
    pub(crate) tiles: usize,
}

impl Operand {
    /// The tiles from this one on.
    ///
    /// # Safety
    /// The tile exists.
    #[inline(always)]
    pub(crate) unsafe fn from(self, lane: usize, tile: usize) -> Self {
        // SAFETY: the caller's promise.
        Self { start: unsafe { self.start.add((lane / TILE * self.tiles + tile) * TILE_WORDS) }, ..self }
    }

    /// Two rows of tiles from the first one on.
    #[inline(always)]
    fn pair(self) -> Pair {
        let second = self.start.wrapping_add(self.tiles * TILE_WORDS);
        Pair { first: self.start.cast(), second: second.cast(), line: 4 * TILE, step: 4 * TILE_WORDS }
    }
}

/// A matmul of packed operands.
pub(crate) struct Product {
    pub(crate) m: usize,
    pub(crate) n: usize,
    /// In tiles; at least 1.
    pub(crate) depth: usize,
    pub(crate) a: Operand,
    pub(crate) b: Operand,
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    /// Null if there is none.
    pub(crate) bias: *const f32,
    pub(crate) accumulate: bool,
}

// SAFETY: what the pointers reach is read by all, and written in rectangles that are disjoint.
unsafe impl Sync for Product {}

impl Product {
    /// Whether the whole depth, in tiles, is one block.
    pub(crate) fn in_one_go(depth: usize) -> bool {
        depth <= DEPTH
    }

    /// # Safety
    /// `a` and `b` hold what the sizes say, `c` is writable by nobody else; tiles are available.
    pub(crate) unsafe fn multiply(&self, cpu: Cpu) {
        self.rectangles(cpu, |rows, cols| {
            // SAFETY: the caller's promise; rectangles are disjoint, and a thread uses tiles for one at a time.
            unsafe {
                let _tiles = Tiles::configure();
                self.rectangle(rows, cols);
            }
        });
    }

    /// The same, storing the transposed result: its rows, `c_stride` apart, are the columns of `b`. No bias, no
    /// accumulation.
    ///
    /// # Safety
    /// As for [`multiply`](Self::multiply).
    pub(crate) unsafe fn multiply_transposed(&self, cpu: Cpu) {
        self.rectangles(cpu, |rows, cols| {
            // SAFETY: as above; what has tiles has the vectors.
            unsafe {
                let _tiles = Tiles::configure();
                self.rectangle_transposed(rows, cols);
            }
        });
    }

    /// Multiplies `m` rows by `n` columns and stores the result row-major or column-major.
    ///
    /// # Safety
    /// The operands hold them, at one depth; `to` has `m * n` elements; tiles are available.
    pub(crate) unsafe fn store_all(
        cpu: Cpu,
        (a, m): (Operand, usize),
        (b, n): (Operand, usize),
        by_rows: bool,
        to: &mut [f32],
    ) {
        let (c, c_stride) = (to.as_mut_ptr(), if by_rows { n } else { m });
        let product =
            Self { m, n, depth: a.tiles, a, b, c, c_stride, bias: std::ptr::null(), accumulate: false };
        // SAFETY: the caller's promise.
        unsafe {
            match by_rows {
                true => product.multiply(cpu),
                false => product.multiply_transposed(cpu),
            }
        }
    }

    /// # Safety
    /// As for [`rectangle`](Self::rectangle).
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn rectangle_transposed(&self, rows: Range<usize>, cols: Range<usize>) {
        let &Self { m, n, depth, a, b, c, c_stride, .. } = self;
        let width = cols.len().next_multiple_of(SQUARE);
        let waiting = if Self::in_one_go(depth) { 0 } else { rows.len().next_multiple_of(SQUARE) * width };
        let mut scratch = Scratch::take(waiting);
        // SAFETY: the caller's promise; lanes and tiles exist.
        unsafe {
            let part = Self {
                m: rows.len(),
                n: cols.len(),
                a: a.from(rows.start, 0),
                b: b.from(cols.start, 0),
                c: scratch.pointer(),
                c_stride: width,
                ..*self
            };
            part.squares(0..rows.len(), 0..cols.len(), |i, j, sums, taken| {
                if taken.end < SQUARE {
                    return;
                }
                let (i, j) = (rows.start + i, cols.start + j);
                let exist = (SQUARE.min(m - i), SQUARE.min(n - j));
                store_transposed(sums, exist, (c.add(j * c_stride + i), c_stride), |_, line| line);
            });
        }
    }

    /// Calls `rectangle` with rows and columns that together cover the result, on several threads.
    fn rectangles(&self, cpu: Cpu, rectangle: impl Fn(Range<usize>, Range<usize>) + Sync) {
        /// Multiply-adds that are worth another thread (about 5 µs).
        const THREAD_WORK: usize = 1 << 22;
        let work = self.m * self.n * self.depth * STEPS;
        let cpu = Cpu { threads: cpu.threads.min(work / THREAD_WORK).max(1), ..cpu };
        let (rows, cols) = cut(self.m, self.n, cpu.threads);
        let (row_parts, col_parts) = (self.m.div_ceil(rows), self.n.div_ceil(cols));
        parallel::tasks(cpu, row_parts * col_parts, |part| {
            let (i, j) = (part % row_parts * rows, part / row_parts * cols);
            rectangle(i..self.m.min(i + rows), j..self.n.min(j + cols));
        });
    }

    /// Computes a rectangle that begins at multiples of [`SQUARE`], on this thread.
    ///
    /// # Safety
    /// `a` and `b` hold what the sizes say, and no other thread writes this rectangle of `c`; tiles are configured.
    pub(crate) unsafe fn rectangle(&self, rows: Range<usize>, cols: Range<usize>) {
        let &Self { depth, a, b, c, c_stride, bias, accumulate, .. } = self;
        let step = depth.div_ceil(depth.div_ceil(DEPTH));
        for tile in (0..depth).step_by(step) {
            let first = tile == 0;
            for i in rows.clone().step_by(SQUARE) {
                for j in cols.clone().step_by(SQUARE) {
                    // SAFETY: all indices are within the operands.
                    unsafe {
                        let square = Square {
                            factors: Factors {
                                a: a.from(i, tile).pair(),
                                b: b.from(j, tile),
                                depth: step.min(depth - tile),
                            },
                            c: c.add(i * c_stride + j),
                            c_stride,
                            rows: SQUARE.min(rows.end - i),
                            cols: SQUARE.min(cols.end - j),
                            bias: if first && !bias.is_null() { bias.add(j) } else { std::ptr::null() },
                            accumulate: accumulate || !first,
                        };
                        square.multiply();
                    }
                }
            }
        }
    }
}

/// Rows and columns of the rectangles with the shortest total time.
fn cut(m: usize, n: usize, threads: usize) -> (usize, usize) {
    /// What reading a row or a column costs, in elements of the result.
    const READ: usize = 32;
    let step = |lanes: usize, parts: usize| lanes.div_ceil(parts).next_multiple_of(SQUARE);
    let fewest_cols = n.div_ceil(COLS);
    let cuts = (fewest_cols..fewest_cols + threads).flat_map(|col_parts| {
        let cols = step(n, col_parts);
        let fewest_rows = m.div_ceil((SUMS / cols).max(SQUARE));
        (fewest_rows..2 * fewest_rows + threads).map(move |row_parts| (step(m, row_parts), cols))
    });
    let time = |&(rows, cols): &(usize, usize)| {
        let rounds = (m.div_ceil(rows) * n.div_ceil(cols)).div_ceil(threads);
        rounds * (rows * cols + READ * (rows + cols))
    };
    cuts.min_by_key(time).unwrap_or((m, n))
}

impl Product {
    /// Computes a rectangle as [`rectangle`](Self::rectangle) does, and hands every finished square to `take` instead
    /// of storing it, with its first row and column: an even number of its rows at a time, in order, while the next
    /// square is being multiplied. `c` is room for accumulators that wait for the rest of the depth, unless that is
    /// [one block](Self::in_one_go); `bias` has an element for every column of whole squares, and nothing is
    /// accumulated.
    ///
    /// # Safety
    /// As for [`rectangle`](Self::rectangle), `c` being writable for whole squares.
    #[inline(always)]
    pub(crate) unsafe fn squares(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        mut take: impl FnMut(usize, usize, &Sums, Range<usize>),
    ) {
        let &Self { depth, a, b, c, c_stride, bias, .. } = self;
        let mut sums = [const { MaybeUninit::<Sums>::uninit() }; 2];
        // Which rows of the previous square are due, and where that square is.
        let (mut at, mut finished) = (0, None);
        let step = depth.div_ceil(depth.div_ceil(DEPTH));
        for tile in (0..depth).step_by(step) {
            let steps = step.min(depth - tile);
            for i in rows.clone().step_by(SQUARE) {
                for j in cols.clone().step_by(SQUARE) {
                    let waiting = c.wrapping_add(i * c_stride + j);
                    let start = match (tile, bias.is_null()) {
                        (0, true) => Start::Zero,
                        (0, false) => Start::Rows { from: bias.wrapping_add(j), stride: 0 },
                        _ => Start::Rows { from: waiting, stride: c_stride },
                    };
                    let [first, second] = &mut sums;
                    let (before, next) = if at == 0 { (first, second) } else { (second, first) };
                    let is_last = tile + step >= depth;
                    let to = if is_last { (next.as_mut_ptr().cast(), SQUARE) } else { (waiting, c_stride) };
                    // SAFETY: all indices are within the operands; a square that is finished has been stored whole.
                    unsafe {
                        let factors = Factors { a: a.from(i, tile).pair(), b: b.from(j, tile), depth: steps };
                        factors.run(start, to, |step| {
                            if let Some((i, j)) = finished {
                                let row = |step: usize| step * SQUARE / steps / 2 * 2;
                                take(i, j, before.assume_init_ref(), row(step)..row(step + 1));
                            }
                        });
                    }
                    finished = None;
                    if is_last {
                        at = 1 - at;
                        finished = Some((i, j));
                    }
                }
            }
        }
        if let Some((i, j)) = finished {
            // SAFETY: as above.
            take(i, j, unsafe { sums[at].assume_init_ref() }, 0..SQUARE);
        }
    }
}
