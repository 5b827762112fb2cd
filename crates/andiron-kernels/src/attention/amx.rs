//! One head by tiles of bf16, a block of queries at a time.
//!
//! As in [`flash`](super::flash), the scores of a block lie as `[keys, queries]`: the result of one product and, packed
//! anew, an operand of the next. What is added up over queries waits for a group of blocks, because a product as deep
//! as a single tile would mostly load and store its sums.

use super::bias::Sums;
use super::flash::{multiply_all, untranspose};
use super::scores::{scale_columns, slopes_block, softmax_block};
use super::view::{BackwardView, Block, HeadView};
use crate::gemm::amx::{Operand, Packing, Product, SQUARE, STEPS, TILE_WORDS, Tiles, room};
use crate::gemm::block::Strided;
use crate::gemm::pack::{self, Parts, Scratch};
use crate::simd::Avx512;

/// Queries of a block.
const BLOCK: usize = SQUARE;
/// Queries whose shares of the gradients of keys and values are added at a time.
const GROUP: usize = 4 * BLOCK;
/// Words of a square of keys in what waits for a group.
const SQUARE_WORDS: usize = 2 * (GROUP / STEPS) * TILE_WORDS;

/// # Safety
/// As for [`flash::head_forward`](super::flash::head_forward), on a machine with tiles of bf16.
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
pub(super) unsafe fn head_forward(view: HeadView, out: *mut f32, lse: *mut f32) {
    let HeadView { q, k, v, q_stride, kv_stride, out_stride, queries, keys, dim, scale, .. } = view;
    let key_rows = keys.next_multiple_of(SQUARE);
    let dim_rows = dim.next_multiple_of(SQUARE);
    let len = room(keys, dim) + room(dim, keys) + (key_rows + dim + dim_rows) * BLOCK;
    let len = len + room(BLOCK, dim) + room(BLOCK, keys) + 7 * 16;
    let mut scratch = Scratch::take(len);
    let mut parts = Parts::new(&mut scratch, len);
    let [k_room, v_room] = [room(keys, dim), room(dim, keys)].map(|len| parts.take(len).cast::<u32>());
    let [q_room, p_room] = [room(BLOCK, dim), room(BLOCK, keys)].map(|len| parts.take(len).cast::<u32>());
    let [scores, numbers, means] = [key_rows, dim, dim_rows].map(|rows| parts.take(rows * BLOCK));
    // SAFETY: the loops stay within the sizes of the view, for which the parts were made; the machine has tiles and the
    // vectors that come with them.
    unsafe {
        let (s, _tiles) = (Avx512::new(), Tiles::configure());
        let k = left(along(k, kv_stride), (keys, dim), k_room);
        let v = left(across(v, kv_stride), (dim, keys), v_room);
        for start in (0..queries).step_by(BLOCK) {
            let block = view.block(start, BLOCK, SQUARE);
            let Block { first, keys, queries, .. } = block;
            pack::panels::<BLOCK>(along(q.add(start * q_stride), q_stride), queries, dim, numbers);
            multiply_all(s, numbers, dim * BLOCK, scale);
            let q = right(across(numbers, BLOCK), (BLOCK, dim), q_room);
            columns(from_lane(k, first), keys, q, dim, scores);
            let factors = softmax_block::<_, BLOCK>(s, scores, block, lse);
            let p = right(across(scores, BLOCK), (BLOCK, keys), p_room);
            columns(from_step(v, first), dim, p, keys, means);
            scale_columns::<_, BLOCK>(s, means, dim, factors);
            untranspose::<BLOCK>(means, (queries, dim), out.add(start * out_stride), out_stride);
        }
    }
}

