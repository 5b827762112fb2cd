//! Matmuls with AVX-512-BF16 whose operands are rounded and packed once, by all threads together.
//!
//! The left operand is read in place if its rows are words, pairs of bf16 along the depth: nothing of it is packed. The right
//! operand's panels are shared by all threads. Sums are taken in the order of [`block`](super::block), so results are the same
//! bit for bit.

use std::arch::x86_64::*;
use std::ops::Range;

use super::block::{DEPTH, Strided};
use super::pack::Scratch;
use super::panel_format::{Bf16Panels, PanelFormat};
use super::tile::{Operands, Target, tile};
use super::{Epilogue, MatRef};
use crate::Cpu;
use crate::parallel::{self, Shared};
use crate::simd::Avx512;

/// Rows and columns of a tile.
pub(crate) const MR: usize = 6;
pub(crate) const NR: usize = 64;
/// Most columns between two passes over the rows: with all of the depth's block they fit the L2 cache.
pub(crate) const COLS: usize = 384;
/// Most rows of a task.
pub(crate) const ROWS: usize = 144;
/// Most elements of an operand that are packed at once: 4 MiB of bf16.
const PACKED: usize = 1 << 21;

/// An operand: `lanes` are the rows of the left one, the columns of the right one; sums go over `depth`.
#[derive(Clone, Copy)]
pub(crate) struct Operand {
    memory: Memory,
    lanes: usize,
    depth: usize,
}

#[derive(Clone, Copy)]
enum Memory {
    F32(Strided),
    /// Words of pairs along the depth, which is even.
    Along(*const f32),
    /// Words of pairs of lanes, of which there is an even number.
    Across(*const f32),
}

// SAFETY: operands are only read.
unsafe impl Send for Operand {}
// SAFETY: as above.
unsafe impl Sync for Operand {}

impl Operand {
    /// The rows of an f32 matrix as lanes.
    pub(crate) fn rows(matrix: MatRef) -> Self {
        let start = matrix.data.as_ptr();
        let memory = Memory::F32(Strided { start, lane: matrix.row_stride, depth: matrix.col_stride });
        Self { memory, lanes: matrix.rows, depth: matrix.cols }
    }

    /// The columns of an f32 matrix as lanes.
    pub(crate) fn columns(matrix: MatRef) -> Self {
        Self::rows(matrix.t())
    }

    /// The rows of a row-major bf16 matrix, `[rows, cols]`, as lanes.
    ///
    /// # Panics
    /// If `words` is not `rows` rows of `cols`, an even number.
    pub(crate) fn rows_of_words(words: &[f32], rows: usize, cols: usize) -> Self {
        assert!(cols.is_multiple_of(2) && words.len() == rows * cols / 2, "words of {rows} x {cols} bf16");
        Self { memory: Memory::Along(words.as_ptr()), lanes: rows, depth: cols }
    }

    /// The columns of such a matrix as lanes.
    ///
    /// # Panics
    /// As [`Operand::rows_of_words`].
    pub(crate) fn columns_of_words(words: &[f32], rows: usize, cols: usize) -> Self {
        assert!(cols.is_multiple_of(2) && words.len() == rows * cols / 2, "words of {rows} x {cols} bf16");
        Self { memory: Memory::Across(words.as_ptr()), lanes: cols, depth: rows }
    }

    /// Lanes that are packed at once.
    fn chunk(&self) -> usize {
        (PACKED / self.depth.max(1)).max(COLS) / COLS * COLS
    }
}

/// Panels of `W` lanes, in blocks of the depth.
#[derive(Clone, Copy)]
pub(crate) struct Panels<const W: usize> {
    start: *const f32,
    /// A multiple of `W`.
    lanes: usize,
    /// Words.
    depth: usize,
}

// SAFETY: panels are only read, once packed.
unsafe impl<const W: usize> Send for Panels<W> {}
// SAFETY: as above.
unsafe impl<const W: usize> Sync for Panels<W> {}

/// Blocks of a depth of so many words: begin and length.
fn blocks(depth: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = depth.div_ceil(depth.div_ceil(DEPTH).max(1)).max(1);
    (0..depth).step_by(step).map(move |word| (word, step.min(depth - word)))
}

impl<const W: usize> Panels<W> {
    /// Words for the panels of `lanes` lanes of `depth` elements.
    pub(crate) fn room(lanes: usize, depth: usize) -> usize {
        lanes.next_multiple_of(W) * depth.div_ceil(2)
    }

