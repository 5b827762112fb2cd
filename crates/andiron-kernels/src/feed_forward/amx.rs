//! With AMX tiles of bf16: a strip of rows at a time passes through both projections.
//!
//! A square of accumulators is stored to the L1 cache, activated there, and written as packed operand of the next matmul,
//! so that nothing between the projections is packed separately or written as f32.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{FeedForward, FeedForwardGrads};
use crate::activation::{Function, with_function};
use crate::gemm::MatRef;
use crate::gemm::amx::{
    Lanes, Operand, Product, SQUARE, STEPS, TILE, TILE_WORDS, Tiles, pack_both_ways, room, room_for_both,
};
use crate::gemm::pack::{Parts, Scratch};
use crate::gemm::panel_format::{halves, interleaved};
use crate::parallel::{self, Shared};
use crate::simd::{Avx512, Simd};
use crate::{Cpu, bf16};

/// Most rows of a strip, and most columns of the first projections at a time: the intermediate values, the weights before
/// and after them, and the result fill two thirds of the L2 cache.
const STRIP: usize = 256;
const COLS: usize = 384;
/// Strips that a call is cut into, if they are long enough: a count that threads can share evenly.
const STRIPS: usize = 8;

/// Tiles that several threads write, each its own.
#[derive(Clone, Copy)]
struct Room(*mut u32);

// SAFETY: threads write disjoint tiles.
unsafe impl Send for Room {}
// SAFETY: as above.
unsafe impl Sync for Room {}

impl Room {
    /// Row `row` of tile number `tile` of its lanes, which are `tiles` tiles deep.
    ///
    /// # Safety
    /// There is such a tile.
    #[inline(always)]
    unsafe fn row(self, lane: usize, tiles: usize, tile: usize, row: usize) -> *mut __m512i {
        // SAFETY: the caller's promise.
        unsafe { self.0.add((lane / TILE * tiles + tile) * TILE_WORDS + row * TILE).cast() }
    }
}

fn strips(rows: usize) -> (usize, usize) {
    let strip = rows.div_ceil(STRIPS).next_multiple_of(SQUARE).min(STRIP);
    (strip, rows.div_ceil(strip))
}

/// Columns of the first projections together, in whole squares: in a gated layer, 16 of the gate and 16 of up alternate.
fn width(layer: &FeedForward) -> usize {
    layer.up.cols.next_multiple_of(SQUARE) * if layer.gate.is_some() { 2 } else { 1 }
}

/// Words for the columns of some rows; of the input, too, if its width is even.
pub(super) fn saved_len(layer: &FeedForward, rows: usize) -> usize {
    room(rows, width(layer)) + if saves_input(layer) { rows * layer.up.rows / 2 } else { 0 }
}

/// Whether the input is saved, too, rounded.
pub(super) fn saves_input(layer: &FeedForward) -> bool {
    layer.up.rows.is_multiple_of(2)
}

/// # Safety
/// The machine has tiles of bf16; no size is 0, and all are those that [`super::forward`] has looked at.
pub(super) unsafe fn forward(
    cpu: Cpu,
    layer: &FeedForward,
    [up_bias, down_bias]: [Option<&[f32]>; 2],
    x: &[f32],
    saved: Option<&mut [f32]>,
    y: &mut [f32],
) {
    let (d_input, d_inner, d_output) = (layer.up.rows, layer.up.cols, layer.down.cols);
    let rows = x.len() / d_input;
    let width = width(layer);
    let bias_len = if up_bias.is_some() { width } else { 0 };
    let len = room(rows, d_input) + room(width, d_input) + room(d_output, d_inner) + bias_len + 4 * 16;
    let mut scratch = Scratch::take(len);
    let mut parts = Parts::new(&mut scratch, len);
    // SAFETY: the maps and the input are as long as said, and the parts were made for them.
    let forward = unsafe {
        let x_rows = x;
        let x = Lanes::rows(MatRef::row_major(x, rows, d_input)).pack::<true>(cpu, &mut parts);
        let up = Lanes::columns(layer.up);
        let up = match layer.gate {
            Some(gate) => Lanes::pack_in_turn([Lanes::columns(gate), up], cpu, &mut parts),
            None => up.pack::<false>(cpu, &mut parts),
        };
        let down = Lanes::columns(layer.down).pack::<false>(cpu, &mut parts);
        let bias = up_bias.map(|up_bias| {
            let bias = parts.take(bias_len);
            std::slice::from_raw_parts_mut(bias, bias_len).fill(0.0);
            bias.copy_from_nonoverlapping(up_bias.as_ptr(), d_inner);
            bias.cast_const()
        });
        let saved = saved.map(|saved| {
            let (before, x_words) = saved.split_at_mut(room(rows, width));
            if saves_input(layer) {
                bf16::round(cpu, x_rows, x_words);
            }
            Room(before.as_mut_ptr().cast())
        });
        let down_bias = down_bias.map(<[f32]>::as_ptr);
        Forward { x, up, bias, down, down_bias, saved, width, d_output }
    };
    let (strip, strips) = strips(rows);
    let y = Shared::new(y);
    parallel::tasks(cpu, strips, |at| {
        let rows = at * strip..rows.min((at + 1) * strip);
        let y = y.pointer(rows.start * d_output);
        // SAFETY: all is packed, and strips are disjoint.
        unsafe {
            let _tiles = Tiles::configure();
            with_function!(layer.activation, f => match layer.gate {
                Some(_) => forward.strip::<_, true>(f, rows, y),
                None => forward.strip::<_, false>(f, rows, y),
            });
        }
    });
}

