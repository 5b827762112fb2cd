//! Packs f32 matrices into bf16 tiles.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Operand, SQUARE, STEPS, Sums, TILE, TILE_WORDS, room};
use crate::Cpu;
use crate::gemm::MatRef;
use crate::gemm::block::Strided;
use crate::gemm::pack::Parts;
use crate::gemm::panel_format::{bits, first, halves, interleaved};
use crate::parallel;

/// Packs lanes into tiles that are contiguous along the depth, filled up with 0 to whole squares and tiles. A row of a
/// tile is a lane if `LANES` (the left operand), else one word of every lane (the right operand).
///
/// # Safety
/// `from` is readable for these lanes and depths, `to` writable for lanes rounded up to squares and depths to tiles;
/// tiles are available.
pub(super) unsafe fn pack<const LANES: bool>(cpu: Cpu, packing: Packing) {
    let (groups, tiles) = (packing.lanes.next_multiple_of(SQUARE) / TILE, packing.depth.div_ceil(STEPS));
    // A tile takes as long as a thousand multiply-adds; memory is read in order.
    if packing.from.depth == 1 {
        parallel::rows(cpu, groups, tiles << 10, 1, |groups| {
            // SAFETY: the caller's promise; what has tiles of bf16 has the vector instructions.
            groups.for_each(|group| unsafe { packing.tiles::<LANES>(group..group + 1, 0..tiles) });
        });
    } else {
        parallel::rows(cpu, tiles, groups << 10, 1, |tiles| {
            // SAFETY: as above.
            tiles.for_each(|tile| unsafe { packing.tiles::<LANES>(0..groups, tile..tile + 1) });
        });
    }
}

/// Lanes to be packed; each group of 16 lanes begins `tiles` tiles after the previous one.
pub(crate) struct Packing {
    pub(crate) from: Strided,
    pub(crate) lanes: usize,
    pub(crate) depth: usize,
    pub(crate) tiles: usize,
    pub(crate) to: *mut u32,
}

// SAFETY: `from` is only read, and every tile of `to` is written by one thread.
unsafe impl Sync for Packing {}

impl Packing {
    /// Packs all on this thread, as rows of the left operand if `LANES`, else as columns of the right one.
    ///
    /// # Safety
    /// As for [`pack`].
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    pub(crate) unsafe fn run<const LANES: bool>(&self) {
        let groups = self.lanes.next_multiple_of(SQUARE) / TILE;
        // SAFETY: the caller's promise.
        unsafe { self.tiles::<LANES>(0..groups, 0..self.depth.div_ceil(STEPS)) };
    }

    /// # Safety
    /// As for [`pack`]; no other thread writes these tiles.
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn tiles<const LANES: bool>(&self, groups: Range<usize>, tiles: Range<usize>) {
        for group in groups {
            for tile in tiles.clone() {
                // SAFETY: the caller's promise.
                unsafe { self.tile::<LANES>(group, tile) };
            }
        }
    }

    /// # Safety
    /// As for [`tiles`](Self::tiles), on a machine that has them.
    #[inline]
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn tile<const LANES: bool>(&self, group: usize, tile: usize) {
        let (from, lane, l) = (self.from, group * TILE, tile * STEPS);
        let part = Part {
            from: Strided { start: from.start.wrapping_add(lane * from.lane + l * from.depth), ..from },
            lanes: TILE.min(self.lanes.saturating_sub(lane)),
            depth: STEPS.min(self.depth - l),
        };
        // SAFETY: a part reads only the lanes and depths that exist; the tile has room.
        unsafe {
            let to = self.to.add((group * self.tiles + tile) * TILE_WORDS);
            let store = |i: usize, row| _mm512_store_si512(to.add(i * TILE).cast(), row);
            match (from.depth, from.lane) {
                (1, _) if LANES => (0..TILE).for_each(|i| store(i, part.lane(i))),
                (1, _) => transpose_words(|i| part.lane(i), store),
                (_, 1) if LANES => transpose_words(|i| part.word(i), store),
                (_, 1) => (0..TILE).for_each(|i| store(i, part.word(i))),
                _ => {
                    let lanes = part.scattered();
                    if LANES {
                        (0..TILE).for_each(|i| store(i, lanes[i]));
                    } else {
                        transpose_words(|i| lanes[i], store);
                    }
                }
            }
        }
    }
}

/// A matrix packed twice: by its rows, as a left operand, and by its columns.
pub(crate) struct BothWays {
    pub(crate) rows: Operand,
    /// Lanes are the columns, the depth is the rows.
    pub(crate) columns: Operand,
}

/// Squares of rows that are packed and summed at a time.
const ROW_TILES: usize = 4;

/// Words that [`pack_both_ways`] takes from `parts`.
pub(crate) fn room_for_both(rows: usize, cols: usize) -> usize {
    let sums = rows.div_ceil(ROW_TILES * SQUARE) * cols.next_multiple_of(SQUARE);
    room(rows, cols) + room(cols, rows) + sums + 3 * TILE
}

