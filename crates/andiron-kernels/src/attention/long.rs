//! Many queries over many keys, by online softmax: one tile of keys at a time, for several heads and blocks of queries.
//!
//! The scores of a block of queries and a tile of keys stay in the L1 cache. Running sums are rescaled when the maximum
//! grows. Keys and values are packed once for all heads of a group and for several blocks of queries; packing also reads
//! the blocks of a paged KV cache and widens bf16.
//!
//! Sources: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax", <https://arxiv.org/abs/1805.02867>;
//! Dao 2023, "FlashAttention-2", <https://arxiv.org/abs/2307.08691>.

use std::ops::Range;

use super::blocks::HeadBlocks;
use super::dropout::KeepAll;
use super::element::Element;
use super::flash::{Transposed, panel_matmul, target, transposed, untranspose};
use super::scores::{self, Row, exponentials, finish, rescaling, scale_columns};
use super::view::{Block, HeadView};
use super::{Attention, AttentionShape, Document, Qkv};
use crate::bf16::Bf16;
use crate::gemm::block::Strided;
use crate::gemm::pack::{Parts, Scratch};
use crate::gemm::panel_format::PanelFormat;
use crate::gemm::tile::{Operands, tile};
use crate::parallel::{self, Shared};
use crate::simd::{Simd, dispatch_matmul};
use crate::{Cpu, Isa, Precision};

/// Keys per tile: a multiple of the matmul tiles of six and of twelve rows. Their scores fill most of the L1 cache.
const KEYS: usize = 192;
/// Queries of a block: the columns of the largest tile of any instruction set.
const QUERIES: usize = 32;
/// Blocks of queries, times heads, for which keys are packed once: with this many, packing takes a twentieth of the time.
const TILES: usize = 24;
/// Tasks per thread, if there is enough work.
const TASKS: usize = 3;
/// The most heads of a task: their state fits the L2 cache.
const MOST_HEADS: usize = 8;

/// Some heads of one sequence that share a KV head.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    /// The first head; the next is `dim` elements further in queries and outputs. Its `k` and `v` are used with
    /// [`Keys::Contiguous`].
    pub(super) head: HeadView,
    pub(super) heads: usize,
    /// From a head's bias to that of the next.
    pub(super) bias_step: usize,
    pub(super) keys: Keys<'a>,
    pub(super) out: *mut f32,
    /// One per query; null if not wanted.
    pub(super) lse: *mut f32,
    /// From a head's `lse` to that of the next.
    pub(super) lse_step: usize,
}

// SAFETY: the pointers are to memory that is only read, and to outputs of which each task writes its own.
unsafe impl Sync for Group<'_> {}

