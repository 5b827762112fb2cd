//! Attention over a paged KV cache, for a batch of sequences of any lengths.
//!
//! A sequence is a list of blocks: it grows without a copy, and sequences share common prefixes. Decode steps (few new
//! positions) read the blocks in place; prefill packs and widens a tile of keys and values at a time. Source: Kwon et
//! al. 2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention",
//! <https://arxiv.org/abs/2309.06180>.

use super::element::Element;
use super::long::{self, Group, Keys};
use super::view::from;
use super::view::{AttentionMask, HeadView};
use super::{head_forward, matmul_path, split};
use crate::bf16::Bf16;
use crate::gemm::pack::Scratch;
use crate::parallel::{self, Shared};
use crate::{Cpu, Isa, KernelChoice, Precision};

/// Query heads per task where keys are gathered first.
const TOGETHER: usize = 4;
/// Gathered keys begin at multiples of it, where tiles of keys do, so that a query's sums do not depend on the queries before it.
const ALIGNED: usize = 32;

/// Attention over blocks: sizes, mask, bias, and the scale of the scores.
#[derive(Clone, Copy, Debug)]
pub struct BlockAttention<'a> {
    /// The sequences.
    pub rows: &'a [BlockRow<'a>],
    /// Columns of `q`; at least the queries of each sequence.
    pub columns: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values; divides `heads`. Query head `h` reads head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Positions in a block.
    pub block_len: usize,
    /// The sliding window, in positions, the query's own included, as in [`Attention`](super::Attention).
    pub sliding_window: Option<usize>,
    /// Multiplies the scores; usually `1 / √head_dim`.
    pub scale: f32,
    /// Relative position bias, added to the scores: `[heads, columns + n - 1]`, where `n` is at least the keys of the
    /// longest sequence and element `columns - 1 + d` belongs to keys `d` positions before their query. Empty is no bias.
    pub bias: &'a [f32],
}

/// A sequence; its last positions are the queries.
#[derive(Clone, Copy, Debug)]
pub struct BlockRow<'a> {
    /// Keys and values.
    pub blocks: KvBlocks<'a>,
    /// Positions of the sequence, queries included; elements of the blocks beyond them are ignored.
    pub keys: usize,
    /// Queries: the last positions, in the row's first columns. Each attends to itself and the positions before it.
    pub queries: usize,
}

/// Blocks of keys and values, each `[kv_heads, 2, block_len, head_dim]`: per head `block_len` keys, then the values.
#[derive(Clone, Copy, Debug)]
pub enum KvBlocks<'a> {
    /// Unrounded.
    F32(&'a [&'a [f32]]),
    /// Rounded to bf16: half the memory and bandwidth. Arithmetic is f32.
    Bf16(&'a [&'a [Bf16]]),
}

impl KvBlocks<'_> {
    fn count(&self) -> usize {
        match self {
            Self::F32(blocks) => blocks.len(),
            Self::Bf16(blocks) => blocks.len(),
        }
    }

    fn are_all_of(&self, len: usize) -> bool {
        match self {
            Self::F32(blocks) => blocks.iter().all(|block| block.len() == len),
            Self::Bf16(blocks) => blocks.iter().all(|block| block.len() == len),
        }
    }
}

/// The blocks of a sequence, for one KV head.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadBlocks<'a, E> {
    blocks: &'a [&'a [E]],
    block_len: usize,
    kv_head: usize,
    dim: usize,
}

impl<E> HeadBlocks<'_, E> {
    /// Pointers to a key and its value. The next positions of the block follow them.
    pub(super) fn at(&self, key: usize) -> (*const E, *const E) {
        let Self { block_len, kv_head, dim, .. } = *self;
        let block = self.blocks[key / block_len];
        let start = (2 * kv_head * block_len + key % block_len) * dim;
        (from(block, start), from(block, start + block_len * dim))
    }
}

