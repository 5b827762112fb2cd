//! One head, a block of queries at a time, by AMX tiles of bf16.
//!
//! As in [`flash`](super::flash), the scores of a block are `[keys, queries]`. Probabilities and gradients of scores are
//! written from registers directly as packed operands of the next matmuls. The gradients of keys and values, which are
//! sums over queries, are computed for a group of blocks at a time: a matmul with a depth of one tile would mostly load
//! and store its accumulators.

use std::arch::x86_64::*;
use std::ops::Range;

use super::bias::Sums;
use super::dropout::{HeadDropout, KeepAll};
use super::scores::{MAX_BLOCK, Row, slopes_block, softmax_block};
use super::view::{BackwardView, Block, HeadView};
use crate::gemm::amx::{
    Operand, Packing, Product, SQUARE, STEPS, TILE, TILE_WORDS, Tiles, room, store_transposed,
};
use crate::gemm::block::Strided;
use crate::gemm::pack::{Parts, Scratch};
use crate::gemm::panel_format::{halves, interleaved};
use crate::simd::{Avx512, Simd};

/// Queries of a block.
const BLOCK: usize = SQUARE;
/// Queries per update of the gradients of keys and values.
const GROUP: usize = 4 * BLOCK;

/// # Safety
/// As for [`flash::head_forward`](super::flash::head_forward), on a machine with tiles of bf16.
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
pub(super) unsafe fn head_forward(view: HeadView, out: *mut f32, lse: *mut f32) {
    let HeadView { q, k, v, q_stride, kv_stride, out_stride, queries, keys, dim, scale, .. } = view;
    let [key_rows, dim_rows] = [keys, dim].map(|rows| rows.next_multiple_of(SQUARE));
    let rooms = [room(keys, dim), room(dim, keys), room(BLOCK, dim), room(BLOCK, keys)];
    let mask_len = HeadDropout::room(&view, BLOCK);
    let len = rooms.iter().sum::<usize>() + (key_rows + dim_rows) * BLOCK + mask_len + 7 * 16;
    let mut scratch = Scratch::take(len);
    let mut parts = Parts::new(&mut scratch, len);
    let [k_room, v_room, q_room, p_room] = rooms.map(|len| parts.take(len).cast::<u32>());
    let [scores, means] = [key_rows, dim_rows].map(|rows| parts.take(rows * BLOCK));
    let mask_room = parts.take(mask_len);
    // SAFETY: the loops stay within the sizes of the view, for which the parts were made; the machine has tiles and the
    // vectors that come with them.
    unsafe {
        let (s, _tiles) = (Avx512::new(), Tiles::configure());
        let k_rows = left(along(k, kv_stride), (keys, dim), k_room);
        let v_columns = left(across(v, kv_stride), (dim, keys), v_room);
        for start in (0..queries).step_by(BLOCK) {
            let block = view.block(start, BLOCK, SQUARE);
            let Block { first, keys, queries, .. } = block;
            let rows = (start..start + queries, view.keys, dim);
            let q = right(along(q.add(start * q_stride), q_stride), (queries, dim), q_room);
            columns(from_lane(k_rows, first), keys, q, dim, scores);
            prefetch_next_head(s, [(view.q, q_stride), (k, kv_stride), (v, kv_stride)], rows);
            let p = KeyPairs::new(p_room, keys);
            let how = (block, scale);
            let factors = match view.dropout {
                None => {
                    softmax_block::<_, BLOCK, true>(s, scores, how, KeepAll, lse, |j, rows| p.put(j, rows))
                }
                Some(dropout) => softmax_dropped(s, scores, how, (dropout, mask_room), lse, p),
            };
            let to = (out.add(start * out_stride), out_stride);
            transposed(from_step(v_columns, first), (dim, queries), p, means, to, |i, line| {
                _mm512_mul_ps(line, _mm512_set1_ps(factors[i]))
            });
        }
    }
}

