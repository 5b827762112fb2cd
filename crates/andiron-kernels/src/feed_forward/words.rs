//! With AVX-512-BF16: a strip of rows at a time passes through both projections.
//!
//! Weights are packed once. What lies between the projections is f32 for some columns of a strip only, while they are in the
//! caches; it is saved, and multiplied, as words of bf16.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{FeedForward, FeedForwardGrads};
use crate::activation::{Function, with_function};
use crate::gemm::pack::{Parts, Scratch};
use crate::gemm::panel_format::halves;
use crate::gemm::words::{COLS, Left, NR, Operand, Output, Panels, matmul, multiply, strip_rows, strips};
use crate::gemm::{Epilogue, MatRef};
use crate::memory::unspecified;
use crate::parallel::{self, Shared};
use crate::simd::{Avx512, Simd};
use crate::{Cpu, bf16, reduce};

/// Most elements of all weights, whose packed copies are scratch memory: 64 MiB.
const MOST_WEIGHTS: usize = 1 << 25;
/// Columns that are activated at once.
const STEP: usize = 32;

/// Whether the layer has sizes that are computed here. Others are rare.
pub(super) fn suits(layer: &FeedForward) -> bool {
    let widths = [layer.up.rows, layer.down.cols];
    let weights = layer.up.data.len() * if layer.gate.is_some() { 2 } else { 1 } + layer.down.data.len();
    layer.up.cols > 0
        && layer.up.cols.is_multiple_of(STEP)
        && widths.into_iter().all(|width| width > 0 && width.is_multiple_of(2))
        && weights <= MOST_WEIGHTS
}

/// Words for the input, and for the outputs of the first projections: those of `up`, then those of the gate.
pub(super) fn saved_len(layer: &FeedForward, rows: usize) -> usize {
    rows * (layer.up.rows + layer.width()) / 2
}

/// A matrix of words that several threads write, each its own rows.
#[derive(Clone, Copy)]
struct Rows {
    start: *mut f32,
    /// Words of a row.
    words: usize,
}

// SAFETY: threads access disjoint rows.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}

impl Rows {
    fn new(words: &mut [f32], cols: usize) -> Self {
        Self { start: words.as_mut_ptr(), words: cols / 2 }
    }

    /// The words of row `row` from column `col` on.
    fn at(self, row: usize, col: usize) -> *mut __m512i {
        self.start.wrapping_add(row * self.words + col / 2).cast()
    }
}

/// The panels of a weight.
///
/// # Safety
/// The machine has AVX-512-BF16.
unsafe fn packed(cpu: Cpu, weight: MatRef, parts: &mut Parts) -> Panels<NR> {
    let to = parts.take(room(weight));
    // SAFETY: the caller's promise; the room is that of the panels.
    unsafe { Panels::pack(cpu, Operand::columns(weight), 0..weight.cols, to) }
}

fn room(weight: MatRef) -> usize {
    Panels::<NR>::room(weight.cols, weight.rows).next_multiple_of(16)
}

struct Forward<'a> {
    x: Left,
    up: Panels<NR>,
    gate: Option<Panels<NR>>,
    down: Panels<NR>,
    biases: [Option<&'a [f32]>; 2],
    /// The outputs of the first projections, if they are saved.
    before: Option<[Rows; 2]>,
    d_inner: usize,
    d_output: usize,
}