/// Storage of keys and values.
#[derive(Clone, Copy)]
pub(super) enum Keys<'a> {
    /// One strided tensor, as the head's view describes it.
    Contiguous,
    /// Blocks of a paged KV cache.
    F32(HeadBlocks<'a, f32>),
    /// Blocks of bf16.
    Bf16(HeadBlocks<'a, Bf16>),
}

/// Up to this many keys, the scores of a block of queries fit the L2 cache beside keys and values.
const SHORT: usize = 2048;

/// Whether online softmax over `keys` keys is faster than holding all scores of a query.
pub(super) fn pays(how: (Isa, Precision), keys: usize) -> bool {
    keys > SHORT && is_available(how)
}

/// Whether there is a version for this instruction set and precision.
pub(super) fn is_available(how: (Isa, Precision)) -> bool {
    !matches!(how, (Isa::Scalar, _) | (Isa::Amx, Precision::Mixed))
}

/// Attention of these documents over contiguous keys; each has a query.
pub(super) fn forward_contiguous(
    cpu: Cpu,
    how: (Isa, Precision),
    (attention, qkv): (Attention, Qkv),
    documents: &[Document],
    (out, lse): (&Shared<f32>, &Shared<f32>),
) {
    let shape = attention.shape;
    let AttentionShape { queries, heads, kv_heads, .. } = shape;
    let (places, group) = (shape.places(matches!(qkv, Qkv::Packed(_))), heads / kv_heads.max(1));
    let of = |index: usize| {
        let (document, first) = (&documents[index / kv_heads], index % kv_heads * group);
        Group {
            head: attention.head(qkv, places, document, first),
            heads: group,
            bias_step: if attention.bias.is_empty() { 0 } else { attention.distances() },
            keys: Keys::Contiguous,
            out: out.pointer(shape.out_start(document, first)),
            lse: lse.pointer(shape.lse_start(document, first)),
            lse_step: queries,
        }
    };
    let groups: Vec<_> = (0..documents.len() * kv_heads).map(of).collect();
    // SAFETY: the caller checked the lengths; each head of each document writes its own outputs.
    unsafe { forward(cpu, how, &groups) };
}

/// Attention of all heads of all groups. A query's result depends only on its own sequence, not on the batch.
///
/// # Safety
/// `how` [is available](is_available). The views are readable and writable as their sizes say, and no two groups write the
/// same memory.
pub(super) unsafe fn forward(cpu: Cpu, how: (Isa, Precision), groups: &[Group<'_>]) {
    let tiles = |group: &Group| group.heads * group.head.queries.div_ceil(QUERIES);
    let tiles = groups.iter().map(tiles).sum::<usize>() / (TASKS * cpu.threads.max(1));
    let tiles = tiles.clamp(1, TILES);
    let mut tasks = Vec::new();
    for group in groups {
        for first in (0..group.heads).step_by(MOST_HEADS) {
            let heads = MOST_HEADS.min(group.heads - first);
            let together = QUERIES * tiles.div_ceil(heads);
            for start in (0..group.head.queries).step_by(together) {
                let queries = start..group.head.queries.min(start + together);
                let keys = group.head.keys_of(queries.end - 1).end - group.head.keys_of(start).start;
                let work = heads * queries.len() * keys * (group.head.dim / 4 + 8);
                tasks.push((work, group, first..first + heads, queries));
            }
        }
    }
    // Longest first, so that no thread starts a long one at the end.
    tasks.sort_by_key(|&(work, ..)| std::cmp::Reverse(work));
    let pays = parallel::pays(tasks.iter().map(|(work, ..)| work).sum());
    let cpu = Cpu { threads: if pays { cpu.threads } else { 1 }, ..cpu };
    parallel::tasks(cpu, tasks.len(), |index| {
        let (_, group, heads, queries) = tasks[index].clone();
        // SAFETY: the caller's promise; each task writes the outputs of its own heads and queries.
        unsafe { some_queries(how, group, heads, queries) };
    });
}

dispatch_matmul! {
    /// # Safety
    /// As for [`forward`], for these heads and queries.
    unsafe fn some_queries(group: &Group, heads: Range<usize>, queries: Range<usize>) = no_plain_version | vector;
}

/// Never called: see [`is_available`].
unsafe fn no_plain_version(_: &Group, _: Range<usize>, _: Range<usize>) {
    unreachable!("queries and keys without vectors go to the plain kernel");
}

/// # Safety
/// As for [`forward`].
#[inline(always)]
unsafe fn vector<S: Simd, P: PanelFormat<S>>(
    s: S,
    format: P,
    group: &Group,
    heads: Range<usize>,
    queries: Range<usize>,
) {
    // SAFETY: the caller's promise; the sizes are those of the tiles of this instruction set.
    unsafe {
        match (S::LANES, P::STEPS) {
            // Probabilities that are rounded to bf16 take the cheaper exponential.
            (16, 2) => sized::<S, P, 12, 32, true>(s, format, group, heads, queries),
            (16, _) => sized::<S, P, 12, 32, false>(s, format, group, heads, queries),
            _ => sized::<S, P, 6, 16, false>(s, format, group, heads, queries),
        }
    }
}

/// Online-softmax state of a block of queries of one head.
#[derive(Clone, Copy)]
struct State {
    /// The queries, packed.
    q: *mut f32,
    /// `[dim, queries]`: weighted sums of values.
    means: *mut f32,
    /// Running maxima, then running sums of exponentials.
    max_and_sum: *mut f32,
}

/// # Safety
/// As for [`forward`]; `MR` and `NR` are the sizes of the largest tile.
#[inline(always)]
unsafe fn sized<S: Simd, P: PanelFormat<S>, const MR: usize, const NR: usize, const ROUNDED: bool>(
    s: S,
    format: P,
    group: &Group,
    heads: Range<usize>,
    queries: Range<usize>,
) {
    const { assert!(KEYS.is_multiple_of(MR) && KEYS.is_multiple_of(2)) };
    let view = group.head;
    let HeadView { q, q_stride, out_stride, dim, scale, .. } = view;
    let (dim_rows, dim_words) = (dim.next_multiple_of(MR), dim.div_ceil(P::STEPS));
    let (key_words, blocks) = (KEYS / P::STEPS, queries.len().div_ceil(NR));
    let state_len = [dim_words * NR, dim_rows * NR, 2 * NR].map(|len| len.next_multiple_of(16));
    let len = heads.len() * blocks * state_len.iter().sum::<usize>()
        + 2 * KEYS * dim
        + KEYS * dim_words
        + dim_rows * key_words
        + KEYS * NR
        + key_words * NR
        + 6 * 16;
    let mut scratch = Scratch::take(len);
    let mut parts = Parts::new(&mut scratch, len);
    let widened = (parts.take(KEYS * dim), parts.take(KEYS * dim));
    let k_panels = parts.take(KEYS * dim_words);
    let v_room = parts.take(dim_rows * key_words);
    let scores = parts.take(KEYS * NR);
    let weights = if P::PLAIN { scores } else { parts.take(key_words * NR) };
    let states: Vec<State> = (0..heads.len() * blocks)
        .map(|_| {
            let [q, means, max_and_sum] = state_len.map(|len| parts.take(len));
            State { q, means, max_and_sum }
        })
        .collect();
    let of = |head: usize, block: usize| states[(head - heads.start) * blocks + block];
    // SAFETY: the loops stay within the sizes of the view; the parts were sized for them.
    unsafe {
        for head in heads.clone() {
            for (block, start) in queries.clone().step_by(NR).enumerate() {
                let State { q: panel, means, max_and_sum } = of(head, block);
                let from = q.add(start * q_stride + head * dim);
                let from = Strided { start: from, lane: q_stride, depth: 1 };
                format.panels::<NR>(from, NR.min(queries.end - start), dim, panel);
                std::slice::from_raw_parts_mut(means, dim_rows * NR).fill(0.0);
                let max_and_sum = std::slice::from_raw_parts_mut(max_and_sum, 2 * NR);
                max_and_sum[..NR].fill(f32::NEG_INFINITY);
                max_and_sum[NR..].fill(0.0);
            }
        }
        let seen = view.keys_of(queries.start).start..view.keys_of(queries.end - 1).end;
        for first in (seen.start / KEYS * KEYS..seen.end).step_by(KEYS) {
            let keys = KEYS.min(seen.end - first);
            let (k, v, stride) = group.keys.read(s, view, first..first + keys, widened);
            format.panels::<MR>(Strided { start: k, lane: stride, depth: 1 }, keys, dim, k_panels);
            let values = transposed::<S, P, MR>(format, v, stride, keys, dim, v_room);
            // The next tile is prefetched meanwhile, a few keys with each block of queries.
            let mut ahead = first + keys..seen.end.min(first + keys + KEYS);
            let fetched = KEYS.div_ceil(heads.len() * blocks);
            for head in heads.clone() {
                for (number, start) in queries.clone().step_by(NR).enumerate() {
                    let State { q, means, max_and_sum } = of(head, number);
                    group.keys.fetch(s, view, ahead.by_ref().take(fetched));
                    let count = NR.min(queries.end - start);
                    let begin = view.keys_of(start).start;
                    let keys = keys.min(view.keys_of(start + count - 1).end.saturating_sub(first));
                    if keys == 0 || begin >= first + keys {
                        continue;
                    }
                    let bias = match view.bias.is_null() {
                        true => view.bias,
                        false => view.bias.wrapping_add(head * group.bias_step + start).wrapping_sub(first),
                    };
                    let mask = view.mask.later(start).relative_to_key(first);
                    let block = Block { start, queries: count, first, keys, mask, bias };
                    panel_matmul::<S, P, MR, NR>(s, format, (k_panels, keys), (q, dim_words), scores);
                    let max = load(s, max_and_sum);
                    let how = (block, scale);
                    let (now, sum) =
                        exponentials::<S, NR, ROUNDED>(s, scores, how, KeepAll, max, |j, steps| {
                            format.two_steps(s, steps, weights.add(j / P::STEPS * NR));
                        });
                    let factors = rescaling::<S, ROUNDED>(s, max, now);
                    let sums = load(s, max_and_sum.add(NR));
                    let sums = [s.fma(sums[0], factors[0], sum[0]), s.fma(sums[1], factors[1], sum[1])];
                    scores::store(s, max_and_sum, now);
                    scores::store(s, max_and_sum.add(NR), sums);
                    rescale::<S, NR>(s, means, dim, factors);
                    add_weighted::<S, P, MR, NR>(s, format, (values, dim), (weights, keys), means);
                }
            }
        }
        for head in heads.clone() {
            for (number, start) in queries.clone().step_by(NR).enumerate() {
                let State { means, max_and_sum, .. } = of(head, number);
                let block = view.block(start, NR.min(queries.end - start), 1);
                let lse = match group.lse.is_null() {
                    true => group.lse,
                    false => group.lse.add(head * group.lse_step),
                };
                let sums = (load(s, max_and_sum), load(s, max_and_sum.add(NR)));
                scale_columns::<S, NR>(s, means, dim, finish(s, block, sums, lse));
                let to = group.out.add(start * out_stride + head * dim);
                untranspose::<NR>(means, (block.queries, dim), to, out_stride);
            }
        }
    }
}

impl Keys<'_> {
    /// Prefetches some keys and values.
    #[inline(always)]
    fn fetch<S: Simd>(self, s: S, view: HeadView, keys: impl Iterator<Item = usize>) {
        const LINE: usize = 64;
        let HeadView { k, v, kv_stride, dim, .. } = view;
        for key in keys {
            let (k, v, bytes) = match self {
                Self::Contiguous => {
                    let step = key * kv_stride;
                    (k.wrapping_add(step).cast::<u8>(), v.wrapping_add(step).cast::<u8>(), 4 * dim)
                }
                Self::F32(blocks) => {
                    let (k, v) = blocks.at(key);
                    (k.cast(), v.cast(), 4 * dim)
                }
                Self::Bf16(blocks) => {
                    let (k, v) = blocks.at(key);
                    (k.cast(), v.cast(), 2 * dim)
                }
            };
            for byte in (0..bytes).step_by(LINE) {
                s.prefetch(k.wrapping_add(byte));
                s.prefetch(v.wrapping_add(byte));
            }
        }
    }

    /// Some keys and values as f32, and their stride: in place, or copied into `rooms`.
    ///
    /// # Safety
    /// The keys exist, and the rooms are writable for them.
    #[inline(always)]
    unsafe fn read<S: Simd>(
        self,
        s: S,
        view: HeadView,
        keys: Range<usize>,
        rooms: (*mut f32, *mut f32),
    ) -> (*const f32, *const f32, usize) {
        let HeadView { k, v, kv_stride, dim, .. } = view;
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Contiguous => {
                    return (k.add(keys.start * kv_stride), v.add(keys.start * kv_stride), kv_stride);
                }
                Self::F32(blocks) => widen(s, blocks, keys, dim, rooms),
                Self::Bf16(blocks) => widen(s, blocks, keys, dim, rooms),
            }
        }
        (rooms.0, rooms.1, dim)
    }
}

