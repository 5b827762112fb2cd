//! Few queries over a paged KV cache: a long context is split into parts, so that all threads have work.
//!
//! Each part gives a partial output with its maximum and sum of exponentials; the parts are then merged.
//! Source: Dao et al. 2023, "Flash-Decoding for long-context inference", <https://pytorch.org/blog/flash-decoding/>.

use std::ops::Range;

use super::blocks::{BlockAttention, BlockRow, KvBlocks};
use super::decode::{Cached, MOST_HEADS, QuerySum, QueryView};
use super::from;
use crate::gemm::pack::Scratch;
use crate::parallel::{self, Shared};
use crate::{Cpu, KernelChoice};

/// Up to this many queries are computed one by one, each for the heads that share a KV head, unless the caller chooses.
pub(super) const FEW: usize = 4;

/// Whether this many queries of contiguous keys are computed one by one.
pub(super) fn one_by_one(kernels: KernelChoice, queries: usize) -> bool {
    match kernels {
        KernelChoice::Fastest => queries == 1,
        KernelChoice::Prefill => false,
        KernelChoice::Decode => true,
    }
}

/// Keys per part. Parts begin at multiples of it whatever the batch, so that a sequence's result does not depend on others.
const KEYS: usize = 512;

/// Some heads of one sequence that share a KV head, and their parts.
struct Heads {
    row: usize,
    kv_head: usize,
    heads: Range<usize>,
    parts: Range<usize>,
}

/// Some of the keys of [`Heads`].
struct Part {
    of: usize,
    keys: Range<usize>,
}

/// Attention of these sequences.
pub(super) fn forward(cpu: Cpu, attention: &BlockAttention, rows: &[usize], q: &[f32], out: &Shared<f32>) {
    let BlockAttention { heads, kv_heads, head_dim, .. } = *attention;
    let group = heads / kv_heads;
    let (mut of_rows, mut parts) = (Vec::new(), Vec::new());
    for &row in rows {
        let keys = attention.rows[row].keys;
        let seen = attention.mask(row).among(keys).start..keys;
        for kv_head in 0..kv_heads {
            for first in (0..group).step_by(MOST_HEADS) {
                let begin = parts.len();
                for start in (seen.start / KEYS * KEYS..seen.end).step_by(KEYS) {
                    let keys = start.max(seen.start)..seen.end.min(start + KEYS);
                    parts.push(Part { of: of_rows.len(), keys });
                }
                let heads = kv_head * group + first..kv_head * group + group.min(first + MOST_HEADS);
                of_rows.push(Heads { row, kv_head, heads, parts: begin..parts.len() });
            }
        }
    }
    let queries = rows.iter().map(|&row| attention.rows[row].queries).max().unwrap_or(0);
    let results = queries * group.min(MOST_HEADS);
    let mut scratch = Scratch::take(parts.len() * results * head_dim);
    // SAFETY: the scratch memory has this many elements, all initialised, and belongs to this call.
    let means =
        unsafe { std::slice::from_raw_parts_mut(scratch.pointer(), parts.len() * results * head_dim) };
    let mut sums = vec![QuerySum::default(); parts.len() * results];
    let (means, sums) = (Shared::new(means), Shared::new(&mut sums));
    let scores: usize = parts.iter().map(|part| part.keys.len()).sum::<usize>() * results;
    parallel::rows(cpu, parts.len(), scores / parts.len().max(1) * (head_dim / 4 + 8), 1, |range| {
        for index in range {
            let part = &parts[index];
            let of = &of_rows[part.of];
            for query in 0..attention.rows[of.row].queries {
                let result = index * results + query * of.heads.len();
                let to = (means.pointer(result * head_dim), sums.pointer(result));
                // SAFETY: the sizes were checked; each query of each part writes its own results.
                unsafe {
                    match attention.rows[of.row].blocks {
                        KvBlocks::F32(blocks) => one_query(cpu, attention, blocks, (of, part), query, q, to),
                        KvBlocks::Bf16(blocks) => one_query(cpu, attention, blocks, (of, part), query, q, to),
                    }
                }
            }
        }
    });
    let work = parts.len() * results * head_dim / of_rows.len().max(1);
    parallel::rows(cpu, of_rows.len(), work, 1, |range| {
        for Heads { row, heads: of, parts, .. } in &of_rows[range] {
            for (query, n) in (0..attention.rows[*row].queries).flat_map(|i| of.clone().map(move |n| (i, n)))
            {
                let result = |part: usize| part * results + query * of.len() + n - of.start;
                // SAFETY: all parts are written, and no thread writes any more.
                let of_part = |part| unsafe {
                    let at = result(part) * head_dim;
                    (&*means.range(at..at + head_dim), sums.range(result(part)..result(part) + 1)[0])
                };
                let start = attention.start(*row, n) + query * heads * head_dim;
                // SAFETY: each head of each query is written once.
                let out = unsafe { out.range(start..start + head_dim) };
                merge(parts.clone().map(of_part), out);
            }
        }
    });
}

/// One query over a part of the keys.
///
/// # Safety
/// The sizes were checked; the results are writable for the heads.
unsafe fn one_query<E: Cached>(
    cpu: Cpu,
    attention: &BlockAttention,
    blocks: &[&[E]],
    (of, part): (&Heads, &Part),
    query: usize,
    q: &[f32],
    (means, sums): (*mut f32, *mut QuerySum),
) {
    let BlockAttention { heads, head_dim: dim, block_len, scale, .. } = *attention;
    let BlockRow { keys, .. } = attention.rows[of.row];
    let seen = attention.mask(of.row).later(query).among(keys);
    let seen =
        seen.start.clamp(part.keys.start, part.keys.end)..seen.end.clamp(part.keys.start, part.keys.end);
    let first = part.keys.start / block_len * block_len;
    let of_head = attention.of_head(blocks, of.kv_head);
    let blocks: Vec<_> = (first..part.keys.end).step_by(block_len).map(|key| of_head.at(key)).collect();
    let bias = attention.bias_of(of.row, of.heads.start);
    let view = QueryView {
        q: from(q, attention.start(of.row, of.heads.start) + query * heads * dim),
        heads: of.heads.len(),
        blocks: &blocks,
        block_len,
        kv_stride: dim,
        seen: seen.start - first..seen.end - first,
        dim,
        scale,
        bias: if bias.is_null() { bias } else { bias.wrapping_add(query).wrapping_sub(first) },
        bias_stride: attention.distances(),
    };
    // SAFETY: the caller's promise.
    unsafe { E::one_query(cpu.isa, &view, means, sums) };
}

/// Merges the partial outputs of all parts.
fn merge<'a>(parts: impl Iterator<Item = (&'a [f32], QuerySum)> + Clone, out: &mut [f32]) {
    out.fill(0.0);
    // A part in which the query attends to no key has no maximum.
    let parts = parts.filter(|(_, QuerySum { sum, .. })| *sum != 0.0);
    let max = parts.clone().fold(f32::NEG_INFINITY, |max, (_, part)| max.max(part.max));
    let mut sum = 0.0;
    for (means, part) in parts {
        let weight = (part.max - max).exp() * part.sum;
        sum += weight;
        out.iter_mut().zip(means).for_each(|(out, mean)| *out += weight * mean);
    }
    if sum != 0.0 {
        out.iter_mut().for_each(|out| *out /= sum);
    }
}