struct Forward {
    x: Operand,
    up: Operand,
    bias: Option<*const f32>,
    down: Operand,
    down_bias: Option<*const f32>,
    saved: Option<Room>,
    width: usize,
    d_output: usize,
}

// SAFETY: what the pointers reach is read by all; each thread saves rows of its own.
unsafe impl Sync for Forward {}

impl Forward {
    /// # Safety
    /// The operands hold what the sizes say, `saved` has room, no other thread writes these rows of it or of `y`; tiles are
    /// configured.
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn strip<F: Function, const GATED: bool>(&self, f: F, rows: Range<usize>, y: *mut f32) {
        let &Self { x, up, bias, down, down_bias, saved, width, d_output } = self;
        let tiles = width / STEPS;
        let count = rows.len();
        let sums_len = if Product::in_one_go(x.tiles) { 0 } else { STRIP * COLS };
        let len = room(count, COLS) + sums_len + 2 * 16;
        let mut scratch = Scratch::take(len);
        let mut parts = Parts::new(&mut scratch, len);
        let inner = Room(parts.take(room(count, COLS)).cast());
        let sums = parts.take(sums_len);
        // SAFETY: the caller's promise; the machine has the vectors that come with tiles.
        unsafe {
            let s = Avx512::new();
            for cols in cut(width) {
                let (first, n) = (cols.start, cols.len());
                let product = Product {
                    m: count,
                    n,
                    depth: x.tiles,
                    a: x.from(rows.start, 0),
                    b: up.from(first, 0),
                    c: sums,
                    c_stride: COLS,
                    bias: bias.map_or(std::ptr::null(), |bias| bias.add(first)),
                    accumulate: false,
                };
                product.squares(0..count, 0..n, |i, j, sums, rows_taken| {
                    for r in rows_taken {
                        let (low, high) = sums.row(s, r);
                        let (lane, row) = (i + r, r % TILE);
                        if let Some(saved) = saved {
                            let to = saved.row(rows.start + lane, tiles, (first + j) / STEPS, row);
                            _mm512_storeu_si512(to, halves(low, high));
                        }
                        if GATED {
                            let to = inner.row(lane, COLS / STEPS, j / 2 / STEPS, row).cast::<__m256i>();
                            let words = half(s.mul(f.value::<_, true>(s, low), high));
                            _mm256_store_si256(to.add(j / SQUARE % 2), words);
                        } else {
                            let to = inner.row(lane, COLS / STEPS, j / STEPS, row);
                            _mm512_store_si512(
                                to,
                                halves(f.value::<_, true>(s, low), f.value::<_, true>(s, high)),
                            );
                        }
                    }
                });
                let (first, n) = if GATED { (first / 2, n / 2) } else { (first, n) };
                let product = Product {
                    m: count,
                    n: d_output,
                    depth: n / STEPS,
                    a: Operand { start: inner.0, tiles: COLS / STEPS },
                    b: down.from(0, first / STEPS),
                    c: y,
                    c_stride: d_output,
                    bias: down_bias.filter(|_| first == 0).unwrap_or(std::ptr::null()),
                    accumulate: first > 0,
                };
                product.rectangle(0..count, 0..d_output);
            }
        }
    }
}

