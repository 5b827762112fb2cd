use proptest::prelude::*;

use super::*;
use crate::Bf16Dot;
use crate::testing::{WidenedIsF32, assert_close, every_cpu, numbers, wide};

mod documents;
mod dropout;

struct Tensors {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

impl Tensors {
    fn new(shape: AttentionShape) -> Self {
        let q_len = shape.batch * shape.queries * shape.out_stride();
        let kv_len = shape.batch * shape.key_capacity * shape.kv_stride();
        Self { q: numbers(1, q_len), k: numbers(2, kv_len), v: numbers(3, kv_len), dout: numbers(4, q_len) }
    }

    /// out, lse, dq, dk, dv, dbias.
    fn run(&self, cpu: Cpu, attention: Attention) -> [Vec<f32>; 6] {
        let Self { q, k, v, dout } = self;
        let shape = attention.shape;
        let dirty = |n: usize| vec![f32::NAN; n];
        let (mut out, mut lse) = (dirty(q.len()), dirty(shape.batch * shape.heads * shape.queries));
        let qkv = Qkv::Separate { q, k, v };
        forward(cpu, attention, qkv, &mut out, &mut lse);
        let (mut dq, mut dk, mut dv) = (dirty(q.len()), dirty(k.len()), dirty(v.len()));
        let mut dbias = dirty(attention.bias.len());
        let grads = AttentionGrads::Separate { dq: &mut dq, dk: &mut dk, dv: &mut dv, dbias: &mut dbias };
        backward(cpu, attention, AttentionSaved::F32 { qkv, out: &out, lse: &lse }, dout, grads);
        if rounds_operands(cpu, shape.head_dim) {
            let found = self.gradients_of_rounded(cpu, attention, &lse);
            assert_eq!(found, [&dq, &dk, &dv, &dbias].map(Vec::clone), "{cpu:?}: rounded operands");
        }
        [out, lse, dq, dk, dv, dbias]
    }

    /// dq, dk, dv, dbias from operands that were kept in bf16.
    fn gradients_of_rounded(&self, cpu: Cpu, attention: Attention, lse: &[f32]) -> [Vec<f32>; 4] {
        let Self { q, k, v, dout } = self;
        let dirty = |n: usize| vec![f32::NAN; n];
        let [q_words, k_words, v_words] = [q, k, v].map(|x| {
            let mut words = dirty(x.len() / 2);
            bf16::round(cpu, x, &mut words);
            words
        });
        let qkv = Qkv::Separate { q: &q_words, k: &k_words, v: &v_words };
        let (mut dq, mut dk, mut dv) = (dirty(q.len()), dirty(k.len()), dirty(v.len()));
        let mut dbias = dirty(attention.bias.len());
        let grads = AttentionGrads::Separate { dq: &mut dq, dk: &mut dk, dv: &mut dv, dbias: &mut dbias };
        backward(cpu, attention, AttentionSaved::Bf16 { qkv, lse }, dout, grads);
        [dq, dk, dv, dbias]
    }
}

/// `[batch · time, 3, width]` from three times `[batch · time, width]`.
fn side_by_side(parts: [&[f32]; 3], width: usize) -> Vec<f32> {
    let rows = parts.map(|part| part.chunks(width));
    let [q, k, v] = rows;
    q.zip(k).zip(v).flat_map(|((q, k), v)| [q, k, v].concat()).collect()
}

#[test]
fn packed_is_apart_side_by_side() {
    for (shape, causal) in [
        (self_attention(2, 37, 3, 8), true),
        (self_attention(1, 1, 2, 5), true),
        (self_attention(3, 70, 1, 20), false),
        (self_attention(1, 0, 2, 4), true),
    ] {
        let (attention, tensors, width) = (scaled(shape, causal), Tensors::new(shape), shape.out_stride());
        for isa in Isa::supported() {
            let cpu = Cpu::new(isa, 2);
            let [out, lse, dq, dk, dv, _] = tensors.run(cpu, attention);
            let packed = side_by_side([&tensors.q, &tensors.k, &tensors.v], width);
            let (mut o, mut l) = (vec![f32::NAN; out.len()], vec![f32::NAN; lse.len()]);
            forward(cpu, attention, Qkv::Packed(&packed), &mut o, &mut l);
            assert_eq!((&o, &l), (&out, &lse), "{isa}");
            let mut grads = vec![f32::NAN; packed.len()];
            let saved = AttentionSaved::F32 { qkv: Qkv::Packed(&packed), out: &out, lse: &lse };
            backward(cpu, attention, saved, &tensors.dout, AttentionGrads::Packed(&mut grads));
            assert_eq!(grads, side_by_side([&dq, &dk, &dv], width), "{isa}");
        }
    }
}

const NAMES: [&str; 6] = ["out", "lse", "dq", "dk", "dv", "dbias"];

fn self_attention(batch: usize, time: usize, heads: usize, head_dim: usize) -> AttentionShape {
    AttentionShape { batch, queries: time, keys: time, key_capacity: time, heads, kv_heads: heads, head_dim }
}

fn scaled(shape: AttentionShape, causal: bool) -> Attention<'static> {
    Attention {
        shape,
        causal,
        sliding_window: None,
        scale: 1.0 / (shape.head_dim as f32).sqrt(),
        bias: &[],
        spans: &[],
        documents: &[],
        dropout: None,
    }
}