/// `out = softmax(scale q kᵀ + bias) v` for each sequence and head; 0 in columns beyond a sequence's queries.
///
/// # Shape
/// `q` and `out`: `[rows, columns, heads, head_dim]`.
///
/// # Panics
/// If a length does not match the sizes, `kv_heads` does not divide `heads`, a sequence has more queries than columns or
/// keys, or fewer blocks than its keys need, the bias has too few distances, or the sliding window is 0.
///
/// # Example
/// ```
/// use andiron_kernels::Cpu;
/// use andiron_kernels::attention::{BlockAttention, BlockRow, KvBlocks, forward_blocks};
/// // Two sequences share their first block of two positions; the second has one more.
/// let (first, second) = ([1.0, 1.0, 4.0, 6.0], [1.0, 0.0, 8.0, 0.0]);
/// let rows = [
///     BlockRow { blocks: KvBlocks::F32(&[&first]), keys: 2, queries: 1 },
///     BlockRow { blocks: KvBlocks::F32(&[&first, &second]), keys: 3, queries: 1 },
/// ];
/// let (heads, kv_heads, head_dim) = (1, 1, 1);
/// let attention = BlockAttention {
///     rows: &rows, columns: 1, heads, kv_heads, head_dim, block_len: 2, sliding_window: None, scale: 1.0,
///     bias: &[],
/// };
/// let mut out = [0.0; 2];
/// forward_blocks(Cpu::detect(1), attention, &[0.0; 2], &mut out);
/// assert_eq!(out, [5.0, 6.0]); // means of all values
/// ```
pub fn forward_blocks(cpu: Cpu, attention: BlockAttention, q: &[f32], out: &mut [f32]) {
    attention.assert_sizes(q, out);
    let BlockAttention { rows, columns, heads, head_dim, .. } = attention;
    let width = heads * head_dim;
    if width == 0 {
        return;
    }
    for (row, out) in rows.iter().zip(out.chunks_exact_mut((columns * width).max(1))) {
        out[row.queries * width..].fill(0.0);
    }
    let most = match (cpu.isa.available(), cpu.kernels) {
        (Isa::Scalar, _) | (_, KernelChoice::Prefill) => 0,
        (_, KernelChoice::Fastest) => split::FEW,
        (_, KernelChoice::Decode) => usize::MAX,
    };
    let (few, many): (Vec<_>, Vec<_>) =
        (0..rows.len()).filter(|&row| rows[row].queries > 0).partition(|&row| rows[row].queries <= most);
    let (out, how) = (Shared::new(out), matmul_path(cpu));
    split::forward(cpu, &attention, &few, q, &out);
    match long::is_available(how) {
        true => attention.online_softmax(cpu, how, &many, q, &out),
        false => attention.gathered(cpu, how, &many, q, &out),
    }
}