/// Columns, in chunks of a fixed width.
fn cut(width: usize) -> impl Iterator<Item = Range<usize>> {
    (0..width).step_by(COLS).map(move |start| start..width.min(start + COLS))
}

/// # Safety
/// As for [`forward`], which has filled `saved`.
pub(super) unsafe fn backward(
    cpu: Cpu,
    layer: &FeedForward,
    (x, saved): (Option<&[f32]>, &[f32]),
    dy: &[f32],
    grads: FeedForwardGrads,
) {
    let (d_input, d_inner, d_output) = (layer.up.rows, layer.up.cols, layer.down.cols);
    let rows = dy.len() / d_output;
    let mut wide = Vec::new();
    let x = match x {
        Some(x) => x,
        None => {
            let words = &saved[room(rows, width(layer))..];
            wide.resize(2 * words.len(), 0.0);
            bf16::widen(cpu, words, &mut wide);
            &wide
        }
    };
    let FeedForwardGrads { dx, dgate, dup, ddown, dbiases: [dup_bias, ddown_bias] } = grads;
    let (strip, strips) = strips(rows);
    let bias_len = if dup_bias.is_some() { d_inner.next_multiple_of(SQUARE) } else { 0 };
    let first_maps = if layer.gate.is_some() { 2 } else { 1 };
    let rooms = [(d_inner, d_output), (d_input, rows), (d_inner, rows)];
    let len = rooms.iter().map(|&(lanes, depth)| room(lanes, depth)).sum::<usize>()
        + room_for_both(rows, d_output)
        + first_maps * (room(d_input, d_inner) + room(d_inner, rows))
        + strips * bias_len
        + 10 * 16;
    let mut scratch = Scratch::take(len);
    let mut parts = Parts::new(&mut scratch, len);
    let row_tiles = rows.div_ceil(STEPS);
    // SAFETY: as in `forward`.
    let (backward, x_across, dy_across) = unsafe {
        let dy = pack_both_ways::<true>(cpu, MatRef::row_major(dy, rows, d_output), ddown_bias, &mut parts);
        let down = Lanes::columns(layer.down.t()).pack::<false>(cpu, &mut parts);
        let mut maps = |map: MatRef| FirstMap {
            weight: Lanes::columns(map.t()).pack::<false>(cpu, &mut parts),
            slopes: Room(parts.take(room(d_inner, rows)).cast()),
        };
        let (up, gate) = (maps(layer.up), layer.gate.map(maps));
        let x_across = Lanes::columns(MatRef::row_major(x, rows, d_input)).pack::<true>(cpu, &mut parts);
        let inner = Room(parts.take(room(d_inner, rows)).cast());
        let bias = dup_bias.is_some().then(|| parts.take(strips * bias_len));
        let saved = Room(saved.as_ptr().cast::<u32>().cast_mut());
        let backward =
            Backward { dy: dy.rows, down, up, gate, saved, inner, bias, row_tiles, d_inner, d_input };
        (backward, x_across, dy.columns)
    };
    let to = Shared::new(dx);
    parallel::tasks(cpu, strips, |at| {
        let rows = at * strip..rows.min((at + 1) * strip);
        let dx = to.pointer(rows.start * d_input);
        // SAFETY: all is packed, and strips are disjoint.
        unsafe {
            let _tiles = Tiles::configure();
            with_function!(layer.activation, f => match backward.gate {
                Some(gate) => backward.strip(f, [gate, backward.up], (at, rows), dx),
                None => backward.strip(f, [backward.up], (at, rows), dx),
            });
        }
    });
    if let (Some(to), Some(bias)) = (dup_bias, backward.bias) {
        // SAFETY: every strip has written its sums.
        let partial = unsafe { std::slice::from_raw_parts(bias, strips * bias_len) };
        to.fill(0.0);
        for partial in partial.chunks_exact(bias_len) {
            to.iter_mut().zip(partial).for_each(|(sum, x)| *sum += x);
        }
    }
    let right = |room: Room| Operand { start: room.0, tiles: row_tiles };
    let by_rows = |map: MatRef| map.col_stride == 1;
    let first_maps = [(layer.gate, backward.gate, dgate), (Some(layer.up), Some(backward.up), Some(dup))];
    // SAFETY: all operands are packed; the gradients are as long as the maps.
    unsafe {
        for (map, packed, to) in first_maps {
            if let (Some(map), Some(packed), Some(to)) = (map, packed, to) {
                let slopes = (right(packed.slopes), d_inner);
                Product::store_all(cpu, (x_across, d_input), slopes, by_rows(map), to);
            }
        }
        let inner = (right(backward.inner), d_inner);
        Product::store_all(cpu, (dy_across, d_output), inner, !by_rows(layer.down), ddown);
    }
}