#[track_caller]
fn check(shape: AttentionShape, causal: bool) {
    check_all(scaled(shape, causal));
}

#[track_caller]
fn check_all(attention: Attention) {
    let shape = attention.shape;
    let tensors = Tensors::new(shape);
    let plain = tensors.run(Cpu::new(Isa::Scalar, 1), attention);
    // Dropout scales what it keeps, and with that its error.
    let scaled_by = attention.dropout.map_or(1.0, |dropout| 1.0 / (1.0 - f64::from(dropout.probability)));
    for isa in Isa::supported().filter(|isa| isa.multiplies_bf16()) {
        let cpu = Cpu::new(isa, 1).at(Precision::Mixed).with_bf16_dot(Bf16Dot::Native);
        let mixed = tensors.run(cpu, attention);
        // Gradients of a key add up over all queries that share its head, and so do their rounding errors.
        let summands = shape.queries * shape.heads / shape.kv_heads.max(1);
        let of_keys = 1e-2 * (summands as f64).sqrt().max(2.0);
        // Gradients of scores are computed from rounded operands and rounded again: a few of many normal values are outliers.
        let of_queries = 4e-2;
        let of_biases = 1e-2 * ((shape.batch * shape.queries) as f64).sqrt().max(4.0);
        // Scores of a narrow head have far outliers, and rounded operands change a score by up to 2⁻⁸ of it.
        let of_outputs = if shape.head_dim < 8 { 5e-2 } else { 2e-2 };
        let tolerances = [of_outputs, of_outputs, of_queries, of_keys, of_keys, of_biases];
        for (((name, found), wanted), tolerance) in NAMES.iter().zip(&mixed).zip(&plain).zip(tolerances) {
            let tolerance = tolerance * scaled_by;
            assert_close(&format!("{isa} mixed {name} of {attention:?}"), found, &wide(wanted), tolerance);
        }
        assert_eq!(tensors.run(Cpu { threads: 2, ..cpu }, attention), mixed);
    }
    for isa in Isa::supported() {
        let one = tensors.run(Cpu::new(isa, 1), attention);
        for ((name, found), wanted) in NAMES.iter().zip(&one).zip(&plain) {
            assert_close(&format!("{isa} {name} of {attention:?}"), found, &wide(wanted), 2e-5 * scaled_by);
        }
        for threads in [2, 3] {
            assert_eq!(tensors.run(Cpu::new(isa, threads), attention), one, "{isa} with {threads} threads");
        }
    }
}

