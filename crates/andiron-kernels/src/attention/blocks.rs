//! Attention of new positions over a cache of keys and values in blocks, sequences of any lengths together.
//!
//! A sequence is a list of blocks, so that it grows without a copy and sequences share what they have in common. Few new
//! positions read the blocks where they lie; many have a head's keys and values gathered first, which costs little beside
//! what is then done with them. Source: Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving
//! with PagedAttention", <https://arxiv.org/abs/2309.06180>.

use std::ops::Range;

use super::decode::{MOST_HEADS, QueryView, one_query};
use super::view::{HeadView, Sight};
use super::{from, head_forward, products};
use crate::gemm::pack::Scratch;
use crate::parallel::{self, Shared};
use crate::{Cpu, Isa};

/// Up to so many queries go over the blocks one by one, each with the heads that read the same.
const FEW: usize = 4;

/// Attention over blocks: sizes, who sees whom, and the scale of the scores.
#[derive(Clone, Copy, Debug)]
pub struct BlockAttention<'a> {
    /// The sequences.
    pub rows: &'a [BlockRow<'a>],
    /// Columns of queries; at least the queries of each sequence.
    pub columns: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values; divides `heads`. Query head `h` reads head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Positions in a block.
    pub block_len: usize,
    /// A query sees only keys that are at most this many positions before it, as in
    /// [`Attention`](super::Attention).
    pub reach: Option<usize>,
    /// Multiplies the scores; usually `1 / √head_dim`.
    pub scale: f32,
    /// Added to the scores by how far a key is before its query, `[heads, columns + n - 1]` with `n` not below the keys of
    /// any sequence: number `columns - 1 + d` is for keys `d` positions before their query; nothing if empty.
    pub bias: &'a [f32],
}

/// A sequence whose last positions ask.
#[derive(Clone, Copy, Debug)]
pub struct BlockRow<'a> {
    /// Keys, then values of `block_len` positions each: `[2, block_len, kv_heads, head_dim]`.
    pub blocks: &'a [&'a [f32]],
    /// Positions that count, those that ask included; what the blocks have beyond them is ignored.
    pub keys: usize,
    /// How many positions ask, the last ones: the first of its columns. Each sees itself and those before it.
    pub queries: usize,
}

/// `out = softmax(scale q kᵀ + bias) v` for each sequence and head; 0 in columns beyond a sequence's queries.
///
/// # Shape
/// `q` and `out`: `[rows, columns, heads, head_dim]`.
///
/// # Panics
/// If the lengths do not agree with the sizes, `kv_heads` does not divide `heads`, a sequence has more queries than columns
/// or keys, or fewer blocks than its keys need, or there are biases for too few distances.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::attention::{BlockAttention, BlockRow, forward_blocks};
/// // Two sequences share their first block of two positions; the second has one more.
/// let (first, second) = ([1.0, 1.0, 4.0, 6.0], [1.0, 0.0, 8.0, 0.0]);
/// let rows = [
///     BlockRow { blocks: &[&first], keys: 2, queries: 1 },
///     BlockRow { blocks: &[&first, &second], keys: 3, queries: 1 },
/// ];
/// let (heads, kv_heads, head_dim) = (1, 1, 1);
/// let attention = BlockAttention {
///     rows: &rows, columns: 1, heads, kv_heads, head_dim, block_len: 2, reach: None, scale: 1.0, bias: &[],
/// };
/// let mut out = [0.0; 2];
/// forward_blocks(Cpu::detect(1), attention, &[0.0; 2], &mut out);
/// assert_eq!(out, [5.0, 6.0]); // means of all values
/// ```
pub fn forward_blocks(cpu: Cpu, attention: BlockAttention, q: &[f32], out: &mut [f32]) {
    attention.assert_sizes(q, out);
    let BlockAttention { rows, columns, heads, kv_heads, head_dim, .. } = attention;
    let (width, group) = (heads * head_dim, heads / kv_heads.max(1));
    let parts = group.div_ceil(MOST_HEADS);
    let out = Shared::new(out);
    // A thread takes some of the heads that read the same keys.
    parallel::rows(
        cpu,
        rows.len() * kv_heads * parts,
        group.min(MOST_HEADS) * attention.work(),
        1,
        |range| {
            for index in range {
                let (row, kv_head, part) =
                    (index / parts / kv_heads, index / parts % kv_heads, index % parts);
                let first = part * MOST_HEADS;
                let some = kv_head * group + first..kv_head * group + group.min(first + MOST_HEADS);
                let start = row * columns * width + some.start * head_dim;
                for column in rows[row].queries..columns {
                    let start = start + column * width;
                    // SAFETY: each head of each row writes its own part.
                    unsafe { out.range(start..start + some.len() * head_dim) }.fill(0.0);
                }
                // SAFETY: the sizes were checked; each head of each row writes its own part.
                unsafe { attention.heads(cpu, row, some, from(q, start), out.pointer(start)) };
            }
        },
    );
}

