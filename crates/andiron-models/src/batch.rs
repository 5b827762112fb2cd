//! Batches of token ids, and their logits.

use andiron_core::padding_mask::pick;
use andiron_core::{Forward, KvCache, PaddingMask, ids};
use burn::tensor::{Device, Int, Tensor};

use crate::generate::Logits;

/// Token ids of one sequence, `[1, t]`.
///
/// # Panics
/// If there is none.
pub(crate) fn one_row(row: &[u32], device: &Device) -> Tensor<2, Int> {
    assert!(!row.is_empty(), "a sequence is extended by at least one id");
    ids::upload(row, [1, row.len()], device)
}

/// One id for each sequence, `[n, 1]`.
pub(crate) fn one_column(ids: &[u32], device: &Device) -> Tensor<2, Int> {
    one_row(ids, device).reshape([ids.len(), 1])
}

/// The hidden states whose logits are requested: all, or each row's last non-padding position.
pub(crate) fn wanted_columns(hidden_btd: Tensor<3>, wanted: Logits, cx: &Forward<'_>) -> Tensor<3> {
    let [b, t, d] = hidden_btd.dims();
    match (wanted, cx.padding_mask()) {
        (Logits::Last, None) => hidden_btd.slice([0..b, t - 1..t, 0..d]),
        (Logits::Last, Some(rows)) => {
            pick(hidden_btd, rows.spans().iter().map(|span| span.end.min(t) - 1)).unsqueeze_dim(1)
        }
        (Logits::All, _) => hidden_btd,
    }
}

/// Logits as f32 in row-major order.
pub(crate) fn floats(logits_btv: Tensor<3>) -> Vec<f32> {
    floats_of(logits_btv)
}

/// Elements of a tensor of f32, in row-major order.
pub(crate) fn floats_of<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().expect("the tensor is f32")
}

/// Right-pads sequences to one batch `[sequences, longest]`, each over its row of `cache`.
///
/// # Panics
/// If there is none, or one is empty.
pub(crate) fn batch_over<'a>(
    sequences: &[&[u32]],
    cache: &'a mut KvCache,
    device: &Device,
) -> (Tensor<2, Int>, Forward<'a>) {
    assert!(sequences.iter().all(|ids| !ids.is_empty()), "a sequence is continued from at least one id");
    // Padding behind a sequence is masked; every vocabulary has the id 0.
    let (ids_bt, rows) = pad_right(sequences, 0, device);
    let columns = ids_bt.dims()[1];
    // Without a mask if nothing is padded, which is faster.
    let cx = match rows.spans().iter().any(|span| span.len() < columns) {
        true => Forward::cached(cache).with_padding_mask(rows),
        false => Forward::cached(cache),
    };
    (ids_bt, cx)
}

/// Right-pads texts to one batch `[texts, longest]` with the id `padding`.
///
/// # Panics
/// If there is no text.
pub(crate) fn pad_right<R: AsRef<[u32]>>(
    texts: &[R],
    padding: u32,
    device: &Device,
) -> (Tensor<2, Int>, PaddingMask) {
    let columns = texts.iter().map(|ids| ids.as_ref().len()).max().expect("a batch has at least one text");
    let mut flat = Vec::with_capacity(texts.len() * columns);
    for (row, ids) in texts.iter().enumerate() {
        flat.extend_from_slice(ids.as_ref());
        flat.resize((row + 1) * columns, padding);
    }
    let ids_bt = ids::upload(&flat, [texts.len(), columns], device);
    (ids_bt, PaddingMask::padded_right(texts.iter().map(|ids| ids.as_ref().len())))
}

/// An evaluation pass with the padding mask `rows`, over a batch of `columns` columns.
pub(crate) fn evaluation_over<'a>(rows: PaddingMask, columns: usize) -> Forward<'a> {
    // Without a mask if nothing is padded, which is faster.
    match rows.spans().iter().any(|span| span.len() < columns) {
        true => Forward::evaluation().with_padding_mask(rows),
        false => Forward::evaluation(),
    }
}