#[test]
fn heads_of_common_sizes_are_right() {
    for causal in [false, true] {
        check(self_attention(2, 64, 2, 32), causal);
        check(self_attention(1, 70, 2, 64), causal);
        check(self_attention(1, 300, 1, 20), causal);
        check(self_attention(1, 33, 1, 128), causal);
        check(self_attention(2, 9, 1, 80), causal);
    }
}

#[test]
fn keys_outside_their_sequences_span_are_as_if_they_were_not() {
    for (time, causal) in [(40, false), (40, true), (170, true), (1, true)] {
        let spans = [0..time, 0..time / 2, time / 3..usize::MAX, time..time];
        let shape = self_attention(4, time, 2, 32);
        let attention = Attention { spans: &spans, ..scaled(shape, causal) };
        check_all(attention);
        // A sequence with left padding equals the same sequence without it.
        let (first, width) = (time / 3, shape.out_stride());
        let row = |x: &[f32]| x[(2 * time + first) * width..3 * time * width].to_vec();
        let all = Tensors::new(shape);
        let one = Tensors { q: row(&all.q), k: row(&all.k), v: row(&all.v), dout: row(&all.dout) };
        let cpu = Cpu::new(Isa::Scalar, 1);
        let ([out, ..], [alone, ..]) =
            (all.run(cpu, attention), one.run(cpu, scaled(self_attention(1, time - first, 2, 32), causal)));
        assert_eq!(row(&out), alone);
    }
}

#[test]
fn windows_slide_over_blocks_of_every_path() {
    for causal in [false, true] {
        for window in [1, 2, 13, 32, 33, 34, 101, 300, usize::MAX] {
            check_all(Attention {
                sliding_window: Some(window),
                ..scaled(self_attention(1, 300, 1, 20), causal)
            });
        }
        // The last of many keys, so that the first ones are outside every window; a single query, too.
        for queries in [1, 5, 150] {
            let shape =
                AttentionShape { queries, keys: 310, key_capacity: 315, ..self_attention(2, 0, 2, 64) };
            check_all(Attention { sliding_window: Some(41), ..scaled(shape, causal) });
        }
    }
}

#[test]
fn windows_and_spans_hide_together() {
    let spans = [0..200, 0..90, 70..usize::MAX, 100..130];
    for (window, causal) in [(17, true), (51, false), (141, true)] {
        let attention = Attention {
            spans: &spans,
            sliding_window: Some(window),
            ..scaled(self_attention(4, 200, 2, 16), causal)
        };
        check_all(attention);
    }
}

/// A bias for each head and distance.
fn biases(shape: AttentionShape) -> Vec<f32> {
    numbers(5, shape.heads * (shape.queries + shape.keys).saturating_sub(1))
}

#[test]
fn biases_are_added_and_learn_by_distance() {
    for causal in [false, true] {
        for shape in [
            self_attention(2, 64, 2, 32),
            self_attention(1, 300, 1, 20),
            AttentionShape { kv_heads: 2, ..self_attention(3, 70, 4, 64) },
            AttentionShape { queries: 33, keys: 150, key_capacity: 151, ..self_attention(1, 0, 2, 24) },
            AttentionShape { queries: 1, keys: 90, key_capacity: 100, ..self_attention(2, 0, 2, 64) },
        ] {
            let (bias, time) = (biases(shape), shape.keys);
            let attention = Attention { bias: &bias, ..scaled(shape, causal) };
            check_all(attention);
            check_all(Attention { sliding_window: Some(26), ..attention });
            let spans = [time / 3..time, 0..time / 2, time..time];
            check_all(Attention { spans: &spans[..shape.batch], ..attention });
        }
    }
}