/// # Safety
/// The machine has AVX-512-BF16, and the sizes are those that [`super::forward`] has looked at.
pub(super) unsafe fn forward(
    cpu: Cpu,
    layer: &FeedForward,
    biases: [Option<&[f32]>; 2],
    x: &[f32],
    saved: Option<&mut [f32]>,
    y: &mut [f32],
) {
    let (d_input, d_inner, d_output) = (layer.up.rows, layer.up.cols, layer.down.cols);
    let rows = x.len() / d_input;
    let x_len = x.len() / 2;
    let weights: usize = layer.gate.into_iter().chain([layer.up, layer.down]).map(room).sum();
    let len = weights + if saved.is_some() { 0 } else { x_len.next_multiple_of(16) };
    let mut scratch = Scratch::take(len);
    let mut parts = Parts::new(&mut scratch, len);
    let (x_words, before) = match saved {
        Some(saved) => {
            let (x_words, before) = saved.split_at_mut(x_len);
            let (up, gate) = before.split_at_mut(rows * d_inner / 2);
            (x_words, Some([Rows::new(up, d_inner), Rows::new(gate, d_inner)]))
        }
        // SAFETY: the scratch memory has the room.
        None => (unsafe { std::slice::from_raw_parts_mut(parts.take(x_len), x_len) }, None),
    };
    bf16::round(cpu, x, x_words);
    // SAFETY: the scratch memory has room for all weights.
    let forward = unsafe {
        let mut packed = |weight| packed(cpu, weight, &mut parts);
        let (up, gate, down) = (packed(layer.up), layer.gate.map(&mut packed), packed(layer.down));
        Forward { x: Left::rows(x_words, d_input), up, gate, down, biases, before, d_inner, d_output }
    };
    let y = Shared::new(y);
    parallel::tasks(cpu, strips(rows), |at| {
        let strip = strip_rows(rows, at);
        let y = y.pointer(strip.start * d_output);
        // SAFETY: all is packed, and strips are disjoint.
        unsafe { with_function!(layer.activation, f => forward.strip(f, strip, y)) };
    });
}

impl Forward<'_> {
    /// # Safety
    /// All is packed; no other thread writes these rows.
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn strip<F: Function>(&self, f: F, rows: Range<usize>, y: *mut f32) {
        let &Self { x, up, gate, down, biases: [up_bias, down_bias], before, d_inner, d_output } = self;
        let room = rows.len() * COLS;
        let len = 2 * room + (rows.len() * d_inner / 2).next_multiple_of(16);
        let mut scratch = Scratch::take(len);
        let mut parts = Parts::new(&mut scratch, len);
        let [up_room, gate_room] = [room, room].map(|room| parts.take(room));
        let inner = Rows { start: parts.take(rows.len() * d_inner / 2), words: d_inner / 2 };
        for cols in blocks(d_inner) {
            // SAFETY: the blocks lie within the sizes; the scratch memory has room for one.
            unsafe {
                let to = |c, bias: Option<&[f32]>| Output {
                    c,
                    stride: COLS,
                    bias: bias.map_or(std::ptr::null(), |bias| bias[cols.start..].as_ptr()),
                    accumulate: false,
                };
                multiply(x, up, (rows.clone(), cols.clone()), to(up_room, up_bias));
                if let Some(gate) = gate {
                    multiply(x, gate, (rows.clone(), cols.clone()), to(gate_room, None));
                }
                let s = Avx512::new();
                for (row, at) in rows.clone().enumerate() {
                    for col in (0..cols.len()).step_by(STEP) {
                        let up = two(up_room.add(row * COLS + col));
                        let value = match gate {
                            Some(_) => {
                                let gate = two(gate_room.add(row * COLS + col));
                                if let Some([_, to]) = before {
                                    _mm512_storeu_si512(
                                        to.at(at, cols.start + col),
                                        halves(gate[0], gate[1]),
                                    );
                                }
                                let value = [f.value::<_, true>(s, gate[0]), f.value::<_, true>(s, gate[1])];
                                [s.mul(value[0], up[0]), s.mul(value[1], up[1])]
                            }
                            None => [f.value::<_, true>(s, up[0]), f.value::<_, true>(s, up[1])],
                        };
                        if let Some([to, _]) = before {
                            _mm512_storeu_si512(to.at(at, cols.start + col), halves(up[0], up[1]));
                        }
                        _mm512_storeu_si512(inner.at(row, cols.start + col), halves(value[0], value[1]));
                    }
                }
            }
        }
        let bias = down_bias.map_or(std::ptr::null(), <[f32]>::as_ptr);
        let to = Output { c: y, stride: d_output, bias, accumulate: false };
        // SAFETY: `inner` has the rows of the strip.
        unsafe {
            multiply(Left::Rows(inner.start, inner.words), down, (0..rows.len(), 0..d_output), to);
        }
    }
}