impl BlockAttention<'_> {
    #[track_caller]
    fn assert_sizes(&self, q: &[f32], out: &[f32]) {
        let Self { rows, columns, heads, kv_heads, head_dim, block_len, .. } = *self;
        assert!(block_len > 0, "blocks have at least one position");
        assert_ne!(self.sliding_window, Some(0), "a sliding window holds at least the query's own position");
        let divides = heads == 0 && kv_heads == 0 || kv_heads > 0 && heads % kv_heads == 0;
        assert!(divides, "{kv_heads} key heads do not divide {heads} heads");
        let len = rows.len() * columns * heads * head_dim;
        assert_eq!(q.len(), len, "q is not [{}, {columns}, {heads}, {head_dim}]", rows.len());
        assert_eq!(out.len(), len, "out is not as long as q");
        for row in rows {
            let (keys, queries, blocks) = (row.keys, row.queries, row.blocks.count());
            assert!(
                queries <= columns && queries <= keys,
                "{queries} queries of {columns}, over {keys} keys"
            );
            assert!(keys.div_ceil(block_len) <= blocks, "{keys} keys in {blocks} blocks of {block_len}");
            let block_size = 2 * block_len * kv_heads * head_dim;
            assert!(
                row.blocks.are_all_of(block_size),
                "a block is not [{kv_heads}, 2, {block_len}, {head_dim}]"
            );
            let known = self.distances() + 1;
            assert!(self.bias.is_empty() || columns + keys <= known, "{known} biases for {keys} keys");
        }
        let whole = heads == 0 || self.bias.len().is_multiple_of(heads);
        assert!(whole, "{} biases for {heads} heads", self.bias.len());
    }

    /// Biases of a head.
    pub(super) fn distances(&self) -> usize {
        self.bias.len().checked_div(self.heads).unwrap_or(0)
    }

    /// Index in `q` of a sequence's first query of a head.
    pub(super) fn start(&self, row: usize, head: usize) -> usize {
        (row * self.columns * self.heads + head) * self.head_dim
    }

    /// The mask of a sequence's first query.
    pub(super) fn mask(&self, row: usize) -> AttentionMask {
        let BlockRow { keys, queries, .. } = self.rows[row];
        AttentionMask::new((keys - queries) as isize, true, self.sliding_window)
    }

    /// Bias of a sequence's first query of a head and key 0; that of key `j` is `j` elements before it. Null without bias.
    pub(super) fn bias_of(&self, row: usize, head: usize) -> *const f32 {
        if self.bias.is_empty() {
            return std::ptr::null();
        }
        let BlockRow { keys, queries, .. } = self.rows[row];
        // A pointer into the whole slice, because elements before it are read as well.
        self.bias.as_ptr().wrapping_add(head * self.distances() + self.columns - 1 + keys - queries)
    }

    /// The blocks of a KV head.
    pub(super) fn of_head<'b, E>(&self, blocks: &'b [&'b [E]], kv_head: usize) -> HeadBlocks<'b, E> {
        HeadBlocks { blocks, block_len: self.block_len, kv_head, dim: self.head_dim }
    }

    /// The first query head of KV head `kv_head`, without keys and values.
    fn view(&self, row: usize, kv_head: usize, q: &[f32]) -> HeadView {
        let Self { heads, kv_heads, head_dim: dim, scale, .. } = *self;
        let (first, nowhere) = (kv_head * (heads / kv_heads), std::ptr::null());
        HeadView {
            q: from(q, self.start(row, first)),
            k: nowhere,
            v: nowhere,
            q_stride: heads * dim,
            kv_stride: dim,
            out_stride: heads * dim,
            queries: self.rows[row].queries,
            keys: self.rows[row].keys,
            dim,
            mask: self.mask(row),
            scale,
            bias: self.bias_of(row, first),
            dropout: None,
        }
    }

    /// Attention of some sequences by online softmax, a tile of keys at a time.
    fn online_softmax(&self, cpu: Cpu, how: (Isa, Precision), rows: &[usize], q: &[f32], out: &Shared<f32>) {
        let heads = self.heads / self.kv_heads;
        let mut groups = Vec::with_capacity(rows.len() * self.kv_heads);
        for &row in rows {
            for kv_head in 0..self.kv_heads {
                let keys = match self.rows[row].blocks {
                    KvBlocks::F32(blocks) => Keys::F32(self.of_head(blocks, kv_head)),
                    KvBlocks::Bf16(blocks) => Keys::Bf16(self.of_head(blocks, kv_head)),
                };
                groups.push(Group {
                    head: self.view(row, kv_head, q),
                    heads,
                    bias_step: self.distances(),
                    keys,
                    out: out.pointer(self.start(row, kv_head * heads)),
                    lse: std::ptr::null_mut(),
                    lse_step: 0,
                });
            }
        }
        // SAFETY: the sizes were checked; each head of each row writes its own outputs.
        unsafe { long::forward(cpu, how, &groups) };
    }

    /// Attention of some sequences, gathering all keys of a head first.
    fn gathered(&self, cpu: Cpu, how: (Isa, Precision), rows: &[usize], q: &[f32], out: &Shared<f32>) {
        let Self { heads, kv_heads, head_dim: dim, .. } = *self;
        let group = heads / kv_heads;
        let parts = group.div_ceil(TOGETHER);
        let seen = |&row: &usize| {
            let BlockRow { keys, queries, .. } = self.rows[row];
            queries * (keys - self.mask(row).among(keys).start)
        };
        let scores = rows.iter().map(seen);
        let work = scores.sum::<usize>() / rows.len().max(1) * group.min(TOGETHER) * (dim / 4 + 8);
        parallel::rows(cpu, rows.len() * kv_heads * parts, work, 1, |range| {
            for index in range {
                let (row, kv_head) = (rows[index / parts / kv_heads], index / parts % kv_heads);
                let first = index % parts * TOGETHER;
                let BlockRow { blocks, keys, queries } = self.rows[row];
                let view = self.view(row, kv_head, q);
                let seen = view.keys_of(0).start / ALIGNED * ALIGNED..keys;
                let mut scratch = Scratch::take(2 * seen.len() * dim + queries);
                let k = scratch.pointer();
                let (v, lse) = (k.wrapping_add(seen.len() * dim), k.wrapping_add(2 * seen.len() * dim));
                for (to, key) in seen.clone().enumerate() {
                    let to = (k.wrapping_add(to * dim), v.wrapping_add(to * dim));
                    // SAFETY: the key exists, and the scratch memory has room for it.
                    unsafe {
                        match blocks {
                            KvBlocks::F32(blocks) => widen(self.of_head(blocks, kv_head).at(key), dim, to),
                            KvBlocks::Bf16(blocks) => widen(self.of_head(blocks, kv_head).at(key), dim, to),
                        }
                    }
                }
                for n in first..group.min(first + TOGETHER) {
                    let bias = match view.bias.is_null() {
                        true => view.bias,
                        false => view.bias.wrapping_add(n * self.distances()).wrapping_sub(seen.start),
                    };
                    let q = view.q.wrapping_add(n * dim);
                    let (keys, mask) = (seen.len(), view.mask.relative_to_key(seen.start));
                    let head = HeadView { q, k, v, keys, mask, bias, ..view };
                    let out = out.pointer(self.start(row, kv_head * group + n));
                    // SAFETY: the sizes were checked; each head of each row writes its own part.
                    unsafe { head_forward(how, head, out, lse) };
                }
            }
        });
    }
}