#[test]
fn a_bias_stands_for_its_distance() {
    // Queries 0 and 1 are at positions 1 and 2; keys are 1 after their query, at it, and 1 or 2 before it.
    let shape =
        AttentionShape { batch: 1, queries: 2, keys: 3, key_capacity: 3, heads: 1, kv_heads: 1, head_dim: 1 };
    let (q, k, v) = ([0.0; 2], [0.0; 3], [1.0, 10.0, 100.0]);
    let far = f32::MIN / 4.0;
    for (bias, wanted) in [
        ([0.0, far, far, far], [100.0, 37.0]),
        ([far, 0.0, far, far], [10.0, 100.0]),
        ([far, far, 0.0, far], [1.0, 10.0]),
        ([far, far, far, 0.0], [37.0, 1.0]),
    ] {
        for isa in Isa::supported() {
            let (mut out, mut lse) = ([f32::NAN; 2], [f32::NAN; 2]);
            let attention = Attention { bias: &bias, ..scaled(shape, false) };
            forward(Cpu::new(isa, 1), attention, Qkv::Separate { q: &q, k: &k, v: &v }, &mut out, &mut lse);
            let error = out.iter().zip(wanted).map(|(x, y)| (x - y).abs() / y).fold(0.0, f32::max);
            assert!(error < 1e-6, "{isa}: {out:?} is not {wanted:?}");
        }
    }
}

#[test]
#[should_panic(expected = "7 biases, not [2, 3]")]
fn there_is_a_bias_for_each_head_and_distance() {
    let shape = self_attention(1, 2, 2, 4);
    Tensors::new(shape).run(Cpu::detect(1), Attention { bias: &[0.0; 7], ..scaled(shape, false) });
}

#[test]
fn a_window_counts_the_query_and_the_keys_before_it_and_unless_causal_after() {
    let shape = self_attention(1, 5, 1, 1);
    let (q, k, v) = ([0.0; 5], [0.0; 5], [1.0, 10.0, 100.0, 1000.0, 10000.0]);
    for (causal, window, wanted) in [
        (true, 1, [1.0, 10.0, 100.0, 1000.0, 10000.0]),
        (true, 2, [1.0, 5.5, 55.0, 550.0, 5500.0]),
        (false, 2, [5.5, 37.0, 370.0, 3700.0, 5500.0]),
        (false, 5, [2222.2; 5]),
    ] {
        for isa in Isa::supported() {
            let (mut out, mut lse) = ([f32::NAN; 5], [f32::NAN; 5]);
            let attention = Attention { sliding_window: Some(window), ..scaled(shape, causal) };
            let qkv = Qkv::Separate { q: &q, k: &k, v: &v };
            forward(Cpu::new(isa, 1), attention, qkv, &mut out, &mut lse);
            let error = out.iter().zip(wanted).map(|(x, y)| (x - y).abs() / y).fold(0.0, f32::max);
            assert!(error < 1e-6, "{isa}: {out:?} is not {wanted:?}");
        }
    }
}

#[test]
#[should_panic(expected = "a sliding window holds at least the query's own position")]
fn a_window_is_not_empty() {
    let shape = self_attention(1, 2, 1, 4);
    let attention = Attention { sliding_window: Some(0), ..scaled(shape, true) };
    Tensors::new(shape).run(Cpu::detect(1), attention);
}

#[test]
#[should_panic(expected = "2 spans of keys for 3 sequences")]
fn there_is_a_span_for_each_sequence() {
    let shape = self_attention(3, 2, 1, 4);
    let spans = [0..1, 0..2];
    Tensors::new(shape).run(Cpu::detect(1), Attention { spans: &spans, ..scaled(shape, false) });
}

#[test]
fn one_query_reads_the_filled_part_of_a_cache() {
    for (keys, head_dim) in [(1, 64), (37, 64), (300, 80), (5, 7)] {
        let shape = AttentionShape {
            batch: 2,
            queries: 1,
            keys,
            key_capacity: keys + 9,
            heads: 4,
            kv_heads: 2,
            head_dim,
        };
        check(shape, true);
        check(shape, false);
    }
}

