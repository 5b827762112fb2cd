//! Batch invariance: with a chosen kernel, a row's result is the same, bit for bit, among any number of rows.

#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use andiron_kernels::activation::Activation;
use andiron_kernels::attention::{
    Attention, AttentionShape, Bf16, BlockAttention, BlockRow, KvBlocks, Qkv, forward, forward_blocks,
};
use andiron_kernels::feed_forward::{self, FeedForward};
use andiron_kernels::gemm::{Epilogue, MatRef, matmul};
use andiron_kernels::norm::{NormParams, rms_norm_of_sum};
use andiron_kernels::quant::{self, Format, QuantRef};
use andiron_kernels::random::Seed;
use andiron_kernels::{Bf16Dot, Cpu, Isa, KernelChoice, Precision};

const CHOICES: [KernelChoice; 2] = [KernelChoice::Prefill, KernelChoice::Decode];

/// Every instruction set of this machine, in f32 and in mixed precision, without bf16 instructions and with them.
fn every_cpu() -> impl Iterator<Item = Cpu> {
    Isa::supported().flat_map(|isa| {
        let cpu = Cpu::new(isa, 1);
        let mixed = |bf16_dot| cpu.at(Precision::Mixed).with_bf16_dot(bf16_dot);
        [cpu, mixed(Bf16Dot::Widened), mixed(Bf16Dot::Native)]
    })
}

fn numbers(stream: u64, count: usize) -> Vec<f32> {
    let seed = Seed::new(7).at(stream);
    (0..count as u64).map(|i| seed.normal(i)).collect()
}

/// Sizes of the batches that are compared with the largest, some of whose rows they are.
const BATCHES: [usize; 9] = [1, 2, 3, 5, 8, 9, 16, 17, 33];
const MOST: usize = 64;

/// `run(cpu, rows)` computes these rows of [`MOST`]; compares batches of them, and threads.
#[track_caller]
fn check(what: &str, run: impl Fn(Cpu, std::ops::Range<usize>) -> Vec<f32>) {
    for cpu in every_cpu() {
        for kernels in CHOICES {
            let cpu = cpu.with_kernels(kernels);
            let all = run(cpu, 0..MOST);
            let width = all.len() / MOST;
            for batch in BATCHES {
                for rows in [MOST - batch..MOST, 13..13 + batch] {
                    let wanted = &all[rows.start * width..rows.end * width];
                    let threads = 1 + batch % 3;
                    let found = run(Cpu { threads, ..cpu }, rows.clone());
                    let same = found.iter().zip(wanted).all(|(x, y)| x.to_bits() == y.to_bits());
                    assert!(same && found.len() == wanted.len(), "{what} {cpu:?}: rows {rows:?} of {MOST}");
                }
            }
        }
    }
}

/// Widths of SmolLM2 and odd ones.
const SHAPES: [[usize; 2]; 4] = [[577, 193], [576, 96], [31, 1], [1536, 40]];

#[test]
fn dense_rows_do_not_depend_on_their_batch() {
    for [k, n] in SHAPES {
        let (x, w, bias, old) =
            (numbers(1, MOST * k), numbers(2, k * n), numbers(3, n), numbers(4, MOST * n));
        for transposed in [true, false] {
            let w = if transposed { MatRef::row_major(&w, n, k).t() } else { MatRef::row_major(&w, k, n) };
            for (bias, accumulate) in [(None, false), (Some(&bias[..]), false), (None, true)] {
                let what = format!("{k} x {n}, transposed: {transposed}, {} {accumulate}", bias.is_some());
                check(&what, |cpu, rows| {
                    let mut y = old[rows.start * n..rows.end * n].to_vec();
                    let x = MatRef::row_major(&x[rows.start * k..rows.end * k], rows.len(), k);
                    matmul(cpu, x, w, Epilogue { bias, accumulate }, &mut y);
                    y
                });
            }
        }
    }
}

#[test]
fn quantized_rows_do_not_depend_on_their_batch() {
    for format in Format::ALL {
        let unit = format.block_len().max(32);
        for [k, n] in [[576_usize, 70], [1536, 17], [32, 7], [96, 33]] {
            let k = k.next_multiple_of(unit);
            let (x, bias) = (numbers(1, MOST * k), numbers(3, n));
            let data = quant::quantize(Cpu::detect(2), format, &numbers(2, n * k), k);
            let w = QuantRef::new(format, n, k, &data);
            check(&format!("{format} {k} x {n}"), |cpu, rows| {
                let mut y = vec![0.0; rows.len() * n];
                quant::matmul(cpu, &x[rows.start * k..rows.end * k], w, Some(&bias), &mut y);
                y
            });
        }
    }
}