    /// Packs the lanes `range` of an operand into `to`.
    ///
    /// # Safety
    /// The machine has AVX-512-BF16, the operand's memory is readable, `to` has the [`room`](Self::room).
    pub(crate) unsafe fn pack(cpu: Cpu, from: Operand, range: Range<usize>, to: *mut f32) -> Self {
        let depth = from.depth.div_ceil(2);
        let panels = Self { start: to, lanes: range.len().next_multiple_of(W), depth };
        // Whole panels that begin at even lanes.
        let step = if W < NR { 16 * W } else { W };
        parallel::rows(cpu, range.len(), 4 * from.depth, step, |part| {
            // SAFETY: the caller's promise; parts are whole panels, which no other part writes.
            unsafe { panels.pack_part(from, range.start, part) };
        });
        panels
    }

    /// The words of a block of the depth for the panel that begins at `lane`.
    ///
    /// # Safety
    /// There is such a panel.
    #[inline(always)]
    unsafe fn at(self, (word, count): (usize, usize), lane: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { self.start.add(word * self.lanes + lane * count) }
    }

    /// # Safety
    /// As for [`pack`](Self::pack); nobody else uses the panels of these lanes.
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn pack_part(self, from: Operand, first: usize, part: Range<usize>) {
        for (word, count) in blocks(self.depth) {
            let steps = (2 * count).min(from.depth - 2 * word);
            // SAFETY: the lanes and the depth exist, and their panels have room.
            unsafe {
                let to = self.at((word, count), part.start).cast_mut();
                let lane = first + part.start;
                match from.memory {
                    Memory::F32(Strided { start, lane: by_lane, depth }) => {
                        let start = start.add(lane * by_lane + 2 * word * depth);
                        let from = Strided { start, lane: by_lane, depth };
                        Bf16Panels::new().panels::<W>(from, part.len(), steps, to);
                    }
                    Memory::Across(words) => {
                        let start = words.cast::<u16>().add(2 * word * from.lanes + lane);
                        across::<W>((start, from.lanes), part.len(), steps, to.cast());
                    }
                    Memory::Along(_) => unreachable!("rows of words are read in place"),
                }
            }
        }
    }
}

/// Packs `lanes` lanes that are contiguous, in `depth` rows `stride` apart: two rows become one row of words.
///
/// # Safety
/// The machine has AVX-512 F and BW, `from` is readable for these sizes, `to` writable for whole panels.
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
unsafe fn across<const W: usize>(
    (from, stride): (*const u16, usize),
    lanes: usize,
    depth: usize,
    to: *mut u32,
) {
    /// Lanes and words that are interleaved before they go to their panels, so that each panel gets whole cache lines.
    const LANES: usize = 192;
    const WORDS: usize = 8;
    const { assert!(LANES / W * W == LANES) };
    let words = depth.div_ceil(2);
    let mut rows = [[0u32; LANES]; WORDS];
    for lane in (0..lanes).step_by(LANES) {
        let count = LANES.min(lanes - lane);
        let padded = count.next_multiple_of(W);
        for begin in (0..words).step_by(WORDS) {
            let here = WORDS.min(words - begin);
            for (at, row) in rows.iter_mut().enumerate().take(here) {
                let word = begin + at;
                // Lanes that fill up the last panel are 0.
                row[count..padded].fill(0);
                for at in (0..count).step_by(32) {
                    // SAFETY: masks keep the reads within `count` lanes, and `LANES` is a multiple of 32.
                    unsafe {
                        let from = from.add(2 * word * stride + lane).wrapping_add(at);
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(2 * WORDS * stride).cast());
                        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add((2 * WORDS + 1) * stride).cast());
                        let mask = (u64::MAX >> (64 - (count - at).min(32))) as __mmask32;
                        let low = _mm512_maskz_loadu_epi16(mask, from.cast());
                        let mask = if 2 * word + 1 < depth { mask } else { 0 };
                        let high = _mm512_maskz_loadu_epi16(mask, from.wrapping_add(stride).cast());
                        let [first, second] = interleaved(low, high);
                        _mm512_storeu_si512(row.as_mut_ptr().add(at).cast(), first);
                        _mm512_storeu_si512(row.as_mut_ptr().add(at + 16).cast(), second);
                    }
                }
            }
            for panel in (0..padded).step_by(W) {
                for (at, row) in rows.iter().enumerate().take(here) {
                    // SAFETY: the panel has room for its words; `panel + W` is at most `LANES`.
                    unsafe {
                        let to = to.add((lane + panel) * words + (begin + at) * W).cast::<[u32; W]>();
                        to.write_unaligned(row.as_ptr().add(panel).cast::<[u32; W]>().read_unaligned());
                    }
                }
            }
        }
    }
}