struct Backward {
    dy: Left,
    /// The transposed weights.
    down: Panels<NR>,
    up: Panels<NR>,
    gate: Option<Panels<NR>>,
    /// The outputs of the first projections.
    before: [Rows; 2],
    /// What the down projection multiplied, and the gradients of the first projections' outputs.
    inner: Rows,
    slopes: [Rows; 2],
    /// The gradient of the output of `up`, summed over the rows of each strip, or null.
    bias: *mut f32,
    d_input: usize,
    d_inner: usize,
}

// SAFETY: threads write disjoint rows and strips.
unsafe impl Sync for Backward {}

/// # Safety
/// As for [`forward`], which has filled `saved`.
pub(super) unsafe fn backward(
    cpu: Cpu,
    layer: &FeedForward,
    saved: &[f32],
    dy: &[f32],
    grads: FeedForwardGrads,
) {
    let (d_input, d_inner, d_output) = (layer.up.rows, layer.up.cols, layer.down.cols);
    let rows = dy.len() / d_output;
    let FeedForwardGrads { dx, dgate, dup, ddown, dbiases: [dup_bias, ddown_bias] } = grads;
    if let Some(ddown_bias) = ddown_bias {
        reduce::column_sum(cpu, rows, d_output, dy, ddown_bias);
    }
    let (x, before) = saved.split_at(rows * d_input / 2);
    let of_before = |at: usize| Rows {
        start: before.as_ptr().wrapping_add(at * rows * d_inner / 2).cast_mut(),
        words: d_inner / 2,
    };
    let words = |cols: usize| unspecified(rows * cols / 2);
    let mut dy_words = words(d_output);
    bf16::round(cpu, dy, &mut dy_words);
    let mut inner = words(d_inner);
    let mut slopes = [words(d_inner), words(if layer.gate.is_some() { d_inner } else { 0 })];
    let strips = strips(rows);
    let mut bias: Vec<f32> = unspecified(if dup_bias.is_some() { strips * d_inner } else { 0 });
    {
        let len = layer.gate.into_iter().chain([layer.up, layer.down]).map(|weight| room(weight.t())).sum();
        let mut scratch = Scratch::take(len);
        let mut parts = Parts::new(&mut scratch, len);
        let [up_slopes, gate_slopes] = &mut slopes;
        // SAFETY: the scratch memory has room for all weights.
        let backward = unsafe {
            let mut packed = |weight: MatRef| packed(cpu, weight.t(), &mut parts);
            let (down, up, gate) = (packed(layer.down), packed(layer.up), layer.gate.map(&mut packed));
            Backward {
                dy: Left::rows(&dy_words, d_output),
                down,
                up,
                gate,
                before: [0, 1].map(of_before),
                inner: Rows::new(&mut inner, d_inner),
                slopes: [Rows::new(up_slopes, d_inner), Rows::new(gate_slopes, d_inner)],
                bias: if bias.is_empty() { std::ptr::null_mut() } else { bias.as_mut_ptr() },
                d_input,
                d_inner,
            }
        };
        let dx = Shared::new(dx);
        parallel::tasks(cpu, strips, |at| {
            let strip = strip_rows(rows, at);
            let dx = dx.pointer(strip.start * d_input);
            // SAFETY: all is packed, and strips are disjoint.
            unsafe { with_function!(layer.activation, f => backward.strip(f, (at, strip), dx)) };
        });
    }
    if let Some(dup_bias) = dup_bias {
        reduce::column_sum(cpu, strips, d_inner, &bias, dup_bias);
    }
    let columns = |words: &[f32], cols: usize| Operand::columns_of_words(words, rows, cols);
    let [up_slopes, gate_slopes] = &slopes;
    let maps = [
        (Some(layer.up), (x, d_input), (&up_slopes[..], d_inner), Some(dup)),
        (layer.gate, (x, d_input), (&gate_slopes[..], d_inner), dgate),
        (Some(layer.down), (&inner[..], d_inner), (&dy_words[..], d_output), Some(ddown)),
    ];
    for (weight, read, gradient, to) in maps {
        let (Some(weight), Some(to)) = (weight, to) else { continue };
        let (left, right) = if weight.col_stride == 1 { (read, gradient) } else { (gradient, read) };
        // SAFETY: the operands are as long as their sizes say.
        unsafe {
            matmul(cpu, columns(left.0, left.1), columns(right.0, right.1), Epilogue::default(), to);
        }
    }
}