/// Packs a matrix by its rows, as a left operand, and by its columns, as a left operand if `LANES` and a right one
/// otherwise, in one pass that also writes the column sums to `sums`.
///
/// # Safety
/// `from` lies in its slice and is row-major, `sums` has an element for each column; tiles are available.
pub(crate) unsafe fn pack_both_ways<const LANES: bool>(
    cpu: Cpu,
    from: MatRef,
    sums: Option<&mut [f32]>,
    parts: &mut Parts,
) -> BothWays {
    let MatRef { rows, cols, .. } = from;
    let [by_rows, by_columns] = [room(rows, cols), room(cols, rows)].map(|len| parts.take(len).cast::<u32>());
    let (width, row_tiles) = (cols.next_multiple_of(SQUARE), rows.div_ceil(STEPS));
    let count = row_tiles.div_ceil(ROW_TILES);
    let partial = Sheet(parts.take(count * width));
    let packing = PackingBothWays { from, by_rows, by_columns, row_tiles };
    // A tile takes as long as a thousand multiply-adds.
    parallel::rows(cpu, count, (2 * ROW_TILES * width / TILE) << 10, 1, |range| {
        for at in range {
            let tiles = at * ROW_TILES..row_tiles.min((at + 1) * ROW_TILES);
            // SAFETY: the caller's promise, and each part has tiles and sums of its own.
            unsafe { packing.run::<LANES>(tiles, partial.row(at * width)) };
        }
    });
    if let Some(sums) = sums {
        sums.fill(0.0);
        for at in 0..count {
            // SAFETY: all parts have been summed.
            let partial = unsafe { std::slice::from_raw_parts(partial.row(at * width), cols) };
            sums.iter_mut().zip(partial).for_each(|(sum, x)| *sum += x);
        }
    }
    BothWays {
        rows: Operand { start: by_rows, tiles: cols.div_ceil(STEPS) },
        columns: Operand { start: by_columns, tiles: row_tiles },
    }
}

/// Column sums that several threads write, each its own.
struct Sheet(*mut f32);

// SAFETY: threads write disjoint rows.
unsafe impl Sync for Sheet {}

impl Sheet {
    fn row(&self, start: usize) -> *mut f32 {
        self.0.wrapping_add(start)
    }
}

struct PackingBothWays<'a> {
    from: MatRef<'a>,
    by_rows: *mut u32,
    by_columns: *mut u32,
    row_tiles: usize,
}

// SAFETY: every tile is written by one thread.
unsafe impl Sync for PackingBothWays<'_> {}

impl PackingBothWays<'_> {
    /// Packs the rows of these tiles and writes the column sums to `sums`.
    ///
    /// # Safety
    /// As for [`pack_both_ways`]; no other thread writes these tiles and sums.
    #[allow(clippy::needless_range_loop)] // Iterators keep the arrays out of registers, which is a tenth slower.
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn run<const LANES: bool>(&self, tiles: Range<usize>, sums: *mut f32) {
        let &Self { from: MatRef { data, rows, cols, row_stride, .. }, by_rows, by_columns, row_tiles } =
            self;
        let col_tiles = cols.div_ceil(STEPS);
        // SAFETY: masks keep within the rows and columns that exist, the rooms are as large as whole tiles.
        unsafe {
            sums.write_bytes(0, col_tiles * SQUARE);
            for tile in tiles {
                for col_tile in 0..col_tiles {
                    let (first_row, col) = (tile * STEPS, col_tile * STEPS);
                    let load = |row: usize, half: usize| {
                        let col = col + half * TILE;
                        let mask = if first_row + row < rows { first(cols.saturating_sub(col)) } else { 0 };
                        let at = data.as_ptr().wrapping_add((first_row + row) * row_stride + col);
                        _mm512_maskz_loadu_ps(mask, at)
                    };
                    let mut words = [[_mm512_setzero_si512(); TILE]; 2];
                    let mut sum = [_mm512_setzero_ps(); 2];
                    for pair in 0..TILE {
                        let (even, odd) = (2 * pair, 2 * pair + 1);
                        let pairs = [[load(even, 0), load(odd, 0)], [load(even, 1), load(odd, 1)]];
                        for odd in 0..2 {
                            let row = 2 * pair + odd;
                            let to = (tile * 2 + row / TILE) * col_tiles + col_tile;
                            let to = by_rows.add(to * TILE_WORDS + row % TILE * TILE);
                            _mm512_store_si512(to.cast(), halves(pairs[0][odd], pairs[1][odd]));
                        }
                        for half in 0..2 {
                            let [even, odd] = pairs[half];
                            words[half][pair] = interleaved(even, odd);
                            sum[half] = _mm512_add_ps(sum[half], _mm512_add_ps(even, odd));
                        }
                    }
                    for half in 0..2 {
                        let to = by_columns.add(((col_tile * 2 + half) * row_tiles + tile) * TILE_WORDS);
                        let store = |i: usize, row| _mm512_store_si512(to.add(i * TILE).cast(), row);
                        match LANES {
                            true => transpose_words(|i| words[half][i], store),
                            false => (0..TILE).for_each(|i| store(i, words[half][i])),
                        }
                        let to = sums.add(col + half * TILE);
                        _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to), sum[half]));
                    }
                }
            }
        }
    }
}