#[test]
fn a_query_that_sees_no_key_gets_nothing_and_gives_nothing() {
    let shape = AttentionShape {
        batch: 1,
        queries: 40,
        keys: 3,
        key_capacity: 5,
        heads: 1,
        kv_heads: 1,
        head_dim: 8,
    };
    check(shape, true);
    check(AttentionShape { keys: 0, ..shape }, false);
    check(AttentionShape { keys: 0, queries: 1, ..shape }, true);
    check(AttentionShape { keys: 0, key_capacity: 0, ..shape }, true);
    check(AttentionShape { keys: 0, key_capacity: 0, heads: 2, kv_heads: 2, ..shape }, true);
    check(AttentionShape { queries: 0, heads: 2, kv_heads: 2, ..shape }, true);
    check(AttentionShape { batch: 0, ..shape }, true);
    let [out, lse, dq, ..] = Tensors::new(shape).run(Cpu::detect(1), scaled(shape, true));
    assert!(out[..37 * 8].iter().chain(&dq[..37 * 8]).all(|x| *x == 0.0));
    assert!(lse[..37].iter().all(|x| *x == f32::NEG_INFINITY) && lse[37].is_finite());
}

/// Enough keys for the online softmax: see `long`.
#[test]
fn long_keys_are_taken_some_at_a_time() {
    let (keys, heads, kv_heads) = (2100, 6, 2);
    for (batch, queries, head_dim, causal) in [(1, 70, 64, true), (2, 33, 20, false), (1, 300, 16, true)] {
        let shape =
            AttentionShape { batch, queries, keys, key_capacity: keys + 5, heads, kv_heads, head_dim };
        let attention = scaled(shape, causal);
        check_all(attention);
        if queries < 100 {
            let bias = biases(shape);
            check_all(Attention { bias: &bias, ..attention });
            check_all(Attention { sliding_window: Some(301), ..attention });
            let spans = [500..2090, 0..40];
            check_all(Attention { spans: &spans[..batch], ..attention });
        }
    }
    for isa in Isa::supported() {
        let shape = self_attention(1, 2100, 1, 1);
        let (mut q, k, v) = (vec![1.0; 2100], vec![0.0; 2100], numbers(1, 2100));
        q[40] = f32::NAN;
        let (mut out, mut lse) = (vec![0.0; 2100], vec![0.0; 2100]);
        let qkv = Qkv::Separate { q: &q, k: &k, v: &v };
        forward(Cpu::new(isa, 1), scaled(shape, true), qkv, &mut out, &mut lse);
        let others: Vec<_> = (0..2100).filter(|&i| i != 40).collect();
        assert!(out[40].is_nan() && others.iter().all(|&i| out[i].is_finite()), "{isa}");
        assert_close(&format!("{isa}"), &[lse[2099]], &[2100f64.ln()], 1e-6);
    }
}

#[test]
fn gradients_are_the_slopes_of_the_output() {
    let shape =
        AttentionShape { batch: 1, queries: 3, keys: 4, key_capacity: 4, heads: 2, kv_heads: 1, head_dim: 4 };
    let bias = biases(shape);
    let attention = Attention { bias: &bias, ..scaled(shape, true) };
    let tensors = Tensors::new(shape);
    let loss = |q: &[f64], k: &[f64], v: &[f64], bias: &[f64]| -> f64 {
        let mut loss = 0.0;
        for head in 0..2 {
            for i in 0..3 {
                let q = &q[(i * 2 + head) * 4..][..4];
                let dout = &tensors.dout[(i * 2 + head) * 4..][..4];
                let seen = 4 - 3 + i + 1;
                let weights: Vec<f64> = (0..seen)
                    .map(|j| {
                        let score: f64 = q.iter().zip(&k[j * 4..]).map(|(q, k)| q * k).sum();
                        let distance = 4 - 3 + i as isize - j as isize;
                        let bias = bias[head * 6 + (3 - 1 + distance) as usize];
                        (score * f64::from(attention.scale) + bias).exp()
                    })
                    .collect();
                for (j, weight) in weights.iter().enumerate() {
                    let dot: f64 = v[j * 4..][..4].iter().zip(dout).map(|(v, d)| v * f64::from(*d)).sum();
                    loss += weight / weights.iter().sum::<f64>() * dot;
                }
            }
        }
        loss
    };
    let inputs = [wide(&tensors.q), wide(&tensors.k), wide(&tensors.v), wide(&bias)];
    for isa in Isa::supported() {
        let found = tensors.run(Cpu::new(isa, 1), attention);
        for which in 0..4 {
            let wanted: Vec<f64> = (0..inputs[which].len())
                .map(|index| {
                    let shifted = |step: f64| {
                        let mut inputs = inputs.clone();
                        inputs[which][index] += step;
                        loss(&inputs[0], &inputs[1], &inputs[2], &inputs[3])
                    };
                    (shifted(1e-5) - shifted(-1e-5)) / 2e-5
                })
                .collect();
            assert_close(NAMES[2 + which], &found[2 + which], &wanted, 1e-5);
        }
    }
}