/// Copies a key and its value, widened to f32.
///
/// # Safety
/// Both are readable and writable for `dim` elements.
unsafe fn widen<E: Element>(from: (*const E, *const E), dim: usize, to: (*mut f32, *mut f32)) {
    for (from, to) in [(from.0, to.0), (from.1, to.1)] {
        for d in 0..dim {
            // SAFETY: the caller's promise.
            unsafe { *to.add(d) = (*from.add(d)).widen() };
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
        sliding_window: Option<usize>,
        biased: bool,
    }

    /// The blocks of each sequence.
    type Stored<E> = Vec<Vec<Vec<E>>>;

    /// `rows`: keys and queries of each. Elements that must not be read are NaN.
    #[track_caller]
    fn check(case: Case, rows: &[(usize, usize)]) {
        check_in(case, rows, |x| x, |blocks| KvBlocks::F32(blocks));
        // Keys and values are what they are rounded to, and nothing else is rounded.
        check_in(case, rows, Bf16::from_f32, |blocks| KvBlocks::Bf16(blocks));
    }

    #[track_caller]
    fn check_in<E: Element>(
        case: Case,
        rows: &[(usize, usize)],
        rounded: impl Fn(f32) -> E,
        lent: impl for<'a> Fn(&'a [&'a [E]]) -> KvBlocks<'a>,
    ) {
        let Case { columns, kv_heads, group, head_dim, block_len, sliding_window, biased } = case;
        let (heads, kv_width) = (kv_heads * group, kv_heads * head_dim);
        let width = heads * head_dim;
        let longest = rows.iter().map(|row| row.0).max().unwrap_or(0);
        let distances = (columns + longest).saturating_sub(1);
        let bias = numbers(9, if biased { heads * distances } else { 0 });
        let scale = 1.0 / (head_dim as f32).sqrt();
        let q = numbers(1, rows.len() * columns * width);
        let mut wanted = vec![0.0; q.len()];
        let mut blocks: Stored<E> = Vec::new();
        for (r, &(keys, queries)) in rows.iter().enumerate() {
            let [k, v] = [2, 3].map(|seed| {
                let exact = numbers(seed + 10 * r as u64, keys * kv_width);
                exact.into_iter().map(|x| rounded(x).widen()).collect::<Vec<_>>()
            });
            let block = |n: usize| {
                let of = |x: &[f32], head: usize| -> Vec<E> {
                    let positions = x.chunks_exact(kv_width).skip(n * block_len).take(block_len);
                    let part = positions.flat_map(|x| &x[head * head_dim..(head + 1) * head_dim]);
                    let beyond = std::iter::repeat(&f32::NAN);
                    part.chain(beyond).take(block_len * head_dim).map(|&x| rounded(x)).collect()
                };
                (0..kv_heads).flat_map(|head| [of(&k, head), of(&v, head)].concat()).collect()
            };
            blocks.push((0..keys.div_ceil(block_len)).map(block).collect());
            // The first `columns - queries` biases of each head belong to columns beyond the row's queries.
            let of_row =
                bias.chunks(distances.max(1)).flat_map(|bias| &bias[columns - queries..columns + keys - 1]);
            let of_row: Vec<f32> = if biased && queries > 0 { of_row.copied().collect() } else { vec![] };
            let shape =
                AttentionShape { batch: 1, queries, keys, key_capacity: keys, heads, kv_heads, head_dim };
            let attention = Attention {
                shape,
                causal: true,
                sliding_window,
                scale,
                bias: &of_row,
                spans: &[],
                documents: &[],
                dropout: None,
            };
            let start = r * columns * width;
            let qkv = Qkv::Separate { q: &q[start..start + queries * width], k: &k, v: &v };
            let out = &mut wanted[start..start + queries * width];
            forward(Cpu::new(Isa::Scalar, 1), attention, qkv, out, &mut vec![0.0; heads * queries]);
        }
        let blocks: Vec<Vec<&[E]>> =
            blocks.iter().map(|blocks| blocks.iter().map(Vec::as_slice).collect()).collect();
        let rows: Vec<_> = rows
            .iter()
            .zip(&blocks)
            .map(|(&(keys, queries), blocks)| BlockRow { blocks: lent(blocks), keys, queries })
            .collect();
        let attention = BlockAttention {
            rows: &rows,
            columns,
            heads,
            kv_heads,
            head_dim,
            block_len,
            sliding_window,
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
            sliding_window: None,
            biased: false,
        };
        check(case, &[(1, 1), (16, 1), (17, 1), (100, 1), (0, 0), (31, 1)]);
        check(Case { sliding_window: Some(21), biased: true, head_dim: 20, ..case }, &[(100, 1), (3, 1)]);
        for group in [1, 2, 4, 7, 8] {
            check(Case { group, ..case }, &[(40, 1), (5, 1)]);
            check(Case { group, biased: true, head_dim: 80, ..case }, &[(40, 1)]);
        }
    }

    /// Several parts of a long past, of which some are outside the sliding window.
    #[test]
    fn a_long_past_is_cut_into_parts() {
        let case = Case {
            columns: 3,
            kv_heads: 1,
            group: 3,
            head_dim: 64,
            block_len: 64,
            sliding_window: None,
            biased: false,
        };
        check(case, &[(1200, 1), (513, 3), (512, 2), (30, 3)]);
        check(Case { sliding_window: Some(101), biased: true, ..case }, &[(1100, 3), (613, 2)]);
        check(Case { head_dim: 24, block_len: 48, group: 5, ..case }, &[(700, 3)]);
    }

    #[test]
    fn many_queries_go_over_some_keys_at_a_time() {
        let case = Case {
            columns: 70,
            kv_heads: 2,
            group: 3,
            head_dim: 64,
            block_len: 64,
            sliding_window: None,
            biased: false,
        };
        check(case, &[(500, 70), (193, 70), (70, 70), (391, 5)]);
        check(Case { sliding_window: Some(101), biased: true, head_dim: 20, ..case }, &[(600, 70)]);
    }

    /// Scores so large that exponentials would overflow, and ones that differ so much that only one counts.
    #[test]
    fn large_scores_stay_finite_in_any_part() {
        for isa in Isa::supported() {
            for queries in [1, 6] {
                let keys = 1100;
                let k: Vec<f32> = (0..keys).map(|j| if j == 700 { 3.0e4 } else { j as f32 }).collect();
                let v: Vec<f32> = (0..keys).map(|j| j as f32).collect();
                let block = [k, v].concat();
                let blocks: [&[f32]; 1] = [&block];
                let rows = [BlockRow { blocks: KvBlocks::F32(&blocks), keys, queries }];
                let (columns, sliding_window) = (queries, None);
                let attention = BlockAttention {
                    rows: &rows,
                    columns,
                    heads: 1,
                    kv_heads: 1,
                    head_dim: 1,
                    block_len: keys,
                    sliding_window,
                    scale: 10.0,
                    bias: &[],
                };
                let mut out = vec![f32::NAN; queries];
                forward_blocks(Cpu::new(isa, 1), attention, &vec![1.0; queries], &mut out);
                assert_eq!(out, vec![700.0; queries], "{isa}");
            }
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
            sliding_window: None,
            biased: false,
        };
        check(case, &[(140, 40), (41, 3), (7, 7), (0, 0)]);
        check(Case { sliding_window: Some(17), ..case }, &[(140, 40), (40, 40)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn blocks_are_the_whole(
            columns in 1..12usize,
            (kv_heads, group, head_dim) in (1..3usize, 1..10usize, 1..40usize),
            block_len in 1..20usize,
            sliding_window in proptest::option::of(1..31usize),
            biased: bool,
            rows in proptest::collection::vec((0..50usize, 0..12usize), 0..4),
        ) {
            let case = Case { columns, kv_heads, group, head_dim, block_len, sliding_window, biased };
            let rows: Vec<_> = rows.into_iter().map(|(past, queries)| {
                let queries = queries.min(columns);
                (past + queries, queries)
            }).collect();
            check(case, &rows);
        }
    }
}