/// # Safety
/// As for [`flash::head_backward`](super::flash::head_backward), on a machine with tiles of bf16.
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
pub(super) unsafe fn head_backward(view: BackwardView) {
    let BackwardView { head, lse, dout, dq, dk, dv, dq_stride, dkv_stride, dbias, .. } = view;
    let HeadView { q, k, v, q_stride, kv_stride, out_stride, queries, keys, dim, scale, .. } = head;
    let [key_rows, dim_rows] = [keys, dim].map(|rows| rows.next_multiple_of(SQUARE));
    let tiles = [room(keys, dim), room(keys, dim), room(dim, keys), room(BLOCK, dim), room(BLOCK, keys)];
    let sums = [room(keys, GROUP), room(keys, GROUP), room(dim, GROUP)];
    let numbers = [key_rows, key_rows, dim_rows].map(|rows| rows * BLOCK);
    let (sums_len, mask_len) = (Sums::room(&head), HeadDropout::room(&head, BLOCK));
    let len = tiles.iter().chain(&sums).chain(&numbers).sum::<usize>() + sums_len + mask_len + 13 * 16;
    let mut scratch = Scratch::take(len);
    let mut parts = Parts::new(&mut scratch, len);
    let [k_room, v_room, k_across, block_room, slopes_room] = tiles.map(|len| parts.take(len).cast::<u32>());
    let [p_sums, slopes_sums, rows_room] = sums.map(|len| parts.take(len).cast::<u32>());
    let [scores, slopes, dq_columns] = numbers.map(|len| parts.take(len));
    let (sums_room, mask_room) = (parts.take(sums_len), parts.take(mask_len));
    // SAFETY: as in `head_forward`.
    unsafe {
        let (s, _tiles) = (Avx512::new(), Tiles::configure());
        let k_rows = left(along(k, kv_stride), (keys, dim), k_room);
        let v_rows = left(along(v, kv_stride), (keys, dim), v_room);
        let k_columns = left(across(k, kv_stride), (dim, keys), k_across);
        let bias_sums = Sums::new(sums_room, &head);
        for start in (0..queries).step_by(GROUP) {
            let group = head.block(start, GROUP, SQUARE);
            for start in (group.start..group.start + group.queries).step_by(BLOCK) {
                let block = head.block(start, BLOCK, SQUARE);
                let Block { first, keys, queries, .. } = block;
                let rows = along(q.add(start * q_stride), q_stride);
                columns(from_lane(k_rows, first), keys, right(rows, (queries, dim), block_room), dim, scores);
                let rows = along(dout.add(start * out_stride), out_stride);
                columns(from_lane(v_rows, first), keys, right(rows, (queries, dim), block_room), dim, slopes);
                let rows = (start..start + queries, head.keys, dim);
                prefetch_next_head(s, [(q, q_stride), (k, kv_stride), (v, kv_stride)], rows.clone());
                let to = [(dq, dq_stride), (dk, dkv_stride), (dv, dkv_stride)];
                prefetch_next_head(s, to.map(|(to, stride)| (to.cast_const(), stride)), rows);
                // The group's keys before the block's.
                let before = first - group.first;
                let tile = (start - group.start) / STEPS;
                let [p_sums, slopes_sums] = [p_sums, slopes_sums].map(|sums| QueryBlocks { sums, tile });
                let pairs = KeyPairs::new(slopes_room, keys);
                let (both, how) = ((scores, slopes.cast_const()), (block, scale));
                let put_p = |j, row: Row<Avx512>| p_sums.put(before + j, row);
                let put_slopes = |j, rows: [Row<Avx512>; 2]| {
                    // `j + 1` may not exist, but has room: `j` is even.
                    slopes_sums.put(before + j, rows[0]);
                    slopes_sums.put(before + j + 1, rows[1]);
                    pairs.put(j, rows);
                };
                match head.dropout {
                    None => slopes_block::<_, _, BLOCK, true>(
                        s, both, how, KeepAll, lse, bias_sums, put_p, put_slopes,
                    ),
                    Some(dropout) => {
                        let dropout = (dropout, mask_room);
                        slopes_dropped(s, both, how, dropout, lse, bias_sums, put_p, put_slopes);
                    }
                }
                let group_end = group.keys.next_multiple_of(SQUARE);
                for key in (0..before).chain(before + keys..group_end) {
                    p_sums.put(key, [s.splat(0.0); 2]);
                    slopes_sums.put(key, [s.splat(0.0); 2]);
                }
                let to = (dq.add(start * dq_stride), dq_stride);
                transposed(from_step(k_columns, first), (dim, queries), pairs, dq_columns, to, |_, line| {
                    line
                });
            }
            for (sums, from, stride, to) in [(p_sums, dout, out_stride, dv), (slopes_sums, q, q_stride, dk)] {
                let from = across(from.add(group.start * stride), stride);
                let product = Product {
                    m: group.keys,
                    n: dim,
                    depth: group.queries.div_ceil(STEPS),
                    a: Operand { start: sums, tiles: GROUP / STEPS },
                    b: right(from, (dim, group.queries), rows_room),
                    c: to.add(group.first * dkv_stride),
                    c_stride: dkv_stride,
                    bias: std::ptr::null(),
                    accumulate: true,
                };
                product.rectangle(0..group.keys, 0..dim);
            }
        }
        if let Some(sums) = bias_sums {
            sums.give(queries, dbias);
        }
    }
}

