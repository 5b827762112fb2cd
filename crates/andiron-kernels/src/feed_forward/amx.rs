//! By tiles of bf16: rows go through both maps a strip at a time.
//!
//! A square of sums leaves the tile registers for the first-level cache; there it becomes what the next products take,
//! packed as they want it, so that nothing between the maps is packed, or written as f32.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{FeedForward, FeedForwardGrads};
use crate::Cpu;
use crate::activation::{Activation, Function, GeluErf, GeluTanh, Relu, Silu};
use crate::gemm::MatRef;
use crate::gemm::amx::{Lanes, Operand, Product, SQUARE, STEPS, TILE, TILE_WORDS, Tiles, room};
use crate::gemm::pack::{Parts, Scratch};
use crate::gemm::words::{halves, interleaved};
use crate::parallel::{self, Shared};
use crate::simd::{Avx512, Simd};

/// Most rows of a strip, and inner columns at a time: what lies between the maps, the parts of the maps that make and take
/// it, and the result fill two thirds of a second-level cache.
const STRIP: usize = 256;
const COLS: usize = 384;
/// Strips that a call is cut into, if they are long enough: of a number that threads can share evenly.
const STRIPS: usize = 8;

/// Calls `$run` with the activation as a function on vectors.
macro_rules! with_function {
    ($activation:expr, $f:ident => $run:expr) => {
        match $activation {
            Activation::GeluTanh => {
                let $f = GeluTanh;
                $run
            }
            Activation::GeluErf => {
                let $f = GeluErf;
                $run
            }
            Activation::Silu => {
                let $f = Silu;
                $run
            }
            Activation::Relu => {
                let $f = Relu;
                $run
            }
        }
    };
}

/// Tiles that several threads write, each its own.
#[derive(Clone, Copy)]
struct Room(*mut u32);

// SAFETY: threads write disjoint tiles.
unsafe impl Send for Room {}
// SAFETY: as above.
unsafe impl Sync for Room {}

impl Room {
    /// Row `row` of the tile that is `tile`th of its lanes, which are `tiles` tiles long.
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

/// # Safety
/// The machine has tiles of bf16; no size is 0, and all are those that [`super::forward`] has looked at.
pub(super) unsafe fn forward(
    cpu: Cpu,
    layer: &FeedForward,
    [up_bias, down_bias]: [&[f32]; 2],
    x: &[f32],
    saved: Option<&mut [f32]>,
    y: &mut [f32],
) {
    let (d_input, d_inner, d_output) = (layer.up.rows, layer.up.cols, layer.down.cols);
    let rows = x.len() / d_input;
    let bias_len = d_inner.next_multiple_of(SQUARE);
    let len = room(rows, d_input) + room(d_inner, d_input) + room(d_output, d_inner) + bias_len + 4 * 16;
    let mut scratch = Scratch::take(len);
    let mut parts = Parts::new(&mut scratch, len);
    // SAFETY: the maps and the input are as long as said, and the parts were made for them.
    let (forward, strip, strips) = unsafe {
        let x = Lanes::rows(MatRef::row_major(x, rows, d_input)).pack::<true>(cpu, &mut parts);
        let up = Lanes::columns(layer.up).pack::<false>(cpu, &mut parts);
        let down = Lanes::columns(layer.down).pack::<false>(cpu, &mut parts);
        let bias = parts.take(bias_len);
        std::slice::from_raw_parts_mut(bias, bias_len).fill(0.0);
        bias.copy_from_nonoverlapping(up_bias.as_ptr(), d_inner);
        let (strip, strips) = strips(rows);
        let saved = saved.map(|saved| Room(saved.as_mut_ptr().cast()));
        (
            Forward { x, up, bias, down, down_bias: down_bias.as_ptr(), saved, d_inner, d_output },
            strip,
            strips,
        )
    };
    let y = Shared::new(y);
    parallel::tasks(cpu, strips, |at| {
        let rows = at * strip..rows.min((at + 1) * strip);
        let y = y.pointer(rows.start * d_output);
        // SAFETY: all is packed, and strips are disjoint.
        unsafe {
            let _tiles = Tiles::configure();
            with_function!(layer.activation, f => forward.strip(f, rows, y));
        }
    });
}

struct Forward {
    x: Operand,
    up: Operand,
    bias: *const f32,
    down: Operand,
    down_bias: *const f32,
    saved: Option<Room>,
    d_inner: usize,
    d_output: usize,
}

// SAFETY: what the pointers reach is read by all; each thread saves rows of its own.
unsafe impl Sync for Forward {}

impl Forward {
    /// # Safety
    /// The operands hold what the sizes say, `saved` has room, nobody else writes these rows of it or of `y`; tiles are
    /// configured.
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn strip<F: Function>(&self, f: F, rows: Range<usize>, y: *mut f32) {
        let &Self { x, up, bias, down, down_bias, saved, d_inner, d_output } = self;
        let tiles = d_inner.div_ceil(STEPS);
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
            for cols in cut(d_inner) {
                let (first, n) = (cols.start, cols.len());
                let product = Product {
                    m: count,
                    n,
                    depth: x.tiles,
                    a: x.from(rows.start, 0),
                    b: up.from(first, 0),
                    c: sums,
                    c_stride: COLS,
                    bias: bias.add(first),
                    accumulate: false,
                };
                product.squares(0..count, 0..n, |i, j, sums| {
                    for r in 0..SQUARE {
                        let (low, high) = sums.row(s, r);
                        let (lane, row) = (i + r, r % TILE);
                        if let Some(saved) = saved {
                            let to = saved.row(rows.start + lane, tiles, (first + j) / STEPS, row);
                            _mm512_storeu_si512(to, halves(low, high));
                        }
                        let (low, high) = (f.value(s, low), f.value(s, high));
                        _mm512_store_si512(inner.row(lane, COLS / STEPS, j / STEPS, row), halves(low, high));
                    }
                });
                let product = Product {
                    m: count,
                    n: d_output,
                    depth: n.div_ceil(STEPS),
                    a: Operand { start: inner.0, tiles: COLS / STEPS },
                    b: down.from(0, first / STEPS),
                    c: y,
                    c_stride: d_output,
                    bias: if first == 0 { down_bias } else { std::ptr::null() },
                    accumulate: first > 0,
                };
                product.rectangle(0..count, 0..d_output);
            }
        }
    }
}

