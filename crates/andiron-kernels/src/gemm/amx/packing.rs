//! From numbers in memory to tiles of bf16.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{SQUARE, STEPS, Sums, TILE, TILE_WORDS};
use crate::Cpu;
use crate::gemm::block::Strided;
use crate::gemm::words::{bits, first, halves, interleaved};
use crate::parallel;

/// Packs lanes into tiles, those of the same lanes one after another along the depth; what is missing to whole squares
/// and tiles is 0. A row of a tile is a lane if `LANES` (the left operand), else a word of all lanes (the right one).
///
/// # Safety
/// `from` is readable for these lanes and depths, `to` writable for lanes rounded up to squares and depths to tiles;
/// tiles are available.
pub(super) unsafe fn pack<const LANES: bool>(
    cpu: Cpu,
    from: Strided,
    (lanes, depth): (usize, usize),
    to: *mut u32,
) {
    let (groups, tiles) = (lanes.next_multiple_of(SQUARE) / TILE, depth.div_ceil(STEPS));
    let packing = Packing { from, lanes, depth, tiles, to };
    // A tile takes as long as a thousand multiply-adds; what follows each other in memory is read in this order.
    if from.depth == 1 {
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

/// Lanes on their way into tiles, those of 16 lanes `tiles` long.
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

    /// Lets these lanes, whole groups of 16, be 0 for all of the depth.
    ///
    /// # Safety
    /// `to` has room for them.
    pub(crate) unsafe fn clear(&self, lanes: Range<usize>) {
        for group in lanes.start / TILE..lanes.end / TILE {
            let len = self.depth.div_ceil(STEPS) * TILE_WORDS;
            // SAFETY: the caller's promise.
            unsafe { self.to.add(group * self.tiles * TILE_WORDS).write_bytes(0, len) };
        }
    }

    /// # Safety
    /// As for [`pack`]; nobody else writes these tiles.
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
    #[inline(always)]
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
            match (from.depth, from.lane) {
                (1, _) if LANES => store(&part.lanes(), to),
                (1, _) => store(&turn(&part.lanes()), to),
                (_, 1) if LANES => store(&turn(&part.words()), to),
                (_, 1) => store(&part.words(), to),
                _ if LANES => store(&part.scattered(), to),
                _ => store(&turn(&part.scattered()), to),
            }
        }
    }
}

/// # Safety
/// `to` has room for a tile, at the start of a cache line; the machine has AVX-512F.
#[inline(always)]
unsafe fn store(rows: &[__m512i; TILE], to: *mut u32) {
    for (i, row) in rows.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { _mm512_store_si512(to.add(i * TILE).cast(), *row) };
    }
}

/// What one tile is made of: up to 16 lanes of up to 32 steps.
#[derive(Clone, Copy)]
struct Part {
    from: Strided,
    lanes: usize,
    depth: usize,
}

impl Part {
    /// The words of each lane; lanes lie along the depth.
    #[inline(always)]
    unsafe fn lanes(self) -> [__m512i; TILE] {
        let Self { from, lanes, depth } = self;
        let (low, high) = (first(depth), first(depth.saturating_sub(16)));
        // SAFETY: the masks keep within the depth of lanes that exist.
        unsafe {
            let mut rows = [_mm512_setzero_si512(); TILE];
            for (i, row) in rows.iter_mut().enumerate().take(lanes) {
                let start = from.start.wrapping_add(i * from.lane);
                let high = _mm512_maskz_loadu_ps(high, start.wrapping_add(16));
                *row = halves(_mm512_maskz_loadu_ps(low, start), high);
            }
            rows
        }
    }

    /// The lanes of each word; lanes lie side by side.
    #[inline(always)]
    unsafe fn words(self) -> [__m512i; TILE] {
        let Self { from, lanes, depth } = self;
        let mask = first(lanes);
        // SAFETY: the masks keep within the lanes of depths that exist.
        unsafe {
            let mut rows = [_mm512_setzero_si512(); TILE];
            for (word, row) in rows.iter_mut().enumerate().take(depth.div_ceil(2)) {
                let start = from.start.wrapping_add(2 * word * from.depth);
                let second = if 2 * word + 1 < depth { mask } else { 0 };
                let second = _mm512_maskz_loadu_ps(second, start.wrapping_add(from.depth));
                *row = interleaved(_mm512_maskz_loadu_ps(mask, start), second);
            }
            rows
        }
    }

    /// The words of each lane; there are gaps in both directions.
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

/// Stores the columns of a square, of which so many rows and columns exist, as rows `stride` apart.
///
/// # Safety
/// `to` is writable for them; the machine has AVX-512F.
#[inline(always)]
pub(super) unsafe fn store_turned(sums: &Sums, (rows, cols): (usize, usize), to: *mut f32, stride: usize) {
    for (i, j) in [(0, 0), (0, TILE), (TILE, 0), (TILE, TILE)] {
        // SAFETY: masks keep within the rows, and the loop within the columns.
        unsafe {
            let mut lines = [_mm512_setzero_si512(); TILE];
            for (r, line) in lines.iter_mut().enumerate() {
                *line = _mm512_loadu_si512(sums.0[2 * (i + r) + j / TILE].0.as_ptr().cast());
            }
            let mask = first(rows.saturating_sub(i));
            for (c, line) in turn(&lines).iter().enumerate().take(cols.saturating_sub(j)) {
                _mm512_mask_storeu_epi32(to.wrapping_add((j + c) * stride + i).cast(), mask, *line);
            }
        }
    }
}

/// The transpose of 16 rows of 16 words.
///
/// # Safety
/// The machine has AVX-512F.
#[inline(always)]
unsafe fn turn(rows: &[__m512i; TILE]) -> [__m512i; TILE] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut pairs = *rows;
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
        }
        // Each quarter of `fours[4 i + j]` is column `j` of that quarter, of rows `4 i..4 i + 4`.
        let mut fours = pairs;
        for i in 0..4 {
            let [a, b, c, d] = [pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]];
            fours[4 * i] = _mm512_unpacklo_epi64(a, c);
            fours[4 * i + 1] = _mm512_unpackhi_epi64(a, c);
            fours[4 * i + 2] = _mm512_unpacklo_epi64(b, d);
            fours[4 * i + 3] = _mm512_unpackhi_epi64(b, d);
        }
        let mut out = fours;
        for j in 0..4 {
            let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
            let (even, odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
            let (even_, odd_) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
            out[j] = _mm512_shuffle_i32x4::<0x88>(even, even_);
            out[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd, odd_);
            out[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even, even_);
            out[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_);
        }
        out
    }
}