impl BlockAttention<'_> {
    #[track_caller]
    fn assert_sizes(&self, q: &[f32], out: &[f32]) {
        let Self { rows, columns, heads, kv_heads, head_dim, block_len, .. } = *self;
        assert!(block_len > 0, "blocks have at least one position");
        let divides = heads == 0 && kv_heads == 0 || kv_heads > 0 && heads % kv_heads == 0;
        assert!(divides, "{kv_heads} key heads do not divide {heads} heads");
        let len = rows.len() * columns * heads * head_dim;
        assert_eq!(q.len(), len, "q is not [{}, {columns}, {heads}, {head_dim}]", rows.len());
        assert_eq!(out.len(), len, "out is not as long as q");
        for row in rows {
            let (keys, queries, blocks) = (row.keys, row.queries, row.blocks.len());
            assert!(
                queries <= columns && queries <= keys,
                "{queries} queries of {columns}, over {keys} keys"
            );
            assert!(keys.div_ceil(block_len) <= blocks, "{keys} keys in {blocks} blocks of {block_len}");
            let block_size = 2 * block_len * kv_heads * head_dim;
            assert!(
                row.blocks.iter().all(|block| block.len() == block_size),
                "a block is not [2, {block_len}, {kv_heads}, {head_dim}]"
            );
            let known = self.distances() + 1;
            assert!(self.bias.is_empty() || columns + keys <= known, "{known} biases for {keys} keys");
        }
        let whole = heads == 0 || self.bias.len().is_multiple_of(heads);
        assert!(whole, "{} biases for {heads} heads", self.bias.len());
    }

    fn distances(&self) -> usize {
        self.bias.len().checked_div(self.heads).unwrap_or(0)
    }

    /// Mean cost of a head in units of [`parallel::rows`].
    fn work(&self) -> usize {
        let reached = self.reach.map_or(usize::MAX, |reach| reach.saturating_add(1));
        let scores = self.rows.iter().map(|row| row.queries * row.keys.min(reached));
        scores.sum::<usize>() / self.rows.len().max(1) * (self.head_dim / 4 + 8)
    }

    /// Some heads of one row that read the same keys.
    ///
    /// # Safety
    /// The sizes were checked; `q` and `out` begin at the first query of the first of these heads, and nobody else writes
    /// there.
    unsafe fn heads(&self, cpu: Cpu, row: usize, some: Range<usize>, q: *const f32, out: *mut f32) {
        let BlockAttention { columns, heads, head_dim: dim, block_len, scale, .. } = *self;
        let BlockRow { blocks, keys, queries } = self.rows[row];
        if queries == 0 {
            return;
        }
        let kv_stride = self.kv_heads * dim;
        let kv_head = some.start / (heads / self.kv_heads);
        let starts: Vec<_> = blocks
            .iter()
            .map(|block| (from(block, kv_head * dim), from(block, block_len * kv_stride + kv_head * dim)))
            .collect();
        let before = self.reach.map_or(Sight::FAR, |reach| reach.min(Sight::FAR as usize) as isize);
        let first = keys - queries;
        let sight = Sight { begin: first as isize - before, end: first as isize + 1 };
        let bias_of = |head: usize| match self.bias.is_empty() {
            true => std::ptr::null(),
            // Of the whole slice, because what comes before is read as well.
            false => self.bias.as_ptr().wrapping_add(head * self.distances() + columns - 1 + first),
        };
        let how = products(cpu);
        // SAFETY: the caller's promise; the scratch memory has room for the keys and values of the heads.
        unsafe {
            if queries <= FEW && how.0 != Isa::Scalar {
                for i in 0..queries {
                    let bias = bias_of(some.start);
                    let view = QueryView {
                        q: q.add(i * heads * dim),
                        heads: some.len(),
                        blocks: &starts,
                        block_len,
                        kv_stride,
                        seen: sight.later(i).among(keys),
                        dim,
                        scale,
                        bias: if bias.is_null() { bias } else { bias.wrapping_add(i) },
                        bias_stride: self.distances(),
                    };
                    one_query(cpu.isa, &view, out.add(i * heads * dim), [0.0; MOST_HEADS].as_mut_ptr());
                }
                return;
            }
            let seen = sight.among(keys).start..keys;
            let mut scratch = Scratch::take(2 * seen.len() * dim + queries);
            let k = scratch.pointer();
            let (v, lse) = (k.add(seen.len() * dim), k.add(2 * seen.len() * dim));
            for (to, key) in seen.clone().enumerate() {
                let (block, step) = (starts[key / block_len], key % block_len * kv_stride);
                block.0.add(step).copy_to_nonoverlapping(k.add(to * dim), dim);
                block.1.add(step).copy_to_nonoverlapping(v.add(to * dim), dim);
            }
            for (n, head) in some.enumerate() {
                let bias = bias_of(head);
                let view = HeadView {
                    q: q.add(n * dim),
                    k,
                    v,
                    q_stride: heads * dim,
                    kv_stride: dim,
                    out_stride: heads * dim,
                    queries,
                    keys: seen.len(),
                    dim,
                    sight: sight.behind(seen.start),
                    scale,
                    bias: if bias.is_null() { bias } else { bias.wrapping_sub(seen.start) },
                    dropout: None,
                };
                head_forward(how, view, out.add(n * dim), lse);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Precision;
    use crate::attention::{Attention, AttentionShape, Qkv, forward};
    use crate::testing::{assert_close, numbers, wide};

    #[derive(Clone, Copy, Debug)]
    struct Case {
        columns: usize,
        kv_heads: usize,
        group: usize,
        head_dim: usize,
        block_len: usize,
        reach: Option<usize>,
        biased: bool,
    }

    /// `rows`: keys and queries of each. What nobody may read is NaN.
    fn check(case: Case, rows: &[(usize, usize)]) {
        let Case { columns, kv_heads, group, head_dim, block_len, reach, biased } = case;
        let (heads, kv_width) = (kv_heads * group, kv_heads * head_dim);
        let width = heads * head_dim;
        let longest = rows.iter().map(|row| row.0).max().unwrap_or(0);
        let distances = (columns + longest).saturating_sub(1);
        let bias = numbers(9, if biased { heads * distances } else { 0 });
        let scale = 1.0 / (head_dim as f32).sqrt();
        let q = numbers(1, rows.len() * columns * width);
        let mut wanted = vec![0.0; q.len()];
        let mut blocks: Vec<Vec<Vec<f32>>> = Vec::new();
        for (r, &(keys, queries)) in rows.iter().enumerate() {
            let [k, v] = [2, 3].map(|seed| numbers(seed + 10 * r as u64, keys * kv_width));
            let block = |n: usize| {
                let part = |x: &[f32]| {
                    let mut part =
                        x[n * block_len * kv_width..x.len().min((n + 1) * block_len * kv_width)].to_vec();
                    part.resize(block_len * kv_width, f32::NAN);
                    part
                };
                [part(&k), part(&v)].concat()
            };
            blocks.push((0..keys.div_ceil(block_len)).map(block).collect());
            // The numbers of the first `columns - queries` biases of each head are for columns that it lacks.
            let of_row =
                bias.chunks(distances.max(1)).flat_map(|bias| &bias[columns - queries..columns + keys - 1]);
            let of_row: Vec<f32> = if biased && queries > 0 { of_row.copied().collect() } else { vec![] };
            let shape =
                AttentionShape { batch: 1, queries, keys, key_capacity: keys, heads, kv_heads, head_dim };
            let attention =
                Attention { shape, causal: true, reach, scale, bias: &of_row, spans: &[], dropout: None };
            let start = r * columns * width;
            let qkv = Qkv::Apart { q: &q[start..start + queries * width], k: &k, v: &v };
            let out = &mut wanted[start..start + queries * width];
            forward(Cpu::new(Isa::Scalar, 1), attention, qkv, out, &mut vec![0.0; heads * queries]);
        }
        let blocks: Vec<Vec<&[f32]>> =
            blocks.iter().map(|blocks| blocks.iter().map(Vec::as_slice).collect()).collect();
        let rows: Vec<_> = rows
            .iter()
            .zip(&blocks)
            .map(|(&(keys, queries), blocks)| BlockRow { blocks, keys, queries })
            .collect();
        let attention = BlockAttention {
            rows: &rows,
            columns,
            heads,
            kv_heads,
            head_dim,
            block_len,
            reach,
            scale,
            bias: &bias,
        };
        for isa in Isa::supported() {
            let run = |cpu| {
                let mut out = vec![f32::NAN; q.len()];
                forward_blocks(cpu, attention, &q, &mut out);
                out
            };
            let found = run(Cpu::new(isa, 1));
            assert_close(&format!("{isa} {case:?}"), &found, &wide(&wanted), 2e-5);
            assert_eq!(run(Cpu::new(isa, 2)), found, "{isa} {case:?} with two threads");
            let mixed = run(Cpu::new(isa, 1).at(Precision::Mixed));
            assert_close(&format!("{isa} mixed {case:?}"), &mixed, &wide(&wanted), 2e-2);
        }
    }

    #[test]
    fn one_position_of_each_sequence_sees_all_of_its_own() {
        let case = Case {
            columns: 1,
            kv_heads: 2,
            group: 3,
            head_dim: 64,
            block_len: 16,
            reach: None,
            biased: false,
        };
        check(case, &[(1, 1), (16, 1), (17, 1), (100, 1), (0, 0), (31, 1)]);
        check(Case { reach: Some(20), biased: true, head_dim: 20, ..case }, &[(100, 1), (3, 1)]);
        for group in [1, 2, 4, 7, 8] {
            check(Case { group, ..case }, &[(40, 1), (5, 1)]);
            check(Case { group, biased: true, head_dim: 80, ..case }, &[(40, 1)]);
        }
    }

    #[test]
    fn long_parts_of_a_prompt_continue_what_is_there() {
        let case = Case {
            columns: 40,
            kv_heads: 2,
            group: 1,
            head_dim: 32,
            block_len: 64,
            reach: None,
            biased: false,
        };
        check(case, &[(140, 40), (41, 3), (7, 7), (0, 0)]);
        check(Case { reach: Some(16), ..case }, &[(140, 40), (40, 40)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn blocks_are_the_whole(
            columns in 1..12usize,
            (kv_heads, group, head_dim) in (1..3usize, 1..10usize, 1..40usize),
            block_len in 1..20usize,
            reach in proptest::option::of(0..30usize),
            biased: bool,
            rows in proptest::collection::vec((0..50usize, 0..12usize), 0..4),
        ) {
            let case = Case { columns, kv_heads, group, head_dim, block_len, reach, biased };
            let rows: Vec<_> = rows.into_iter().map(|(past, queries)| {
                let queries = queries.min(columns);
                (past + queries, queries)
            }).collect();
            check(case, &rows);
        }
    }
}