/// Inner columns, so many at a time.
fn cut(d_inner: usize) -> impl Iterator<Item = Range<usize>> {
    (0..d_inner).step_by(COLS).map(move |start| start..d_inner.min(start + COLS))
}

/// # Safety
/// As for [`forward`], which has filled `saved`.
pub(super) unsafe fn backward(
    cpu: Cpu,
    layer: &FeedForward,
    (x, saved): (&[f32], &[f32]),
    dy: &[f32],
    grads: FeedForwardGrads,
) {
    let (d_input, d_inner, d_output) = (layer.up.rows, layer.up.cols, layer.down.cols);
    let rows = x.len() / d_input;
    let FeedForwardGrads { dx, dup, dup_bias, ddown, .. } = grads;
    let (strip, strips) = strips(rows);
    let bias_len = d_inner.next_multiple_of(SQUARE);
    let rooms =
        [(rows, d_output), (d_inner, d_output), (d_input, d_inner), (d_input, rows), (d_output, rows)];
    let len = rooms.iter().map(|&(lanes, depth)| room(lanes, depth)).sum::<usize>()
        + 2 * room(d_inner, rows)
        + strips * bias_len
        + 8 * 16;
    let mut scratch = Scratch::take(len);
    let mut parts = Parts::new(&mut scratch, len);
    let row_tiles = rows.div_ceil(STEPS);
    // SAFETY: as in `forward`.
    let (backward, x_across, dy_across) = unsafe {
        let across = |matrix, width| Lanes::columns(MatRef::row_major(matrix, rows, width));
        let dy_rows = Lanes::rows(MatRef::row_major(dy, rows, d_output)).pack::<true>(cpu, &mut parts);
        let down = Lanes::columns(layer.down.t()).pack::<false>(cpu, &mut parts);
        let up = Lanes::columns(layer.up.t()).pack::<false>(cpu, &mut parts);
        let x_across = across(x, d_input).pack::<true>(cpu, &mut parts);
        let dy_across = across(dy, d_output).pack::<true>(cpu, &mut parts);
        let inner = Room(parts.take(room(d_inner, rows)).cast());
        let slopes = Room(parts.take(room(d_inner, rows)).cast());
        let bias = parts.take(strips * bias_len);
        let saved = saved.as_ptr().cast::<u32>();
        let backward = Backward {
            dy: dy_rows,
            down,
            up,
            saved,
            inner,
            slopes,
            bias,
            bias_len,
            row_tiles,
            d_inner,
            d_input,
        };
        (backward, x_across, dy_across)
    };
    let to = Shared::new(dx);
    parallel::tasks(cpu, strips, |at| {
        let rows = at * strip..rows.min((at + 1) * strip);
        let dx = to.pointer(rows.start * d_input);
        // SAFETY: all is packed, and strips are disjoint.
        unsafe {
            let _tiles = Tiles::configure();
            with_function!(layer.activation, f => backward.strip(f, (at, rows), dx));
        }
    });
    // SAFETY: every strip has written its sums.
    let partial = unsafe { std::slice::from_raw_parts(backward.bias, strips * bias_len) };
    dup_bias.fill(0.0);
    for partial in partial.chunks_exact(bias_len) {
        dup_bias.iter_mut().zip(partial).for_each(|(sum, x)| *sum += x);
    }
    let right = |room: Room| Operand { start: room.0, tiles: row_tiles };
    // SAFETY: both operands are packed; the gradients are as long as the maps.
    unsafe {
        gradient(cpu, (x_across, d_input), (right(backward.slopes), d_inner), layer.up.col_stride == 1, dup);
        gradient(
            cpu,
            (dy_across, d_output),
            (right(backward.inner), d_inner),
            layer.down.col_stride != 1,
            ddown,
        );
    }
}