/// The source of one tile: up to 16 lanes of up to 32 steps.
#[derive(Clone, Copy)]
struct Part {
    from: Strided,
    lanes: usize,
    depth: usize,
}

impl Part {
    /// The words of a lane; the depth is contiguous.
    #[inline]
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn lane(self, lane: usize) -> __m512i {
        let Self { from, lanes, depth } = self;
        // No load with an empty mask: on an unmapped page that takes a thousand cycles.
        if lane >= lanes {
            return _mm512_setzero_si512();
        }
        let start = from.start.wrapping_add(lane * from.lane);
        // SAFETY: the masks keep within the depth of lanes that exist.
        unsafe {
            let low = _mm512_maskz_loadu_ps(first(depth), start);
            halves(low, _mm512_maskz_loadu_ps(first(depth.saturating_sub(16)), start.wrapping_add(16)))
        }
    }

    /// The lanes of a word; lanes are contiguous.
    #[inline]
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn word(self, word: usize) -> __m512i {
        let Self { from, lanes, depth } = self;
        let start = from.start.wrapping_add(2 * word * from.depth);
        let mask = |step: usize| if step < depth { first(lanes) } else { 0 };
        // SAFETY: the masks keep within the lanes of depths that exist.
        unsafe {
            let even = _mm512_maskz_loadu_ps(mask(2 * word), start);
            interleaved(even, _mm512_maskz_loadu_ps(mask(2 * word + 1), start.wrapping_add(from.depth)))
        }
    }

    /// The words of each lane; both strides are above 1.
    #[inline(never)]
    unsafe fn scattered(self) -> [__m512i; TILE] {
        let Self { from, lanes, depth } = self;
        let mut rows = [[0u32; TILE]; TILE];
        for (lane, row) in rows.iter_mut().enumerate().take(lanes) {
            for l in 0..depth {
                // SAFETY: the lane and the depth exist.
                let x = unsafe { *from.start.add(lane * from.lane + l * from.depth) };
                row[l / 2] |= u32::from(bits(x)) << (l % 2 * 16);
            }
        }
        // SAFETY: both are 16 rows of 64 bytes.
        unsafe { std::mem::transmute::<[[u32; TILE]; TILE], [__m512i; TILE]>(rows) }
    }
}

/// Stores the existing columns of a square as rows `stride` apart; `change` maps each 16 elements of a column.
///
/// # Safety
/// `to` is writable for them; the machine has AVX-512F.
#[inline]
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
pub(crate) unsafe fn store_transposed(
    sums: &Sums,
    (rows, cols): (usize, usize),
    (to, stride): (*mut f32, usize),
    change: impl Fn(usize, __m512) -> __m512,
) {
    for (i, j) in [(0, 0), (0, TILE), (TILE, 0), (TILE, TILE)] {
        let mask = first(rows.saturating_sub(i));
        // SAFETY: masks keep within the rows and columns.
        unsafe {
            transpose_words(
                |r| _mm512_loadu_si512(sums.0[2 * (i + r) + j / TILE].0.as_ptr().cast()),
                |c, line| {
                    let mask = if j + c < cols { mask } else { 0 };
                    let to = to.wrapping_add((j + c) * stride + i);
                    _mm512_mask_storeu_ps(to, mask, change(j + c, _mm512_castsi512_ps(line)));
                },
            );
        }
    }
}

/// Transposes 16 rows of 16 words and hands the columns to `store`. It needs at most 20 vectors at a time, so that all
/// stay in registers.
///
/// # Safety
/// The caller is compiled for AVX-512F.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // Constant indices keep the arrays in registers.
pub(crate) unsafe fn transpose_words(row: impl Fn(usize) -> __m512i, store: impl Fn(usize, __m512i)) {
    // Each quarter of `fours[i][j]` is column `j` of that quarter, of rows `4 i..4 i + 4`. (`array::map` is not always
    // inlined, and then passes vectors through memory.)
    // SAFETY: the caller's promise.
    unsafe {
        let mut fours = [[_mm512_setzero_si512(); 4]; 4];
        for i in 0..4 {
            let (a, b, c, d) = (row(4 * i), row(4 * i + 1), row(4 * i + 2), row(4 * i + 3));
            let (ab, ab_) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd, cd_) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            fours[i] = [
                _mm512_unpacklo_epi64(ab, cd),
                _mm512_unpackhi_epi64(ab, cd),
                _mm512_unpacklo_epi64(ab_, cd_),
                _mm512_unpackhi_epi64(ab_, cd_),
            ];
        }
        for j in 0..4 {
            let (a, b, c, d) = (fours[0][j], fours[1][j], fours[2][j], fours[3][j]);
            let (even, odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
            let (even_, odd_) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
            store(j, _mm512_shuffle_i32x4::<0x88>(even, even_));
            store(4 + j, _mm512_shuffle_i32x4::<0x88>(odd, odd_));
            store(8 + j, _mm512_shuffle_i32x4::<0xdd>(even, even_));
            store(12 + j, _mm512_shuffle_i32x4::<0xdd>(odd, odd_));
        }
    }
}