/// Copies keys and values from blocks, widened to f32.
///
/// # Safety
/// The keys exist, and each room is writable for them, `dim` elements each.
#[inline(always)]
unsafe fn widen<S: Simd, E: Element>(
    s: S,
    blocks: HeadBlocks<E>,
    keys: Range<usize>,
    dim: usize,
    rooms: (*mut f32, *mut f32),
) {
    let whole = dim / S::LANES * S::LANES;
    for (to, key) in keys.enumerate() {
        let (k, v) = blocks.at(key);
        for (from, room) in [(k, rooms.0), (v, rooms.1)] {
            // SAFETY: the caller's promise.
            unsafe {
                let room = room.add(to * dim);
                for d in (0..whole).step_by(S::LANES) {
                    s.store_to(room.add(d), E::load(s, from.add(d)));
                }
                if whole < dim {
                    let x = E::load_part(s, from.add(whole), dim - whole);
                    s.store_part_to(room.add(whole), x, dim - whole);
                }
            }
        }
    }
}

/// # Safety
/// `from` is readable for two vectors.
#[inline(always)]
unsafe fn load<S: Simd>(s: S, from: *const f32) -> Row<S> {
    // SAFETY: the caller's promise.
    unsafe { [s.load_from(from), s.load_from(from.add(S::LANES))] }
}