impl Backward {
    /// # Safety
    /// All is packed; no other thread has this strip.
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn strip<F: Function>(&self, f: F, (at, rows): (usize, Range<usize>), dx: *mut f32) {
        let &Self { dy, down, up, gate, before, inner, slopes, bias, d_input, d_inner } = self;
        let mut scratch = Scratch::take(rows.len() * COLS);
        let d_room = scratch.pointer();
        for cols in blocks(d_inner) {
            // SAFETY: the blocks lie within the sizes; the scratch memory has room for one.
            unsafe {
                let to = Output { c: d_room, stride: COLS, bias: std::ptr::null(), accumulate: false };
                multiply(dy, down, (rows.clone(), cols.clone()), to);
                for col in cols.clone().step_by(STEP) {
                    let s = Avx512::new();
                    let mut sums = [s.splat(0.0); 2];
                    for (row, at) in rows.clone().enumerate() {
                        let d = two(d_room.add(row * COLS + col - cols.start));
                        let x = widened(before[0].at(at, col));
                        let (value, slope) = match gate {
                            Some(_) => {
                                let gate = widened(before[1].at(at, col));
                                let value = [f.value::<_, true>(s, gate[0]), f.value::<_, true>(s, gate[1])];
                                let of_gate = halves(
                                    f.slope::<_, true>(s, gate[0], s.mul(x[0], d[0])),
                                    f.slope::<_, true>(s, gate[1], s.mul(x[1], d[1])),
                                );
                                _mm512_storeu_si512(slopes[1].at(at, col), of_gate);
                                (
                                    [s.mul(value[0], x[0]), s.mul(value[1], x[1])],
                                    [s.mul(value[0], d[0]), s.mul(value[1], d[1])],
                                )
                            }
                            None => (
                                [f.value::<_, true>(s, x[0]), f.value::<_, true>(s, x[1])],
                                [f.slope::<_, true>(s, x[0], d[0]), f.slope::<_, true>(s, x[1], d[1])],
                            ),
                        };
                        sums = [s.add(sums[0], slope[0]), s.add(sums[1], slope[1])];
                        _mm512_storeu_si512(inner.at(at, col), halves(value[0], value[1]));
                        _mm512_storeu_si512(slopes[0].at(at, col), halves(slope[0], slope[1]));
                    }
                    if !bias.is_null() {
                        let to = bias.add(at * d_inner + col);
                        s.store_to(to, sums[0]);
                        s.store_to(to.add(16), sums[1]);
                    }
                }
            }
        }
        let parts = [(slopes[0], Some(up)), (slopes[1], gate)];
        for (at, (slopes, weight)) in parts.into_iter().enumerate() {
            if let Some(weight) = weight {
                let to = Output { c: dx, stride: d_input, bias: std::ptr::null(), accumulate: at > 0 };
                let left = Left::Rows(slopes.at(rows.start, 0).cast(), slopes.words);
                // SAFETY: the slopes of these rows are written.
                unsafe { multiply(left, weight, (0..rows.len(), 0..d_input), to) };
            }
        }
    }
}

/// Columns of the first projections, a block at a time.
fn blocks(d_inner: usize) -> impl Iterator<Item = Range<usize>> {
    (0..d_inner).step_by(COLS).map(move |start| start..d_inner.min(start + COLS))
}

/// # Safety
/// The machine has AVX-512F, and there are 32 f32.
#[inline(always)]
unsafe fn two(from: *const f32) -> [__m512; 2] {
    // SAFETY: the caller's promise.
    unsafe { [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16))] }
}

/// 32 bf16 widened to f32.
///
/// # Safety
/// The machine has AVX-512F, and there are 16 words.
#[inline(always)]
unsafe fn widened(from: *const __m512i) -> [__m512; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, high) =
            (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.cast::<__m256i>().add(1)));
        [wide(low), wide(high)]
    }
}

/// 16 bf16 widened to f32.
///
/// # Safety
/// The machine has AVX-512F.
#[inline(always)]
unsafe fn wide(bits: __m256i) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits))) }
}