/// A projection before the activation.
#[derive(Clone, Copy)]
struct FirstMap {
    /// Its transpose, as a right operand.
    weight: Operand,
    /// The gradient of its output by columns, with the rows as depth.
    slopes: Room,
}

struct Backward {
    dy: Operand,
    down: Operand,
    up: FirstMap,
    gate: Option<FirstMap>,
    /// bf16 rows, as [`Forward`] wrote them.
    saved: Room,
    /// The input of the down projection by columns, with the rows as depth.
    inner: Room,
    /// The gradient of the output of `up`, summed over the rows of each strip, if there is a bias.
    bias: Option<*mut f32>,
    row_tiles: usize,
    d_inner: usize,
    d_input: usize,
}

// SAFETY: what the pointers reach is read by all, or written in tiles and sums of each strip.
unsafe impl Sync for Backward {}

impl Backward {
    /// `maps` are the first projections, in the order of their columns in `saved`.
    ///
    /// # Safety
    /// As for [`Forward::strip`].
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn strip<F: Function, const N: usize>(
        &self,
        f: F,
        maps: [FirstMap; N],
        (at, rows): (usize, Range<usize>),
        dx: *mut f32,
    ) {
        let &Self { dy, down, saved, inner, bias, row_tiles, d_inner, d_input, .. } = self;
        let width = d_inner.next_multiple_of(SQUARE);
        let count = rows.len();
        let sums_len = if Product::in_one_go(dy.tiles) { 0 } else { STRIP * COLS };
        let len = N * room(count, COLS) + sums_len + (N + 1) * 16;
        let mut scratch = Scratch::take(len);
        let mut parts = Parts::new(&mut scratch, len);
        let slope_rows: [Room; N] = std::array::from_fn(|_| Room(parts.take(room(count, COLS)).cast()));
        let sums = parts.take(sums_len);
        // SAFETY: the caller's promise; the machine has the vectors that come with tiles.
        unsafe {
            let s = Avx512::new();
            let zero = s.splat(0.0);
            let bias = bias.map(|bias| bias.add(at * width));
            for cols in cut(width) {
                let first = cols.start;
                let product = Product {
                    m: count,
                    n: cols.len(),
                    depth: dy.tiles,
                    a: dy.from(rows.start, 0),
                    b: down.from(first, 0),
                    c: sums,
                    c_stride: COLS,
                    bias: std::ptr::null(),
                    accumulate: false,
                };
                product.squares(0..count, 0..cols.len(), |i, j, sums, rows_taken| {
                    let is_first = i == 0 && rows_taken.start == 0;
                    let (lane, row_tile) = (first + j, (rows.start + i) / STEPS);
                    let mut sum = [zero; 2];
                    for r in rows_taken.step_by(2) {
                        let mut both = [([zero; 2], [[zero; 2]; N]); 2];
                        for (k, both) in both.iter_mut().enumerate() {
                            let (at, row) = (i + r + k, (r + k) % TILE);
                            let mut before = [_mm512_setzero_si512(); N];
                            for (part, before) in before.iter_mut().enumerate() {
                                let tile = lane / STEPS * N + part;
                                let from = saved.row(rows.start + at, width / STEPS * N, tile, row);
                                *before = _mm512_loadu_si512(from);
                            }
                            *both = went_back(s, f, before, sums.row(s, r + k));
                            for (slope_rows, [low, high]) in slope_rows.iter().zip(both.1) {
                                let to = slope_rows.row(at, COLS / STEPS, j / STEPS, row);
                                _mm512_store_si512(to, halves(low, high));
                            }
                            if N == 1 {
                                let [low, high] = both.1[0];
                                sum = [s.add(sum[0], low), s.add(sum[1], high)];
                            }
                        }
                        let [(even, even_slopes), (odd, odd_slopes)] = both;
                        put_across(inner, (lane, row_tiles, row_tile, r / 2), even, odd);
                        for (map, (even, odd)) in maps.iter().zip(even_slopes.into_iter().zip(odd_slopes)) {
                            put_across(map.slopes, (lane, row_tiles, row_tile, r / 2), even, odd);
                        }
                    }
                    if let Some(bias) = bias {
                        for (to, sum) in [bias.add(lane), bias.add(lane + TILE)].into_iter().zip(sum) {
                            let before = if is_first { zero } else { s.load_from(to) };
                            s.store_to(to, s.add(before, sum));
                        }
                    }
                });
                for (at, (map, slope_rows)) in maps.iter().zip(slope_rows).enumerate() {
                    let product = Product {
                        m: count,
                        n: d_input,
                        depth: cols.len() / STEPS,
                        a: Operand { start: slope_rows.0, tiles: COLS / STEPS },
                        b: map.weight.from(0, first / STEPS),
                        c: dx,
                        c_stride: d_input,
                        bias: std::ptr::null(),
                        accumulate: first > 0 || at > 0,
                    };
                    product.rectangle(0..count, 0..d_input);
                }
            }
        }
    }
}

