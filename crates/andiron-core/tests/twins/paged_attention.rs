//! Attention over a paged KV cache.

use andiron_core::attention::{AttentionConfig, AttentionMask, attend};
use andiron_core::ops::AttentionOptions;
use andiron_core::{Forward, KvCache, PaddingMask};
use burn::tensor::{Device, Tensor};

use crate::attention::reference_biased;
use crate::{assert_close, devices, random, reference_device};

const ROWS: usize = 4;
const HEADS: usize = 4;
const KEY_HEADS: usize = 2;
const WIDTH: usize = 8;
/// How many positions each row gets in successive passes: more than a block holds, one that begins late, and one that
/// stays empty.
const PASSES: [[usize; ROWS]; 3] = [[70, 0, 64, 0], [1, 5, 0, 0], [3, 2, 1, 0]];

fn longest(pass: [usize; ROWS]) -> usize {
    pass.into_iter().max().unwrap()
}

/// Queries, keys and values of a pass, `[rows, columns, heads, width]`.
fn inputs(at: usize, device: &Device) -> [Tensor<4>; 3] {
    let columns = longest(PASSES[at]);
    [("q", HEADS), ("k", KEY_HEADS), ("v", KEY_HEADS)]
        .map(|(name, heads)| random([ROWS, columns, heads, WIDTH], &format!("{name} of pass {at}"), device))
}

/// Biases of the last pass.
fn biases(device: &Device) -> Tensor<2> {
    let held = (0..ROWS).map(|row| PASSES[0][row] + PASSES[1][row]).max().unwrap();
    random([HEADS, 2 * longest(PASSES[2]) + held - 1], "bias", device)
}

/// What the last pass gives over the cache, `[rows, columns, heads, width]`.
fn cached(mask: AttentionMask, biased: bool, device: &Device) -> Tensor<4> {
    let mut cache = KvCache::new(1, 100);
    let mut output = None;
    for (at, pass) in PASSES.into_iter().enumerate() {
        let [q, k, v] = inputs(at, device);
        let mut cx = Forward::cached(&mut cache).with_padding_mask(PaddingMask::padded_right(pass));
        let past = cx.keys_values(0, k, v);
        let last = at + 1 == PASSES.len();
        let bias_hr = (biased && last).then(|| biases(device));
        output =
            Some(attend(q, past, AttentionConfig { bias_hr, ..AttentionConfig::new(0.5, mask) }, &mut cx));
        cx.advance(longest(pass));
    }
    output.unwrap()
}

/// The same of one row by the definition, over all of its keys at once.
fn of_row(row: usize, mask: AttentionMask, biased: bool) -> Tensor<4> {
    let device = reference_device();
    let own = |x: Tensor<4>, at: usize| x.slice([row..row + 1, 0..PASSES[at][row]]);
    let [keys, values] = [1, 2].map(|part| {
        let parts = (0..PASSES.len()).filter(|&at| PASSES[at][row] > 0);
        Tensor::cat(parts.map(|at| own(inputs(at, &device)[part].clone(), at)).collect(), 1)
    });
    let last = PASSES.len() - 1;
    let (columns, t, s) = (longest(PASSES[last]), PASSES[last][row], keys.dims()[1]);
    let [q, _, _] = inputs(last, &device);
    // Both begin at the distance of the first query that there is from the last key.
    let bias = biased.then(|| biases(&device).slice([0..HEADS, columns - t..columns + s - 1]));
    let options =
        AttentionOptions { scale: 0.5, mask, n_keys: s, rows: None, documents: None, dropout: None };
    reference_biased(own(q, last), (keys, values), bias, options)
}

#[test]
fn each_row_attends_to_its_own_past() {
    for (sliding_window, biased) in [(None, false), (None, true), (Some(6), false), (Some(66), true)] {
        let mask = AttentionMask { sliding_window, ..AttentionMask::CAUSAL };
        let last = PASSES[PASSES.len() - 1];
        let rows: Vec<usize> = (0..ROWS).filter(|&row| last[row] > 0).collect();
        let expected: Vec<_> = rows.iter().map(|&row| of_row(row, mask, biased)).collect();
        for device in devices() {
            let found = cached(mask, biased, &device);
            for (&row, expected) in rows.iter().zip(&expected) {
                let own = found.clone().slice([row..row + 1, 0..last[row]]);
                assert_close(&format!("row {row}, {mask:?}, biased: {biased}"), own, expected.clone());
            }
        }
    }
}
