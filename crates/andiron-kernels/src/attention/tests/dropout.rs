//! Attention dropout, against the definition with the mask of `dropout::apply`.

use super::*;
use crate::dropout;
use crate::random::Seed;

pub(super) fn at(probability: f32) -> Option<Dropout> {
    Some(Dropout { probability, seed: Seed::new(77) })
}

/// Dropout factors of the probabilities, `[batch, heads, queries, keys]`.
fn mask(attention: &Attention) -> Vec<f32> {
    let AttentionShape { batch, queries, keys, heads, .. } = attention.shape;
    let mut mask = vec![1.0; batch * heads * queries * keys];
    if let Some(dropout) = attention.dropout {
        let ones = mask.clone();
        dropout::apply(Cpu::new(Isa::Scalar, 1), dropout, &ones, &mut mask);
    }
    mask
}

/// out, lse, dq, dk, dv, dbias by the definition: each operation on the full score matrix, and its gradient.
fn definition(tensors: &Tensors, attention: &Attention) -> [Vec<f64>; 6] {
    let shape = attention.shape;
    let AttentionShape { batch, queries, keys, heads, kv_heads, head_dim, .. } = shape;
    let [q, k, v, dout] = [&tensors.q, &tensors.k, &tensors.v, &tensors.dout].map(|x| wide(x));
    let (bias, mask, distances) = (wide(attention.bias), wide(&mask(attention)), queries + keys);
    let scale = f64::from(attention.scale);
    let zeros = |like: &[f64]| vec![0.0; like.len()];
    let (mut out, mut lse) = (zeros(&q), vec![f64::NEG_INFINITY; batch * heads * queries]);
    let (mut dq, mut dk, mut dv, mut dbias) = (zeros(&q), zeros(&k), zeros(&v), zeros(&bias));
    for row in 0..batch * heads * queries {
        let (b, h, i) = (row / queries / heads, row / queries % heads, row % queries);
        let sees = |j: usize| {
            let before = (keys + i) as isize - (queries + j) as isize;
            let window = attention.sliding_window.map_or(isize::MAX, |window| window as isize);
            let span = attention.spans.get(b).is_none_or(|span| span.contains(&j));
            let document = |position| {
                attention.documents.get(b).map(|starts| starts.partition_point(|&start| start <= position))
            };
            span && document(i) == document(j)
                && before < window
                && (if attention.causal { before >= 0 } else { -before < window })
        };
        let seen: Vec<usize> = (0..keys).filter(|j| sees(*j)).collect();
        let query = (((b * queries + i) * heads) + h) * head_dim;
        let key = |j: usize| ((b * shape.key_capacity + j) * kv_heads + h * kv_heads / heads) * head_dim;
        let bias_at = |j: usize| h * (distances - 1) + keys - 1 + i - j;
        let dot = |x: &[f64], x_at: usize, y: &[f64], y_at: usize| -> f64 {
            (0..head_dim).map(|c| x[x_at + c] * y[y_at + c]).sum()
        };
        let scores: Vec<f64> = seen
            .iter()
            .map(|&j| {
                dot(&q, query, &k, key(j)) * scale + if bias.is_empty() { 0.0 } else { bias[bias_at(j)] }
            })
            .collect();
        let max = scores.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
        if !seen.is_empty() {
            lse[row] = max + sum.ln();
        }
        let p: Vec<f64> = scores.iter().map(|score| (score - max).exp() / sum).collect();
        let kept: Vec<f64> = seen.iter().map(|j| mask[row * keys + j]).collect();
        let dp: Vec<f64> = (0..seen.len()).map(|n| kept[n] * dot(&dout, query, &v, key(seen[n]))).collect();
        let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
        for (n, &j) in seen.iter().enumerate() {
            let ds = p[n] * (dp[n] - mean);
            for c in 0..head_dim {
                out[query + c] += kept[n] * p[n] * v[key(j) + c];
                dv[key(j) + c] += kept[n] * p[n] * dout[query + c];
                dq[query + c] += ds * scale * k[key(j) + c];
                dk[key(j) + c] += ds * scale * q[query + c];
            }
            if !bias.is_empty() {
                dbias[bias_at(j)] += ds;
            }
        }
    }
    [out, lse, dq, dk, dv, dbias]
}

#[track_caller]
pub(super) fn check_dropped(attention: Attention) {
    let tensors = Tensors::new(attention.shape);
    let wanted = definition(&tensors, &attention);
    for isa in Isa::supported() {
        let found = tensors.run(Cpu::new(isa, 1), attention);
        for ((name, found), wanted) in NAMES.iter().zip(&found).zip(&wanted) {
            assert_close(&format!("{isa} {name} of {attention:?}"), found, wanted, 4e-5);
        }
    }
    // Mixed precision and threads.
    check_all(attention);
}