/// 32 lanes of two rows as words: lane `i` of `low`, then lane `i` of `high`.
///
/// # Safety
/// The machine has AVX-512 F and BW.
#[inline(always)]
unsafe fn interleaved(low: __m512i, high: __m512i) -> [__m512i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let first = _mm512_set_epi16(
            47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3,
            34, 2, 33, 1, 32, 0,
        );
        let second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
        [_mm512_permutex2var_epi16(low, first, high), _mm512_permutex2var_epi16(low, second, high)]
    }
}

/// A left operand that is ready to be multiplied.
#[derive(Clone, Copy)]
pub(crate) enum Left {
    /// Rows of words in memory: the first, and the words of each.
    Rows(*const f32, usize),
    /// Packed.
    Panels(Panels<MR>),
}

// SAFETY: operands are only read.
unsafe impl Send for Left {}
// SAFETY: as above.
unsafe impl Sync for Left {}

impl Left {
    /// Rows of words, `[rows, cols]`.
    pub(crate) fn rows(words: &[f32], cols: usize) -> Self {
        Self::Rows(words.as_ptr(), cols / 2)
    }
}

/// Where the result is stored: its first element, the distance of rows, and what is added.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) c: *mut f32,
    pub(crate) stride: usize,
    /// An element for each column, or null.
    pub(crate) bias: *const f32,
    pub(crate) accumulate: bool,
}

/// The product of some rows of `left` and some columns of `right`, on this thread. Rows begin at a multiple of [`MR`], columns
/// at a multiple of [`NR`].
///
/// # Safety
/// The machine has AVX-512-BF16, the operands have these rows and columns, the output is writable for them, by nobody else.
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
pub(crate) unsafe fn multiply(
    left: Left,
    right: Panels<NR>,
    (rows, cols): (Range<usize>, Range<usize>),
    to: Output,
) {
    let mut spare = [0.0; MR * DEPTH];
    for (word, k) in blocks(right.depth) {
        for j in cols.clone().step_by(COLS) {
            let j_end = cols.end.min(j + COLS);
            for i in rows.clone().step_by(MR) {
                let count = MR.min(rows.end - i);
                // SAFETY: the caller's promise.
                unsafe {
                    let to = Output {
                        c: to.c.add((i - rows.start) * to.stride + (j - cols.start)),
                        bias: match word == 0 && !to.bias.is_null() {
                            true => to.bias.add(j - cols.start),
                            false => std::ptr::null(),
                        },
                        accumulate: to.accumulate || word > 0,
                        ..to
                    };
                    let (panels, cols) = (right.at((word, k), j), j_end - j);
                    match left {
                        Left::Panels(left) => {
                            strip((left.at((word, k), i), 1, MR), (count, k), (panels, cols), to);
                        }
                        Left::Rows(start, words) if count == MR => {
                            strip((start.add(i * words + word), words, 1), (count, k), (panels, cols), to);
                        }
                        Left::Rows(start, words) => {
                            // A tile reads rows that do not exist.
                            for row in 0..count {
                                let from = start.add((i + row) * words + word);
                                for at in 0..k {
                                    spare[at * MR + row] = *from.add(at);
                                }
                            }
                            strip((spare.as_ptr(), 1, MR), (count, k), (panels, cols), to);
                        }
                    }
                }
            }
        }
    }
}

/// Up to [`MR`] rows times consecutive panels.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn strip(
    (a, a_lane, a_step): (*const f32, usize, usize),
    (rows, k): (usize, usize),
    (panels, cols): (*const f32, usize),
    to: Output,
) {
    for j in (0..cols).step_by(NR) {
        // SAFETY: the caller's promise.
        unsafe {
            let (s, format) = (Avx512::new(), Bf16Panels::new());
            let operands = Operands { k, a, a_lane, a_step, b: panels.add(j * k), b_step: NR };
            let target = Target {
                c: to.c.add(j),
                stride: to.stride,
                rows,
                cols: NR.min(cols - j),
                bias: if to.bias.is_null() { to.bias } else { to.bias.add(j) },
                accumulate: to.accumulate,
            };
            tile::<_, _, MR, 4>(s, format, operands, target);
        }
    }
}

