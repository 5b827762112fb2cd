//! Documents packed into one sequence, against each of them alone.

use super::dropout::{at, check_dropped};
use super::*;

/// The first position of each document, and the number of positions.
fn starts_of(lengths: &[usize]) -> (Vec<usize>, usize) {
    let starts = (0..lengths.len()).map(|n| lengths[..n].iter().sum()).collect();
    (starts, lengths.iter().sum())
}

/// Checks that each document of each sequence has the results that it has alone, bit for bit; the lengths of all sequences
/// have one sum.
#[track_caller]
fn check_alone(
    lengths: &[Vec<usize>],
    (kv_heads, group, head_dim): (usize, usize, usize),
    (causal, sliding_window): (bool, Option<usize>),
) {
    let (starts, times): (Vec<_>, Vec<_>) = lengths.iter().map(|lengths| starts_of(lengths)).unzip();
    let time = times[0];
    assert!(times.iter().all(|&of_row| of_row == time), "sequences of one length");
    let heads = kv_heads * group;
    let shape = AttentionShape { heads, kv_heads, ..self_attention(lengths.len(), time, heads, head_dim) };
    let attention = Attention { documents: &starts, sliding_window, ..scaled(shape, causal) };
    let all = Tensors::new(shape);
    for cpu in Isa::supported().flat_map(|isa| {
        let cpu = Cpu::new(isa, 2);
        [cpu, cpu.at(Precision::Mixed)]
    }) {
        let [out, lse, dq, dk, dv, _] = all.run(cpu, attention);
        for (row, (starts, lengths)) in starts.iter().zip(lengths).enumerate() {
            for (&start, &length) in starts.iter().zip(lengths) {
                let part = |x: &[f32], width: usize| {
                    let first = row * time + start;
                    x[first * width..(first + length) * width].to_vec()
                };
                let [wide, narrow] = [shape.out_stride(), shape.kv_stride()];
                let one = Tensors {
                    q: part(&all.q, wide),
                    k: part(&all.k, narrow),
                    v: part(&all.v, narrow),
                    dout: part(&all.dout, wide),
                };
                let alone =
                    AttentionShape { batch: 1, queries: length, keys: length, key_capacity: length, ..shape };
                let [o, l, q, k, v, _] = one.run(cpu, Attention { sliding_window, ..scaled(alone, causal) });
                let at = format!("{cpu:?}: document {start}..{} of row {row}", start + length);
                assert_eq!(part(&out, wide), o, "{at}: out");
                for head in 0..heads {
                    let first = (row * heads + head) * time + start;
                    assert_eq!(
                        lse[first..first + length],
                        l[head * length..(head + 1) * length],
                        "{at}: lse"
                    );
                }
                assert_eq!(part(&dq, wide), q, "{at}: dq");
                assert_eq!(part(&dk, narrow), k, "{at}: dk");
                assert_eq!(part(&dv, narrow), v, "{at}: dv");
            }
        }
    }
}

#[test]
fn documents_of_a_sequence_are_as_if_alone() {
    let lengths = [vec![40, 1, 33, 96, 70], vec![200, 40], vec![240]];
    check_alone(&lengths, (2, 1, 32), (true, None));
    check_alone(&lengths, (1, 3, 20), (true, None));
    check_alone(&lengths, (2, 1, 32), (false, None));
    check_alone(&lengths, (1, 2, 64), (true, Some(37)));
    check_alone(&lengths, (1, 1, 16), (false, Some(37)));
}

/// Enough keys for the online softmax in one document, and not in its neighbours: see `long`.
#[test]
fn a_long_document_stands_beside_short_ones() {
    check_alone(&[vec![40, 2100, 1, 19]], (1, 2, 16), (true, None));
}

#[test]
fn one_document_is_no_documents_to_the_bit() {
    let shape = self_attention(2, 70, 2, 32);
    let (attention, tensors) = (scaled(shape, true), Tensors::new(shape));
    let documents = [vec![0], vec![0]];
    for isa in Isa::supported() {
        let cpu = Cpu::new(isa, 1);
        let whole = tensors.run(cpu, Attention { documents: &documents, ..attention });
        assert_eq!(whole, tensors.run(cpu, attention), "{isa}");
    }
}

#[test]
fn documents_have_biases_padding_and_dropout() {
    let documents = [vec![0, 5, 40, 41, 100], vec![0, 64]];
    let shape = AttentionShape { kv_heads: 2, ..self_attention(2, 130, 4, 16) };
    let (bias, spans) = (biases(shape), [0..120, 70..usize::MAX]);
    for causal in [false, true] {
        let attention = Attention { documents: &documents, ..scaled(shape, causal) };
        check_dropped(attention);
        check_dropped(Attention { bias: &bias, sliding_window: Some(34), ..attention });
        check_dropped(Attention { bias: &bias, spans: &spans, dropout: at(0.2), ..attention });
    }
}

#[test]
#[should_panic(expected = "documents that start at [0, 4, 4] do not divide 9 positions")]
fn a_document_has_a_position() {
    let shape = self_attention(1, 9, 1, 4);
    Tensors::new(shape).run(Cpu::detect(1), Attention { documents: &[vec![0, 4, 4]], ..scaled(shape, true) });
}

#[test]
#[should_panic(expected = "documents of 1 sequences, not of 2")]
fn each_sequence_has_documents() {
    let shape = self_attention(2, 9, 1, 4);
    Tensors::new(shape).run(Cpu::detect(1), Attention { documents: &[vec![0, 4]], ..scaled(shape, true) });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn random_documents_are_as_if_alone(
        lengths in proptest::collection::vec(1usize..70, 1..7),
        sizes in (1usize..3, 1usize..3, 1usize..40),
        causal: bool,
        sliding_window in proptest::option::of(1usize..61),
    ) {
        let mut backwards = lengths.clone();
        backwards.reverse();
        check_alone(&[lengths, backwards], sizes, (causal, sliding_window));
    }
}