#[test]
fn rows_of_feed_forward_layers_do_not_depend_on_their_batch() {
    let (d, inner) = (48, 96);
    let (x, gate, up, down) =
        (numbers(1, MOST * d), numbers(2, d * inner), numbers(3, d * inner), numbers(4, inner * d));
    for transposed in [true, false] {
        let of = |w, k, n| match transposed {
            true => MatRef::row_major(w, n, k).t(),
            false => MatRef::row_major(w, k, n),
        };
        for gated in [true, false] {
            let layer = FeedForward {
                gate: gated.then(|| of(&gate, d, inner)),
                up: of(&up, d, inner),
                activation: Activation::Silu,
                down: of(&down, inner, d),
            };
            check(&format!("gated: {gated}, transposed: {transposed}"), |cpu, rows| {
                let mut y = vec![0.0; rows.len() * d];
                feed_forward::forward(
                    cpu,
                    layer,
                    [None, None],
                    &x[rows.start * d..rows.end * d],
                    None,
                    &mut y,
                );
                y
            });
        }
    }
}

#[test]
fn normalised_rows_do_not_depend_on_their_batch() {
    for d in [576, 33] {
        let (x, sum, weight) = (numbers(1, MOST * d), numbers(2, MOST * d), numbers(3, d));
        check("norm", |cpu, rows| {
            let of_rows = rows.start * d..rows.end * d;
            let (mut sum, mut rstd) = (sum[of_rows.clone()].to_vec(), vec![0.0; rows.len()]);
            let mut y = vec![0.0; sum.len()];
            let params = NormParams { weight: &weight, bias: None, eps: 1e-5 };
            rms_norm_of_sum(cpu, params, &x[of_rows], &mut sum, (&mut y, &mut rstd));
            y
        });
    }
}

/// Sizes of an attention over blocks.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    keys: usize,
    kv_heads: usize,
    group: usize,
    dim: usize,
    sliding_window: Option<usize>,
    biased: bool,
}

const BLOCK: usize = 64;

/// Keys and values of a sequence, in blocks.
fn blocks<E: Copy>(sizes: Sizes, stream: u64, rounded: impl Fn(f32) -> E) -> Vec<Vec<E>> {
    let len = 2 * BLOCK * sizes.kv_heads * sizes.dim;
    let values = numbers(stream, sizes.keys.div_ceil(BLOCK) * len);
    values.chunks_exact(len).map(|block| block.iter().copied().map(&rounded).collect()).collect()
}

/// The attention of positions `queries` of a sequence, each `[heads, dim]`, beside `beside` others of one position each.
fn attend(
    cpu: Cpu,
    sizes: Sizes,
    (own, q): (KvBlocks, &[f32]),
    queries: std::ops::Range<usize>,
    beside: usize,
) -> Vec<f32> {
    let Sizes { kv_heads, group, dim, sliding_window, biased, .. } = sizes;
    let (heads, columns) = (kv_heads * group, queries.len());
    let width = heads * dim;
    let other = |n: usize| BlockRow { blocks: own, keys: 1 + 5 * n, queries: 1 };
    let before = beside / 2;
    let mut rows: Vec<_> = (0..beside).map(other).collect();
    rows.insert(before, BlockRow { blocks: own, keys: queries.end, queries: columns });
    let longest = rows.iter().map(|row| row.keys).max().unwrap();
    // The same bias for a distance, whatever the columns and the longest sequence.
    let distances = columns + longest - 1;
    let bias: Vec<f32> = (0..heads)
        .flat_map(|head| {
            (0..distances).map(move |at| (head as f32 + (at + 1 - columns.min(at + 1)) as f32).sin())
        })
        .collect();
    let attention = BlockAttention {
        rows: &rows,
        columns,
        heads,
        kv_heads,
        head_dim: dim,
        block_len: BLOCK,
        sliding_window,
        scale: 0.3,
        bias: if biased { &bias } else { &[] },
    };
    let mut all_q = numbers(8, rows.len() * columns * width);
    let own = before * columns * width..(before + 1) * columns * width;
    all_q[own.clone()].copy_from_slice(&q[queries.start * width..queries.end * width]);
    let mut out = vec![f32::NAN; all_q.len()];
    forward_blocks(cpu, attention, &all_q, &mut out);
    out[own].to_vec()
}

