//! Attention: separate, packed, with biases, masks and padding.

use andiron_core::ops::{self, AttentionMask, AttentionOptions, Dropout};
use andiron_core::{Documents, PaddingMask};
use andiron_kernels::random::Seed;
use burn::tensor::{Device, Tensor, TensorData};

use crate::{assert_close, check, devices, devices_for, random, reference_device};

/// Attention by its definition.
pub fn reference(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, options: AttentionOptions) -> Tensor<4> {
    reference_biased(q, (k, v), None, options)
}

/// [`reference`] with biases by distance, `[heads, t + s − 1]`.
pub fn reference_biased(
    q: Tensor<4>,
    (k, v): (Tensor<4>, Tensor<4>),
    bias: Option<Tensor<2>>,
    options: AttentionOptions,
) -> Tensor<4> {
    let [_, t, heads, _] = q.dims();
    let [b, s, key_heads, w] = k.dims();
    let spread = |x: Tensor<4>| {
        let x: Tensor<5> = x.swap_dims(1, 2).reshape([b, key_heads, 1, s, w]);
        x.repeat_dim(2, heads / key_heads).reshape([b, heads, s, w])
    };
    let mut scores = q.swap_dims(1, 2).matmul(spread(k).swap_dims(2, 3)) * options.scale;
    if let Some(bias) = bias {
        // A query's row of biases, one after the other: from its distance to key 0 down.
        let row = |i: usize| bias.clone().slice([0..heads, i..i + s]).flip([1]).reshape([1, heads, 1, s]);
        scores = scores + Tensor::cat((0..t).map(row).collect(), 2);
    }
    if let Some(rows) = options.rows {
        let seen: Tensor<4> = rows.weights(s, &scores.device()).reshape([b, 1, 1, s]);
        scores = scores + (seen - 1.0) * 1e30;
    }
    if let Some(documents) = &options.documents {
        let index = |starts: &[usize], at: usize| starts.partition_point(|&start| start <= at);
        let of_row = |starts: &Vec<usize>| -> Vec<f32> {
            let alike = |at: usize| index(starts, at / s) == index(starts, at % s);
            (0..t * s).map(|at| if alike(at) { 0.0 } else { -1e30 }).collect()
        };
        let mask = documents.starts().iter().flat_map(of_row).collect::<Vec<_>>();
        scores = scores.clone() + Tensor::from_data(TensorData::new(mask, [b, 1, t, s]), &scores.device());
    }
    let AttentionMask { causal, sliding_window } = options.mask;
    if causal || sliding_window.is_some() {
        let window = sliding_window.unwrap_or(s + 1);
        let seen = |p: usize, j: usize| p.abs_diff(j) < window && (j <= p || !causal);
        let mask = (0..t * s).map(|at| if seen(s - t + at / s, at % s) { 0.0 } else { -1e30f32 });
        let mask = TensorData::new(mask.collect::<Vec<_>>(), [1, 1, t, s]);
        scores = scores.clone() + Tensor::from_data(mask, &scores.device());
    }
    let exp = (scores.clone() - scores.max_dim(3)).exp();
    let p = exp.clone() / exp.sum_dim(3);
    let p = match options.dropout {
        Some(Dropout { probability, seed }) => ops::dropout(p, probability, seed),
        None => p,
    };
    p.matmul(spread(v)).swap_dims(1, 2)
}

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub b: usize,
    pub t: usize,
    pub s: usize,
    pub h: usize,
    pub key_h: usize,
    pub w: usize,
}

/// From batch, queries, keys, heads, key heads and width.
pub const fn sizes([b, t, s, h, key_h, w]: [usize; 6]) -> Sizes {
    Sizes { b, t, s, h, key_h, w }
}

/// Output of an attention, and its gradients in queries, keys, values and, where there are some, biases.
pub fn both_passes(
    Sizes { b, t, s, h, key_h, w }: Sizes,
    biased: bool,
    attend: impl Fn([Tensor<4>; 3], Option<Tensor<2>>) -> Tensor<4>,
    device: &Device,
) -> Vec<(&'static str, Tensor<1>)> {
    let device = device.clone().autodiff();
    let of = |shape: [usize; 4], name: &str| random(shape, name, &device).require_grad();
    let qkv = [of([b, t, h, w], "q"), of([b, s, key_h, w], "k"), of([b, s, key_h, w], "v")];
    let bias = random([h, t + s - 1], "bias", &device).require_grad();
    let out = attend(qkv.clone(), biased.then(|| bias.clone()));
    let grads = (out.clone() * random([b, t, h, w], "towards", &device)).sum().backward();
    let mut found = vec![("output", out.inner().flatten(0, 3))];
    let of_inputs = ["dq", "dk", "dv"].into_iter().zip(&qkv);
    found.extend(of_inputs.map(|(name, x)| (name, x.grad(&grads).unwrap().flatten(0, 3))));
    found.extend(bias.grad(&grads).map(|dbias| ("dbias", dbias.flatten(0, 1))));
    assert_eq!(found.len(), 4 + usize::from(biased));
    found
}

/// The operation under test.
pub fn ours([q, k, v]: [Tensor<4>; 3], bias: Option<Tensor<2>>, options: AttentionOptions) -> Tensor<4> {
    match bias {
        Some(bias) => ops::attention_biased(q, (k, v), bias, options),
        None => ops::attention(q, k, v, options),
    }
}