/// # Safety
/// As for [`flash::head_backward`](super::flash::head_backward), on a machine with tiles of bf16.
#[target_feature(enable = "avx512bf16,avx512vl,avx512bw,avx512f,avx2,fma")]
pub(super) unsafe fn head_backward(view: BackwardView) {
    let BackwardView { head, lse, dout, dq, dk, dv, dbias, .. } = view;
    let HeadView { q, k, v, q_stride, kv_stride, out_stride, queries, keys, dim, scale, .. } = head;
    let key_rows = keys.next_multiple_of(SQUARE);
    let dim_rows = dim.next_multiple_of(SQUARE);
    let tiles = [room(keys, dim), room(keys, dim), room(dim, keys), room(BLOCK, dim), room(BLOCK, keys)];
    let sums = [room(keys, GROUP), room(keys, GROUP), room(dim, GROUP)];
    let numbers = [key_rows, key_rows, dim, dim_rows].map(|rows| rows * BLOCK);
    let len = tiles.iter().chain(&sums).chain(&numbers).sum::<usize>() + Sums::room(&head) + 13 * 16;
    let mut scratch = Scratch::take(len);
    let mut parts = Parts::new(&mut scratch, len);
    let [k_room, v_room, k_across, block_room, slopes_room] = tiles.map(|len| parts.take(len).cast::<u32>());
    let [p_sums, slopes_sums, rows_room] = sums.map(|len| parts.take(len).cast::<u32>());
    let [scores, slopes, numbers, dq_columns] = numbers.map(|len| parts.take(len));
    let sums_room = parts.take(Sums::room(&head));
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
                pack::panels::<BLOCK>(along(q.add(start * q_stride), q_stride), queries, dim, numbers);
                multiply_all(s, numbers, dim * BLOCK, scale);
                let q = right(across(numbers, BLOCK), (BLOCK, dim), block_room);
                columns(from_lane(k_rows, first), keys, q, dim, scores);
                let dout = along(dout.add(start * out_stride), out_stride);
                columns(from_lane(v_rows, first), keys, right(dout, (queries, dim), block_room), dim, slopes);
                slopes_block::<_, BLOCK>(s, (scores, slopes), (block, scale), lse, bias_sums);
                // The group's keys before the block's, and those up to its last, in whole squares.
                let before = first - group.first;
                let [end, group_end] = [before + keys, group.keys].map(|n| n.next_multiple_of(SQUARE));
                for (numbers, sums) in [(scores, p_sums), (slopes, slopes_sums)] {
                    let sums = sums.add((start - group.start) / STEPS * TILE_WORDS);
                    let packing = |lanes, to| Packing {
                        from: along(numbers, BLOCK),
                        lanes,
                        depth: BLOCK,
                        tiles: GROUP / STEPS,
                        to,
                    };
                    packing(keys, sums.add(before / SQUARE * SQUARE_WORDS)).run::<true>();
                    let all = packing(group.keys, sums);
                    all.clear(0..before);
                    all.clear(end..group_end);
                }
                let slopes = right(across(slopes, BLOCK), (BLOCK, keys), slopes_room);
                columns(from_step(k_columns, first), dim, slopes, keys, dq_columns);
                untranspose::<BLOCK>(dq_columns, (queries, dim), dq.add(start * q_stride), q_stride);
            }
            for (sums, from, stride, to) in [(p_sums, dout, out_stride, dv), (slopes_sums, q, q_stride, dk)] {
                let from = across(from.add(group.start * stride), stride);
                let product = Product {
                    m: group.keys,
                    n: dim,
                    depth: group.queries.div_ceil(STEPS),
                    a: Operand { start: sums, tiles: GROUP / STEPS },
                    b: right(from, (dim, group.queries), rows_room),
                    c: to.add(group.first * kv_stride),
                    c_stride: kv_stride,
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

/// Lanes `stride` apart, each contiguous.
fn along(start: *const f32, stride: usize) -> Strided {
    Strided { start, lane: stride, depth: 1 }
}

/// Lanes side by side, steps of the depth `stride` apart.
fn across(start: *const f32, stride: usize) -> Strided {
    Strided { start, lane: 1, depth: stride }
}

/// A left operand from this lane on, a multiple of [`SQUARE`].
///
/// # Safety
/// The operand has so many lanes, or one less.
unsafe fn from_lane(a: Operand, lane: usize) -> Operand {
    // SAFETY: the caller's promise; tiles have half as many lanes as squares.
    Operand { start: unsafe { a.start.add(lane / (SQUARE / 2) * a.tiles * TILE_WORDS) }, ..a }
}

/// A left operand from this step of its depth on, a multiple of [`STEPS`].
///
/// # Safety
/// The operand has so many steps, or one less.
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