/// [`softmax_block`] with dropout, whose mask is drawn into the scratch memory given with it. A separate function, as in
/// [`scores`](super::scores), so that it costs no registers without dropout.
///
/// # Safety
/// As for [`softmax_block`], [`HeadDropout::draw`] and [`KeyPairs::put`].
#[inline(never)]
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
unsafe fn softmax_dropped(
    s: Avx512,
    scores: *mut f32,
    how: (Block, f32),
    (dropout, room): (HeadDropout, *mut f32),
    lse: *mut f32,
    p: KeyPairs,
) -> [f32; MAX_BLOCK] {
    // SAFETY: the caller's promise.
    unsafe {
        let mask = dropout.draw(s, how.0, room);
        softmax_block::<_, BLOCK, true>(s, scores, how, mask, lse, |j, rows| p.put(j, rows))
    }
}

/// [`slopes_block`] with dropout, whose mask is drawn into the scratch memory given with it.
///
/// # Safety
/// As for [`slopes_block`] and [`HeadDropout::draw`].
#[inline(never)]
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
#[allow(clippy::too_many_arguments)]
unsafe fn slopes_dropped(
    s: Avx512,
    both: (*mut f32, *const f32),
    how: (Block, f32),
    (dropout, room): (HeadDropout, *mut f32),
    lse: *const f32,
    sums: Option<Sums>,
    probability: impl FnMut(usize, Row<Avx512>),
    slope: impl FnMut(usize, [Row<Avx512>; 2]),
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mask = dropout.draw(s, how.0, room);
        slopes_block::<_, _, BLOCK, true>(s, both, how, mask, lse, sums, probability, slope);
    }
}

/// Elements of a sequence, of all heads, that stay in the L2 cache.
const NEAR: usize = 1 << 16;
/// Head width from which on the hardware prefetcher keeps up.
const WIDE: usize = 64;

/// Prefetches the next head's rows, which follow these rows of `dim` elements (unless this is the last head). The hardware
/// prefetcher misses short rows that are far apart.
#[inline(always)]
fn prefetch_next_head<const N: usize>(
    s: Avx512,
    starts: [(*const f32, usize); N],
    (rows, keys, dim): (Range<usize>, usize, usize),
) {
    for (start, stride) in starts {
        if dim < WIDE && keys * stride > NEAR {
            for row in rows.clone() {
                for line in (0..dim).step_by(16) {
                    s.prefetch(start.wrapping_add(row * stride + dim + line));
                }
            }
        }
    }
}

/// Two vectors of queries per key, written as a packed right operand with keys as depth.
#[derive(Clone, Copy)]
struct KeyPairs {
    start: *mut u32,
    tiles: usize,
}

impl KeyPairs {
    /// Writes zeros for keys beyond the last.
    ///
    /// # Safety
    /// `start` is writable for a block of columns and `keys` steps; the machine has AVX-512.
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn new(start: *mut u32, keys: usize) -> Self {
        let pairs = Self { start, tiles: keys.div_ceil(STEPS) };
        for j in (keys.next_multiple_of(2)..pairs.tiles * STEPS).step_by(2) {
            // SAFETY: there is room for whole tiles.
            unsafe { pairs.put(j, [[_mm512_setzero_ps(); 2]; 2]) };
        }
        pairs
    }

    /// Writes the rows of keys `j`, which is even, and `j + 1`.
    ///
    /// # Safety
    /// `j` is below the keys; the machine has AVX-512.
    #[inline]
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn put(self, j: usize, [even, odd]: [[__m512; 2]; 2]) {
        for half in 0..2 {
            let at = (half * self.tiles + j / STEPS) * TILE_WORDS + j % STEPS / 2 * TILE;
            // SAFETY: the caller's promise.
            unsafe { _mm512_store_si512(self.start.add(at).cast(), interleaved(even[half], odd[half])) };
        }
    }
}

/// A block of queries per key of a group, written as a packed left operand with the group's queries as depth.
#[derive(Clone, Copy)]
struct QueryBlocks {
    sums: *mut u32,
    /// Index of the block's tile.
    tile: usize,
}