/// Strips of rows, at most [`ROWS`] each: whole tiles but for the last, and as even as those allow. If there are enough rows, the
/// number of strips is a multiple of four, which threads can share evenly.
pub(crate) fn strips(rows: usize) -> usize {
    let tiles = rows.div_ceil(MR);
    tiles.div_ceil(ROWS / MR).next_multiple_of(4).min(tiles)
}

/// The rows of strip `at` of [`strips`].
pub(crate) fn strip_rows(rows: usize, at: usize) -> Range<usize> {
    let (tiles, strips) = (rows.div_ceil(MR), strips(rows));
    let begin = |at: usize| (at * tiles / strips * MR).min(rows);
    begin(at)..begin(at + 1)
}

/// `c = a b`, plus `bias` in every row, plus the old `c` if `accumulate`.
///
/// # Panics
/// If the sizes do not agree.
///
/// # Safety
/// The machine has AVX-512-BF16, and the operands are readable as far as their sizes say.
pub(crate) unsafe fn matmul(cpu: Cpu, a: Operand, b: Operand, epilogue: Epilogue, c: &mut [f32]) {
    let (m, n, depth) = (a.lanes, b.lanes, a.depth);
    assert!(b.depth == depth && c.len() == m * n, "{m} x {depth} by {} x {n} to {}", b.depth, c.len());
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == n), "bias does not have one element per column");
    assert!(!matches!(b.memory, Memory::Along(_)), "rows of words are left operands");
    if m == 0 || n == 0 || depth == 0 {
        if !epilogue.accumulate {
            c.fill(0.0);
        }
        if let (Some(bias), true) = (epilogue.bias, n > 0) {
            c.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(bias).for_each(|(c, bias)| *c += bias));
        }
        return;
    }
    let in_place = matches!(a.memory, Memory::Along(_));
    let (m_step, n_step) = (if in_place { m } else { a.chunk().min(m) }, b.chunk().min(n));
    let left_room = if in_place { 0 } else { Panels::<MR>::room(m_step, depth).next_multiple_of(16) };
    let mut scratch = Scratch::take(left_room + Panels::<NR>::room(n_step, depth));
    let left_start = scratch.pointer();
    let right_start = left_start.wrapping_add(left_room);
    let to = Shared::new(c);
    for i in (0..m).step_by(m_step) {
        let m_step = m_step.min(m - i);
        let left = match a.memory {
            Memory::Along(words) => Left::Rows(words, depth / 2),
            // SAFETY: the caller's promise; the scratch memory was sized for it.
            _ => Left::Panels(unsafe { Panels::pack(cpu, a, i..i + m_step, left_start) }),
        };
        for j in (0..n).step_by(n_step) {
            let n_step = n_step.min(n - j);
            // SAFETY: as above.
            let right = unsafe { Panels::pack(cpu, b, j..j + n_step, right_start) };
            let row_parts = strips(m_step);
            // Few rows: columns make the tasks.
            let cols = if row_parts >= 8 { n_step } else { COLS };
            let col_parts = n_step.div_ceil(cols);
            parallel::tasks(cpu, row_parts * col_parts, |part| {
                let (rows, col) = (strip_rows(m_step, part / col_parts), part % col_parts * cols);
                let output = Output {
                    c: to.pointer((i + rows.start) * n + j + col),
                    stride: n,
                    bias: epilogue.bias.map_or(std::ptr::null(), |bias| bias[j + col..].as_ptr()),
                    accumulate: epilogue.accumulate,
                };
                // SAFETY: all is packed, and the parts of the result are disjoint.
                unsafe { multiply(left, right, (rows, col..n_step.min(col + cols)), output) };
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm;
    use crate::testing::numbers;
    use crate::{Bf16Dot, Isa, Precision};

    /// Compares every combination of operands with the matmul that packs them block by block.
    #[track_caller]
    fn check(m: usize, k: usize, n: usize) {
        if Isa::best() < Isa::Avx512Bf16 {
            return;
        }
        let cpu = Cpu::new(Isa::Avx512Bf16, 1).at(Precision::Mixed).with_bf16_dot(Bf16Dot::Native);
        let (a, b, bias, old) = (numbers(1, m * k), numbers(2, k * n), numbers(3, n), numbers(4, m * n));
        let transposed = |from: &[f32], rows: usize, cols: usize| -> Vec<f32> {
            (0..rows * cols).map(|at| from[at % rows * cols + at / rows]).collect()
        };
        let (a_t, b_t) = (transposed(&a, m, k), transposed(&b, k, n));
        let words = |x: &[f32]| {
            let mut words = vec![f32::NAN; x.len() / 2];
            crate::bf16::round(cpu, &x[..x.len() / 2 * 2], &mut words);
            words
        };
        let [a_words, a_t_words, b_words] = [&a, &a_t, &b].map(|x| words(x));
        let mut left = vec![
            Operand::rows(MatRef::row_major(&a, m, k)),
            Operand::rows(MatRef::row_major(&a_t, k, m).t()),
        ];
        if k.is_multiple_of(2) {
            left.push(Operand::rows_of_words(&a_words, m, k));
        }
        if m.is_multiple_of(2) {
            left.push(Operand::columns_of_words(&a_t_words, k, m));
        }
        let mut right = vec![
            Operand::columns(MatRef::row_major(&b, k, n)),
            Operand::columns(MatRef::row_major(&b_t, n, k).t()),
        ];
        if n.is_multiple_of(2) {
            right.push(Operand::columns_of_words(&b_words, k, n));
        }
        for epilogue in [Epilogue::default(), Epilogue { bias: Some(&bias), accumulate: true }] {
            let mut wanted = old.clone();
            gemm::blocked(
                (cpu, Precision::Mixed),
                MatRef::row_major(&a, m, k),
                MatRef::row_major(&b, k, n),
                epilogue,
                &mut wanted,
            );
            for (left_at, left) in left.iter().enumerate() {
                for (right_at, right) in right.iter().enumerate() {
                    for threads in [1, 2, 3] {
                        let mut found = old.clone();
                        // SAFETY: this machine has the instructions, and the operands have the sizes said.
                        unsafe { matmul(Cpu { threads, ..cpu }, *left, *right, epilogue, &mut found) };
                        assert!(found == wanted, "{m} x {k} x {n}: {left_at} {right_at}, {threads} threads");
                    }
                }
            }
        }
    }

    #[test]
    fn every_operand_gives_the_bits_of_the_other_matmul() {
        for (m, k, n) in
            [(6, 2, 64), (1, 1, 1), (5, 7, 3), (12, 64, 70), (149, 30, 130), (160, 800, 66), (7, 1601, 10)]
        {
            check(m, k, n);
        }
        check(300, 100, 400);
        check(2, 34, 1000);
        check(1000, 3, 2);
    }

    #[test]
    fn strips_are_even_and_cover_all_rows() {
        for rows in [1, 5, 6, 7, 40, 143, 145, 600, 2048, 5000] {
            let all: Vec<_> = (0..strips(rows)).map(|at| strip_rows(rows, at)).collect();
            assert_eq!((all[0].start, all[all.len() - 1].end), (0, rows));
            assert!(all.windows(2).all(|two| two[0].end == two[1].start && two[0].end.is_multiple_of(MR)));
            let lens = || all.iter().map(|strip| strip.len());
            let (least, most) = (lens().min().unwrap_or(0), lens().max().unwrap_or(0));
            assert!(least > 0 && most <= ROWS && most - least < 2 * MR, "{rows}: {least} to {most}");
        }
        assert_eq!(strips(2048), 16);
    }

    #[test]
    fn an_empty_sum_is_the_bias() {
        if Isa::best() < Isa::Avx512Bf16 {
            return;
        }
        let cpu = Cpu::new(Isa::Avx512Bf16, 1);
        let mut c = [7.0; 4];
        let (a, b) = (MatRef::row_major(&[], 2, 0), MatRef::row_major(&[], 0, 2));
        let epilogue = Epilogue { bias: Some(&[1.0, 2.0]), accumulate: false };
        // SAFETY: nothing is read.
        unsafe { matmul(cpu, Operand::rows(a), Operand::columns(b), epilogue, &mut c) };
        assert_eq!(c, [1.0, 2.0, 1.0, 2.0]);
    }
}