#[test]
fn without_bf16_instructions_mixed_precision_is_f32() {
    let shape = AttentionShape { kv_heads: 1, ..self_attention(2, 70, 2, 24) };
    let tensors = Tensors::new(shape);
    let mut widened_is_f32 = WidenedIsF32::new();
    for cpu in every_cpu() {
        widened_is_f32.check(cpu, &tensors.run(cpu, scaled(shape, true)));
    }
}

#[test]
fn the_only_key_has_no_slope() {
    let shape = AttentionShape { keys: 1, key_capacity: 1, ..self_attention(1, 40, 1, 24) };
    let cpu = Cpu::detect(1).at(Precision::Mixed);
    let [_, _, dq, dk, ..] = Tensors::new(shape).run(cpu, scaled(shape, false));
    assert!(dq.iter().chain(&dk).all(|x| x.abs() < 1e-5));
}

#[test]
fn huge_scores_choose_one_key_and_nan_stays_with_its_query() {
    let shape = self_attention(1, 40, 1, 4);
    let mut tensors = Tensors::new(shape);
    tensors.q.iter_mut().for_each(|x| *x *= 1e6);
    for isa in Isa::supported() {
        let [out, lse, ..] = tensors.run(Cpu::new(isa, 1), scaled(shape, true));
        assert!(out.iter().chain(&lse).all(|x| x.is_finite()), "{isa}");
    }
    tensors.q[8] = f32::NAN;
    for isa in Isa::supported() {
        let [out, ..] = tensors.run(Cpu::new(isa, 1), scaled(shape, true));
        assert!(out[8..12].iter().all(|x| x.is_nan()), "{isa}");
        assert!(out[..8].iter().chain(&out[12..]).all(|x| x.is_finite()), "{isa}");
    }
}

#[test]
#[should_panic(expected = "2 key heads do not divide 3 heads")]
fn heads_must_be_shared_evenly() {
    let shape = AttentionShape { kv_heads: 2, ..self_attention(1, 1, 3, 1) };
    let qkv = Qkv::Separate { q: &[0.0; 3], k: &[0.0; 2], v: &[0.0; 2] };
    forward(Cpu::detect(1), scaled(shape, true), qkv, &mut [0.0; 3], &mut [0.0; 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_path_equals_the_definition(
        (batch, queries, keys, spare) in (1usize..3, 0usize..50, 0usize..60, 0usize..3),
        (kv_heads, group, head_dim) in (1usize..3, 1usize..3, 1usize..40),
        causal: bool,
        sliding_window in proptest::option::of(1usize..61),
        (begin, end) in (0usize..40, 0usize..80),
    ) {
        let heads = kv_heads * group;
        let key_capacity = keys + spare;
        let shape = AttentionShape { batch, queries, keys, key_capacity, heads, kv_heads, head_dim };
        let spans = [0..end, begin..usize::MAX];
        let bias = biases(shape);
        check_all(Attention { sliding_window, ..scaled(shape, causal) });
        check_all(Attention { sliding_window, spans: &spans[..batch], bias: &bias, ..scaled(shape, causal) });
    }
}