/// Multiplies each column of `[rows, NR]` by its factor.
///
/// # Safety
/// `x` is readable and writable for that many rows.
#[inline(always)]
unsafe fn rescale<S: Simd, const NR: usize>(s: S, x: *mut f32, rows: usize, factors: Row<S>) {
    for row in 0..rows {
        // SAFETY: the caller's promise.
        unsafe {
            let x = x.add(row * NR);
            let [low, high] = load(s, x);
            scores::store(s, x, [s.mul(low, factors[0]), s.mul(high, factors[1])]);
        }
    }
}

/// `to[d, lane] += Σ_j values[j, d] weights[j, lane]` over `keys` keys.
///
/// # Safety
/// `values` is readable for that many keys, `weights` is a right operand of that depth, `to` has room for whole tiles.
#[inline(always)]
unsafe fn add_weighted<S: Simd, P: PanelFormat<S>, const MR: usize, const NR: usize>(
    s: S,
    format: P,
    (values, dim): (Transposed, usize),
    (weights, keys): (*const f32, usize),
    to: *mut f32,
) {
    let Transposed { start, a_step, panel_step } = values;
    for d in (0..dim).step_by(MR) {
        let a = start.wrapping_add(d / MR * panel_step);
        let operands = Operands { k: keys.div_ceil(P::STEPS), a, a_lane: 1, a_step, b: weights, b_step: NR };
        // SAFETY: keys and widths are below the sizes.
        unsafe {
            let target = target::<NR>(to.add(d * NR), MR.min(dim - d), true);
            tile::<S, P, MR, 2>(s, format, operands, target);
        }
    }
}
