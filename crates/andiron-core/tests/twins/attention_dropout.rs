//! Attention with dropout of its probabilities.

use andiron_core::PaddingMask;
use andiron_core::ops::{AttentionMask, AttentionOptions, Dropout};
use andiron_kernels::random::Seed;
use burn::tensor::{Device, Tensor};

use crate::attention::{Sizes, both_passes, check_attention, check_packed, ours, sizes};
use crate::dropout::assert_drawn;
use crate::{assert_close, devices, devices_for, floats};

const RATE: f32 = 0.3;

fn dropout(probability: f32) -> Option<Dropout> {
    Some(Dropout { probability, seed: Seed::new(5) })
}

#[test]
fn probabilities_are_dropped_by_seed_and_place() {
    let all = [[1, 1, 6, 1, 1, 4], [2, 9, 9, 4, 2, 8], [2, 30, 70, 2, 2, 16]];
    for (size, numbers) in all.into_iter().enumerate() {
        let sizes = sizes(numbers);
        let Sizes { b, s, .. } = sizes;
        let rows = PaddingMask::padded_right((0..b).map(|row| s - row * s / 3));
        let cases = [(true, Some(rows.clone())), (false, Some(rows)), (true, None), (false, None)];
        for (case, (causal, rows)) in cases.into_iter().enumerate() {
            let mask = AttentionMask { causal, sliding_window: None };
            let options = AttentionOptions {
                scale: 0.4,
                mask,
                n_keys: s,
                rows,
                documents: None,
                dropout: dropout(RATE),
            };
            for biased in [false, true] {
                check_attention(sizes, biased, &options, devices_for(size, case));
            }
        }
    }
}

#[test]
fn packed_attention_drops_as_separate_tensors_do() {
    let (t, mask) = (9, AttentionMask::CAUSAL);
    let rows = Some(PaddingMask::padded_right([t, t - 4]));
    let options =
        AttentionOptions { scale: 0.4, mask, n_keys: t, rows, documents: None, dropout: dropout(RATE) };
    check_packed([2, t, 3, 8], &options);
}

#[test]
fn dropout_of_0_is_none() {
    let sizes = sizes([2, 9, 9, 4, 2, 8]);
    let of = |dropout, biased, device: &Device| {
        let mask = AttentionMask::CAUSAL;
        let options = AttentionOptions { scale: 0.4, mask, n_keys: 9, rows: None, documents: None, dropout };
        both_passes(sizes, biased, |qkv, bias| ours(qkv, bias, options.clone()), device)
    };
    for device in devices() {
        for biased in [false, true] {
            let without = of(None, biased, &device);
            let never = of(dropout(0.0), biased, &device);
            for ((name, never), (_, without)) in never.into_iter().zip(&without) {
                assert_close(name, never, without.clone());
            }
            let dropped = of(dropout(RATE), biased, &device);
            assert_ne!(floats(dropped[0].1.clone()), floats(without[0].1.clone()), "nothing was dropped");
        }
    }
}

/// Over equal scores, with unit vectors as values, the output is the probabilities themselves.
#[test]
fn rate_mean_and_independence_of_what_is_dropped() {
    let [b, t, h] = [2, 64, 4];
    let options = |seed| AttentionOptions {
        scale: 1.0,
        mask: AttentionMask::FULL,
        n_keys: t,
        rows: None,
        documents: None,
        dropout: Some(Dropout { probability: RATE, seed: Seed::new(seed) }),
    };
    let mut everywhere: Vec<Vec<bool>> = Vec::new();
    for device in devices() {
        let zeros = || Tensor::<4>::zeros([b, t, h, t], &device);
        let units = Tensor::<2>::eye(t, &device).reshape([1, t, 1, t]).repeat(&[b, 1, h, 1]);
        let draw = |seed| {
            let out = ours([zeros(), zeros(), units.clone()], None, options(seed));
            // `[batch, head, query, key]`, as the seed counts them.
            floats(out.swap_dims(1, 2) * t as f32)
        };
        let drawn = draw(1);
        let dropped = assert_drawn(&drawn, RATE, [t, t * t, h * t * t]);
        let other = assert_drawn(&draw(2), RATE, [t]);
        let same = dropped.iter().zip(&other).filter(|(a, b)| **a && **b).count();
        let share = same as f32 / dropped.len() as f32;
        assert!((share - RATE * RATE).abs() < 0.01, "two seeds drop {share} in common");
        everywhere.push(dropped);
    }
    assert!(everywhere.windows(2).all(|pair| pair[0] == pair[1]));
}