/// `left · right`, row by row or column by column.
///
/// # Safety
/// The operands are packed, `to` is as long as the product is large; tiles are available.
unsafe fn gradient(
    cpu: Cpu,
    (a, m): (Operand, usize),
    (b, n): (Operand, usize),
    by_rows: bool,
    to: &mut [f32],
) {
    let product = Product {
        m,
        n,
        depth: a.tiles,
        a,
        b,
        c: to.as_mut_ptr(),
        c_stride: if by_rows { n } else { m },
        bias: std::ptr::null(),
        accumulate: false,
    };
    // SAFETY: the caller's promise.
    unsafe {
        match by_rows {
            true => product.multiply(cpu),
            false => product.multiply_turned(cpu),
        }
    }
}

struct Backward {
    dy: Operand,
    down: Operand,
    up: Operand,
    /// Rows of bf16, as [`Forward`] wrote them.
    saved: *const u32,
    /// Columns of the activation's output, with the rows as depth.
    inner: Room,
    /// Columns of the gradient of the activation's input.
    slopes: Room,
    /// Sums of that gradient over the rows of each strip.
    bias: *mut f32,
    bias_len: usize,
    row_tiles: usize,
    d_inner: usize,
    d_input: usize,
}

// SAFETY: what the pointers reach is read by all, or written in tiles and sums of each strip.
unsafe impl Sync for Backward {}

impl Backward {
    /// # Safety
    /// As for [`Forward::strip`].
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn strip<F: Function>(&self, f: F, (at, rows): (usize, Range<usize>), dx: *mut f32) {
        let &Self { dy, down, up, saved, inner, slopes, bias, bias_len, row_tiles, d_inner, d_input } = self;
        let tiles = d_inner.div_ceil(STEPS);
        let count = rows.len();
        let sums_len = if Product::in_one_go(dy.tiles) { 0 } else { STRIP * COLS };
        let len = room(count, COLS) + sums_len + 2 * 16;
        let mut scratch = Scratch::take(len);
        let mut parts = Parts::new(&mut scratch, len);
        let slope_rows = Room(parts.take(room(count, COLS)).cast());
        let sums = parts.take(sums_len);
        // SAFETY: the caller's promise; the machine has the vectors that come with tiles.
        unsafe {
            let s = Avx512::new();
            let bias = bias.add(at * bias_len);
            std::slice::from_raw_parts_mut(bias, bias_len).fill(0.0);
            let saved = Room(saved.cast_mut());
            for cols in cut(d_inner) {
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
                product.squares(0..count, 0..cols.len(), |i, j, sums| {
                    let (lane, tile, row_tile) = (first + j, (first + j) / STEPS, (rows.start + i) / STEPS);
                    let (mut sum_low, mut sum_high) = (s.splat(0.0), s.splat(0.0));
                    for r in (0..SQUARE).step_by(2) {
                        let mut both = [[s.splat(0.0); 4]; 2];
                        for (k, both) in both.iter_mut().enumerate() {
                            let row = (r + k) % TILE;
                            let before =
                                _mm512_loadu_si512(saved.row(rows.start + i + r + k, tiles, tile, row));
                            let (before_low, before_high) = unpacked(before);
                            let (d_low, d_high) = sums.row(s, r + k);
                            let low = f.slope(s, before_low, d_low);
                            let high = f.slope(s, before_high, d_high);
                            _mm512_store_si512(
                                slope_rows.row(i + r + k, COLS / STEPS, j / STEPS, row),
                                halves(low, high),
                            );
                            sum_low = s.add(sum_low, low);
                            sum_high = s.add(sum_high, high);
                            *both = [f.value(s, before_low), f.value(s, before_high), low, high];
                        }
                        let [even, odd] = both;
                        for (k, to) in [inner, slopes].into_iter().enumerate() {
                            for half in 0..2 {
                                let words = interleaved(even[2 * k + half], odd[2 * k + half]);
                                let lane = lane + half * TILE;
                                _mm512_store_si512(to.row(lane, row_tiles, row_tile, r / 2), words);
                            }
                        }
                    }
                    let bias = bias.add(first + j);
                    s.store_to(bias, s.add(s.load_from(bias), sum_low));
                    s.store_to(bias.add(TILE), s.add(s.load_from(bias.add(TILE)), sum_high));
                });
                let product = Product {
                    m: count,
                    n: d_input,
                    depth: cols.len().div_ceil(STEPS),
                    a: Operand { start: slope_rows.0, tiles: COLS / STEPS },
                    b: up.from(0, first / STEPS),
                    c: dx,
                    c_stride: d_input,
                    bias: std::ptr::null(),
                    accumulate: first > 0,
                };
                product.rectangle(0..count, 0..d_input);
            }
        }
    }
}

/// 32 bf16 as numbers, the first 16 first.
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