#[test]
fn heads_of_common_sizes_drop_what_the_kernel_for_tensors_drops() {
    for causal in [false, true] {
        for shape in [
            self_attention(2, 64, 2, 32),
            self_attention(1, 70, 2, 64),
            self_attention(1, 300, 1, 20),
            AttentionShape { kv_heads: 2, ..self_attention(2, 130, 4, 16) },
            AttentionShape { queries: 45, keys: 150, key_capacity: 151, ..self_attention(2, 0, 2, 24) },
            AttentionShape { queries: 1, keys: 90, key_capacity: 100, ..self_attention(2, 0, 2, 64) },
        ] {
            let bias = biases(shape);
            let attention = Attention { dropout: at(0.2), ..scaled(shape, causal) };
            check_dropped(attention);
            check_dropped(Attention { bias: &bias, sliding_window: Some(34), ..attention });
        }
    }
}

#[test]
fn packed_attention_drops_the_same() {
    let shape = self_attention(2, 77, 3, 16);
    let (attention, tensors) = (Attention { dropout: at(0.3), ..scaled(shape, true) }, Tensors::new(shape));
    for cpu in Isa::supported().flat_map(|isa| {
        let cpu = Cpu::new(isa, 2);
        [cpu, cpu.at(Precision::Mixed)]
    }) {
        let [out, lse, dq, dk, dv, _] = tensors.run(cpu, attention);
        let width = shape.out_stride();
        let packed = side_by_side([&tensors.q, &tensors.k, &tensors.v], width);
        let (mut o, mut l) = (vec![f32::NAN; out.len()], vec![f32::NAN; lse.len()]);
        forward(cpu, attention, Qkv::Packed(&packed), &mut o, &mut l);
        assert_eq!((&o, &l), (&out, &lse), "{cpu:?}");
        let mut grads = vec![f32::NAN; packed.len()];
        let saved = AttentionSaved::F32 { qkv: Qkv::Packed(&packed), out: &out, lse: &lse };
        backward(cpu, attention, saved, &tensors.dout, AttentionGrads::Packed(&mut grads));
        assert_eq!(grads, side_by_side([&dq, &dk, &dv], width), "{cpu:?}");
        if rounds_operands(cpu, shape.head_dim) {
            let mut words = vec![f32::NAN; packed.len() / 2];
            bf16::round(cpu, &packed, &mut words);
            let mut again = vec![f32::NAN; packed.len()];
            let saved = AttentionSaved::Bf16 { qkv: Qkv::Packed(&words), lse: &lse };
            backward(cpu, attention, saved, &tensors.dout, AttentionGrads::Packed(&mut again));
            assert_eq!(again, grads, "{cpu:?}: rounded operands");
        }
    }
}

#[test]
fn gradients_with_a_fixed_mask_are_the_slopes_of_the_output() {
    let shape =
        AttentionShape { batch: 2, queries: 3, keys: 4, key_capacity: 4, heads: 2, kv_heads: 1, head_dim: 4 };
    let bias = biases(shape);
    let attention = Attention { bias: &bias, dropout: at(0.4), ..scaled(shape, true) };
    assert!(mask(&attention).contains(&0.0));
    let tensors = Tensors::new(shape);
    // By the plain version: outputs are f32, hence the large steps and the tolerance.
    let loss = |tensors: &Tensors, bias: &[f32]| -> f64 {
        let (mut out, mut lse) = (vec![0.0; tensors.q.len()], vec![0.0; 2 * 2 * 3]);
        let qkv = Qkv::Separate { q: &tensors.q, k: &tensors.k, v: &tensors.v };
        forward(Cpu::new(Isa::Scalar, 1), Attention { bias, ..attention }, qkv, &mut out, &mut lse);
        out.iter().zip(&tensors.dout).map(|(out, dout)| f64::from(*out) * f64::from(*dout)).sum()
    };
    const STEP: f32 = 1.0 / 64.0;
    let slopes = |which: usize, len: usize| -> Vec<f64> {
        let slope = |index: usize| {
            let shifted = |step: f32| {
                let mut bias = bias.clone();
                let mut moved = Tensors {
                    q: tensors.q.clone(),
                    k: tensors.k.clone(),
                    v: tensors.v.clone(),
                    dout: tensors.dout.clone(),
                };
                [&mut moved.q, &mut moved.k, &mut moved.v, &mut bias][which][index] += step;
                loss(&moved, &bias)
            };
            (shifted(STEP) - shifted(-STEP)) / f64::from(2.0 * STEP)
        };
        (0..len).map(slope).collect()
    };
    let lens = [tensors.q.len(), tensors.k.len(), tensors.v.len(), bias.len()];
    let wanted: Vec<_> = lens.into_iter().enumerate().map(|(which, len)| slopes(which, len)).collect();
    for isa in Isa::supported() {
        let found = tensors.run(Cpu::new(isa, 1), attention);
        for (which, wanted) in wanted.iter().enumerate() {
            assert_close(NAMES[2 + which], &found[2 + which], wanted, 1e-3);
        }
    }
}