impl QueryBlocks {
    /// Writes the row of a key.
    ///
    /// # Safety
    /// `sums` has room for this key in whole squares; the machine has AVX-512.
    #[inline]
    #[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
    unsafe fn put(self, key: usize, [low, high]: [__m512; 2]) {
        let at = (key / TILE * (GROUP / STEPS) + self.tile) * TILE_WORDS + key % TILE * TILE;
        // SAFETY: the caller's promise.
        unsafe { _mm512_store_si512(self.sums.add(at).cast(), halves(low, high)) };
    }
}

/// `to[i, d] = change(i, Σ_j a[d, j] b[i, j])` for `dim` values of `d` and `queries` values of `i`.
///
/// # Safety
/// `a` holds `dim` lanes of the depth of `b`, `room` is writable for whole squares, `to` for the rows; tiles are
/// configured.
#[inline(always)]
unsafe fn transposed(
    a: Operand,
    (dim, queries): (usize, usize),
    b: KeyPairs,
    room: *mut f32,
    (to, stride): (*mut f32, usize),
    change: impl Fn(usize, __m512) -> __m512 + Copy,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if b.tiles == 0 {
            return (0..queries).for_each(|i| to.add(i * stride).write_bytes(0, dim));
        }
        let product = Product {
            m: dim,
            n: BLOCK,
            depth: b.tiles,
            a,
            b: Operand { start: b.start, tiles: b.tiles },
            c: room,
            c_stride: BLOCK,
            bias: std::ptr::null(),
            accumulate: false,
        };
        product.squares(0..dim, 0..BLOCK, |d, _, sums, rows| {
            if rows.end == SQUARE {
                store_transposed(sums, (SQUARE.min(dim - d), queries), (to.add(d), stride), change);
            }
        });
    }
}

/// Lanes `stride` apart, each contiguous.
fn along(start: *const f32, stride: usize) -> Strided {
    Strided { start, lane: stride, depth: 1 }
}

/// Contiguous lanes, steps of the depth `stride` apart.
fn across(start: *const f32, stride: usize) -> Strided {
    Strided { start, lane: 1, depth: stride }
}

/// A left operand from this lane on, a multiple of [`SQUARE`].
///
/// # Safety
/// The operand has at least `lane` lanes.
unsafe fn from_lane(a: Operand, lane: usize) -> Operand {
    // SAFETY: the caller's promise; tiles have half as many lanes as squares.
    Operand { start: unsafe { a.start.add(lane / (SQUARE / 2) * a.tiles * TILE_WORDS) }, ..a }
}

/// A left operand from this step of its depth on, a multiple of [`STEPS`].
///
/// # Safety
/// The operand has at least `step` steps.
unsafe fn from_step(a: Operand, step: usize) -> Operand {
    // SAFETY: the caller's promise.
    Operand { start: unsafe { a.start.add(step / STEPS * TILE_WORDS) }, ..a }
}

/// Packs lanes as rows of a left operand.
///
/// # Safety
/// As for [`Packing::run`].
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
unsafe fn left(from: Strided, (lanes, depth): (usize, usize), to: *mut u32) -> Operand {
    let tiles = depth.div_ceil(STEPS);
    // SAFETY: the caller's promise.
    unsafe { Packing { from, lanes, depth, tiles, to }.run::<true>() };
    Operand { start: to, tiles }
}

/// Packs lanes as columns of a right operand.
///
/// # Safety
/// As for [`Packing::run`].
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
unsafe fn right(from: Strided, (lanes, depth): (usize, usize), to: *mut u32) -> Operand {
    let tiles = depth.div_ceil(STEPS);
    // SAFETY: the caller's promise.
    unsafe { Packing { from, lanes, depth, tiles, to }.run::<false>() };
    Operand { start: to, tiles }
}

/// `to[i, lane] = Σ_l a[i, l] b[lane, l]`, `[rows, BLOCK]`.
///
/// # Safety
/// The operands hold that many rows, a block of columns and `depth` steps, `to` has room for whole squares; tiles are
/// configured.
unsafe fn columns(a: Operand, rows: usize, b: Operand, depth: usize, to: *mut f32) {
    let m = rows.next_multiple_of(SQUARE);
    if depth == 0 {
        // SAFETY: the caller's promise.
        return unsafe { to.write_bytes(0, m * BLOCK) };
    }
    let product = Product {
        m,
        n: BLOCK,
        depth: depth.div_ceil(STEPS),
        a,
        b,
        c: to,
        c_stride: BLOCK,
        bias: std::ptr::null(),
        accumulate: false,
    };
    // SAFETY: the caller's promise.
    unsafe { product.rectangle(0..m, 0..BLOCK) };
}