#[test]
fn attention_does_not_depend_on_chunks_nor_on_other_sequences() {
    let sizes = Sizes { keys: 700, kv_heads: 1, group: 3, dim: 64, sliding_window: None, biased: false };
    let more = [
        sizes,
        Sizes { kv_heads: 2, group: 1, dim: 20, biased: true, ..sizes },
        Sizes { group: 5, dim: 40, sliding_window: Some(70), ..sizes },
    ];
    for sizes in more {
        let width = sizes.kv_heads * sizes.group * sizes.dim;
        let q = numbers(3, sizes.keys * width);
        let (exact, rounded) = (blocks(sizes, 4, |x| x), blocks(sizes, 4, Bf16::from_f32));
        let exact: Vec<&[f32]> = exact.iter().map(Vec::as_slice).collect();
        let rounded: Vec<&[Bf16]> = rounded.iter().map(Vec::as_slice).collect();
        for lent in [KvBlocks::F32(&exact), KvBlocks::Bf16(&rounded)] {
            for cpu in every_cpu().flat_map(|cpu| CHOICES.map(|kernels| cpu.with_kernels(kernels))) {
                let last = 520;
                let whole = attend(cpu, sizes, (lent, &q), 0..last, 0);
                for (first, chunk, beside) in [
                    (0, 1, 1),
                    (3, 33, 0),
                    (31, 2, 3),
                    (150, 64, 0),
                    (180, 40, 2),
                    (383, 5, 0),
                    (500, 20, 0),
                    (519, 1, 6),
                ] {
                    let found =
                        attend(Cpu { threads: 2, ..cpu }, sizes, (lent, &q), first..first + chunk, beside);
                    let wanted = &whole[first * width..(first + chunk) * width];
                    let differ = found
                        .iter()
                        .zip(wanted)
                        .position(|(x, y)| x.to_bits() != y.to_bits())
                        .map(|at| at / width);
                    assert_eq!(differ, None, "{cpu:?} {sizes:?}: {chunk} from {first} on, beside {beside}");
                }
            }
        }
    }
}

/// Cross-attention of decode steps, over sources of other lengths.
#[test]
fn attention_over_whole_tensors_does_not_depend_on_other_sequences() {
    let (heads, head_dim, source) = (2, 24, 150);
    let width = heads * head_dim;
    let (q, k, v) = (numbers(1, 4 * width), numbers(2, source * width), numbers(3, source * width));
    for cpu in every_cpu().map(|cpu| cpu.with_kernels(KernelChoice::Decode)) {
        let run = |queries: std::ops::Range<usize>, batch: usize, padding: usize| {
            let keys = source + padding;
            let shape = AttentionShape {
                batch,
                queries: queries.len(),
                keys,
                key_capacity: keys,
                heads,
                kv_heads: heads,
                head_dim,
            };
            let spans: Vec<_> = (0..batch).map(|row| if row == 0 { 0..source } else { 0..keys }).collect();
            let attention = Attention {
                shape,
                causal: false,
                sliding_window: None,
                scale: 0.2,
                bias: &[],
                spans: &spans,
                documents: &[],
                dropout: None,
            };
            let mut all_q = numbers(5, batch * queries.len() * width);
            all_q[..queries.len() * width].copy_from_slice(&q[queries.start * width..queries.end * width]);
            let [k, v] = [&k, &v].map(|own| {
                let mut all = numbers(6, batch * keys * width);
                all[..own.len()].copy_from_slice(own);
                all
            });
            let (mut out, mut lse) = (vec![0.0; all_q.len()], vec![0.0; batch * heads * queries.len()]);
            forward(cpu, attention, Qkv::Separate { q: &all_q, k: &k, v: &v }, &mut out, &mut lse);
            out[..queries.len() * width].to_vec()
        };
        let wanted = run(0..4, 1, 0);
        for (queries, batch, padding) in [(0..1, 1, 0), (2..4, 3, 0), (0..4, 2, 17), (3..4, 5, 130)] {
            let found = run(queries.clone(), batch, padding);
            assert_eq!(
                found,
                wanted[queries.start * width..queries.end * width],
                "{cpu:?} {queries:?} {batch}"
            );
        }
    }
}