#[test]
fn probability_0_is_no_dropout_to_the_bit() {
    for queries in [1, 60] {
        let shape = AttentionShape { queries, ..self_attention(2, 60, 2, 32) };
        let (attention, tensors) = (scaled(shape, true), Tensors::new(shape));
        for isa in Isa::supported() {
            for precision in [Precision::F32, Precision::Mixed] {
                let cpu = Cpu::new(isa, 1).at(precision);
                let dropped = tensors.run(cpu, Attention { dropout: at(0.0), ..attention });
                assert_eq!(dropped, tensors.run(cpu, attention), "{isa}");
            }
        }
    }
}

#[test]
fn probability_1_leaves_nothing_but_the_denominators() {
    let shape = self_attention(1, 40, 2, 16);
    let tensors = Tensors::new(shape);
    for isa in Isa::supported() {
        let cpu = Cpu::new(isa, 1);
        let [out, lse, grads @ ..] = tensors.run(cpu, Attention { dropout: at(1.0), ..scaled(shape, true) });
        assert!(out.iter().chain(grads.iter().flatten()).all(|x| *x == 0.0), "{isa}");
        assert_eq!(lse, tensors.run(cpu, scaled(shape, true))[1], "{isa}");
    }
}

#[test]
fn the_share_dropped_is_the_probability_and_the_mask_is_that_of_the_tensor() {
    // Equal scores and the identity as values: the output is the mask, divided by the number of keys.
    const TIME: usize = 100;
    let shape = self_attention(3, TIME, 4, TIME);
    let zeros = vec![0.0; 3 * TIME * shape.out_stride()];
    let mut v = zeros.clone();
    for (row, v) in v.chunks_mut(TIME).enumerate() {
        v[row / 4 % TIME] = 1.0;
    }
    for probability in [0.1, 0.5, 0.85] {
        let attention = Attention { dropout: at(probability), ..scaled(shape, false) };
        let mask = mask(&attention);
        let dropped = mask.iter().filter(|x| **x == 0.0).count() as f64;
        let (n, p) = (mask.len() as f64, f64::from(probability));
        // Five standard deviations of a binomial distribution.
        let bound = 5.0 * (n * p * (1.0 - p)).sqrt();
        assert!((dropped - n * p).abs() < bound, "{dropped} of {n} dropped at {probability}");
        for isa in Isa::supported() {
            for (threads, precision) in [(1, Precision::F32), (3, Precision::F32), (2, Precision::Mixed)] {
                let cpu = Cpu::new(isa, threads).at(precision);
                let (mut out, mut lse) = (zeros.clone(), vec![0.0; 3 * 4 * TIME]);
                let qkv = Qkv::Separate { q: &zeros, k: &zeros, v: &v };
                forward(cpu, attention, qkv, &mut out, &mut lse);
                for (row, mask) in mask.chunks(TIME).enumerate() {
                    let (b, h, i) = (row / 4 / TIME, row / TIME % 4, row % TIME);
                    let out = &out[((b * TIME + i) * 4 + h) * TIME..][..TIME];
                    let alike = |(out, mask): (&f32, &f32)| (out * TIME as f32 - mask).abs() <= 1e-2 * mask;
                    assert!(out.iter().zip(mask).all(alike), "{cpu:?}: sequence {b}, head {h}, query {i}");
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "dropout probability 1.5 is not in 0..=1")]
fn a_probability_of_dropout_is_one() {
    let shape = self_attention(1, 2, 1, 4);
    Tensors::new(shape).run(Cpu::detect(1), Attention { dropout: at(1.5), ..scaled(shape, false) });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_path_equals_the_definition_with_dropout(
        (batch, queries, keys, spare) in (1usize..3, 0usize..50, 0usize..140, 0usize..3),
        (kv_heads, group, head_dim) in (1usize..3, 1usize..3, 1usize..40),
        causal: bool,
        sliding_window in proptest::option::of(1usize..61),
        (begin, end) in (0usize..40, 0usize..80),
        (probability, seed) in (0f32..0.6, any::<u64>()),
    ) {
        let heads = kv_heads * group;
        let key_capacity = keys + spare;
        let shape = AttentionShape { batch, queries, keys, key_capacity, heads, kv_heads, head_dim };
        let (spans, bias) = ([0..end, begin..usize::MAX], biases(shape));
        let dropout = Some(Dropout { probability, seed: Seed::new(seed) });
        check_dropped(Attention { sliding_window, dropout, ..scaled(shape, causal) });
        check_dropped(Attention { sliding_window, dropout, spans: &spans[..batch], bias: &bias, ..scaled(shape, causal) });
    }
}