/// For 32 columns, 16 and 16: the input of the down projection, and the gradients of the outputs of the first
/// projections, from those outputs, in the order of [`Forward`], and the gradient of that input. (`array::map` is not
/// always inlined, and then passes vectors through memory.)
///
/// # Safety
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn went_back<F: Function, const N: usize>(
    s: Avx512,
    f: F,
    made: [__m512i; N],
    gradient: (__m512, __m512),
) -> ([__m512; 2], [[__m512; 2]; N]) {
    let zero = s.splat(0.0);
    let (mut took, mut slopes) = ([zero; 2], [[zero; 2]; N]);
    for half in 0..2 {
        let d = if half == 0 { gradient.0 } else { gradient.1 };
        // SAFETY: the caller's promise.
        let pair = unsafe { unpacked(made[half % N]) };
        if N == 1 {
            let x = if half == 0 { pair.0 } else { pair.1 };
            took[half] = f.value::<_, true>(s, x);
            slopes[0][half] = f.slope::<_, true>(s, x, d);
        } else {
            let ((gate, up), value) = (pair, f.value::<_, true>(s, pair.0));
            took[half] = s.mul(value, up);
            slopes[0][half] = f.slope::<_, true>(s, gate, s.mul(up, d));
            slopes[N - 1][half] = s.mul(value, d);
        }
    }
    (took, slopes)
}

/// Stores 32 columns of two rows, pair number `pair` of a tile, with columns as lanes and rows as depth.
///
/// # Safety
/// `to` has room for them in lanes of `tiles` tiles; the machine has AVX-512 BF16.
#[inline(always)]
unsafe fn put_across(
    to: Room,
    (lane, tiles, tile, pair): (usize, usize, usize, usize),
    even: [__m512; 2],
    odd: [__m512; 2],
) {
    for half in 0..2 {
        // SAFETY: the caller's promise.
        unsafe {
            let to = to.row(lane + half * TILE, tiles, tile, pair);
            _mm512_store_si512(to, interleaved(even[half], odd[half]));
        }
    }
}

/// 16 f32 rounded to bf16.
///
/// # Safety
/// The machine has AVX-512 BF16.
#[inline(always)]
unsafe fn half(x: __m512) -> __m256i {
    // SAFETY: the caller's promise; the types differ only in what their bits mean.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) }
}

/// 32 bf16 widened to f32, the first 16 first.
///
/// # Safety
/// The machine has AVX-512 F.
#[inline(always)]
unsafe fn unpacked(row: __m512i) -> (__m512, __m512) {
    // SAFETY: the caller's promise.
    unsafe {
        let wide = |half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)));
        (wide(_mm512_castsi512_si256(row)), wide(_mm512_extracti64x4_epi64::<1>(row)))
    }
}