pub fn check_attention(sizes: Sizes, biased: bool, options: &AttentionOptions, devices: Vec<Device>) {
    let by_definition = |[q, k, v]: [Tensor<4>; 3], bias| reference_biased(q, (k, v), bias, options.clone());
    let expected = both_passes(sizes, biased, by_definition, &reference_device());
    for device in devices {
        let found = both_passes(sizes, biased, |qkv, bias| ours(qkv, bias, options.clone()), &device);
        for ((name, found), (_, expected)) in found.into_iter().zip(&expected) {
            assert_close(&format!("{name} of {sizes:?} {options:?}"), found, expected.clone());
        }
    }
}

#[test]
fn attention() {
    let all = [
        [1, 1, 1, 1, 1, 4],
        [2, 33, 70, 2, 1, 32],
        [2, 9, 9, 3, 3, 8],
        [1, 5, 12, 4, 2, 16],
        [1, 64, 64, 2, 2, 64],
    ];
    for (size, numbers) in all.into_iter().enumerate() {
        let sizes = sizes(numbers);
        let Sizes { b, s, .. } = sizes;
        // Every query sees the first key, or there would be nothing to compare.
        let rows = PaddingMask::padded_right((0..b).map(|row| 1 + s / (row + 2)));
        // Here the last query's window reaches the last key of the shorter row.
        let (near, window) = (PaddingMask::padded_right((0..b).map(|row| s - s / 3 * row)), Some(s / 3 + 1));
        let cases = [
            (true, None, None),
            (false, None, None),
            (true, Some(rows.clone()), None),
            (false, Some(rows), None),
            (true, None, window),
            (false, None, window),
            (true, Some(near.clone()), window),
            (false, Some(near), window),
        ];
        for (case, (causal, rows, sliding_window)) in cases.into_iter().enumerate() {
            let mask = AttentionMask { causal, sliding_window };
            let options =
                AttentionOptions { scale: 0.4, mask, n_keys: s, rows, documents: None, dropout: None };
            check_attention(sizes, false, &options, devices_for(size, case));
        }
    }
}

#[test]
fn attention_with_biases_by_distance() {
    for numbers in [[1, 1, 6, 1, 1, 4], [2, 9, 9, 3, 3, 8], [3, 40, 70, 4, 2, 16]] {
        let sizes = sizes(numbers);
        let Sizes { b, s, .. } = sizes;
        let rows = PaddingMask::padded_right((0..b).map(|row| s - row));
        for (causal, sliding_window, rows) in
            [(true, None, None), (false, None, Some(rows.clone())), (true, Some(s / 2 + 1), Some(rows))]
        {
            let mask = AttentionMask { causal, sliding_window };
            let options =
                AttentionOptions { scale: 0.4, mask, n_keys: s, rows, documents: None, dropout: None };
            check_attention(sizes, true, &options, devices());
        }
    }
}

/// Attention of one packed tensor against the reference over its three parts.
pub fn check_packed([b, t, h, w]: [usize; 4], options: &AttentionOptions) {
    check(
        &format!("packed attention {options:?}"),
        [[b, t, 3 * h * w]],
        |[qkv]| ops::attention_packed(qkv, h, options.clone()),
        |[qkv]| {
            let part = |at: usize| {
                qkv.clone().slice([0..b, 0..t, at * h * w..(at + 1) * h * w]).reshape([b, t, h, w])
            };
            reference(part(0), part(1), part(2), options.clone()).reshape([b, t, h * w])
        },
    );
}

#[test]
fn packed_attention() {
    for [b, t, h, w] in [[2, 9, 3, 8], [1, 33, 2, 16]] {
        let padded = PaddingMask::padded_right((0..b).map(|row| t - 4 * row));
        for (mask, rows) in [
            (AttentionMask::CAUSAL, None),
            (AttentionMask::FULL, Some(padded.clone())),
            (AttentionMask { causal: true, sliding_window: Some(t / 2 + 1) }, Some(padded)),
        ] {
            let options =
                AttentionOptions { scale: 0.4, mask, n_keys: t, rows, documents: None, dropout: None };
            check_packed([b, t, h, w], &options);
        }
    }
}

#[test]
fn documents_of_a_row_do_not_see_each_other() {
    for numbers in [[1, 9, 9, 2, 2, 8], [2, 70, 70, 4, 2, 16]] {
        let sizes = sizes(numbers);
        let Sizes { b, t, h, w, .. } = sizes;
        let documents = Documents::new([vec![0, 1, t / 2], vec![0, t - 2]].into_iter().take(b));
        for (causal, sliding_window, dropped) in
            [(true, None, false), (true, Some(5), true), (false, None, false), (true, None, true)]
        {
            let dropout = dropped.then_some(Dropout { probability: 0.3, seed: Seed::new(5) });
            let mask = AttentionMask { causal, sliding_window };
            let documents = Some(documents.clone());
            let options = AttentionOptions { scale: 0.4, mask, n_keys: t, rows: None, documents, dropout };
            check_attention(sizes, false, &options, devices());
            check_attention(sizes, true, &options, devices());
            check_packed([b, t, h, w], &options);
        }
    }
}

#[test]
fn attention_ignores_spare_capacity() {
    let inputs = |device: &Device| {
        let of = |t: usize, name: &str| random([1, t, 2, 8], name, device);
        [of(2, "q"), of(20, "k"), of(20, "v")]
    };
    for sliding_window in [None, Some(4)] {
        let mask = AttentionMask { causal: true, sliding_window };
        let options =
            AttentionOptions { scale: 0.3, mask, n_keys: 7, rows: None, documents: None, dropout: None };
        let [q, k, v] = inputs(&reference_device());
        let expected = reference(q, k.slice([0..1, 0..7]), v.slice([0..1, 0..7]), options.clone());
        for device in devices() {
            let found = ours(inputs(&device), None, options.clone());
            assert_close("filled part", found, expected.clone());
        }
    }
}
