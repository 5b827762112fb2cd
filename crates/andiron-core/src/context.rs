//! The context of a forward pass: KV cache, padding mask and dropout seed.

use std::ops::Range;

use andiron_kernels::random::Seed;
use burn::tensor::{Device, Int, Tensor};

use crate::cache::{KeysValues, columns_of};
use crate::ops::Dropout;
use crate::{KvCache, PaddingMask, ids, ops};

/// The context of one forward pass.
///
/// There is one forward per layer; training, prefill and decoding differ only by this argument.
///
/// | use | cache | dropout |
/// |---|---|---|
/// | training | none | a seed that is new for every step |
/// | evaluation | none | none |
/// | prefill, decoding | the sequence's own | none |
///
/// [`Forward::with_padding_mask`] adds a padding mask for rows of different lengths; without it no column is padding.
#[derive(Debug, Default)]
pub struct Forward<'a> {
    cache: Option<&'a mut KvCache>,
    dropout: Option<Seed>,
    draws: u64,
    rows: Option<PaddingMask>,
}

impl<'a> Forward<'a> {
    /// Whole sequences, no randomness: evaluation.
    pub fn evaluation() -> Self {
        Self::default()
    }

    /// Whole sequences with dropout drawn from `seed`, which must differ from step to step.
    pub fn training(seed: Seed) -> Self {
        Self { dropout: Some(seed), ..Self::default() }
    }

    /// Sequences that continue the rows of `cache`: prefill and decode steps.
    pub fn cached(cache: &'a mut KvCache) -> Self {
        Self { cache: Some(cache), ..Self::default() }
    }

    /// The same pass with a padding mask: padding is not attended to, and positions count from each row's first own column.
    /// With a cache, rows start in column 0 and continue their own sequence (right padding).
    ///
    /// # Panics
    /// If a row over a cache has padding before it.
    pub fn with_padding_mask(self, rows: PaddingMask) -> Self {
        let padded = rows.spans().iter().any(|span| span.start > 0);
        assert!(self.cache.is_none() || !padded, "rows over a cache begin in the first column");
        Self { rows: Some(rows), ..self }
    }

    /// The columns of each row; `None` without padding.
    pub fn padding_mask(&self) -> Option<&PaddingMask> {
        self.rows.as_ref()
    }

    /// Length of the longest row of the cache.
    pub fn start(&self) -> usize {
        self.cache.as_ref().map_or(0, |cache| cache.len())
    }

    /// One more than the last position of any row.
    pub fn end(&self, columns: usize) -> usize {
        match &self.cache {
            Some(cache) if !cache.is_empty() => {
                let ends = cache.lens().enumerate();
                ends.map(|(row, len)| len + columns_of(self.padding_mask(), row, columns)).max().unwrap_or(0)
            }
            // Left padding takes no position.
            _ => {
                let spans = self.padding_mask().into_iter().flat_map(PaddingMask::spans);
                columns.saturating_sub(spans.map(|span| span.start).min().unwrap_or(0))
            }
        }
    }

    /// Whether all rows have the same positions.
    pub(crate) fn rows_agree(&self) -> bool {
        match &self.cache {
            Some(cache) => self.rows.is_none() && cache.lens().all(|len| len == cache.len()),
            None => self.padding_mask().into_iter().flat_map(PaddingMask::spans).all(|span| span.start == 0),
        }
    }

    /// Position of each of `columns` new tokens in its own row; padding has the position of the nearest token of its row. A
    /// single list if all rows have the same positions.
    pub fn positions(&self, columns: usize) -> Vec<Vec<usize>> {
        let start = self.start();
        match (&self.cache, &self.rows) {
            _ if self.rows_agree() => vec![(start..start + columns).collect()],
            (Some(cache), rows) if !cache.is_empty() => {
                let of = |(row, len): (usize, usize)| {
                    let last = (len + columns_of(rows.as_ref(), row, columns)).saturating_sub(1);
                    (len..len + columns).map(|position| position.min(last)).collect()
                };
                cache.lens().enumerate().map(of).collect()
            }
            (_, Some(rows)) => {
                let of = |span: &Range<usize>| {
                    let last = span.len().min(columns).saturating_sub(1);
                    (0..columns).map(|column| column.saturating_sub(span.start).min(last)).collect()
                };
                rows.spans().iter().map(of).collect()
            }
            (_, None) => vec![(0..columns).collect()],
        }
    }

    /// The same as a tensor, `[batch or 1, columns]`, plus `offset`.
    pub fn position_ids(&self, columns: usize, offset: usize, device: &Device) -> Tensor<2, Int> {
        let positions = self.positions(columns);
        let shape = [positions.len(), columns];
        let moved: Vec<u32> =
            positions.into_iter().flatten().map(|position| (position + offset) as u32).collect();
        ids::upload(&moved, shape, device)
    }

    /// All keys and values that layer `layer` attends to: appends those of the new positions to the cache, if there is one.
    ///
    /// # Shape
    /// `[batch, new positions, heads, head width]` each.
    pub fn keys_values(&mut self, layer: usize, keys_bshk: Tensor<4>, values_bshk: Tensor<4>) -> KeysValues {
        match self.cache.as_mut() {
            Some(cache) => cache.append(layer, (keys_bshk, values_bshk), self.rows.as_ref()),
            None => KeysValues::Whole { keys_bshk, values_bshk },
        }
    }

    /// Records that all layers have computed these columns of new positions.
    pub fn advance(&mut self, columns: usize) {
        if let Some(cache) = self.cache.as_mut() {
            cache.advance(columns, self.rows.as_ref());
        }
    }

    /// Dropout with the given probability while training; otherwise `x`.
    ///
    /// Each call in a pass draws its own mask, in call order, so a pass is a function of its seed.
    ///
    /// # Panics
    /// If `probability` is not in `0..1`.
    pub fn dropout<const D: usize>(&mut self, x: Tensor<D>, probability: f32) -> Tensor<D> {
        match self.draw_dropout(probability) {
            Some(Dropout { probability, seed }) => ops::dropout(x, probability, seed),
            None => x,
        }
    }

    /// The next mask of the pass, as for [`Forward::dropout`]; `None` if nothing is dropped.
    ///
    /// # Panics
    /// If `probability` is not in `0..1`.
    pub(crate) fn draw_dropout(&mut self, probability: f32) -> Option<Dropout> {
        assert!((0.0..1.0).contains(&probability), "dropout probability {probability} is not in 0..1");
        let seed = self.dropout.filter(|_| probability > 0.0)?.at(self.draws);
        self.draws += 1;
        Some(Dropout { probability, seed })
    }

    /// Whether there is a cache, even an empty one.
    pub(crate) fn is_cached(&self) -> bool {
        self.cache.is_some()
    }

    /// Whether [`Forward::dropout`] with this probability changes anything.
    pub fn drops(&self, probability: f32) -> bool {
        self.dropout.is_some() && probability > 0.0
    }
}
